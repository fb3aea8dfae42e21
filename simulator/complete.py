"""From a scenario as written to a complete one: what the person left out comes from the
catalogue, with its label.

A complete scenario runs again without the catalogue, so each results folder holds one.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from functools import cache
from math import sqrt
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from simulator import catalog
from simulator.defaults import UNQUANTISED, catalogue_speed, complete_host, filled, platform_of, said_speed
from simulator.engine.base import engine
from simulator.engine.facts import EngineFacts
from simulator.errors import CatalogError, Fault, ScenarioError
from simulator.laws.law import Law, median_s, scaled
from simulator.own import spelt_out
from simulator.scenario import (
    DeviceSpec,
    EngineSpec,
    LinkSpec,
    ModelSpec,
    NoiseSpec,
    PowerSaveSpec,
    Scenario,
    WireSpec,
)

__all__ = ["UNQUANTISED", "complete"]


def complete(scenario: Scenario) -> Scenario:
    """The same scenario with every number written out.

    Raises CatalogError for names that the catalogue lacks, ScenarioError where it has no
    value and none was given.
    """
    # first: the format of the weights and what devices reach with them depend on the engine
    engine_spec = _complete_engine(scenario.engine)
    # here too, not only where a file is read: a notebook makes scenarios without one
    scenario = spelt_out(scenario).model_copy(update={"engine": engine_spec})
    scenario = scenario.model_copy(update={"model": _as_stored(scenario.model, engine_spec.name)})
    devices = {name: _complete_device(scenario, name, device) for name, device in scenario.devices.items()}
    platforms = {platform_of(device) for device in _computing(scenario, devices)}
    return scenario.model_copy(
        update={
            "model": _complete_model(scenario.model, engine_spec.name, platforms),
            "devices": devices,
            "wires": tuple(_complete_wire(wire, engine_spec) for wire in scenario.wires),
            "tails": scenario.tails or catalog.tails(),
            "common_noise": scenario.common_noise or _recorded_noise(engine_spec.name),
        }
    )


def _as_stored(spec: ModelSpec, engine_name: str) -> ModelSpec:
    """The model in the quantisation that an engine makes of the name that its users give it."""
    return spec.model_copy(update={"quantisation": engine(engine_name).facts.known_as(spec.quantisation)})


def _computing(scenario: Scenario, devices: Mapping[str, DeviceSpec]) -> list[DeviceSpec]:
    """Who may hold layers: a swarm's client holds embedding and head alone, which nobody quantises."""
    if not engine(scenario.engine.name).forms_swarm:
        return list(devices.values())
    told = scenario.placement
    idle = {*told.roles, *(name for name, layers in (told.layers or {}).items() if not layers)}
    return [device for name, device in devices.items() if name not in idle] or list(devices.values())


def _recorded_noise(engine_name: str) -> NoiseSpec:
    """How runs and sessions of this engine differ, where nobody says or has measured how they do there."""
    facts = engine(engine_name).facts
    return NoiseSpec(sigma=0.0, run_sigma=facts.run_log_sd, session_sigma=facts.session_log_sd)


def _complete_engine(spec: EngineSpec) -> EngineSpec:
    facts = engine(spec.name).facts
    if spec.protocol is not None:
        facts.protocol(spec.protocol)  # refuses what is not known
    _refuse_foreign_options(spec, facts)
    # who only turns a tensor scenario into a pipeline may leave its backend there
    asked = None if spec.sharding == "pipeline" and not facts.backends else spec.backend
    backend = facts.backend(asked) if facts.backends or asked else None
    # an alias, 'llama.cpp', ends here: everything behind asks for the engine by its one name
    return filled(
        spec.model_copy(update={"name": facts.name}),
        {
            "step_overhead": facts.step_overhead_s,
            "hop_overhead": backend.hop_overhead_s if backend else facts.hop_overhead_s,
            "backend": backend.name if backend else None,
            "request_overhead": facts.request_overhead_s,
            "overhead_spread": facts.overhead_log_sd,
            # who says how sure overheads are speaks of messages too
            "hop_spread": backend.hop_log_sd if backend and spec.overhead_spread is None else None,
            "memory_overhead": facts.memory_overhead_bytes,
        },
    )


