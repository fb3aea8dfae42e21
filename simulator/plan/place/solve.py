"""The exact search: subset of devices, ring order and layer counts that minimise a
mean cost under memory caps.

What it minimises is the reciprocal of the asymptotic bound on the rate of `chats` chats
(`ring_tokens_per_s_bound`):

    value = max(slowest stage, (stages + hops) / chats)

so one chat minimises the sum and infinitely many minimise the slowest stage. Why the result is optimal:

1. Given who takes part, who is first and who is last, the cost is a constant plus `sum of
   layers_d * layer_s_d` with `1 <= layers_d <= cap_d`: filling the devices in the order of
   `layer_s` is optimal (exchange argument: moving a layer from a dearer to a cheaper device with
   room never costs more). A limit on the slowest stage only lowers caps.
2. The order of those in between changes hops alone, and hops are sums over
   neighbours, so the cheapest order is a shortest Hamiltonian path with fixed ends:
   dynamic programming over sets (Held and Karp, Journal of SIAM 10 (1962)).
3. All sets and ends are tried. For more than one chat the least value is
   bracketed: a value is possible if some combination fits under the caps that it
   implies, and that is monotone, so bisection closes on the optimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import inf

import numpy as np
from numpy.typing import NDArray

from simulator.laws.law import Floats
from simulator.runtime.ring_costs import ROLES, Ints, RingCosts

__all__ = ["MOST_DEVICES", "Split", "solve", "value_s"]

MOST_DEVICES = 12
"""With more, `D (D - 1) 2**(D - 2)` combinations of set and ends no longer fit into a second and 100 MB."""
CLOSE = 1e-12  # of the value: where bisection ends


@dataclass(frozen=True, slots=True)
class Split:
    """A ring and its layers, with what they cost; `lower_s` is proven: no split has a smaller `value_s`."""

    order: tuple[int, ...]
    layers: tuple[int, ...]
    sum_s: float
    slowest_s: float
    value_s: float
    lower_s: float


def value_s(costs: RingCosts, order: Sequence[int], layers: Sequence[int]) -> tuple[float, float]:
    """(sum of stages and hops, slowest stage) of one split, straight from the
    definition; caps are not looked at.
    """
    ring, counts = list(order), np.asarray(layers)
    crowd = 1 + costs.contention * (len(ring) - 1)
    stage = counts * costs.layer_s[ring] + costs.each_s[ring]
    stage[0] += costs.first_s[ring[0]]
    stage[-1] += costs.last_s[ring[-1]]
    hops = sum(costs.walk_s[a, b] for a, b in pairwise(ring))
    if len(ring) > 1:
        hops += costs.close_s[ring[-1], ring[0]] + sum(costs.star_s[ring[0], other] for other in ring[1:])
    total = crowd * (stage.sum() + costs.most_s[ring].max()) + hops
    return float(total), float(crowd * (stage + costs.most_s[ring]).max())


@dataclass
class _Combinations:
    """All (set, first, last) at once: arrays over combinations, or (combinations, D)."""

    costs: RingCosts
    sets: Ints
    first: Ints
    last: Ints
    paths: Floats

    @classmethod
    def of(cls, costs: RingCosts) -> _Combinations:
        """Those that the pins allow and that have room for all layers."""
        paths = _shortest_paths(costs.walk_s)
        # a set of one has itself as first and last; in a larger one they differ
        first, sets, last = np.nonzero(np.isfinite(paths))
        chosen = np.ones(len(sets), dtype=bool)
        for pin, ends in ((costs.embedding, first), (costs.head, last)):
            if pin is not None:
                chosen &= ends == pin
        found = cls(costs, sets[chosen], first[chosen], last[chosen], paths[first, sets, last][chosen])
        taking = found.members & costs.holds_layers
        count, room = taking.sum(axis=1), np.where(taking, found.caps, 0)
        fits = (room.sum(axis=1) >= costs.layers) & np.all(~taking | (found.caps >= 1), axis=1)
        return found.only(fits & (count <= costs.layers) & (count >= max(1, costs.least_devices)))

    def only(self, chosen: NDArray[np.bool_]) -> _Combinations:
        """The chosen ones."""
        return _Combinations(
            self.costs, self.sets[chosen], self.first[chosen], self.last[chosen], self.paths[chosen]
        )

    @cached_property
    def members(self) -> NDArray[np.bool_]:
        return np.asarray((self.sets[:, None] >> np.arange(self.costs.devices)) & 1, dtype=bool)

    def _at(self, ends: Ints) -> NDArray[np.bool_]:
        return np.asarray(ends[:, None] == np.arange(self.costs.devices))

    @cached_property
    def caps(self) -> Ints:
        """Layers that each device has room for in its place."""
        role = ROLES["first"] * self._at(self.first) + ROLES["last"] * self._at(self.last)
        return np.asarray(np.take_along_axis(self.costs.caps, role, axis=0))

    @cached_property
    def fixed_s(self) -> Floats:
        """What each stage costs whatever its layers, the head of all apart."""
        costs = self.costs
        ends = costs.first_s * self._at(self.first) + costs.last_s * self._at(self.last)
        return np.asarray(np.where(self.members, costs.each_s + ends, 0.0))

    @cached_property
    def crowd(self) -> Floats:
        return np.asarray(1 + self.costs.contention * (self.members.sum(axis=1) - 1))

    @cached_property
    def constant_s(self) -> Floats:
        """Hops, and what all do at once."""
        costs, several = self.costs, self.first != self.last
        star = np.where(self.members & ~self._at(self.first), costs.star_s[self.first], 0.0).sum(axis=1)
        most = np.where(self.members, costs.most_s, 0.0).max(axis=1)
        return np.asarray(
            self.paths + several * costs.close_s[self.last, self.first] + star + self.crowd * most
        )

    def filled(self, limit_s: float = inf) -> tuple[Ints, NDArray[np.bool_]]:
        """Layers by device, cheapest devices first, no stage above `limit_s`; and
        where they are all placed.
        """
        costs, caps = self.costs, self.caps
        taking = self.members & costs.holds_layers
        possible = np.ones(len(self.sets), dtype=bool)
        if limit_s < inf:
            # a stage as long as the limit must not fail by rounding
            spare_s = limit_s * (1 + CLOSE) / self.crowd[:, None] - self.fixed_s - costs.most_s
            caps = np.minimum(caps, np.floor(spare_s / costs.layer_s)).astype(np.int64)
            # a device without layers has a stage too
            possible = np.all(~self.members | (spare_s >= 0), axis=1)
        possible &= np.all(~taking | (caps >= 1), axis=1)
        # one layer each first: who takes part holds one at least
        counts = taking.astype(np.int64)
        left = costs.layers - counts.sum(axis=1)
        for at in np.argsort(costs.layer_s, kind="stable"):
            more = np.where(taking[:, at], np.clip(caps[:, at] - 1, 0, left), 0)
            counts[:, at] += more
            left = left - more
        return counts, possible & (left == 0)

    def sum_s(self, counts: Ints) -> Floats:
        """Stages and hops."""
        return np.asarray(
            self.crowd * (counts @ self.costs.layer_s + self.fixed_s.sum(axis=1)) + self.constant_s
        )

    def slowest_s(self, counts: Ints) -> Floats:
        """The longest stage."""
        # the head is done by all at once, and still fills each stage
        stages = counts * self.costs.layer_s + self.fixed_s + self.costs.most_s
        return np.asarray(self.crowd * np.where(self.members, stages, 0.0).max(axis=1))


def solve(costs: RingCosts, chats: float = 1.0, keep: int = 1) -> tuple[Split, ...]:
    """The best split of each of the `keep` best sets of devices, the best first; empty where nothing fits.

    `chats` may be infinite. Raises ValueError for more than `MOST_DEVICES` devices.
    """
    if costs.devices > MOST_DEVICES:
        raise ValueError(
            f"{costs.devices} devices are too many for an exact search; {MOST_DEVICES} are the most"
        )
    found = _Combinations.of(costs)
    if not len(found.sets):
        return ()
    counts, _ = found.filled()
    lower_s = 0.0
    if chats > 1:
        found, counts, lower_s = _bracketed(found, counts, chats)
    sums, slowest = found.sum_s(counts), found.slowest_s(counts)
    values = np.maximum(slowest, sums / chats) if chats > 1 else sums
    lower_s = lower_s if chats > 1 else float(values.min())
    # equal values (to rounding): the shorter sum, then fewer devices, then those that joined first
    ties = [np.round(part / part.min(), 10) for part in (sums, values)]
    rank = np.lexsort((found.sets, found.members.sum(axis=1), *ties))
    _, places = np.unique(found.sets[rank], return_index=True)
    best = rank[np.sort(places)[:keep]]
    return tuple(_split(costs, found, counts, int(at), float(values[at]), lower_s) for at in best)


def _split(
    costs: RingCosts, found: _Combinations, counts: Ints, at: int, value: float, lower_s: float
) -> Split:
    ring = _order(costs, found, at)
    layers = tuple(int(counts[at, device]) for device in ring)
    return Split(ring, layers, *value_s(costs, ring, layers), value, lower_s)


def _bracketed(found: _Combinations, counts: Ints, chats: float) -> tuple[_Combinations, Ints, float]:
    """The combinations that reach the least value, their layers, and a value that none can go below."""
    start = np.maximum(found.slowest_s(counts), found.sum_s(counts) / chats)
    low, high = 0.0, float(start.min())
    best, best_counts = found, counts
    while high - low > CLOSE * high:
        middle = (low + high) / 2
        tried, possible = best.filled(middle)
        possible &= best.sum_s(tried) <= chats * middle
        if possible.any():
            # what is not possible here is not possible for any smaller value either
            best, best_counts, high = best.only(possible), tried[possible], middle
        else:
            low = middle
    return best, best_counts, low


def _shortest_paths(walk_s: Floats) -> Floats:
    """Shortest Hamiltonian paths, shape (first, set, last); infinite where an end is not in the set."""
    size = len(walk_s)
    paths = np.full((size, 1 << size, size), inf)
    for at in range(size):
        paths[at, 1 << at, at] = 0.0
    sets = np.arange(1 << size)
    counts = np.array([int(found).bit_count() for found in sets])
    # by size: each set is reached from one with a device less
    for count in range(2, size + 1):
        for last in range(size):
            with_last = sets[(counts == count) & ((sets >> last) & 1 == 1)]
            before = paths[:, with_last ^ (1 << last), :] + walk_s[:, last]
            paths[:, with_last, last] = before.min(axis=2)
    return paths


def _order(costs: RingCosts, found: _Combinations, at: int) -> tuple[int, ...]:
    """The devices of a combination in the order of its shortest path."""
    first, members = int(found.first[at]), int(found.sets[at])
    last = int(found.last[at])
    inside = [d for d in range(costs.devices) if (members >> d) & 1]
    if len(inside) <= 2 or not costs.walk_s.any():
        middle = [d for d in inside if d not in (first, last)]
        return tuple(dict.fromkeys((first, *middle, last)))
    # walked back anew for the few rings that are shown, instead of keeping every predecessor
    paths = _shortest_paths(costs.walk_s[np.ix_(inside, inside)])
    ring, here, left = [inside.index(last)], inside.index(last), (1 << len(inside)) - 1
    while len(ring) < len(inside):
        left ^= 1 << here
        steps = paths[inside.index(first), left, :] + costs.walk_s[np.ix_(inside, [inside[here]])][:, 0]
        here = int(np.argmin(steps))
        ring.append(here)
    return tuple(inside[d] for d in reversed(ring))
