"""Arrival times are those of the socket, not of our parsing; benchmarks/live_stamps.py measures how near."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from live.exo.client import ExoClient, Timeouts
from live.reply import StreamedReply
from live.stream import StreamRules, read_reply
from simulator.churn.mean_gap import MeanGap
from tests.live.exo.fake import MODEL, FakeExo, rest

pytestmark = pytest.mark.timed


def test_a_slow_reader_does_not_delay_the_times() -> None:
    """Our own work between tokens (10 ms each) must not show: later tokens wait in the socket, but a token that came
    while nobody looked gets the time of the read, so work after the first token delays at most the next read."""
    chunks = [
        b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n' * 3,
        b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n',
    ]
    arrived = iter([1_000, 2_000])
    clock = [0]

    def feed() -> Iterator[bytes]:
        for chunk in chunks:
            clock[0] = next(arrived)
            yield chunk

    reply = read_reply(
        StreamedReply(),
        feed(),
        StreamRules(10),
        now_ns=lambda: clock[0],
        on_token=lambda *_: time.sleep(0.01),
    )
    assert [token.t_ns for token in reply.tokens] == [1_000, 1_000, 1_000, 2_000]


def test_stamps_are_the_sockets() -> None:
    """Over a real socket at 200 tokens/s: not before the sending, and soon after; benchmarks judge strictly."""
    fake = FakeExo(gap_s=0.005)
    fake.state["instances"]["x"] = rest("instance_placement_min1")
    with fake.serve() as server:
        reply = ExoClient(server.url).chat(MODEL, "?", max_tokens=100)
        sent = server.sent_ns[-1][2:102]
    late_s = sorted(
        (reply.sent_ns + token.t_ns - ns) / 1e9 for token, ns in zip(reply.tokens, sent, strict=True)
    )
    assert late_s[50] < 0.003  # 0.015 ms on a quiet machine
    assert late_s[20] > -0.003  # the server notes the time after sending, and may be interrupted in between


def test_patience_grows_with_slow_tokens() -> None:
    """30 mean gaps within bounds: 50 ms tokens wait the least, 1 s tokens 30 s, 10 s tokens the most."""
    for gap_s, wait_s in ((0.05, 10.0), (1.0, 30.0), (10.0, 120.0)):
        gap = MeanGap()
        for token in range(50):
            gap.note(token * gap_s)
        assert abs(Timeouts().silence_s(gap.mean_s) - wait_s) < 1e-6
    assert Timeouts().silence_s(None) == 10.0
