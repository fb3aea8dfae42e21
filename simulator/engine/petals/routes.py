"""Which servers a Petals client asks: the shortest way through the blocks, or one drawn for batches.

As recorded from Petals' own functions (`petals/client/routing/sequence_manager.py` of 2.2.0.post1). The
shortest way prices one leg per server, as if servers pushed; the client as it is shipped pays two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.errors import SimulatorError
from simulator.laws.law import Floats

__all__ = ["Candidates", "Hop", "MissingBlocks", "Route", "draw_route", "shortest_route", "way_s"]

OVERHEAD_S = 0.018
"""What a client counts for a server's own work per step beside its blocks."""
UNKNOWN_S, MOST_S = 0.15, 5.0
"""Of a leg that nobody has pinged, and of any leg at most: an unreachable server stays a candidate."""
NO_CACHE_S = 10.0
"""For a server whose cache has no room for the chat."""
CACHE_SLACK = 2
UNREACHABLE_WEIGHT = 1e-6
Ints = NDArray[np.int64]


class MissingBlocks(SimulatorError):
    """Some block is on no server that is online."""

    exit_code = 3


class Hop(NamedTuple):
    """The blocks [start, end) on one server, by its place among the candidates."""

    server: int
    start: int
    end: int


class Route(NamedTuple):
    """Servers in order, and what the client expects of them for one token (s)."""

    hops: tuple[Hop, ...]
    cost_s: float


def way_s(rtt_s: Floats) -> Floats:
    """What a client counts for one leg of a round trip: half of it, 5 s at most; 0.15 s where it is nan."""
    return np.where(np.isnan(rtt_s), UNKNOWN_S, np.minimum(rtt_s / 2, MOST_S))


