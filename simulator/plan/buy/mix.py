"""Mix: one way to spend money, down to ring order and layers, and the scenario that
`sim run` answers for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simulator.plan.buy.money import Quote
from simulator.plan.buy.options import Cable, Member, ModelChoice
from simulator.scenario import PlacementSpec, Scenario, WireSpec

__all__ = ["Mix", "fill", "scenario_of"]


@dataclass(frozen=True, slots=True)
class Mix:
    """Members in ring order with their layers, cables, and what was bought for all of them."""

    members: tuple[Member, ...]
    layers: tuple[int, ...]
    choice: ModelChoice
    cables: tuple[Cable, ...] = ()
    shared: tuple[tuple[str, Quote], ...] = ()
    """What is bought once: an access point."""
    left_out: tuple[str, ...] = ()

    @property
    def quotes(self) -> tuple[Quote, ...]:
        """Everything that has to be paid."""
        own = [quote for member in self.members for quote in member.quotes]
        return (*own, *(quote for _, quote in self.shared), *(cable.quote for cable in self.cables))

    @property
    def price(self) -> float:
        """The sum of the quotes, in the plan's currency."""
        return sum(quote.amount for quote in self.quotes)

    @property
    def actions(self) -> tuple[str, ...]:
        """What to do, for a person: buy, wire, leave out, take another file; empty
        where only the layers move.
        """
        words = [word for member in self.members for word in member.words]
        words += [f"buy a {quote.what}" for _, quote in self.shared]
        words += [f"join {' and '.join(cable.ends)} ({cable.quote.what})" for cable in self.cables]
        words += [f"leave {name} out" for name in self.left_out]
        return tuple(words if self.choice.is_asked else [*words, f"run {self.choice.title}"])

    @property
    def placement(self) -> dict[str, int]:
        """Layers of each device in ring order."""
        return {member.name: count for member, count in zip(self.members, self.layers, strict=True)}


def fill(layers: int, costs_s: Sequence[float], caps: Sequence[int]) -> tuple[int, ...] | None:
    """Layers of each device that minimise `sum(n_i cost_i)` with `1 <= n_i <= cap_i`;
    None where they do not fit.

    One layer each, then the fastest device to its cap, then the next: exact, because the cost is linear in
    the layers (the fractional knapsack with whole, equal items).

    >>> fill(10, [2.0, 1.0], [8, 6])
    (4, 6)
    """
    if min(caps) < 1 or sum(caps) < layers or len(caps) > layers:
        return None
    counts, left = [1] * len(caps), layers - len(caps)
    for place in sorted(range(len(caps)), key=costs_s.__getitem__):
        more = min(left, caps[place] - 1)
        counts[place] += more
        left -= more
    return tuple(counts)


def scenario_of(mix: Mix, base: Scenario, name: str) -> Scenario:
    """The scenario in which the mix has been bought; it runs with `sim run`."""
    joined = {frozenset(cable.ends) for cable in mix.cables}
    names = {member.name for member in mix.members}
    wires = [
        wire for wire in base.wires if set(wire.between) <= names and frozenset(wire.between) not in joined
    ]
    # a new cable takes the place of an old one between the same two
    wires += [WireSpec(between=cable.ends, kind=cable.network) for cable in mix.cables]
    changes: dict[str, Any] = {
        "name": name,
        "question": f"What does this give: {'; '.join(mix.actions) or 'the layers placed by speed'}?",
        "model": mix.choice.model,
        "devices": {member.name: member.spec for member in mix.members},
        "wires": tuple(wires),
        "placement": PlacementSpec(rule="manual", layers=mix.placement),
    }
    return base.model_copy(update=changes)
