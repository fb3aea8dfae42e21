"""How many tokens a chunk holds, and when each of them came: chunks are not tokens.

What servers tell, best first:

- a running count with each chunk: llama-server's `timings.predicted_n` (asked for by `timings_per_token`),
  vLLM's `usage` in each chunk (`stream_options.continuous_usage_stats`), or `logprobs`, one entry a token;
- the sum at the end: `usage.completion_tokens`. A server that holds back half of a character, or sends every
  n-th step (vLLM's `--stream-interval`), then sends fewer chunks than tokens;
- nothing (llama-cpp-python's server, distributed-llama's API): where the reply ended because of its length,
  the length asked for is the sum; otherwise chunks are taken for tokens, and the file says so.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from live.reply import MOST_TOKENS, StreamedReply, counted

__all__ = ["SENTENCES", "Chunk", "Counting", "Pieces", "TokenTimes", "believed", "token_times"]

Counting = Literal["told", "one-a-chunk", "spread", "uncounted"]

SENTENCES: dict[Counting, str] = {
    "told": "the server counts the tokens of each chunk",
    "one-a-chunk": "as many chunks came as the server counts tokens, or as were asked for",
    "spread": "chunks are not tokens here: the server counts more or fewer than it sends, so token times are "
    "estimated, its total spread over the chunks by the time before each",
    "uncounted": "the server counts no tokens: each chunk with text is taken for one, and one that holds two "
    "makes the cluster look slower than it is",
}


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk with a part of the reply; `told` is the server's running count of tokens with it."""

    t_ns: int
    is_empty: bool = False
    """It holds no text: a token that completes no character, or nothing at all."""
    told: int | None = None


@dataclass(slots=True)
class Pieces:
    """What of a stream `StreamedReply` has no place for."""

    chunks: list[Chunk] = field(default_factory=list)
    finish_ns: int | None = None
    """When the chunk with the finish reason came."""
    fingerprint: str | None = None
    timings: dict[str, Any] = field(default_factory=dict)
    """llama-server's, of the last chunk that had some."""
    limit: int | None = None
    """Tokens that were asked for."""


@dataclass(frozen=True, slots=True)
class TokenTimes:
    """Arrival of each token (ns after the request), the chunk that brought it, and how that is known."""

    t_ns: tuple[int, ...]
    chunk: tuple[int, ...]
    how: Counting


def token_times(pieces: Pieces, reply: StreamedReply) -> TokenTimes:
    """The times of the tokens of `reply`, whole or broken off.

    Tokens of one chunk are spread evenly over the time since the chunk before, so that their sum over any
    window is right; the last one keeps the time of its chunk. Chunks that came in one packet count as one.
    """
    counts, how = _counts(pieces, reply)
    times = [chunk.t_ns for chunk in pieces.chunks]
    left = (_total(pieces, reply) or 0) - sum(counts)
    if pieces.finish_ns and ((how == "told" and left > 0) or (reply.finish_reason == "stop" and left == 1)):
        # counted tokens without a chunk (the one that ends the text, half characters) came with the reason
        counts, times = [*counts, left], [*times, pieces.finish_ns]
    elif how == "spread":
        counts = _spread(times, counts, _total(pieces, reply) or 0)
    return _placed(times, counts, how)


def _total(pieces: Pieces, reply: StreamedReply) -> int | None:
    """All tokens of the reply as the server counts them, or as its ending for length tells."""
    total = believed(reply.completion_tokens, pieces)
    if total is None:
        total = believed(pieces.timings.get("predicted_n"), pieces)
    # a server whose own context was full also says length, long before the limit: then nobody counted
    if total is None and reply.finish_reason == "length" and len(pieces.chunks) * 2 >= (pieces.limit or 0):
        return pieces.limit
    return total


def believed(count: object, pieces: Pieces) -> int | None:
    """A count of the reply's tokens; None where it is none, or twice what was asked for and more."""
    return counted(count, 2 * (pieces.limit or MOST_TOKENS))


def _counts(pieces: Pieces, reply: StreamedReply) -> tuple[list[int], Counting]:
    """Tokens of each chunk as far as the server told, and how well that is known."""
    chunks = pieces.chunks
    told = [chunk.told for chunk in chunks]
    if told and all(one is not None for one in told):
        running = [one for one in told if one is not None]
        return [max(0, after - before) for before, after in zip([0, *running], running, strict=False)], "told"
    full = [0 if chunk.is_empty else 1 for chunk in chunks]
    total = _total(pieces, reply)
    if total is None:
        return full, "uncounted"
    # with as many tokens as chunks or more, those without text are steps that completed no character
    counts = [1] * len(full) if total >= len(full) else full
    same = total == sum(counts) or (reply.finish_reason == "stop" and total == sum(counts) + 1)
    return counts, "one-a-chunk" if same else "spread"


def _spread(times: Sequence[int], full: Sequence[int], total: int) -> list[int]:
    """`total` tokens over the chunks: each further one to the chunk with the longest wait for each token.

    Rounded as seats are by Sainte-Lague, without bias for short or long waits. The first chunk keeps its one
    token: the wait for it is the prompt's. Where chunks are more than tokens, the shortest waits hold none.
    """
    at = [index for index, has in enumerate(full) if has]
    if len(at) < 2:
        return list(full)
    waits = {later: times[later] - times[earlier] for earlier, later in zip(at, at[1:], strict=False)}
    counts = [0] * len(full)
    counts[at[0]] = 1
    if total < len(at):
        for index in sorted(waits, key=lambda one: -waits[one])[: max(0, total - 1)]:
            counts[index] = 1
        return counts
    counts = list(full)
    heap = [(-wait / 1.5, index) for index, wait in waits.items()]
    heapq.heapify(heap)
    for _ in range(total - len(at)):
        _, index = heap[0]
        counts[index] += 1
        heapq.heapreplace(heap, (-waits[index] / (counts[index] + 0.5), index))
    return counts


def _placed(times: Sequence[int], counts: Sequence[int], how: Counting) -> TokenTimes:
    """A time for each token, evenly over the wait for the packet that brought it."""
    holders = [index for index, count in enumerate(counts) if count]
    packets = [(at, list(some)) for at, some in groupby(holders, key=lambda index: times[index])]
    placed: list[int] = []
    origin: list[int] = []
    for number, (at, indices) in enumerate(packets):
        size = sum(counts[index] for index in indices)
        since = packets[number - 1][0] if number else at - (size - 1) * _mean_gap(packets, counts)
        # the first packet has no packet before it: its tokens lie one mean gap apart, the last when it came
        steps = size if number else max(1, size - 1)
        placed += [
            round(at - (size - 1 - place) * (at - since) / steps) if size > 1 else at for place in range(size)
        ]
        origin += [index for index in indices for _ in range(counts[index])]
    return TokenTimes(tuple(placed), tuple(origin), how)


def _mean_gap(packets: Sequence[tuple[int, list[int]]], counts: Sequence[int]) -> float:
    """Mean time (ns) of a token after the first packet; never so long that tokens precede the request."""
    first = max(1, sum(counts[index] for index in packets[0][1]))
    later = sum(counts[index] for _, indices in packets[1:] for index in indices)
    most = packets[0][0] / first
    return min(most, (packets[-1][0] - packets[0][0]) / later) if later else 0.0