@dataclass(frozen=True)
class Candidates:
    """Servers that are online, as a client sees them; arrays of one entry for each."""

    start: Ints
    end: Ints
    block_s: Floats
    """Seconds per block, `1 / inference_rps`."""
    rtt_s: Floats
    """From the client: nan where it has not pinged, inf where that failed."""
    cache_left: Floats
    """Tokens, each in one block, that a server has room for; inf where it does not say."""
    pinged_from: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Servers, sorted, that announce a round trip to one that may follow them .."""
    pinged_to: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """.. whom they have pinged .."""
    pinged_s: Floats = field(default_factory=lambda: np.zeros(0))
    """.. and the round trip."""

    def way_in_s(self, cache_tokens: int | None) -> Floats:
        """What entering each server costs beside the leg to it."""
        if cache_tokens is None:
            return np.full(len(self.start), OVERHEAD_S)
        # the client does not know yet which of a server's blocks it will use, so it counts them all
        needed = cache_tokens * CACHE_SLACK * (self.end - self.start)
        return OVERHEAD_S + np.where(needed <= self.cache_left, 0.0, NO_CACHE_S)

    def holding(self, block: int) -> Ints:
        """Those that hold a block."""
        return np.flatnonzero((self.start <= block) & (block < self.end))


def shortest_route(servers: Candidates, start: int, end: int, cache_tokens: int | None = None) -> Route:
    """The cheapest way through the blocks [start, end); a server once entered is used to its last block.

    `cost = leg to the first + sum of (entering + blocks / rate) + legs between + leg back`. Raises
    MissingBlocks.
    """
    _check_covered(servers, start, end)
    if start == end:
        return Route((), 0.0)
    search = _Search(servers, servers.way_in_s(cache_tokens), way_s(servers.rtt_s))
    search.enter_from_client(start)
    for block in range(start + 1, end):
        search.hand_over(block, start)
    return search.found(start, end)


def _check_covered(servers: Candidates, start: int, end: int) -> None:
    held = np.zeros(end - start + 1, dtype=np.int64)
    np.add.at(held, np.clip(servers.start - start, 0, end - start), 1)
    np.add.at(held, np.clip(servers.end - start, 0, end - start), -1)
    missing = np.flatnonzero(np.cumsum(held)[:-1] == 0) + start
    if len(missing):
        told = ", ".join(map(str, missing[:8])) + (" .." if len(missing) > 8 else "")
        raise MissingBlocks(
            f"no server that is online holds blocks {told}; add servers, or wait until some return"
        )


@dataclass
class _Search:
    """Blocks in order: a server's cost grows by `block_s` each, so its cheapest entry is the one of least
    `cost - block * block_s`, whatever comes behind.
    """

    servers: Candidates
    way_in_s: Floats
    way_s: Floats

    def __post_init__(self) -> None:
        count = len(self.servers.start)
        self.offset_s = np.full(count, np.inf)
        self.entered = np.zeros(count, dtype=np.int64)
        self.before = np.full(count, -1, dtype=np.int64)
        self.bounds = np.searchsorted(self.servers.pinged_from, np.arange(count + 1))

    def enter_from_client(self, start: int) -> None:
        """The client's leg to each server of the first block."""
        first = self.servers.holding(start)
        cost_s = self.way_s[first] + self.way_in_s[first]
        self.offset_s[first] = cost_s - start * self.servers.block_s[first]
        self.entered[first] = start

    def hand_over(self, block: int, start: int) -> None:
        """From the servers whose blocks end here to all that hold this block."""
        leaving = np.flatnonzero((self.servers.end == block) & np.isfinite(self.offset_s))
        if not len(leaving):
            return
        left_s = self.offset_s[leaving] + block * self.servers.block_s[leaving]
        ranked = np.argsort(left_s, kind="stable")
        holding = self.servers.holding(block)
        self._by_unknown_legs(block, holding, leaving[ranked], left_s[ranked])
        self._by_pinged_legs(block, leaving, left_s)

    def _by_unknown_legs(self, block: int, holding: Ints, leaving: Ints, left_s: Floats) -> None:
        """Each server is entered from the cheapest one that has not pinged it."""
        open_ = holding
        for source, cost_s in zip(leaving.tolist(), left_s.tolist(), strict=True):
            pinged = self.servers.pinged_to[self.bounds[source] : self.bounds[source + 1]]
            known = np.isin(open_, pinged) if len(pinged) else np.zeros(len(open_), dtype=bool)
            targets = open_[~known]
            self._enter(block, np.full(len(targets), source), targets, cost_s + UNKNOWN_S)
            open_ = open_[known]
            if not len(open_):
                return

    def _by_pinged_legs(self, block: int, leaving: Ints, left_s: Floats) -> None:
        servers = self.servers
        counts = self.bounds[leaving + 1] - self.bounds[leaving]
        if not counts.sum():
            return
        at = np.concatenate([np.arange(self.bounds[one], self.bounds[one + 1]) for one in leaving.tolist()])
        targets = servers.pinged_to[at]
        here = (servers.start[targets] <= block) & (block < servers.end[targets])
        sources, base_s = np.repeat(leaving, counts)[here], np.repeat(left_s, counts)[here]
        self._enter(block, sources, targets[here], base_s + way_s(servers.pinged_s[at[here]]))

    def _enter(self, block: int, sources: Ints, targets: Ints, cost_s: Floats | float) -> None:
        offset_s = cost_s + self.way_in_s[targets] - block * self.servers.block_s[targets]
        # a server may be named twice, by two that leave: the cheapest first, and the first of each is kept
        order = np.lexsort((offset_s, targets))
        first = np.ones(len(order), dtype=bool)
        first[1:] = targets[order][1:] != targets[order][:-1]
        best = order[first]
        best = best[offset_s[best] < self.offset_s[targets[best]]]
        self.offset_s[targets[best]] = offset_s[best]
        self.entered[targets[best]], self.before[targets[best]] = block, sources[best]

    def found(self, start: int, end: int) -> Route:
        """The cheapest server of the last block, and who came before it."""
        last = self.servers.holding(end - 1)
        cost_s = self.offset_s[last] + end * self.servers.block_s[last] + self.way_s[last]
        at = int(last[np.argmin(cost_s)])
        hops, until = [], end
        while at >= 0:
            hops.append(Hop(at, int(self.entered[at]), until))
            until, at = int(self.entered[at]), int(self.before[at])
        return Route(tuple(reversed(hops)), float(cost_s.min()))


def draw_route(servers: Candidates, start: int, end: int, rng: np.random.Generator) -> tuple[Hop, ...]:
    """A way for a batch: at each block a server is drawn, the longer its span the likelier, and used up.

    Raises MissingBlocks.
    """
    _check_covered(servers, start, end)
    hops, block = [], start
    while block < end:
        candidates, chances = batch_chances(servers, block)
        chosen = int(rng.choice(candidates, p=chances))
        hops.append(Hop(chosen, block, int(servers.end[chosen])))
        block = int(servers.end[chosen])
    return tuple(hops)


def batch_chances(servers: Candidates, block: int) -> tuple[Ints, Floats]:
    """Who may be drawn at a block, longest spans first, and with which probability."""
    holding = servers.holding(block)
    length = servers.end - servers.start
    holding = holding[np.argsort(-length[holding], kind="stable")]
    weights = np.where(np.isinf(servers.rtt_s[holding]), UNREACHABLE_WEIGHT, length[holding].astype(float))
    return holding, weights / weights.sum()
