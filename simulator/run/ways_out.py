"""Ways out of a refusal: the changes that make a scenario fit, each really tried, the least change first."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, islice
from typing import NamedTuple

from simulator import catalog
from simulator.complete import complete
from simulator.defaults import platform_of
from simulator.engine.base import engine
from simulator.errors import CatalogError, PlacementError, SimulatorError
from simulator.own import spelt_out
from simulator.prepare import prepare
from simulator.scenario import DeviceSpec, PlacementSpec, Scenario
from simulator.units import SIZE, format_bytes, read_quantity

__all__ = ["Way", "refused", "ways_out"]

MOST = 4
"""Ways that are told; who reads more chooses worse."""
SHORTEST_PROMPT = 512
"""Tokens; below that a cache is nothing beside the weights, and no question fits into it."""


class Way(NamedTuple):
    """A change in words that say what to write, and the scenario with just that written."""

    words: str
    scenario: Scenario


def refused(scenario: Scenario, error: PlacementError) -> PlacementError:
    """The same refusal with the ways out that were tried and fit, instead of advice in general."""
    found = ways_out(scenario)
    if not found and str(error) == error.fault:
        # no question of memory: what the message itself says to write is the way out
        return error
    if not found:
        text = (
            "none of these makes it fit: layers by speed, memory limits raised, fewer bits or tokens; add "
            "a device"
        )
        return PlacementError(f"{error.fault}\nways out that were tried: {text}")
    return PlacementError(
        "\n".join([error.fault, "ways out, each tried:", *(f"  {way.words}" for way in found)])
    )


def ways_out(scenario: Scenario) -> tuple[Way, ...]:
    """Up to four changes with which the scenario is accepted."""
    # the user's own names first: a device or model of theirs has limits and bits like any other
    written = spelt_out(scenario)
    tried = (next((way for way in kind if _fits(way.scenario)), None) for kind in _candidates(written))
    return tuple(islice((way for way in tried if way is not None), MOST))


def _fits(scenario: Scenario) -> bool:
    try:
        prepare(scenario)
    except SimulatorError:
        return False
    return True


def _candidates(scenario: Scenario) -> Iterator[Iterator[Way]]:
    """Kinds of changes, the least change first: other layers, other limits, fewer bits, less to remember;
    of each the first that fits is told.
    """
    yield iter([Way("placement: speed, which counts everything", _by_speed(scenario))])
    yield _offload_left_out(scenario)
    yield _raised(scenario)
    yield _fewer_bits(scenario)
    yield _shorter(scenario)
    yield _fewer_chats(scenario)


def _by_speed(scenario: Scenario) -> Scenario:
    rule = PlacementSpec(rule="speed", roles=scenario.placement.roles)
    return scenario.model_copy(update={"placement": rule})


def _variants(words: str, changed: Scenario) -> Iterator[Way]:
    """The layers as asked before layers by speed."""
    yield Way(words, changed)
    yield Way(f"{words}, with placement: speed", _by_speed(changed))


def _offload_left_out(scenario: Scenario) -> Iterator[Way]:
    told = {name: spec for name, spec in scenario.devices.items() if spec.offload is not None}
    if told:
        free = {name: spec.model_copy(update={"offload": None}) for name, spec in told.items()}
        words = f"leave offload of {', '.join(told)} out: as much on its cards as fits"
        yield from _variants(words, scenario.model_copy(update={"devices": {**scenario.devices, **free}}))


def _raised(scenario: Scenario) -> Iterator[Way]:
    """The devices with the memory that a setting gives them, where one is known, and what to write."""
    devices, changes = dict(scenario.devices), []
    for name, spec in scenario.devices.items():
        more = _more_memory(spec)
        if more is not None:
            devices[name] = spec.model_copy(update={"usable_memory": read_quantity(more[0], SIZE)})
            changes.append((more, name))
    if changes:
        words = [
            f"usable_memory: {size} on {', '.join(name for _, name in group)} ({how})"
            for (size, how), group in groupby(changes, key=lambda change: change[0])
        ]
        yield from _variants("; ".join(words), scenario.model_copy(update={"devices": devices}))


def _more_memory(spec: DeviceSpec) -> tuple[str, str] | None:
    """The limit as it is written, which is what is tried too, and the setting behind it."""
    if spec.kind is None:
        return None
    raised = catalog.raise_memory(catalog.device(spec.kind, spec.memory), spec.memory)
    # who tells a limit may have told a low one
    if raised is None or raised[0] <= (spec.usable_memory or 0.0):
        return None
    return format_bytes(raised[0], 4), raised[1]


def _fewer_bits(scenario: Scenario) -> Iterator[Way]:
    """Quantisations of the same format with fewer bits than now, the most bits first."""
    for name in _smaller(scenario):
        model = scenario.model.model_copy(update={"quantisation": name})
        yield from _variants(f"model.quantisation: {name}", scenario.model_copy(update={"model": model}))


def _smaller(scenario: Scenario) -> Iterator[str]:
    """Their names, where sizes come from a name alone and the engine can run them there."""
    spec, facts = scenario.model, engine(scenario.engine.name).facts
    if spec.gguf is not None or spec.layers is not None or spec.bits_per_weight is not None:
        return
    try:
        full = complete(scenario)
    except CatalogError:
        return
    if facts.is_unquantised_on({platform_of(device) for device in full.devices.values()}):
        return
    now = [one for one in catalog.quantisations() if one.quantisation == full.model.quantisation]
    # a file of its own has the format of the engine, and what servers alone read comes in that too
    file_format = now[0].format if now and now[0].is_offered else facts.default_format
    is_mixture = bool(full.model.experts)
    bits = {
        one.quantisation: one.body
        for one in catalog.quantisations()
        # some are made for mixtures: experts small, all else large
        if one.is_offered and one.format == file_format and (is_mixture or one.attention == one.body)
    }
    here = bits.get(full.model.quantisation or "", now[0].body if now else float("inf"))
    yield from sorted((name for name, body in bits.items() if body < here), key=lambda name: -bits[name])


def _shorter(scenario: Scenario) -> Iterator[Way]:
    """Prompts of three quarters, a half, a quarter ... of the tokens."""
    tokens = scenario.workload.prompt_tokens
    for share in (3 / 4, 1 / 2, 1 / 4, 1 / 8, 1 / 16):
        fewer = int(tokens * share) // 256 * 256
        if fewer >= SHORTEST_PROMPT:
            workload = scenario.workload.model_copy(update={"prompt_tokens": fewer})
            words = f"workload.prompt_tokens: {fewer}"
            yield from _variants(words, scenario.model_copy(update={"workload": workload}))


def _fewer_chats(scenario: Scenario) -> Iterator[Way]:
    chats = scenario.workload.concurrency
    while chats > 1:
        chats //= 2
        workload = scenario.workload.model_copy(update={"concurrency": chats})
        yield from _variants(
            f"workload.concurrency: {chats}", scenario.model_copy(update={"workload": workload})
        )
