"""Defaults: what the catalogue says of a device, or of each of its processors, where a scenario is silent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import hypot, sqrt
from typing import Any, TypeVar

from simulator import catalog
from simulator.engine.facts import EngineFacts
from simulator.errors import Fault, ScenarioError, SimulatorError
from simulator.laws.factors import THIS_MODEL
from simulator.model_spec import ModelSpec
from simulator.scenario import DeviceSpec, NoiseSpec, ProcessorSpec, SpeedSpec
from simulator.spec import SharedSpec, Spec

__all__ = [
    "UNQUANTISED",
    "catalogue_speed",
    "complete_host",
    "filled",
    "main_processor",
    "platform_of",
    "said_speed",
]

UNQUANTISED = "bf16"
"""What an engine runs that has no quantised kernels."""
USUAL_BUS = "pcie4_x16"
"""Of graphics cards of 2019 and later in the long slot of a desktop."""

AnySpec = TypeVar("AnySpec", bound=Spec)


def filled(spec: AnySpec, values: Mapping[str, Any]) -> AnySpec:
    """`spec` with these base-unit values where it says nothing."""
    return spec.model_copy(update={key: value for key, value in values.items() if getattr(spec, key) is None})


def catalogue_speed(
    facts: catalog.DeviceFacts, platform: catalog.PlatformFacts, software: EngineFacts, model: ModelSpec
) -> SpeedSpec:
    """What the catalogue expects: peak bandwidth and peak flop/s times the platform's fitted efficiency; less
    sure where the engine stands for another one.
    """
    quantisation = UNQUANTISED if software.is_unquantised_on({platform.name}) else None
    stored = catalog.stored_as(model.name, model.quantisation or quantisation, software.default_format)
    decode = catalog.decode_speed(facts, platform, stored)
    prefill = catalog.prefill_speed(facts, platform)
    chip = facts.chip or facts.name
    share, share_log_sd = software.share_on(platform.name, chip, stored.quantisation)
    odd = software.chip_share(chip)
    meant_log_sd = catalog.stand_in_log_sd() if software.stands_for else 0.0
    share_log_sd = hypot(share_log_sd, odd.log_sd, meant_log_sd)
    on = f"every {platform.name} device with {platform.runtime}"
    sharing = {"platform": on, "kind": f"every {chip}", "model": f"{on} and {THIS_MODEL}"}
    # an engine that wastes more, or less, than it was seen to waste does so on all of its devices
    by = f"every device of {software.stands_for or software.name}"
    whose = sharing, SharedSpec(by=by, spread=share_log_sd)
    # a run that counts its start-up in does so once, whoever computes the prompt
    field = SharedSpec(by="every device", spread=catalog.error_parts("prefill").field_log_sd)
    return SpeedSpec.model_construct(
        decode_bandwidth=decode.bytes_per_s * share * odd.decode,
        prefill_flops=prefill.flop_per_s * share * odd.prefill,
        layer_overhead=catalog.layer_overhead_s(facts, platform),
        latent_layer_overhead=software.latent_layer_overhead_s.get(platform.name, 0.0),
        serving_overhead=software.serving_overhead_s.get(platform.name, 0.0),
        context_cost=platform.kv_cost,
        mixture_cost=platform.decode_mixture_cost,
        mixture_layer_cost=platform.mixture_layer_cost,
        expert_evenness=software.expert_evenness,
        prefill_mixture_cost=platform.prefill_mixture_cost,
        prefill_expert_fill=platform.prefill_expert_fill,
        prefill_latent_cost=platform.prefill_latent_cost,
        prefill_latent_spread=catalog.error_parts("prefill").latent_log_sd,
        # independent errors of two factors: their logarithms' variances add
        decode_spread=hypot(decode.log_sd, share_log_sd),
        prefill_spread=hypot(prefill.log_sd, share_log_sd, field.spread),
        decode_shared=_shared(catalog.error_parts("decode"), decode.log_sd, *whose),
        prefill_shared=(*_shared(catalog.error_parts("prefill"), prefill.log_sd, *whose), field),
        label="measured" if decode.label == "measured" and share == 1 else "assumed",
    )


def _shared(
    parts: catalog.ErrorParts, log_sd: float, names: Mapping[str, str], of_engine: SharedSpec
) -> tuple[SharedSpec, ...]:
    """The parts of an error of size `log_sd` that other devices have too; `names` says whose each part is."""
    # a spread is of a device, its own part in it: what is left without that is what they share
    common = sqrt(max(0.0, log_sd**2 - parts.own_log_sd**2))
    fitted = (SharedSpec(by=by, spread=common * sqrt(getattr(parts, part))) for part, by in names.items())
    return tuple(part for part in (*fitted, of_engine) if part.spread > 0)


def said_speed(said: SpeedSpec | None, known: SpeedSpec | None = None) -> SpeedSpec | None:
    """A speed that the scenario gives, with how sure that is; `known` is the catalogue's for the device."""
    if said is None:
        return None
    measured = said.label != "assumed"
    if known is not None and not measured:
        # who only repeats the catalogue is wrong with it: ten equal devices stay as unsure as one
        parts = {"decode_shared": said.decode_spread, "prefill_shared": said.prefill_spread}
        said = said.model_copy(
            update={key: getattr(known, key) for key, spread in parts.items() if spread is None}
        )
    kind = known.model_dump(include={"decode_spread", "prefill_spread"}) if known else {}
    return filled(
        said,
        {
            "decode_spread": catalog.said_log_sd(
                "decode", measured=measured, of_kind=kind.get("decode_spread")
            ),
            "prefill_spread": catalog.said_log_sd(
                "prefill", measured=measured, of_kind=kind.get("prefill_spread")
            ),
        },
    )


