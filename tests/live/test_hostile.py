"""Servers that are broken or mean no good: a clear error, bounded memory, and no wait beyond the time-out."""

from __future__ import annotations

import json
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from live.errors import (
    ApiChanged,
    BrokenReply,
    LiveError,
    StreamAborted,
    StreamCutOff,
    StreamGarbled,
    StreamStalled,
)
from live.exo.client import ExoClient, Timeouts
from live.exo_legacy.client import LegacyClient
from live.stream import sse_lines
from tests.live.exo.fake import MODEL, rest
from tests.live.replay import SSE_HEADERS, ReplayServer, Script, chunked, head, json_answer

pytestmark = pytest.mark.timed

LIMIT_S = 0.4
TIMEOUTS = Timeouts(
    connect_s=LIMIT_S, answer_s=LIMIT_S, first_token_s=LIMIT_S, idle_s=LIMIT_S, look_again_s=0.05, patience=2
)
MIB = 2**20
JSON = {"content-type": "application/json", "connection": "close"}
TOKEN = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'


def endless(block: bytes, blocks: int = 1200) -> tuple[tuple[float, bytes], ...]:
    """`block` again and again, as fast as it is taken; the same bytes object, so that this side needs no memory."""
    return tuple((0.0, block) for _ in range(blocks))


def bounded(action: Callable[[], Any], *, most_s: float = 20.0, most_mib: float = 100.0) -> BaseException:
    """The error that `action` ends in, within time and memory.

    Time-outs are 0.4 s, and what is caught here would never end: a busy machine may take its time.
    """
    tracemalloc.start()
    started = time.monotonic()
    try:
        with pytest.raises(LiveError) as caught:
            action()
    finally:
        took_s = time.monotonic() - started
        peak = tracemalloc.get_traced_memory()[1] / MIB
        tracemalloc.stop()
    assert peak < most_mib
    assert took_s < most_s
    assert "Traceback" not in str(caught.value)
    assert 10 < len(str(caught.value)) < 2000
    return caught.value


def drip(data: bytes, every_s: float) -> tuple[tuple[float, bytes], ...]:
    return tuple((i * every_s, data[i : i + 1]) for i in range(len(data)))


