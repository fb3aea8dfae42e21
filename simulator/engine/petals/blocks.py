"""Which blocks a Petals server serves: what it announces, where it joins, and when it moves.

As recorded from Petals' own functions (`petals/server/block_selection.py`, `throughput.py` and `server.py` of
2.2.0.post1): every server takes one run of blocks of fixed length, and looks at the sum of what all servers
announce for each block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from simulator.laws.law import Floats

__all__ = [
    "BALANCE_QUALITY",
    "Span",
    "announced_throughput",
    "best_start",
    "block_throughputs",
    "blocks_that_fit",
    "should_move",
]

BALANCE_QUALITY = 0.75
"""A server moves where the weakest block has less than this share of what it could have."""
MARGIN = 1e-3
"""A server's own throughput is taken out with so much more, which keeps it where it is in a tie."""
MOST_ROUNDS = 1000
RELAYED_SHARE = 0.2
"""Of a network's rate that counts where a server can be reached through a relay alone."""
RESERVE_BYTES, RESERVE_HIDDEN = 2 * 2**30, 14336
"""Kept free for gradients on each card, for a hidden size of so many values."""
WEIGHTS_SLACK = 1.01


@dataclass(frozen=True, slots=True)
class Span:
    """The blocks [start, end) of a server that is joining or online, as it announced them."""

    start: int
    end: int
    throughput: float

    @property
    def length(self) -> int:
        """How many blocks."""
        return self.end - self.start


def announced_throughput(
    forward_rps: float, network_rps: float, blocks: int, *, relayed: bool = False
) -> float:
    """Tokens/s that a server of so many blocks announces: `min(forward / ((blocks + 1) / 2), network)`.

    `forward_rps` is of one block with 1,024 tokens at once; a request uses half of the blocks on average.
    """
    return min(forward_rps / ((blocks + 1) / 2), network_rps * (RELAYED_SHARE if relayed else 1.0))


def blocks_that_fit(memory_bytes: float, block_bytes: float, cache_bytes: float, hidden: int) -> int:
    """How many blocks a card of that memory takes with their caches, 0 where it has no room for one."""
    free_bytes = memory_bytes - RESERVE_BYTES * hidden / RESERVE_HIDDEN
    return max(0, int(free_bytes // (block_bytes * WEIGHTS_SLACK + cache_bytes)))


def block_throughputs(spans: Mapping[str, Span], blocks: int) -> Floats:
    """The sum of what servers announce for each block, shape (blocks,).

    Added up in the order of their ids, so that everybody who sums sees the same last digits.
    """
    total = np.zeros(blocks)
    for peer in sorted(spans):
        span = spans[peer]
        total[span.start : span.end] += span.throughput
    return total


def best_start(throughputs: Floats, length: int) -> int:
    """Where a run of `length` blocks helps most: the one whose sorted values are least, first of equals."""
    windows = np.sort(np.lib.stride_tricks.sliding_window_view(throughputs, length), axis=1)
    # the last key sorts first; stable, so that of equal windows the first one stays in front
    return int(np.lexsort(windows.T[::-1])[0])


def should_move(
    peer: str,
    spans: Mapping[str, Span],
    blocks: int,
    rng: np.random.Generator,
    quality: float = BALANCE_QUALITY,
) -> bool:
    """Whether a server leaves its blocks for others: where all would end up better by more than `quality`.

    It takes itself out, looks for the best place, and then lets all others choose again in random order until
    nobody moves. A quality of more than 1 forces it, 0 forbids it.
    """
    if quality > 1.0:
        return True
    before = block_throughputs(spans, blocks)
    own = spans[peer]
    start = wanted_start(before, own)
    if start is None:
        return False
    least = float(_settled(peer, start, spans, before, rng).min())
    if least < before.min() or least < MARGIN:
        return False
    return float(before.min() / least) < quality - MARGIN


def wanted_start(throughputs: Floats, own: Span) -> int | None:
    """Where a server would rather be; None where it is well placed, or its going would leave a hole."""
    without = throughputs.copy()
    _take_out(without, own)
    if throughputs.min() > MARGIN and without.min() <= 0:
        return None
    start = best_start(without, own.length)
    return None if start == own.start else start


def _settled(
    peer: str, start: int, spans: Mapping[str, Span], before: Floats, rng: np.random.Generator
) -> Floats:
    """Throughputs when the server has moved and all have chosen again until nobody wants to."""
    total, now = before.copy(), dict(spans)
    _take_out(total, now[peer])
    _put_in(total, now, peer, start)
    # each move raises the least of what is announced, so this ends; a cap, should last digits go round
    for _ in range(MOST_ROUNDS):
        moved = False
        for other in _shuffled(list(now), rng):
            _take_out(total, now[other])
            there = best_start(total, now[other].length)
            moved |= there != now[other].start
            _put_in(total, now, other, there)
        if not moved:
            break
    return total


def _take_out(total: Floats, span: Span) -> None:
    total[span.start : span.end] -= span.throughput * (1 + MARGIN)


def _put_in(total: Floats, spans: dict[str, Span], peer: str, start: int) -> None:
    # in Petals' own order of additions: where windows are equal, the last digits decide
    span = spans[peer]
    total[span.start : span.end] += span.throughput * MARGIN
    spans[peer] = replace(span, start=start, end=start + span.length)
    total[start : start + span.length] += span.throughput


def _shuffled(peers: Sequence[str], rng: np.random.Generator) -> list[str]:
    return [peers[at] for at in rng.permutation(len(peers))]
