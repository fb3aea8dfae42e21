"""Around the exact search: fewer devices where there are too many, other orders where
several cost nearly the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, permutations
from math import inf

import numpy as np

from simulator.plan.place.solve import MOST_DEVICES, Split, value_s
from simulator.runtime.ring_costs import ROLES, RingCosts

__all__ = ["reduced", "relaxed_lower_s", "reordered"]

NEARLY = 0.01
"""Mean costs that differ by less than this share may change places under simulation."""
MOST_ORDERS = 8
FEW = 4
"""Rings so small are tried in every order."""


def reduced(costs: RingCosts) -> tuple[RingCosts, tuple[int, ...]]:
    """The costs of at most `MOST_DEVICES` devices and which these are: the pinned ones,
    then the cheapest per layer.

    A device's hops are spread over the layers that it has room for.
    """
    size = costs.devices
    if size <= MOST_DEVICES:
        return costs, tuple(range(size))
    room = np.minimum(costs.caps.max(axis=0), costs.layers)
    hop_s = (costs.walk_s + costs.star_s + costs.star_s.T).sum(axis=1) / (size - 1)
    price = np.where(room > 0, costs.layer_s + (costs.each_s + hop_s) / np.maximum(room, 1), inf)
    # pinned devices stay, whatever they cost
    price[~costs.holds_layers] = -inf
    # in the order in which they joined, by which equals are told apart
    chosen = tuple(sorted(int(at) for at in np.argsort(price, kind="stable")[:MOST_DEVICES]))
    return costs.only(chosen), chosen


def relaxed_lower_s(costs: RingCosts, chats: float = 1.0) -> float:
    """What no split of any number of devices goes below:
    cheapest layers first, hops free; stages all equally long.
    """
    room = np.where(costs.holds_layers, costs.caps.max(axis=0), 0)
    cheapest = np.argsort(costs.layer_s)
    before = np.cumsum(room[cheapest]) - room[cheapest]
    taken = np.clip(costs.layers - before, 0, room[cheapest])
    total = float(taken @ costs.layer_s[cheapest] + costs.last_s.min() + costs.most_s.min())
    slowest = costs.layers / float((1 / costs.layer_s[costs.holds_layers]).sum())
    return max(slowest, total / chats) if chats > 1 else total


def reordered(costs: RingCosts, split: Split) -> list[Split]:
    """Rings over the same devices and layers that cost nearly as little: two swapped,
    or a stretch turned round.

    What the means cannot tell apart, simulation can: which of several late messages a gather waits for.
    """
    found = {}
    for order in _neighbours(split.order):
        layers = tuple(split.layers[split.order.index(device)] for device in order)
        if _is_legal(costs, order, layers):
            total_s, slowest_s = value_s(costs, order, layers)
            found[order] = replace(split, order=order, layers=layers, sum_s=total_s, slowest_s=slowest_s)
    near = [other for other in found.values() if other.sum_s <= split.sum_s * (1 + NEARLY)]
    return sorted(near, key=lambda other: other.sum_s)[:MOST_ORDERS]


def _neighbours(order: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    if len(order) <= FEW:
        yield from (other for other in permutations(order) if other != order)
        return
    # the moves of 2-opt, and swaps
    for a, b in combinations(range(len(order)), 2):
        yield (*order[:a], *order[a : b + 1][::-1], *order[b + 1 :])
        yield (*order[:a], order[b], *order[a + 1 : b], order[a], *order[b + 1 :])


def _is_legal(costs: RingCosts, order: tuple[int, ...], layers: tuple[int, ...]) -> bool:
    """Whether pinned devices are at their ends and each has room in its new place."""
    if costs.embedding not in (None, order[0]) or costs.head not in (None, order[-1]):
        return False
    roles = [ROLES["first"], *[ROLES["middle"]] * (len(order) - 2), ROLES["last"]]
    return all(held <= costs.caps[role, at] for role, at, held in zip(roles, order, layers, strict=True))