def _refuse_foreign_options(spec: EngineSpec, facts: EngineFacts) -> None:
    """Raise CatalogError for a setting that is another engine's."""
    for option in ("push", "compression"):
        if getattr(spec, option) is not None and option not in facts.options:
            raise CatalogError(f"engine {facts.name!r} has no {option} to choose; leave it out")


def _complete_model(spec: ModelSpec, engine_name: str, platforms: Set[str]) -> ModelSpec:
    """Sizes from the file that the scenario names, else from the catalogue."""
    if spec.layers is not None and spec.layer_bytes is not None:
        return _model_by_numbers(spec, engine_name)
    engine_facts = engine(engine_name).facts
    if spec.gguf is not None:
        facts = catalog.from_gguf(Path(spec.gguf))
    elif spec.hf_config is not None:
        facts = catalog.from_hf_config(Path(spec.hf_config), spec.quantisation, spec.bits_per_weight)
    else:
        quantisation = spec.quantisation or (
            UNQUANTISED if engine_facts.is_unquantised_on(platforms) else None
        )
        facts = catalog.model(spec.name, quantisation, None if quantisation else engine_facts.default_format)
    return filled(
        spec.model_copy(update={"doubts": (*spec.doubts, *facts.doubts)}),
        {
            "quantisation": facts.quantisation,
            "layers": facts.layers,
            "hidden": facts.hidden,
            "layer_bytes": facts.layer_bytes,
            "active_layer_bytes": facts.active_layer_bytes,
            "experts": facts.experts,
            "experts_per_token": facts.experts_per_token,
            "expert_layer_bytes": facts.expert_layer_bytes if facts.experts else 0.0,
            "embedding_bytes": facts.embedding_bytes,
            "head_bytes": facts.head_bytes,
            "kv_bytes_per_token_per_layer": facts.kv_bytes_per_token_per_layer,
            "layer_flops": facts.layer_flops_per_token,
            "head_flops": facts.head_flops,
            "activation_bytes": facts.hidden * engine_facts.activation_bytes_per_value,
            "other_bytes": facts.other_bytes,
            # who splits layers must know by how many heads; nobody else asks
            "kv_heads": facts.kv_heads if engine_facts.sharding == "tensor" else None,
            "split_widths": facts.split_widths if engine_facts.sharding == "tensor" else None,
            **_layers(facts, reads_whole_cache=engine_facts.reads_whole_cache),
        },
    )


def _layers(facts: catalog.ModelFacts, *, reads_whole_cache: bool) -> dict[str, Any]:
    """What is written of single layers: nothing where an average one says it all."""
    kinds = facts.layer_kinds
    if reads_whole_cache:
        kinds = tuple(kind.model_copy(update={"kv_read_tokens": None}) for kind in kinds)
    plain = [
        kind.kv_window_tokens is None
        and kind.kv_read_tokens is None
        and not kind.state_bytes
        and kind.attention_flops_per_token == 4 * facts.hidden
        for kind in kinds
    ]
    if len(plain) <= 1 and all(plain):
        return {}
    return {"layer_kinds": kinds, "layer_pattern": facts.layer_pattern}


def _model_by_numbers(spec: ModelSpec, engine_name: str) -> ModelSpec:
    """What a person's own model may leave out: it is dense, without embedding, two
    operations per 4-bit weight.
    """
    assert spec.layer_bytes is not None
    assert spec.hidden is not None, "ModelSpec asks for it beside layer_bytes"
    return filled(
        spec,
        {
            "active_layer_bytes": spec.layer_bytes,
            "experts": 0,
            "experts_per_token": 0,
            "expert_layer_bytes": 0.0,
            "embedding_bytes": 0.0,
            "head_bytes": 0.0,
            "kv_bytes_per_token_per_layer": 0.0,
            # a byte holds two weights, each of them a multiplication and an addition
            "layer_flops": 4 * spec.layer_bytes,
            "head_flops": 4 * (spec.head_bytes or 0.0),
            "activation_bytes": spec.hidden * engine(engine_name).facts.activation_bytes_per_value,
        },
    )


