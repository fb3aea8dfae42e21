"""Streams as servers write them, and how many tokens a chunk is: from documented forms and recordings."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from live.errors import BrokenReply
from live.openai.counting import Chunk, Pieces, TokenTimes, token_times
from live.openai.stream import read_chunks
from live.reply import StreamedReply
from live.stream import StreamRules
from tests.live.replay import DATA

VARIANTS = yaml.safe_load((DATA / "openai/variants.yaml").read_text(encoding="utf-8"))
STEP_NS = 20_000_000


def events_of(variant: dict[str, Any]) -> list[bytes]:
    """The events of a variant as bytes."""
    text = variant["stream"].rstrip("\n") if variant.get("strip_end") else variant["stream"]
    raw = text.replace("\n", "\r\n").encode() if variant.get("crlf") else text.encode()
    blank = b"\r\n\r\n" if variant.get("crlf") else b"\n\n"
    *whole, last = raw.split(blank)
    return [part + blank for part in whole] + ([last] if last else [])


def read(events: list[bytes], asked: int) -> tuple[StreamedReply, Pieces, str, str]:
    """Reply, pieces, outcome and what the error says, one event each 20 ms."""
    reply, pieces, clock = StreamedReply(), Pieces(limit=asked), iter(range(10_000))
    now = 0

    def arriving() -> Any:
        nonlocal now
        for event in events:
            now = (next(clock) + 1) * STEP_NS
            yield event

    try:
        read_chunks(pieces, reply, arriving(), StreamRules(asked), now_ns=lambda: now)
    except BrokenReply as error:
        return reply, pieces, type(error).__name__, str(error)
    return reply, pieces, "complete", ""


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda one: one["name"].replace(" ", "-"))
def test_a_stream_is_what_it_is(variant: dict[str, Any]) -> None:
    reply, pieces, outcome, said = read(events_of(variant), variant["asked"])
    times = token_times(pieces, reply)
    assert (outcome, times.how, len(times.t_ns)) == (
        variant["outcome"],
        variant["counting"],
        variant["tokens"],
    )
    assert variant.get("says", "") in said
    assert list(times.t_ns) == sorted(times.t_ns)
    assert all(t_ns > 0 for t_ns in times.t_ns)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda one: one["name"].replace(" ", "-"))
def test_packets_end_anywhere(variant: dict[str, Any]) -> None:
    raw = b"".join(events_of(variant))
    cut = random.Random(1)
    parts, at = [], 0
    while at < len(raw):
        size = cut.randint(1, 30)
        parts.append(raw[at : at + size])
        at += size
    reply, pieces, outcome, _ = read(parts, variant["asked"])
    assert (outcome, len(token_times(pieces, reply).t_ns)) == (variant["outcome"], variant["tokens"])


def test_every_variant_names_its_source() -> None:
    assert len(VARIANTS) >= 15
    assert all(variant["source"] for variant in VARIANTS)


def test_progress_of_the_prompt_is_no_silence() -> None:
    variant = next(one for one in VARIANTS if one["name"].startswith("mlx_lm"))
    reply, _, _, _ = read(events_of(variant), 2)
    assert [(done, total) for _, done, total in reply.prefill] == [(2, 3), (3, 3)]
    assert reply.cached_tokens == 1


def reply_of(chunks: list[Chunk], total: int | None, reason: str = "length") -> tuple[Pieces, StreamedReply]:
    usage = {} if total is None else {"completion_tokens": total}
    pieces = Pieces(chunks, chunks[-1].t_ns if chunks else None)
    return pieces, StreamedReply(finish_reason=reason, usage=usage)


def test_four_tokens_a_chunk_keep_their_rate() -> None:
    chunks = [Chunk(1_000_000_000)] + [Chunk(1_000_000_000 + k * 200_000_000) for k in range(1, 9)]
    times = token_times(*reply_of(chunks, 33))
    gaps = np.diff(times.t_ns)
    assert times.how == "spread"
    assert np.allclose(gaps, 50e6, rtol=1e-6)
    assert times.t_ns[0] == 1_000_000_000


def test_a_long_wait_holds_the_tokens_that_sent_no_chunk() -> None:
    at_ms = [100, 120, 140, 200, 220, 240]
    times = token_times(*reply_of([Chunk(ms * 1_000_000) for ms in at_ms], 8))
    assert [round(t / 1e6) for t in times.t_ns] == [100, 120, 140, 160, 180, 200, 220, 240]
    assert times.chunk.count(3) == 3


def test_chunks_of_one_packet_share_its_wait() -> None:
    at_ms = [100, 120, 120, 140]
    times = token_times(*reply_of([Chunk(ms * 1_000_000) for ms in at_ms], 4))
    assert [round(t / 1e6) for t in times.t_ns] == [100, 110, 120, 140]


def test_tokens_held_back_before_the_first_chunk_precede_it() -> None:
    told = [(500, 3), (520, 4), (540, 5)]
    times = token_times(*reply_of([Chunk(ms * 1_000_000, told=count) for ms, count in told], 5))
    assert [round(t / 1e6) for t in times.t_ns] == [460, 480, 500, 520, 540]


def test_the_token_that_ends_a_text_comes_with_its_reason() -> None:
    pieces, reply = reply_of([Chunk(10), Chunk(20)], 3, "stop")
    pieces.finish_ns = 31
    assert token_times(pieces, reply).t_ns == (10, 20, 31)


@given(
    st.lists(st.integers(1, 10**9), min_size=1, max_size=40),
    st.integers(0, 200),
    st.booleans(),
    st.sampled_from(["length", "stop"]),
)
def test_as_many_tokens_as_the_server_counts_and_in_order(
    waits: list[int], total: int, some_empty: bool, reason: str
) -> None:
    at = np.cumsum(waits).tolist()
    chunks = [Chunk(t_ns, some_empty and n % 3 == 1) for n, t_ns in enumerate(at)]
    times: TokenTimes = token_times(*reply_of(chunks, total, reason))
    if len(chunks) > 2 and total >= 1:
        assert len(times.t_ns) == total
    assert list(times.t_ns) == sorted(times.t_ns)
    assert not times.t_ns or (times.t_ns[0] > 0 and times.t_ns[-1] <= at[-1])


def test_a_server_that_ignores_the_limit_is_stopped() -> None:
    event = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
    _, _, outcome, said = read([event] * 200, 8)
    assert outcome == "StreamGarbled"
    assert "more than the 8 tokens" in said
