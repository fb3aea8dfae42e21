"""Which servers a Petals client asks: the shortest way through the blocks, or one drawn for batches.

As recorded from Petals' own functions (`petals/client/routing/sequence_manager.py` of 2.2.0.post1). The
shortest way prices one leg per server, as if servers pushed; the client as it is shipped pays two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.errors import PlacementError
from simulator.laws.law import Floats

__all__ = [
    "Candidates",
    "Hop",
    "MissingBlocks",
    "Online",
    "Route",
    "batch_chances",
    "draw_route",
    "shortest_route",
    "way_s",
]

OVERHEAD_S = 0.018
"""What a client counts for a server's own work per step beside its blocks."""
UNKNOWN_S, MOST_S = 0.15, 5.0
"""Of a leg that nobody has pinged, and of any leg at most: an unreachable server stays a candidate."""
NO_CACHE_S = 10.0
"""For a server whose cache has no room for the chat."""
CACHE_SLACK = 2
UNREACHABLE_WEIGHT = 1e-6
Ints = NDArray[np.int64]


class MissingBlocks(PlacementError):
    """Some block is on no server that is online."""


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
class Online:
    """Servers that are online, and what they announce of each other; arrays of one entry for each server."""

    start: Ints
    end: Ints
    block_s: Floats
    """Seconds per block, `1 / inference_rps`."""
    pinged_from: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Servers that announce a round trip to one that may follow them .."""
    pinged_to: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """.. whom they have pinged .."""
    pinged_s: Floats = field(default_factory=lambda: np.zeros(0))
    """.. and the round trip."""

    def holding(self, block: int) -> Ints:
        """Those that hold a block."""
        return np.flatnonzero((self.start <= block) & (block < self.end))

    @cached_property
    def held(self) -> Ints:
        """Servers of each block, up to the last one that anybody holds."""
        last = int(self.end.max(initial=0))
        begun = np.bincount(self.start, minlength=last + 1) - np.bincount(self.end, minlength=last + 1)
        return np.cumsum(begun)[:-1]

    @cached_property
    def by_end(self) -> tuple[Ints, Ints, Ints]:
        """(servers in the order of their last blocks, where each end begins among them, the ends)."""
        order = np.argsort(self.end, kind="stable")
        ends, begins = np.unique(self.end[order], return_index=True)
        return order, begins, ends

    @cached_property
    def entering_s(self) -> Floats:
        """What entering each server at each end of others takes off its blocks, `- end * block_s`; inf where
        it does not hold that block. Shape (servers, ends).
        """
        _, _, ends = self.by_end
        held = (self.start[:, None] <= ends) & (ends < self.end[:, None])
        return np.where(held, -self.block_s[:, None] * ends, np.inf)

    @cached_property
    def pinged(self) -> tuple[Ints, Ints, Ints, Floats]:
        """Legs that were pinged, by target: (sources, where each target begins, targets, cost)."""
        at = self.end[self.pinged_from]
        fits = (self.start[self.pinged_to] <= at) & (at < self.end[self.pinged_to])
        sources, targets, rtt_s = self.pinged_from[fits], self.pinged_to[fits], self.pinged_s[fits]
        order = np.argsort(targets, kind="stable")
        sources, targets = sources[order], targets[order]
        cost_s = way_s(rtt_s[order]) - self.end[sources] * self.block_s[targets]
        found, begins = np.unique(targets, return_index=True)
        return sources, begins, found, cost_s

    @cached_property
    def far(self) -> Ints:
        """Servers to which somebody knows a longer leg than an unknown one is taken for."""
        return np.unique(self.pinged_to[way_s(self.pinged_s) > UNKNOWN_S])

    def legs_s(self, target: int) -> Floats:
        """The leg from each server to one of them."""
        legs_s = np.full(len(self.start), UNKNOWN_S)
        known = self.pinged_to == target
        legs_s[self.pinged_from[known]] = way_s(self.pinged_s[known])
        held = (self.start[target] <= self.end) & (self.end < self.end[target])
        return np.where(held, legs_s, np.inf)


@dataclass(frozen=True)
class Candidates:
    """Servers that are online, as a client sees them; arrays of one entry for each."""

    online: Online
    rtt_s: Floats
    """From the client: nan where it has not pinged, inf where that failed."""
    cache_left: Floats
    """Tokens, each in one block, that a server has room for; inf where it does not say."""

    def way_in_s(self, cache_tokens: int | None) -> Floats:
        """What entering each server costs beside the leg to it."""
        if cache_tokens is None:
            return np.full(len(self.rtt_s), OVERHEAD_S)
        # the client does not know yet which of a server's blocks it will use, so it counts them all
        needed = cache_tokens * CACHE_SLACK * (self.online.end - self.online.start)
        return OVERHEAD_S + np.where(needed <= self.cache_left, 0.0, NO_CACHE_S)


def shortest_route(servers: Candidates, start: int, end: int, cache_tokens: int | None = None) -> Route:
    """The cheapest way through the blocks [start, end); a server once entered is used to its last block.

    `cost = leg to the first + sum of (entering + blocks / rate) + legs between + leg back`. Raises
    MissingBlocks.
    """
    online, way_in_s, legs_s = servers.online, servers.way_in_s(cache_tokens), way_s(servers.rtt_s)
    _check_covered(online, start, end)
    if start == end:
        return Route((), 0.0)
    # a server's cost grows by `block_s` each block, so its cheapest entry is the one of least
    # `offset = cost - block * block_s`, whatever comes behind
    offset_s = np.full(len(online.start), np.inf)
    first = online.holding(start)
    offset_s[first] = legs_s[first] + way_in_s[first] - start * online.block_s[first]
    # one more server in the chain each time, until no chain gets cheaper by that
    while True:
        entered_s = way_in_s + _cheapest_entries_s(online, _left_s(online, offset_s, start, end))
        if not (entered_s < offset_s).any():
            break
        offset_s = np.minimum(offset_s, entered_s)
    last = online.holding(end - 1)
    cost_s = offset_s[last] + end * online.block_s[last] + legs_s[last]
    chain = _chain(online, offset_s - way_in_s, int(last[np.argmin(cost_s)]), way_in_s, start, end)
    return Route(chain, float(cost_s.min()))


def _left_s(online: Online, offset_s: Floats, start: int, end: int) -> Floats:
    """The cost up to each server's last block, inf where that is not within (start, end)."""
    inside = (online.end > start) & (online.end < end)
    return np.where(inside, offset_s + online.end * online.block_s, np.inf)