def _complete_device(scenario: Scenario, name: str, spec: DeviceSpec) -> DeviceSpec:
    if spec.processors is not None:
        full, default_link = complete_host(name, spec, _software(scenario), scenario.model)
    elif spec.kind is None:
        _must_say(name, spec)
        # a machine told by numbers: what its system keeps for itself is the person's to leave out
        usable = spec.usable_memory or spec.memory
        full = filled(
            spec.model_copy(update={"speed": said_speed(spec.speed)}),
            {
                "memory": usable,
                "usable_memory": usable,
                "platform": "unknown",
                "disk": 1e9,
                "noise": NoiseSpec(sigma=0.0),
            },
        )
        default_link = None
    else:
        facts = catalog.device(spec.kind, spec.memory)
        software = _software(scenario)
        platform = catalog.platform(spec.platform or facts.platform, software.runtime)
        known = catalogue_speed(facts, platform, software, scenario.model)
        # people say 32 GB and mean the 32 GiB that are sold
        changes = {"kind": facts.name, "memory": facts.snap(spec.memory)}
        full = filled(
            spec.model_copy(update={**changes, "speed": said_speed(spec.speed, known)}),
            {
                "usable_memory": facts.usable_bytes(spec.memory),
                "platform": platform.name,
                "disk": facts.disk_bytes_per_s,
                "speed": known,
                "noise": NoiseSpec(sigma=platform.noise_cv, correlation=0.0),
            },
        )
        default_link = facts.network
    return full.model_copy(update={"link": _complete_link(scenario, name, full, default_link)})


def _software(scenario: Scenario) -> EngineFacts:
    """What is known of the scenario's engine, and for whom it stands."""
    facts = engine(scenario.engine.name).facts
    return facts.model_copy(update={"stands_for": scenario.engine.stands_for})


def _must_say(name: str, spec: DeviceSpec) -> None:
    """A device that the catalogue does not know needs its own numbers."""
    faults = []
    if spec.speed is None:
        faults.append(
            Fault(
                f"devices.{name}",
                "has neither kind nor speed; name a device of the catalogue (`sim catalog devices`) or "
                "give link: {kind} and speed: {decode_bandwidth, prefill_flops}",
            )
        )
    if spec.memory is None and spec.usable_memory is None:
        faults.append(Fault(f"devices.{name}", "has neither kind nor memory; give one of them"))
    if faults:
        raise ScenarioError("scenario", faults)


def _said_spreads(spec: LinkSpec | WireSpec, facts: catalog.NetworkFacts | None = None) -> dict[str, float]:
    """How sure delay and rate of a link are; what the scenario says nothing of is the catalogue's."""
    measured = spec.label != "assumed"
    has_delay = spec.delay is not None or (isinstance(spec, LinkSpec) and spec.rtt is not None)
    delay, rate = (facts.scale_log_sd, facts.rate_log_sd) if facts else (None, None)
    return {
        "delay_spread": catalog.said_log_sd("delay", measured=measured and has_delay, of_kind=delay),
        "rate_spread": catalog.said_log_sd("rate", measured=measured and spec.rate is not None, of_kind=rate),
    }


def _collective(spec: LinkSpec | WireSpec, facts: catalog.NetworkFacts) -> dict[str, Any]:
    """The law of a collective's messages; who says a delay says it of all messages."""
    if facts.collective is None or spec.delay is not None or (isinstance(spec, LinkSpec) and spec.rtt):
        return {}
    return {
        "collective_delay": read_law(facts.collective.delay),
        "collective_spread": facts.collective.scale_log_sd,
    }


