"""Placing: the model on whoever is there, by the scenario's rule, as the client would ask for it again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from simulator.engine.base import engine
from simulator.errors import PlacementError
from simulator.placement.memory import MemoryUse
from simulator.prepare import Prepared, prepare
from simulator.runtime.job import Job
from simulator.scenario import PlacementSpec, Scenario

__all__ = ["WORTH", "NoPlacement", "Placed", "Placer", "survivors"]

WORTH = 0.9
"""Placing again for a device that has come back pays when a reply then takes less
than this share of the time.
"""


@dataclass(frozen=True)
class Placed:
    """The model on some devices."""

    prepared: Prepared
    number: int
    """Placements are counted as they are first met."""

    @property
    def job(self) -> Job:
        """The job of this placement."""
        return self.prepared.job

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices of the ring."""
        return self.prepared.job.placement.devices

    @property
    def memory(self) -> tuple[MemoryUse, ...]:
        """What each device must hold."""
        return self.prepared.memory

    def layers(self, device: str) -> range:
        """The layers on a device, none where it is not in the ring."""
        shard = next((shard for shard in self.job.shards if shard.device == device), None)
        return range(shard.start_layer, shard.end_layer) if shard else range(0)


@dataclass(frozen=True, slots=True)
class NoPlacement:
    """Why the model fits on nobody, with what would have to change."""

    reason: str


@dataclass
class Placer:
    """All placements of a scenario met so far; the same for every replication."""

    scenario: Scenario
    """Complete."""
    believed: Scenario | None = None
    """The same cluster as the client takes it to be, where it knows other speeds and places by them."""
    _known: dict[tuple[str, ...], Placed | NoPlacement] = field(default_factory=dict)
    _placed: int = 0

    def place(self, devices: tuple[str, ...]) -> Placed | NoPlacement:
        """The placement on `devices`, in the order in which they joined."""
        if devices not in self._known:
            self._known[devices] = self._place(devices)
        return self._known[devices]

    def _place(self, devices: tuple[str, ...]) -> Placed | NoPlacement:
        if not devices:
            return NoPlacement("no device is left: start one again")
        reasons = []
        for scenario in self._asked(devices):
            try:
                prepared = self._as_believed(scenario)
            except PlacementError as error:
                reasons.append(str(error))
                continue
            self._placed += 1
            return Placed(prepared, self._placed)
        return NoPlacement(f"{', '.join(devices)} cannot hold the model: {reasons[-1]}")

    def _as_believed(self, asked: Scenario) -> Prepared:
        """What the client asks for as it turns out to be: its layers at the true speeds."""
        if self.believed is None:
            return prepare(asked)
        layers = prepare(asked).job.placement.layer_counts
        true = survivors(self.scenario, tuple(asked.devices))
        return prepare(true.model_copy(update={"placement": PlacementSpec(layers=layers)}))

    def _asked(self, devices: tuple[str, ...]) -> Iterator[Scenario]:
        """What the client asks for, in turn: the rule on all who are there, on as few
        as it likes, its own split.
        """
        wanted = survivors(self.believed or self.scenario, devices)
        yield wanted
        flow, rule = engine(self.scenario.engine.name), wanted.placement.rule
        own = flow.own_rules.get(rule or flow.default_rule)
        if own is not None and own.takes_fewest and len(devices) > 1:
            yield wanted.model_copy(
                update={"placement": wanted.placement.model_copy(update={"min_devices": 1})}
            )
        if rule != "speed" and flow.recovers().client_may_split:
            yield wanted.model_copy(
                update={
                    "placement": wanted.placement.model_copy(
                        update={"rule": "speed", "layers": None, "min_devices": None}
                    )
                }
            )


def survivors(scenario: Scenario, devices: Sequence[str]) -> Scenario:
    """The scenario with these devices only, joined in this order.

    A manual split stays as long as everybody is there who has a part in it; else layers go by speed.
    """
    here = set(devices)
    choice = scenario.placement
    order = tuple(name for name in choice.order or () if name in here) or None
    complete_order = order if order and set(order) == here else None
    if choice.layers is not None and not {name for name, n in choice.layers.items() if n} <= here:
        choice = PlacementSpec(rule="speed")
    layers = (
        {name: n for name, n in choice.layers.items() if name in here} if choice.layers is not None else None
    )
    return scenario.model_copy(
        update={
            "devices": {name: scenario.devices[name] for name in devices},
            "wires": tuple(wire for wire in scenario.wires if set(wire.between) <= here),
            "placement": choice.model_copy(
                update={
                    "order": complete_order,
                    "layers": layers,
                    "roles": {name: role for name, role in choice.roles.items() if name in here},
                    "min_devices": min(choice.min_devices, len(devices)) if choice.min_devices else None,
                }
            ),
            "events": (),
        }
    )
