"""What `--record` keeps: everything but the secrets, and enough to replay it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live.errors import LiveError, StreamCutOff
from live.exo.client import ExoClient, Timeouts
from live.http import Http
from live.record import ExchangeRecorder, RecordingTransport, redact
from tests.live.exo.fake import MODEL, rest
from tests.live.replay import (
    DATA,
    SSE_HEADERS,
    ReplayServer,
    Script,
    chunked,
    exo_stream,
    head,
    json_answer,
    session,
)

CHAT = "POST /v1/chat/completions"
STREAM = DATA / "exo/chat_stream/clean_a14_b2.sse.jsonl"


def recorder(path: Path) -> tuple[ExchangeRecorder, RecordingTransport]:
    made = ExchangeRecorder(path)
    return made, RecordingTransport(Http.network(), made)


def test_a_recorded_chat_replays(tmp_path: Path) -> None:
    """Record a replayed chat, replay the record: the same tokens, at the same times to 50 ms."""
    _, script = exo_stream(STREAM)
    state = json_answer(rest("state_running_min2"))
    kept, transport = recorder(tmp_path / "r.jsonl")
    with ReplayServer({CHAT: script, "GET /state": state}, 5.0) as server:
        first = ExoClient(server.url, transport).chat(MODEL, "?", max_tokens=64)
    kept.close()
    exchanges = {request["path"]: script for request, script in session(tmp_path / "r.jsonl")}
    with ReplayServer({CHAT: exchanges["/v1/chat/completions"], "GET /state": exchanges["/state"]}) as server:
        again = ExoClient(server.url).chat(MODEL, "?", max_tokens=64)
    assert (again.text, again.usage, again.stats) == (first.text, first.usage, first.stats)
    assert len(first.tokens) == 48
    apart = [abs(a.t_ns - b.t_ns) / 1e9 for a, b in zip(first.tokens, again.tokens, strict=True)]
    assert sorted(apart)[24] < 0.05


def test_what_broke_a_stream_is_kept(tmp_path: Path) -> None:
    script = Script(((0.0, head(200, SSE_HEADERS) + chunked(b": keep-alive\n\n") + b"ff\r\ncut"),))
    kept, transport = recorder(tmp_path / "r.jsonl")
    known = {CHAT: script, "GET /state": json_answer(rest("state_running_min2"))}
    with ReplayServer(known) as server, pytest.raises(StreamCutOff):
        ExoClient(server.url, transport, Timeouts(idle_s=1)).chat(MODEL, "?", max_tokens=4)
    kept.close()
    events = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert events[-1]["type"] == "end"
    assert "RemoteProtocolError" in events[-1]["error"]
    assert [event["text"] for event in events if event["type"] == "data"][-2:] == [": keep-alive\n\n", "cut"]


def test_secrets_go(tmp_path: Path) -> None:
    """A key split over two packets, in headers, bodies and addresses; nothing of it reaches the file."""
    secret = "hf_" + "A" * 30
    script = Script(
        (
            (0.0, head(200, {"content-type": "application/json", "set-cookie": "id=" + secret})),
            (0.02, f'{{"token": "{secret[:9]}'.encode()),
            (0.05, f'{secret[9:]}", "dir": "/Users/ada/x"}}'.encode()),
        )
    )
    kept, transport = recorder(tmp_path / "r.jsonl")
    with ReplayServer({"GET /x": script}) as server:
        http = Http(server.url, transport)
        http.client.headers["authorization"] = f"Bearer {secret}"
        answer = http.json("GET", "/x", within_s=2, params={"api_key": "swordfish"})
    kept.close()
    assert answer["token"] == secret
    text = (tmp_path / "r.jsonl").read_text()
    for gone in (secret, secret[:9], "swordfish", "ada"):
        assert gone not in text
    assert text.count("REMOVED") >= 4


def test_recordings_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text("precious")
    with pytest.raises(LiveError, match="new file"):
        ExchangeRecorder(tmp_path / "r.jsonl")
    assert (tmp_path / "r.jsonl").read_text() == "precious"


@given(st.text())
def test_redacting_twice_changes_nothing(text: str) -> None:
    once = redact(text)
    assert redact(once) == once
