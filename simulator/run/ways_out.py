"""Ways out of a refusal: the changes that make a scenario fit, each really tried, the least change first."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from simulator import catalog
from simulator.engine.base import engine
from simulator.errors import CatalogError, PlacementError, SimulatorError
from simulator.prepare import prepare
from simulator.scenario import DeviceSpec, PlacementSpec, Scenario
from simulator.units import format_bytes

__all__ = ["refused", "ways_out"]

MOST = 3
"""Ways that are told; who reads more chooses worse."""
Way = tuple[str, Scenario]


def refused(scenario: Scenario, error: PlacementError) -> PlacementError:
    """The same refusal with the ways out that were tried and fit."""
    found = ways_out(scenario)
    if not found:
        text = "none of these makes it fit: layers by speed, memory limits raised, fewer bits; add a device"
        return PlacementError(f"{error}\nways out that were tried: {text}")
    return PlacementError("\n".join([f"{error}", "ways out, each tried:", *(f"  {way}" for way in found)]))


def ways_out(scenario: Scenario) -> tuple[str, ...]:
    """Up to three changes with which the scenario is accepted, in words that say what to write."""
    found: list[str] = []
    for variants in _candidates(scenario):
        way = next((text for text, changed in variants if _fits(changed)), None)
        found += [way] if way is not None else []
        if len(found) == MOST:
            break
    return tuple(found)


def _fits(scenario: Scenario) -> bool:
    try:
        prepare(scenario)
    except SimulatorError:
        return False
    return True


def _candidates(scenario: Scenario) -> Iterator[list[Way]]:
    """Other layers, other limits, fewer bits; of each the layers as asked before layers by speed."""
    by_speed = PlacementSpec(rule="speed", roles=scenario.placement.roles)

    def variants(words: str, changed: Scenario) -> list[Way]:
        also = changed.model_copy(update={"placement": by_speed})
        return [(words, changed), (f"{words}, with placement: speed", also)]

    yield [("placement: speed, which counts everything", scenario.model_copy(update={"placement": by_speed}))]
    told = {name: spec for name, spec in scenario.devices.items() if spec.offload is not None}
    if told:
        free = {name: spec.model_copy(update={"offload": None}) for name, spec in told.items()}
        words = f"leave offload of {', '.join(told)} out: as much on its cards as fits"
        yield variants(words, scenario.model_copy(update={"devices": {**scenario.devices, **free}}))
    raised = _raised(scenario)
    if raised is not None:
        yield variants(raised[0], scenario.model_copy(update={"devices": raised[1]}))
    for name in _fewer_bits(scenario):
        model = scenario.model.model_copy(update={"quantisation": name})
        yield variants(f"model.quantisation: {name}", scenario.model_copy(update={"model": model}))


def _raised(scenario: Scenario) -> tuple[str, dict[str, DeviceSpec]] | None:
    """The devices with the memory that a setting gives them,
    and what to write; None where no setting is known.
    """
    devices, changes = dict(scenario.devices), []
    for name, spec in scenario.devices.items():
        more = _more_memory(spec)
        if more is not None:
            devices[name] = spec.model_copy(update={"usable_memory": more[0]})
            changes.append((more, name))
    if not changes:
        return None
    words = [
        f"usable_memory: {format_bytes(size, 4)} on {', '.join(name for _, name in group)} ({how})"
        for (size, how), group in groupby(changes, key=lambda change: change[0])
    ]
    return "; ".join(words), devices


def _more_memory(spec: DeviceSpec) -> tuple[float, str] | None:
    if spec.kind is None or spec.usable_memory is not None:
        return None
    return catalog.raise_memory(catalog.device(spec.kind, spec.memory), spec.memory)


def _fewer_bits(scenario: Scenario) -> Iterator[str]:
    """Quantisations of the same format with fewer bits than
    now, the most bits first; sizes come from a name alone.
    """
    spec, default = scenario.model, engine(scenario.engine.name).facts.default_format
    if spec.gguf is not None or spec.layers is not None or spec.bits_per_weight is not None:
        return
    quantisation, file_format = spec.quantisation, default
    if spec.hf_config is None:
        try:
            now = catalog.model(spec.name, spec.quantisation, None if spec.quantisation else default)
        except CatalogError:
            return
        quantisation, file_format = now.quantisation, now.format
    bits = {
        found.quantisation: found.body for found in catalog.quantisations() if found.format == file_format
    }
    here = bits.get(quantisation or "", float("inf"))
    yield from sorted((name for name, body in bits.items() if body < here), key=lambda name: -bits[name])
