"""A measured rate held against the prediction: inside, or outside by what factor, and what could cost (or
give) as much. Each candidate is the scenario with one thing changed, really predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from simulator import catalog
from simulator.complete import complete
from simulator.errors import CatalogError, SimulatorError
from simulator.prepare import Prepared
from simulator.result.estimate import Estimate, rounded
from simulator.run.evaluate import scenario_rates
from simulator.scenario import AccessPointSpec, DeviceSpec, LinkSpec, PlacementSpec, Scenario, SpeedSpec
from simulator.spec import Spec

__all__ = ["Candidate", "HeldAgainst", "held_against"]

REPLICATIONS, TOKENS = 40, 32
"""Enough for the factor of a median to a few per cent, where candidates differ by whole factors."""
SHORT_OF_MEMORY = 0.9
"""Share of what a shard needs that the memory has left, for the candidate of paging: one tenth short is
common (a browser beside it), and a dense model pages all of its weights as soon as it is short at all."""
BUSY = 0.75
"""Share of each device that other work takes: a game or a video beside it, from memory."""
CROWDED_AIR, BUSY_AIR = "wifi24", 0.5
AIR = "wifi5"
DELAYED_ACK_S = 0.04
"""What Linux waits before it acknowledges what it has nothing to answer to (TCP_DELACK_MIN): where small
messages are held back until then (Nagle's algorithm), each hop waits as long."""
DESKTOP_PROCESSOR = "Ryzen 9 9950X CPU desktop"
"""Stands for the host of a graphics card: two channels of DDR5."""


class Candidate(Spec):
    """One thing that may be other than the scenario says, and the tokens/s with it (median)."""

    cause: str
    tokens_per_s: float
    factor: float
    """Predicted as described / predicted with this: above 1 it costs, below 1 it gives."""
    enough_alone: bool
    """Whether it reaches the measured rate."""


class HeldAgainst(Spec):
    """A measured rate beside the predicted one; candidates for the difference, the largest first."""

    measured_tokens_per_s: float
    predicted: Estimate
    verdict: Literal["inside", "slower", "faster"]
    factor: float
    """The larger of measured and the predicted median over the other one."""
    candidates: tuple[Candidate, ...] = ()

    @property
    def sentence(self) -> str:
        """The verdict for people."""
        said = f"measured {self.measured_tokens_per_s:.3g} tokens/s"
        predicted = self.predicted.text("tokens/s")
        if self.verdict == "inside":
            return f"{said}: inside the predicted {predicted}"
        enough = [one.cause for one in self.candidates if one.enough_alone]
        why = "one of these alone would do" if enough else "none of these alone would do"
        return (
            f"{said}: outside the predicted {predicted}, {self.verdict} by a factor of {self.factor:.3g}; "
            f"devices and links as described do not explain it, {why}:"
        )


def held_against(prepared: Prepared, predicted: Estimate, measured_tokens_per_s: float) -> HeldAgainst:
    """How a measured rate (tokens/s of one chat) fares against what was predicted for a scenario.

    Outside the 90 % interval, candidates are predicted anew; one that the scenario cannot have is left out.
    """
    ratio = measured_tokens_per_s / predicted.median
    inside = predicted.p05 <= measured_tokens_per_s <= predicted.p95
    verdict: Literal["inside", "slower", "faster"] = (
        "inside" if inside else "slower" if ratio < 1 else "faster"
    )
    return HeldAgainst(
        measured_tokens_per_s=measured_tokens_per_s,
        predicted=predicted,
        verdict=verdict,
        factor=rounded(max(ratio, 1 / ratio)),
        candidates=() if inside else _candidates(prepared, measured_tokens_per_s, slower=ratio < 1),
    )


def _candidates(prepared: Prepared, measured: float, *, slower: bool) -> tuple[Candidate, ...]:
    base = _as_placed(prepared)
    before = _median(base)
    found = []
    for cause, change in _slower(prepared) if slower else _faster():
        try:
            after = _median(change(base))
        # a change that does not fit this scenario or its engine could not have happened
        except SimulatorError:
            continue
        enough = after <= measured if slower else after >= measured
        if (after < before) == slower and after != before:
            factor = rounded(before / after)
            found.append(
                Candidate(cause=cause, tokens_per_s=rounded(after), factor=factor, enough_alone=enough)
            )
    return tuple(sorted(found, key=lambda one: one.factor, reverse=slower))


def _median(scenario: Scenario) -> float:
    return float(np.median(scenario_rates(scenario)))


def _as_placed(prepared: Prepared) -> Scenario:
    """A short run with the layers where they are: a device that changes must not lose its layers for it."""
    scenario = prepared.scenario
    workload = scenario.workload.model_copy(
        update={"runs": 1, "output_tokens": min(scenario.workload.output_tokens, TOKENS)}
    )
    update: dict[str, object] = {
        "replications": min(scenario.replications, REPLICATIONS),
        "workload": workload,
    }
    if not scenario.placement.roles:
        layers = {shard.device: shard.layers for shard in prepared.job.shards}
        update["placement"] = PlacementSpec(rule="manual", layers=layers)
    return scenario.model_copy(update=update)


Change = Callable[[Scenario], Scenario]


def _slower(prepared: Prepared) -> Iterator[tuple[str, Change]]:
    """What may be worse than described."""
    need = {row.device: row.total_bytes for row in prepared.memory}
    yield (
        "paging: each device's memory 10 % short of what it holds",
        lambda base: _each(base, lambda name, spec: _short_of_memory(spec, need.get(name, 0.0))),
    )
    yield "the processor computes instead of the graphics processor", lambda base: _each(base, _on_processor)
    yield (
        f"other work takes {BUSY:.0%} of each device",
        lambda base: _each(base, lambda _, spec: spec.model_copy(update={"background_load": BUSY})),
    )
    if len(prepared.job.ring) > 1:
        if any(not device.link.shared for device in prepared.job.ring):
            yield "Wi-Fi (5 GHz) instead of cables", lambda base: _over_air(base, AIR, 0.0)
        yield (
            f"crowded Wi-Fi (2.4 GHz, {BUSY_AIR:.0%} of the airtime taken)",
            lambda base: _over_air(base, CROWDED_AIR, BUSY_AIR),
        )
        yield (
            f"each message held back by {DELAYED_ACK_S * 1e3:.0f} ms (Nagle, delayed acknowledgement)",
            _held_back,
        )


def _faster() -> Iterator[tuple[str, Change]]:
    """What may be better than described."""
    yield "half of the bytes: a smaller quantisation than named", _half_of_the_bytes
    yield (
        "every memory read at its peak and nothing else costs time (no such device: a smaller model, several "
        "tokens a step, or chats added up, where even this is too slow)",
        lambda base: _each(base, _at_its_peak),
    )


def _each(scenario: Scenario, change: Callable[[str, DeviceSpec], DeviceSpec]) -> Scenario:
    devices = {name: change(name, spec) for name, spec in scenario.devices.items()}
    return scenario.model_copy(update={"devices": devices})


def _short_of_memory(spec: DeviceSpec, need_bytes: float) -> DeviceSpec:
    if spec.processors is not None:
        raise CatalogError("which of its processors is short of memory nobody can tell")
    usable = SHORT_OF_MEMORY * need_bytes or spec.usable_memory
    return spec.model_copy(update={"usable_memory": usable, "allow_paging": True})


def _on_processor(_: str, spec: DeviceSpec) -> DeviceSpec:
    """The device with its processor's speed: of its own memory where the graphics processor shares that."""
    if spec.kind is None:
        raise CatalogError("only the catalogue says what else computes in a device")
    facts = catalog.device(spec.kind, spec.memory)
    if (spec.platform or facts.platform).endswith("-cpu"):
        return spec
    plain = spec.model_copy(update={"speed": None, "noise": None, "platform": None})
    if facts.category.startswith("GPU"):
        return plain.model_copy(update={"kind": DESKTOP_PROCESSOR})
    # Macs have no second platform in the catalogue; their Arm processor reads the same memory
    other = next((name for name in facts.other_platforms if name.endswith("-cpu")), "arm-cpu")
    return plain.model_copy(update={"platform": other})


def _over_air(scenario: Scenario, kind: str, background: float) -> Scenario:
    points = {name: AccessPointSpec(background=background) for name in scenario.access_points}
    wireless = _each(
        scenario, lambda _, spec: spec.model_copy(update={"link": LinkSpec(kind=kind, via=spec.link.via)})
    )
    return wireless.model_copy(update={"access_points": points, "wires": ()})


def _held_back(scenario: Scenario) -> Scenario:
    hop_s = (scenario.engine.hop_overhead or 0.0) + DELAYED_ACK_S
    return scenario.model_copy(update={"engine": scenario.engine.model_copy(update={"hop_overhead": hop_s})})


def _half_of_the_bytes(scenario: Scenario) -> Scenario:
    model = complete(scenario).model
    names = ("layer_bytes", "active_layer_bytes", "expert_layer_bytes", "embedding_bytes", "head_bytes")
    halves: dict[str, object] = {name: getattr(model, name) / 2 for name in names}
    if model.layer_kinds:
        halves["layer_kinds"] = tuple(
            kind.model_copy(
                update={
                    name: getattr(kind, name) / 2 for name in ("weight_bytes", "active_bytes", "expert_bytes")
                }
            )
            for kind in model.layer_kinds
        )
    return scenario.model_copy(update={"model": model.model_copy(update=halves)})


def _at_its_peak(_: str, spec: DeviceSpec) -> DeviceSpec:
    if spec.kind is None or spec.speed is None:
        raise CatalogError("only the catalogue says what a memory is built for")
    peak = catalog.device(spec.kind, spec.memory).memory_bytes_per_s
    bare = SpeedSpec.model_construct(
        decode_bandwidth=max(peak, spec.speed.decode_bandwidth), prefill_flops=spec.speed.prefill_flops
    )
    return spec.model_copy(update={"speed": bare})