def _cheapest_entries_s(online: Online, left_s: Floats) -> Floats:
    """The least offset with which each server can be entered from another one, without entering itself."""
    order, begins, _ = online.by_end
    by_end_s = np.minimum.reduceat(left_s[order], begins)
    entries_s: Floats = (online.entering_s + by_end_s).min(axis=1) + UNKNOWN_S
    sources, begins, targets, cost_s = online.pinged
    if len(targets):
        entries_s[targets] = np.minimum(
            entries_s[targets], np.minimum.reduceat(left_s[sources] + cost_s, begins)
        )
    for target in online.far.tolist():
        entries_s[target] = _entries_s(online, left_s, target).min()
    return entries_s


def _entries_s(online: Online, left_s: Floats, target: int) -> Floats:
    """The offset of a server if it is entered from each other one."""
    return np.asarray(left_s + online.legs_s(target) - online.end * online.block_s[target])


def _chain(
    online: Online, entry_s: Floats, last: int, way_in_s: Floats, start: int, end: int
) -> tuple[Hop, ...]:
    """From the last server back to the client: each was entered where that is cheapest."""
    left_s = _left_s(online, entry_s + way_in_s, start, end)
    hops: list[Hop] = []
    until, at = end, last
    while True:
        entries_s = _entries_s(online, left_s, at)
        before = int(np.argmin(entries_s))
        # what no server explains came from the client
        if entries_s[before] > entry_s[at] + 1e-12:
            return (Hop(at, start, until), *reversed(hops))
        hops.append(Hop(at, int(online.end[before]), until))
        at, until = before, int(online.end[before])


def _check_covered(online: Online, start: int, end: int) -> None:
    held = np.zeros(end, dtype=np.int64)
    known = online.held[:end]
    held[: len(known)] = known
    missing = np.flatnonzero(held[start:] == 0) + start
    if len(missing):
        told = ", ".join(map(str, missing[:8])) + (" .." if len(missing) > 8 else "")
        raise MissingBlocks(
            f"no server that is online holds blocks {told}", "; add servers, or wait until some return"
        )


def draw_route(servers: Candidates, start: int, end: int, rng: np.random.Generator) -> tuple[Hop, ...]:
    """A way for a batch: at each block a server is drawn, the longer its span the likelier, and used up.

    Raises MissingBlocks.
    """
    _check_covered(servers.online, start, end)
    hops, block = [], start
    while block < end:
        candidates, chances = batch_chances(servers, block)
        chosen = int(rng.choice(candidates, p=chances))
        hops.append(Hop(chosen, block, int(servers.online.end[chosen])))
        block = int(servers.online.end[chosen])
    return tuple(hops)


def batch_chances(servers: Candidates, block: int) -> tuple[Ints, Floats]:
    """Who may be drawn at a block, longest spans first, and with which probability."""
    holding = servers.online.holding(block)
    length = servers.online.end - servers.online.start
    holding = holding[np.argsort(-length[holding], kind="stable")]
    weights = np.where(np.isinf(servers.rtt_s[holding]), UNREACHABLE_WEIGHT, length[holding].astype(float))
    return holding, weights / weights.sum()
