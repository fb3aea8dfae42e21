"""One streamed chat with EXO 1.x: every way in which it can end has a name."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import httpcore
import httpx

from live.errors import (
    ClientCutOff,
    MasterLost,
    NotStreamed,
    ServerTimeout,
    StreamAborted,
    StreamBroken,
    StreamCutOff,
    StreamGarbled,
    StreamStalled,
)
from live.exo.diagnose import Diagnosis
from live.exo.words import is_server_timeout
from live.http import Aborted, Http, Watch, body_of
from live.reply import StreamedReply
from live.stream import OnToken, StreamRules, read_reply
from simulator.churn.mean_gap import MeanGap
from simulator.churn.spec import RecoverySpec

__all__ = ["Reader", "Timeouts", "stream_reply"]

IDLE_GAPS = 30.0  # longest gap over median in the recordings: below 10, prefills of other requests aside


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. A silence is looked into after `first_token_s` or `idle_s`, and ends the
    reply unless all seems well.

    `idle_s` is the least; with slow tokens it grows to 30 mean gaps. While the state shows a
    healthy cluster, a silence may last `patience` times as long: another request's prefill
    stops everybody's decoding, and that can take minutes. A client that mends replies
    (`RecoverySpec`) looks earlier, so that it acts as soon as the state shows a loss.
    """

    connect_s: float = 5.0
    answer_s: float = 30.0  # an unknown model makes EXO ask a hub: recorded 18 s offline
    first_token_s: float = 60.0
    idle_s: float = 10.0  # EXO's own keep-alives come every 10 s
    idle_most_s: float = 120.0
    patience: int = 6
    # a living master numbers several events per second; two looks tell a frozen state
    look_again_s: float = 3.0
    report_s: float = 1.0  # a living node reports about once per second
    finish_s: float = 5.0
    bench_s: float = 3600.0
    ready_s: float = 1800.0
    appear_s: float = 20.0
    mesh_s: float = 30.0
    stall_s: float = 300.0  # a download, or a load, that does not move
    poll_s: float = 0.25

    def silence_s(self, mean_gap_s: float | None) -> float:
        """Silence after which tokens of this mean gap are missed: `min(max(30 * mean gap, least), most)`."""
        most_s = max(self.idle_s, self.idle_most_s)
        return min(max(IDLE_GAPS * (mean_gap_s or 0.0), self.idle_s), most_s)


class _Supervisor:
    """Decides how long to wait for the next sign of life of one stream."""

    def __init__(
        self,
        watch: Watch,
        reply: StreamedReply,
        timeouts: Timeouts,
        why: Callable[[], Diagnosis] | None,
        *,
        client: RecoverySpec | None,
        again_s: float | None,
    ) -> None:
        self.watch, self.reply, self.timeouts, self.why = watch, reply, timeouts, why
        self.client, self.again_s = client, again_s
        self.gap = MeanGap()
        self.allowed_s = min(
            timeouts.first_token_s, client.time_out_most if client else timeouts.first_token_s
        )
        self.most_s = timeouts.patience * self.allowed_s
        self.heard_ns = time.monotonic_ns()
        watch.on_deadline = self.on_silence
        watch.extend(self.allowed_s)

    def progress(self, kind: str) -> None:
        """A token, a piece of prefill or the end came: the clock starts again.
        Keep-alives are no progress.
        """
        self.heard_ns = time.monotonic_ns()
        if kind == "token":
            self.gap.note(self.reply.tokens[-1].t_ns / 1e9)
            self.allowed_s = idle_s = self.timeouts.silence_s(self.gap.mean_s)
            if self.client is not None and self.gap.mean_s:
                self.allowed_s = self.client.time_out_s(self.gap.mean_s)
            self.most_s = max(self.timeouts.patience * idle_s, self.allowed_s)
        elif kind == "finish":
            self.allowed_s = self.timeouts.finish_s
            # after the last token nothing is missing: an open connection just ends by its own time
            self.watch.on_deadline = None
        self.watch.extend(self.allowed_s)

    def on_silence(self) -> float | None:
        """Look into a silence: more seconds when the cluster seems well, else raise the error that fits."""
        silent_s = (time.monotonic_ns() - self.heard_ns) / 1e9
        found = self.why() if self.why else Diagnosis(False, False, "and nobody says why")
        # a long prompt of somebody else looks like this, and must not break the reply
        if found.healthy and silent_s < self.most_s:
            # a state can have 161 kB (recorded), so looks become rarer as a silence grows
            return self.allowed_s if self.again_s is None else max(self.again_s, silent_s / 10)
        kind = MasterLost if found.master_lost else ClientCutOff if found.is_cut_off else StreamStalled
        what = "no token came" if not self.reply.tokens else "tokens stopped"
        raise kind(
            f"{what} for {silent_s:.3g} s ({self.reply.keep_alives} keep-alives), {found.text}", self.reply
        )