def _home_part(spec: LinkSpec, said: float | None, log_sd: float, facts: catalog.NetworkFacts) -> float:
    # a delay or rate that is said without that is no better known than the catalogue's
    own = said is not None or (spec.label != "assumed" and (spec.rtt or spec.delay or spec.rate) is not None)
    return 0.0 if own else log_sd * sqrt(facts.home_share)


def _complete_link(scenario: Scenario, name: str, device: DeviceSpec, default_kind: str | None) -> LinkSpec:
    spec, platform = device.link, device.platform or "unknown"
    point = spec.via or next(iter(scenario.access_points))
    kind = spec.kind or default_kind
    if kind is None:
        if spec.delay is None or spec.rate is None:
            reason = (
                "has no kind; name a network of the catalogue (`sim catalog networks`) or give delay and rate"
            )
            raise ScenarioError("scenario", [Fault(f"devices.{name}.link", reason)])
        return filled(
            spec,
            {
                "via": point,
                **_said_spreads(spec),
                "shared": False,
                "vpn_delay": 0.0,
                "vpn_rate_share": 1.0,
                "power_save": False,
            },
        )
    facts = catalog.network(kind)
    overlay = catalog.vpn(spec.vpn) if spec.vpn else None
    law = read_law(facts.delay)
    named = spec.model_copy(update={"kind": facts.name, "power_save": _power_save(spec.power_save, platform)})
    return filled(
        named,
        {
            "via": point,
            # a median round trip is two crossings of this side
            "delay": law if spec.rtt is None else scaled(law, spec.rtt / (2 * median_s(law))),
            "rate": facts.rate_bytes_per_s,
            **_said_spreads(spec, facts),
            **_collective(spec, facts),
            # who measured this link, or says how sure that is, speaks of this device and not of the home
            "delay_home_spread": _home_part(spec, spec.delay_spread, facts.scale_log_sd, facts),
            "rate_home_spread": _home_part(spec, spec.rate_spread, facts.rate_log_sd, facts),
            "shared": facts.medium == "wifi",
            # the catalogue's figure is end to end, and each end adds its own half
            "vpn_delay": overlay.added_delay_s / 2 if overlay else 0.0,
            "vpn_rate_share": overlay.rate_share if overlay else 1.0,
        },
    )


def _power_save(wanted: PowerSaveSpec | bool | None, platform: str) -> PowerSaveSpec | bool:
    """The catalogue's dozing radio where the scenario only says `true`."""
    if not isinstance(wanted, bool) or not wanted:
        return wanted or False
    facts = catalog.power_save(platform)
    if facts is None:
        raise CatalogError(
            f"power_save: the catalogue knows no dozing radio for platform {platform!r}; "
            "give power_save: {awake, wake} or leave it out"
        )
    return PowerSaveSpec.model_construct(awake=facts.awake_s, wake=read_law(facts.wake))


def _complete_wire(spec: WireSpec, engine_spec: EngineSpec) -> WireSpec:
    if spec.delay is not None and spec.rate is not None:
        return filled(spec, _said_spreads(spec))
    if spec.kind is None:
        reason = (
            "has no kind; name a network of the catalogue (`sim catalog networks`) or give delay and rate"
        )
        raise ScenarioError("scenario", [Fault(f"wires {' -- '.join(spec.between)}", reason)])
    facts = catalog.network(spec.kind)
    backends = engine(engine_spec.name).facts.backends
    carries = next((one for one in backends if one.name == engine_spec.backend), None)
    if facts.over_tcp and carries is not None and carries.without_rdma:
        facts = catalog.network(facts.over_tcp)
        spec = spec.model_copy(update={"kind": facts.name})
    known = {"delay": read_law(facts.delay), "rate": facts.rate_bytes_per_s}
    return filled(spec, {**known, **_said_spreads(spec, facts), **_collective(spec, facts)})


@cache
def _law_reader() -> TypeAdapter[Law]:
    return TypeAdapter(Law)


def read_law(entry: Mapping[str, Any]) -> Law:
    """A law of the catalogue."""
    return _law_reader().validate_python(dict(entry))
