"""What would change if: a few obvious changes to a scenario, each really simulated
with the same random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from simulator.errors import SimulatorError
from simulator.prepare import Prepared
from simulator.result.bottleneck import Bottleneck
from simulator.result.estimate import Estimate, estimate, rounded
from simulator.run.evaluate import scenario_rates
from simulator.scenario import DeviceSpec, LinkSpec, PlacementSpec, Scenario
from simulator.spec import Spec

__all__ = ["WhatIf", "alternatives"]

MOST_REPLICATIONS = 200
"""A what-if compares pairs, so more replications than these show nothing new."""
CABLE = "ethernet_1g"
OUTPUT_TOKENS = 128


class WhatIf(Spec):
    """One change and what it would give; `difference` is in tokens/s, pair by pair."""

    change: str
    tokens_per_s: Estimate
    difference: Estimate
    probability_better: float


def alternatives(prepared: Prepared, limit: Bottleneck) -> tuple[WhatIf, ...]:
    """The what-ifs that apply to a scenario, the best first; changes that do not fit are left out."""
    base = _short(prepared.scenario)
    try:
        before = scenario_rates(base)
    # a scenario read from a file may refuse a shorter run; then there is nothing to compare
    except SimulatorError:
        return ()
    found = []
    for change, scenario in _changes(prepared, base, limit):
        try:
            after = scenario_rates(scenario)
        except SimulatorError:
            continue
        better = rounded(float(np.mean(after > before)))
        found.append(
            WhatIf(
                change=change,
                tokens_per_s=estimate(after),
                difference=estimate(after - before),
                probability_better=better,
            )
        )
    return tuple(sorted(found, key=lambda what_if: -what_if.tokens_per_s.median))


def _short(scenario: Scenario) -> Scenario:
    """The same cluster with one run and no more replications and tokens than a comparison needs."""
    workload = scenario.workload.model_copy(
        update={"runs": 1, "output_tokens": min(scenario.workload.output_tokens, OUTPUT_TOKENS)}
    )
    replications = min(scenario.replications, MOST_REPLICATIONS)
    return scenario.model_copy(update={"workload": workload, "replications": replications})


def _changes(prepared: Prepared, base: Scenario, limit: Bottleneck) -> Iterator[tuple[str, Scenario]]:
    """Changes worth a look: cables where there is air, the slowest device left out, layers where speed is."""
    ring = prepared.job.ring
    # who computes alone sends nothing to anybody: no cable and no split would change a thing
    wireless = [device.name for device in ring if device.link.shared] if len(ring) > 1 else []
    if limit.device in wireless:
        yield f"wire {limit.device} (1 Gbit/s Ethernet)", _wired(base, [limit.device])
    if len(wireless) > 1:
        yield "wire every device (1 Gbit/s Ethernet)", _wired(base, wireless)
    # two, because the slowest may be needed for its memory
    for name in _slowest_first(prepared)[:2]:
        if len(ring) > 1:
            yield f"leave {name} out", _without(base, name)
    by_speed = prepared.job.placement.rule == "speed"
    # a pinned role is a wish: to place by speed would override it
    if len(base.devices) > 1 and not by_speed and not base.placement.roles:
        yield (
            "place layers by speed instead of memory",
            base.model_copy(
                update={"placement": PlacementSpec(rule="speed", order=prepared.job.placement.devices)}
            ),
        )


def _wired(scenario: Scenario, names: list[str]) -> Scenario:
    devices = {
        # a new link: delay, rate and dozing that were told are those of the air
        name: device.model_copy(update={"link": LinkSpec(kind=CABLE, via=device.link.via)})
        if name in names
        else device
        for name, device in scenario.devices.items()
    }
    return scenario.model_copy(update={"devices": devices})


def _slowest_first(prepared: Prepared) -> list[str]:
    """Devices by the rate at which they read weights, the slowest first."""
    ring = prepared.job.ring
    return [device.name for device in sorted(ring, key=lambda device: device.speed.decode_bandwidth)]


def _without(scenario: Scenario, name: str) -> Scenario:
    # whatever names the device has to go with it: wires, order, roles
    devices: dict[str, DeviceSpec] = {key: device for key, device in scenario.devices.items() if key != name}
    wires = tuple(wire for wire in scenario.wires if name not in wire.between)
    placement = scenario.placement.model_copy(
        update={
            "order": tuple(key for key in scenario.placement.order or () if key != name) or None,
            "roles": {key: role for key, role in scenario.placement.roles.items() if key != name},
            # all of them were wanted, of which one is gone
            "min_devices": None,
        }
    )
    if placement.layers is not None:  # a manual split has no meaning without one of its devices
        placement = PlacementSpec(rule="speed")
    return scenario.model_copy(update={"devices": devices, "wires": wires, "placement": placement})