def main_processor(spec: DeviceSpec) -> str:
    """The name of the processor that stands for a device of several: its first card, else the first."""
    assert spec.processors, "only a device of several processors has a main one"
    cards = (name for name, one in spec.processors.items() if catalog.is_card(one.platform))
    return next(cards, next(iter(spec.processors)))


def platform_of(spec: DeviceSpec) -> str:
    """The platform of a complete device, or of its main processor."""
    if spec.processors:
        return spec.processors[main_processor(spec)].platform or "unknown"
    return spec.platform or "unknown"


def complete_host(
    name: str, spec: DeviceSpec, software: EngineFacts, model: ModelSpec
) -> tuple[DeviceSpec, str | None]:
    """A device of several processors with each of them written out, and the network that it usually has.

    Raises ScenarioError with every fault of its processors and of what they are to hold.
    """
    processors, faults, networks = {}, [], []
    for key, one in (spec.processors or {}).items():
        try:
            processors[key], network = _complete_processor(one, software, model)
        except SimulatorError as error:
            faults.append(Fault(f"devices.{name}.processors.{key}", str(error)))
        else:
            networks.append((catalog.is_card(processors[key].platform), network))
    faults += [] if faults else list(_faults(name, processors, spec))
    if faults:
        raise ScenarioError("scenario", faults)
    full = spec.model_copy(update={"processors": processors})
    main = full.processors[main_processor(full)] if full.processors else ProcessorSpec()
    noise = 0.0 if main.kind is None else catalog.platform(platform_of(full), software.runtime).noise_cv
    told = {"noise": NoiseSpec(sigma=noise), "disk": _disk_bytes_per_s(processors)}
    # a card has no port: the wire is that of the processor beside it, if it is told
    networks.sort(key=lambda found: found[0])
    return filled(full, told), next((network for _, network in networks if network), None)


