"""Hops: how many one-way delays a token waits for, read off an engine's mean costs;
and the best ring orders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, permutations

from simulator.engine.base import engine
from simulator.laws.law import Constant
from simulator.plan.place.costs import mean_parts
from simulator.prepare import ground
from simulator.scenario import DeviceSpec, EngineSpec, LinkSpec, ModelSpec, Scenario, SpeedSpec

__all__ = ["Hops", "hops_of", "orders"]

MOST_PERMUTED = 5
"""Rings up to this size try every order (120 of them); larger ones are ordered by rule."""


@dataclass(frozen=True, slots=True)
class Hops:
    """One-way delays per token: between neighbours, from the last rank to the first, of
    the first with each other.
    """

    walk: int
    close: int
    star: int

    def cost_s(self, order: Sequence[int], edge_s: Mapping[tuple[int, int], float]) -> float:
        """Mean seconds that a token spends between the devices of `order`, `edge_s` being one-way delays.

        `walk sum(e[i, i+1]) + close e[last, 0] + star sum(e[0, s])`
        """
        total = self.walk * sum(edge_s[pair] for pair in pairwise(order))
        if self.close and len(order) > 1:
            total += self.close * edge_s[order[-1], order[0]]
        return total + self.star * sum(edge_s[order[0], server] for server in order[1:])


@cache
def hops_of(name: str) -> Hops:
    """The hops of the engine called `name`: what its mean cost charges where a message takes a
    second and all else nothing.

    Raises PlacementError for an engine without mean costs.
    """
    far = DeviceSpec(
        memory="1000 TB",
        speed=SpeedSpec(decode_bandwidth="1 TB/s", prefill_flops="1000 TFLOPS"),
        link=LinkSpec(delay=Constant(value="500 ms"), rate="1 TB/s"),  # half a second at either end
    )
    probe = Scenario(
        name="hops",
        model=ModelSpec(name="no-model", layers=2, layer_bytes="1 B", hidden=1),
        devices={"a": far, "b": far},
        engine=EngineSpec(name=name, hop_overhead="0 s", step_overhead="0 s"),
    )
    costs = engine(name).mean_ring_costs(mean_parts(ground(probe)))
    charged = (table[0, 1] for table in (costs.walk_s, costs.close_s, costs.star_s))
    return Hops(*(round(float(seconds)) for seconds in charged))


def orders(
    hops: Hops, edge_s: Mapping[tuple[int, int], float], last_s: Sequence[float]
) -> tuple[tuple[int, ...], ...]:
    """Orders of ranks by `hops.cost_s + last_s[last]`, the least first; `last_s` is what
    being last costs (the head).

    All of them up to 5 ranks. Beyond, one by rule and its rotations: the nearest devices in the
    middle of a ring, the nearest one as the client of a star, because an inner rank's link is used
    twice as often as an end's.
    """
    ranks = range(len(last_s))

    def cost_s(order: tuple[int, ...]) -> float:
        return hops.cost_s(order, edge_s) + last_s[order[-1]]

    if len(last_s) <= MOST_PERMUTED:
        return tuple(sorted(permutations(ranks), key=cost_s))
    far = sorted(ranks, key=lambda rank: sum(edge_s[rank, other] for other in ranks if other != rank))
    rule = (*reversed(far[1::2]), *far[::2])
    if hops.star:
        rule = (far[0], *sorted(far[1:], key=lambda rank: -last_s[rank]))
    return tuple((*rule[turn:], *rule[:turn]) for turn in ranks)