class Reader(Protocol):
    """Fills a reply from the bytes of a stream, as `read_reply` does."""

    def __call__(
        self,
        reply: StreamedReply,
        chunks: Iterable[bytes],
        rules: StreamRules,
        *,
        now_ns: Callable[[], int],
        on_token: OnToken | None,
        on_progress: Callable[[str], None] | None,
    ) -> StreamedReply: ...


def stream_reply(
    http: Http,
    path: str,
    body: Mapping[str, Any],
    rules: StreamRules,
    timeouts: Timeouts,
    *,
    why: Callable[[], Diagnosis] | None = None,
    again_s: float | None = None,
    client: RecoverySpec | None = None,
    abort: threading.Event | None = None,
    on_token: OnToken | None = None,
    into: StreamedReply | None = None,
    read: Reader = read_reply,
) -> StreamedReply:
    """Send a chat and read its stream to the end.

    `why` is asked about silences, first as `timeouts` or `client` say, then every `again_s` (None: as late as
    the first time); `into` is the reply to fill, `read` knows the form of the stream. Raises
    RequestRefused, NotStreamed, Unreachable or ApiChanged before the stream, a BrokenReply with the tokens
    so far in it.
    """
    reply = StreamedReply() if into is None else into
    watch = Watch(timeouts.first_token_s, abort)
    supervisor = _Supervisor(watch, reply, timeouts, why, client=client, again_s=again_s)
    stamp = _Stamp(watch)
    try:
        reply.sent_ns = time.monotonic_ns()
        with http.exchange("POST", path, watch, body=dict(body)) as response:
            reply.headers_ns = time.monotonic_ns() - reply.sent_ns
            _check_stream(http, response)
            with _stream_errors(reply, watch):
                chunks = stamp.note(response.iter_bytes())
                read(reply, chunks, rules, now_ns=stamp, on_token=on_token, on_progress=supervisor.progress)
    except Aborted:
        raise StreamAborted("the reply was called off", reply) from None
    return reply


class _Stamp:
    """When the bytes at hand arrived: at the socket where the watch saw them, else
    when they were handed out.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch, self._handed_ns = watch, 0

    def note(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._handed_ns = time.monotonic_ns()
            yield chunk

    def __call__(self) -> int:
        # a replaced transport (tests, recordings) has no socket to watch
        return self._watch.read_ns or self._handed_ns


@contextmanager
def _stream_errors(reply: StreamedReply, watch: Watch) -> Iterator[None]:
    """Give what breaks inside a stream its name; after the last token nothing matters any more."""
    try:
        yield
    except (httpcore.TimeoutException, httpx.TimeoutException) as error:
        broken: StreamBroken = StreamStalled("tokens stopped", reply)
        cause: Exception = error
    except (httpcore.ProtocolError, httpx.ProtocolError) as error:
        cause = error
        if is_server_timeout(watch.tail):
            broken = ServerTimeout("the engine's own response time-out ended the request", reply)
        elif watch.has_peer_closed:
            broken = StreamCutOff("the connection closed in the middle of the reply", reply)
        else:
            broken = StreamGarbled(f"the stream is no valid HTTP any more ({error})", reply)
    except (httpcore.NetworkError, httpx.NetworkError) as error:
        broken, cause = StreamCutOff(f"the connection broke ({error})", reply), error
    else:
        return
    if reply.finish_reason is None:
        raise broken from cause


def _check_stream(http: Http, response: httpx.Response) -> None:
    """The answer is a token stream; raises what else it is."""
    kind = response.headers.get("content-type", "")
    if response.status_code != 200 or "event-stream" not in kind:
        raw = body_of(response)
        http.check(response, raw)
        what = "one whole answer" if "json" in kind else f"{kind[:60]!r}"
        where = str(response.request.url.copy_with(query=None))
        raise NotStreamed(f"{where} answers {what} where a token stream was expected")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise NotStreamed(f"{http.base_url} answers a compressed stream although that was not accepted")