OK = head(200, JSON)
ANSWERS: dict[str, tuple[tuple[float, bytes], ...]] = {
    "junk": ((0.0, bytes(range(256)) * 40),),
    "nothing": (),
    "tls": ((0.0, b"\x15\x03\x03\x00\x02\x02\x46"),),
    "endless head": ((0.0, b"HTTP/1.1 200 OK\r\n"), *endless(b"x-filler: " + b"y" * 60000 + b"\r\n", 300)),
    "one endless header": ((0.0, b"HTTP/1.1 200 OK\r\nx: "), *endless(b"y" * 65536)),
    "100 Continue for ever": endless(b"HTTP/1.1 100 Continue\r\n\r\n", 200_000),
    "redirect": ((0.0, head(307, {"location": "http://127.0.0.1:1/state", "content-length": "0"})),),
    "html": ((0.0, head(200, {"content-type": "text/html"}) + b"<html>hello</html>"),),
    "no json": ((0.0, OK + b"{nope"),),
    "invalid utf-8": ((0.0, OK + b'{"a": "\xff\xfe"}'),),
    "1 GB of json": ((0.0, OK), *endless(b'{"a":' * 200_000)),
    "huge flat json": ((0.0, OK + b"[" + b"{}," * 3_000_000 + b"{}]"),),
    "deep json": ((0.0, OK + b"[" * 400_000),),
    "huge number": ((0.0, OK + b"1" * 5000),),
    "gzip": ((0.0, head(200, JSON | {"content-encoding": "gzip"}) + b"\x1f\x8b\x08" + b"\0" * 100),),
    "short body": ((0.0, head(200, JSON | {"content-length": "100"}) + b"{}"),),
    "wrong chunks": ((0.0, head(200, JSON | {"transfer-encoding": "chunked"}) + b"zz\r\n{}\r\n"),),
    "negative length": ((0.0, head(200, JSON | {"content-length": "-5"}) + b"{}"),),
    "drip of a head": drip(b"HTTP/1.1 200 OK\r\n" + b"x-slow: " + b"y" * 200, 0.05),
    "drip of a body": ((0.0, OK), *drip(b"[" + b" " * 200, 0.05)),
    "wrong shape": ((0.0, OK + b'{"instances": [], "topology": 5}'),),
    "null": ((0.0, OK + b"null"),),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(name: str) -> None:
    with ReplayServer({"GET /state": Script(ANSWERS[name])}) as server:
        error = bounded(ExoClient(server.url, timeouts=TIMEOUTS).state)
        assert server.url.removeprefix("http://") in str(error) or isinstance(error, ApiChanged)
        assert len(server.requests) == 1, "neither followed nor repeated"


def test_silence() -> None:
    with ReplayServer({"GET /state": Script((), "hold")}) as server:
        assert "in time" in str(bounded(ExoClient(server.url, timeouts=TIMEOUTS).state))


def test_tls_asked_of_a_plain_server() -> None:
    with ReplayServer({}) as server:
        client = ExoClient(server.url.replace("http://", "https://"), timeouts=TIMEOUTS)
        bounded(client.state, most_s=20 * LIMIT_S)  # loading the certificates takes time of its own


def test_legacy_client_gets_the_same() -> None:
    for name in ("junk", "1 GB of json", "drip of a body", "redirect"):
        with ReplayServer({"GET /topology": Script(ANSWERS[name])}) as server:
            bounded(LegacyClient(server.url, timeouts=TIMEOUTS).topology)


SSE = head(200, SSE_HEADERS)
STREAMS: dict[str, tuple[type[LiveError], tuple[tuple[float, bytes], ...], int]] = {
    "1 GB without newline": (StreamGarbled, ((0.0, SSE), *endless(chunked(b"x" * MIB), 1100)), 0),
    "1 GB after a token": (
        StreamGarbled,
        ((0.0, SSE + chunked(TOKEN)), *endless(chunked(b"data: " + b"x" * MIB), 1100)),
        1,
    ),
    "endless tokens": (StreamGarbled, ((0.0, SSE), *endless(chunked(TOKEN * 10), 2000)), 128),
    "endless keep-alives": (
        StreamStalled,
        ((0.0, SSE), *((i / 50, chunked(b": keep-alive\n\n")) for i in range(500))),
        0,
    ),
    "flood of comments": (StreamStalled, ((0.0, SSE), *endless(chunked(b": x\n" * 2000), 20_000)), 0),
    "drip of a line": (StreamStalled, ((0.0, SSE), *((i / 50, chunked(b"d")) for i in range(500))), 0),
    "no sse": (StreamGarbled, ((0.0, SSE + chunked(b"hello world\n")),), 0),
    "broken json": (StreamGarbled, ((0.0, SSE + chunked(TOKEN + b"data: {oops\n\n")),), 1),
    "deep json": (StreamGarbled, ((0.0, SSE + chunked(b"data: " + b"[" * 300_000 + b"\n\n")),), 0),
    "invalid utf-8": (StreamGarbled, ((0.0, SSE + chunked(TOKEN + b'data: {"id":"\xff\xff"}\n\n')),), 1),
    "text of a wrong type": (
        StreamGarbled,
        ((0.0, SSE + chunked(b'data: {"choices":[{"delta":{"content":{"a":1}}}]}\n\n')),),
        0,
    ),
    "cut inside a chunk": (StreamCutOff, ((0.0, SSE + chunked(TOKEN) + b"ff\r\ndata: {"),), 1),
    "junk for a chunk": (StreamGarbled, ((0.0, SSE + chunked(TOKEN) + b"\x00\x01junk\r\n"),), 1),
    "done at once": (StreamCutOff, ((0.0, SSE + chunked(b"data: [DONE]\n\n")),), 0),
    "end after a token": (StreamCutOff, ((0.0, SSE + chunked(TOKEN) + b"0\r\n\r\n"),), 1),
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams(name: str) -> None:
    kind, sends, tokens = STREAMS[name]
    with ReplayServer({"POST /v1/chat/completions": Script(sends), "GET /state": state()}) as server:
        client = ExoClient(server.url, timeouts=TIMEOUTS)
        client.state()
        error = bounded(lambda: client.chat(MODEL, "?", max_tokens=64), most_s=8 * LIMIT_S)
    assert type(error) is kind or isinstance(error, kind)
    assert isinstance(error, BrokenReply)
    assert error.tokens_received == len(error.reply.tokens)
    assert error.tokens_received in (tokens, tokens + 1)  # of endless ones the one too many is counted


def state() -> Callable[[object], Script]:
    """A healthy cluster: its event number moves on."""
    raw = rest("state_running_min2")

    def answer(_: object) -> Script:
        raw["lastEventAppliedIdx"] += 1
        return json_answer(raw)

    return answer


def test_reset_in_the_middle() -> None:
    script = Script(((0.0, SSE + chunked(TOKEN)), (0.05, b"")), "reset")
    with ReplayServer({"POST /v1/chat/completions": script, "GET /state": state()}) as server:
        error = bounded(lambda: ExoClient(server.url, timeouts=TIMEOUTS).chat(MODEL, "?", max_tokens=64))
    assert isinstance(error, StreamCutOff)


def test_nothing_after_the_last_token_matters() -> None:
    last = json.dumps({"choices": [{"delta": {"content": "y"}, "finish_reason": "stop"}]}).encode()
    for rest_of_it, end in ((b"", "hold"), (b"junk\r\n", "close"), (b"", "reset")):
        script = Script(((0.0, SSE + chunked(TOKEN + b"data: " + last + b"\n\n")), (0.01, rest_of_it)), end)  # type: ignore[arg-type]
        timeouts = Timeouts(first_token_s=1, idle_s=1, finish_s=0.2)
        with ReplayServer({"POST /v1/chat/completions": script, "GET /state": state()}) as server:
            reply = ExoClient(server.url, timeouts=timeouts).chat(MODEL, "?", max_tokens=64)
        assert (len(reply.tokens), reply.finish_reason) == (2, "stop")


def test_calling_off_is_quick() -> None:
    abort = threading.Event()
    script = Script(((0.0, SSE + chunked(TOKEN)),), "hold")
    with ReplayServer({"POST /v1/chat/completions": script, "GET /state": state()}) as server:
        client = ExoClient(server.url)

        def call_off_soon(*_: int) -> None:
            threading.Timer(0.1, abort.set).start()

        # without the call the silence would be looked into after 10 s
        error = bounded(
            lambda: client.chat(MODEL, "?", max_tokens=64, abort=abort, on_token=call_off_soon), most_s=8.0
        )
    assert isinstance(error, StreamAborted)
    assert error.tokens_received == 1


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_do_not_depend_on_packets(size: int) -> None:
    data = b"data: a\r\n\n: b\ndata: \xc3\xa9\n\nrest"
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    assert list(sse_lines(chunks)) == [b"data: a", b"", b": b", b"data: \xc3\xa9", b""]