def _complete_processor(
    spec: ProcessorSpec, software: EngineFacts, model: ModelSpec
) -> tuple[ProcessorSpec, str | None]:
    if spec.kind is None:
        _must_say(spec)
        usable = spec.usable_memory or spec.memory
        told = spec.model_copy(update={"speed": said_speed(spec.speed)})
        full, network = filled(told, {"memory": usable, "usable_memory": usable}), None
    else:
        facts = catalog.device(spec.kind, spec.memory)
        platform = catalog.platform(spec.platform or facts.platform, software.runtime)
        network, known = facts.network, catalogue_speed(facts, platform, software, model)
        changes = {"kind": facts.name, "memory": facts.snap(spec.memory)}
        full = filled(
            spec.model_copy(update={**changes, "speed": said_speed(spec.speed, known)}),
            {"usable_memory": facts.usable_bytes(spec.memory), "platform": platform.name, "speed": known},
        )
    if not catalog.is_card(full.platform):
        return full, network
    bus = catalog.bus(full.bus or USUAL_BUS)
    return filled(
        full.model_copy(update={"bus": bus.name}),
        {"bus_rate": bus.rate_bytes_per_s, "bus_delay": bus.delay_s},
    ), network


def _must_say(spec: ProcessorSpec) -> None:
    """A processor that the catalogue does not know needs its own numbers."""
    said = {
        "speed: {decode_bandwidth, prefill_flops}": spec.speed,
        "memory": spec.memory or spec.usable_memory,
        "platform (nvidia-cuda, x86-cpu, ...)": spec.platform,
    }
    missing = [key for key, value in said.items() if value is None]
    if missing:
        raise SimulatorError(
            "has no kind; name a device of the catalogue (`sim catalog devices`), or give "
            f"{', '.join(missing)} too"
        )


def _faults(name: str, processors: Mapping[str, ProcessorSpec], spec: DeviceSpec) -> Iterator[Fault]:
    """What is wrong with the processors together, and with what they are to hold."""
    where, cards, hosts = f"devices.{name}", [], []
    for key, one in processors.items():
        if catalog.is_card(one.platform):
            cards.append(key)
        elif (one.platform or "").endswith("-cpu"):
            hosts.append(key)
        else:
            yield Fault(
                f"{where}.processors.{key}",
                f"{one.kind or one.platform} shares its memory with what is beside it, so it is no "
                "processor among several; name it as the device's own kind",
            )
        if key in hosts and (one.bus or one.bus_rate or one.bus_delay):
            reason = "is a processor, which cards are plugged into; give the bus of each card instead"
            yield Fault(f"{where}.processors.{key}.bus", reason)
    if len(hosts) > 1:
        reason = (
            f"{' and '.join(hosts)} are host processors; a device has one, with the memory of all sockets"
        )
        yield Fault(f"{where}.processors", reason)
    if spec.offload is not None:
        yield from _offload_faults(f"{where}.offload", spec, cards, bool(hosts))


def _offload_faults(where: str, spec: DeviceSpec, cards: list[str], has_host: bool) -> Iterator[Fault]:
    told = spec.offload
    assert told is not None, "asked where it is told"
    if not cards:
        yield Fault(where, "says what cards hold, and no processor is a card; add one, or leave it out")
        return
    if told.tensor_split is not None and len(told.tensor_split) != len(cards):
        yield Fault(
            f"{where}.tensor_split",
            f"has {len(told.tensor_split)} shares for {len(cards)} cards ({', '.join(cards)}); give one for "
            "each, in this order",
        )
    for key in ("gpu_layers", "cpu_moe_layers"):
        if getattr(told, key) is not None and not has_host:
            yield Fault(
                f"{where}.{key}",
                "leaves something to the host's processor, and none is told; add it to processors (cpu: "
                "{kind: ...}), or leave it out",
            )


def _disk_bytes_per_s(processors: Mapping[str, ProcessorSpec]) -> float:
    """Of the host's processor where the catalogue knows it, as that of a complete device."""
    kinds = sorted((catalog.is_card(one.platform), one.kind) for one in processors.values() if one.kind)
    return catalog.device(kinds[0][1]).disk_bytes_per_s if kinds else 1e9
