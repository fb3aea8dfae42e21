"""From a scenario to a numeric, placed Job.

The catalogue is only asked where the engine runs; every number comes from the completed scenario.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from simulator import catalog
from simulator.client import with_client
from simulator.cluster.cluster import AccessPoint, Cluster, Device, Link, PowerSave, Wire
from simulator.complete import UNQUANTISED, complete
from simulator.doubts import cable_doubts, overcommitted, split_doubts, stand_in_doubts
from simulator.engine.base import Engine, engine, engines, rules
from simulator.errors import Fault, PlacementError, ScenarioError
from simulator.hosts import experts_are_there, host_device, host_doubts, host_memory, host_tasks, layers_per_s
from simulator.laws.law import Constant, median_s
from simulator.model.model import Model
from simulator.placement.memory import HostMemory, MemoryUse, memory_table, overfull
from simulator.placement.request import DeviceCapacity, PlacementRequest
from simulator.placement.rules import place
from simulator.placement.shard import Placement
from simulator.runtime.cost import prefill_s
from simulator.runtime.job import EngineCosts, Job
from simulator.runtime.paging import paging_s
from simulator.scenario import (
    DeviceSpec,
    EngineSpec,
    LinkSpec,
    ModelSpec,
    NoiseSpec,
    PowerSaveSpec,
    Scenario,
    SharedHostSpec,
)
from simulator.units import format_bytes, format_seconds

__all__ = ["Ground", "Prepared", "engine_costs", "ground", "prepare"]

ANNOUNCED_PROMPT = 1024
"""Tokens of the prompt by which servers that announce their speed measure it."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What every placement of a scenario has in common."""

    scenario: Scenario
    """Complete: every number written out."""
    engine: Engine
    cluster: Cluster
    model: Model
    request: PlacementRequest


@dataclass(frozen=True, slots=True)
class Prepared:
    """A scenario ready to be evaluated."""

    scenario: Scenario
    """Complete: every number written out."""
    engine: Engine
    job: Job
    memory: tuple[MemoryUse, ...]
    warnings: tuple[str, ...]


def prepare(scenario: Scenario) -> Prepared:
    """Complete, place and check a scenario.

    Raises PlacementError where it does not fit, with both figures, and whatever `complete` raises.
    """
    if scenario.swarm is not None and scenario.swarm.population:
        reason = "its servers come and go, of which this prediction knows nothing; take `sim swarm`"
        raise ScenarioError("scenario", [Fault("swarm.population", reason)])
    idle = ground(scenario, client_idles=True)
    try:
        return _prepared(idle)
    except PlacementError:
        helping = ground(scenario)
        if helping.scenario.placement == idle.scenario.placement:
            raise
        return _prepared(helping)  # the others cannot hold all layers, so the client takes its part


def _prepared(base: Ground) -> Prepared:
    full, flow, cluster, model, request = base.scenario, base.engine, base.cluster, base.model, base.request
    rule = _rule(full, flow)
    placement = place(rule, request, rules())
    tasks = host_tasks(cluster, model, placement, flow, request.footprint, _load(full, flow))
    divided = {name: flow.divide_host(task) for name, task in tasks.items() if flow.divide_host}
    memory = tuple(
        host_memory(row, tasks[row.device], divided[row.device]) if row.device in tasks else row
        for row in memory_table(placement, request)
    )
    _check_memory(full, flow, rule, memory)
    _check_roles(flow, placement)
    _check_split(flow, placement)
    # only now: how many processes share the machine is known when the layers are placed
    if full.shared_host is not None:
        cluster = _crowded(cluster, full.shared_host, len(placement.shards), flow)
    job = Job(
        cluster,
        model,
        placement,
        engine_costs(full.engine),
        full.workload,
        full.seed,
        full.common_noise or NoiseSpec(sigma=0.0),
        full.posterior,
        divided,
        (full.shared_host.cores or 1) if full.shared_host is not None else None,
        full.tails,
    )
    return Prepared(full, flow, job, memory, _warnings(full, flow, job, memory))


def ground(scenario: Scenario, *, client_idles: bool = False) -> Ground:
    """Complete a scenario and ask what a placement has to meet; raises what `complete` raises.

    With `client_idles` a slow client of a star gets no layers where nobody chose a placement.
    """
    full = complete(scenario)
    flow = engine(full.engine.name)
    full = full.model_copy(update={"placement": with_client(full, flow, idles=client_idles)})
    cluster, model = _cluster(full, flow), _model(full.model)
    experts_are_there(full, model)
    return Ground(full, flow, cluster, model, _request(full, flow, cluster, model))


def _rule(scenario: Scenario, flow: Engine) -> str:
    """The placement rule that is asked for, else manual where layers are given, else the engine's own."""
    return scenario.placement.rule or ("manual" if scenario.placement.layers else flow.default_rule)


def _model(spec: ModelSpec) -> Model:
    # by these the numbers were found, or they enter in another form below
    told = {
        "doubts",
        "split_widths",
        "quantisation",
        "gguf",
        "hf_config",
        "bits_per_weight",
        "layer_kinds",
        "layer_pattern",
        "other_bytes",
    }
    return Model(
        **spec.model_dump(exclude=told),
        quantisation=spec.quantisation or "",
        layer_kinds=spec.layer_kinds or (),
        layer_pattern=spec.layer_pattern or (),
        other_bytes=spec.other_bytes or 0.0,
    )


def engine_costs(spec: EngineSpec) -> EngineCosts:
    """What the engine of a complete scenario costs, and who holds embedding and head."""
    flow = engine(spec.name)
    return EngineCosts(
        name=spec.name,
        step_overhead_s=spec.step_overhead or 0.0,
        hop_overhead_s=spec.hop_overhead or 0.0,
        overhead_log_sd=spec.overhead_spread or 0.0,
        hop_log_sd=spec.hop_spread,
        memory_overhead_bytes=spec.memory_overhead or 0.0,
        embedding_on=flow.embedding_on,
        head_on=flow.head_on,
        head_not_on=flow.clients_without_head,
        embedding_on_host=flow.facts.embedding_on_host,
        protocol=spec.protocol,
        algorithm=flow.facts.backend(spec.backend).algorithm if flow.facts.backends else "ring",
        request_overhead_s=spec.request_overhead or 0.0,
        push=bool(spec.push),
        compression=spec.compression,
    )


def _cluster(scenario: Scenario, flow: Engine) -> Cluster:
    # a complete scenario has a value everywhere: `or`, here and below, is for the type checker alone
    overhead_bytes = scenario.engine.memory_overhead or 0.0
    devices = tuple(
        _device(name, spec)
        if spec.processors is None
        else host_device(name, spec, _link(spec.link), flow, overhead_bytes)
        for name, spec in scenario.devices.items()
    )
    points = tuple(AccessPoint(name, point.background) for name, point in scenario.access_points.items())
    wires = tuple(
        Wire(
            frozenset(wire.between),
            wire.kind or "cable",
            wire.delay or Constant(value=0.0),
            wire.rate or 1e12,
            wire.delay_spread or 0.0,
            wire.rate_spread or 0.0,
            wire.collective_delay,
            wire.collective_spread or 0.0,
            wire.bridged,
        )
        for wire in scenario.wires
    )
    return Cluster(devices, points, wires)


def _crowded(cluster: Cluster, host: SharedHostSpec, ranks: int, flow: Engine) -> Cluster:
    """Every device slowed by the others of its ring, because one machine plays them all.

    Where each holds a part of every layer all compute at once, so that `ranks` on fewer cores take turns.
    """
    turns = max(1.0, ranks / host.cores) if host.cores is not None and flow.splits_layers else 1.0
    contention = host.contention * (ranks - 1)
    return replace(
        cluster,
        devices=tuple(replace(one, contention=contention, slow_down=turns) for one in cluster.devices),
    )


def _device(name: str, spec: DeviceSpec) -> Device:
    assert spec.speed is not None, "a complete scenario says how fast each device is"
    return Device(
        name=name,
        kind=spec.kind or "unknown",
        platform=spec.platform or "unknown",
        memory_bytes=spec.memory or 0.0,
        usable_bytes=spec.usable_memory or 0.0,
        speed=spec.speed,
        noise=spec.noise or NoiseSpec(sigma=0.0),
        disk_bytes_per_s=spec.disk or 1e9,
        background_load=spec.background_load,
        allow_paging=spec.allow_paging,
        link=_link(spec.link),
        is_card=catalog.is_card(spec.platform),
    )


def _link(spec: LinkSpec) -> Link:
    doze = spec.power_save if isinstance(spec.power_save, PowerSaveSpec) else None
    return Link(
        kind=spec.kind or "custom",
        via=spec.via or "",
        delay=spec.delay or Constant(value=0.0),
        rate_bytes_per_s=(spec.rate or 1e12) * (spec.vpn_rate_share or 1.0),
        shared=bool(spec.shared),
        delay_log_sd=spec.delay_spread or 0.0,
        rate_log_sd=spec.rate_spread or 0.0,
        collective=spec.collective_delay,
        collective_log_sd=spec.collective_spread or 0.0,
        delay_home_log_sd=spec.delay_home_spread or 0.0,
        rate_home_log_sd=spec.rate_home_spread or 0.0,
        vpn_delay_s=spec.vpn_delay or 0.0,
        power_save=PowerSave(doze.awake, doze.wake) if doze else None,
        label=spec.label,
    )


def _request(scenario: Scenario, flow: Engine, cluster: Cluster, model: Model) -> PlacementRequest:
    """What the placement rules may look at; memory for the KV cache is counted at
    the end of the longest chat.
    """
    choice, load = scenario.placement, _load(scenario, flow)
    footprint = engine_costs(scenario.engine).footprint(model, *load, cluster.devices)
    capacities = tuple(
        DeviceCapacity(
            name=device.name,
            usable_bytes=device.usable_bytes,
            total_bytes=device.memory_bytes,
            # at an empty context, where reading weights is all that counts
            layers_per_s=layers_per_s(device, model, flow, footprint, load),
            prompt_tokens_per_s=ANNOUNCED_PROMPT / prefill_s(device, model.average(1), ANNOUNCED_PROMPT),
            link_bytes_per_s=device.link.rate_bytes_per_s,
            delay_s=median_s(device.link.delay) + device.link.vpn_delay_s,
            role=choice.roles.get(device.name),
            may_page=device.allow_paging,
        )
        for device in cluster.devices
    )
    rule, holding = rules().get(_rule(scenario, flow)), [found for found in capacities if not found.pinned]
    return PlacementRequest(
        **asdict(footprint),
        devices=capacities,
        n_layers=model.layers,
        total_bytes=model.total_bytes,
        order=choice.order,
        layers=choice.layers,
        # a split by hand that does not fit is refused by `_check_memory`, which knows who may page
        may_page=True,
        # who lists devices means all of them, unless told otherwise
        hidden=model.hidden,
        kv_bytes_per_token_per_layer=model.kv_bytes_per_token_per_layer,
        # keys and values of as many heads as attend are two hidden states; 16 bits each
        grouped_query=model.kv_bytes_per_token_per_layer < 4 * model.hidden,
        # what is kept for all heads together is not split by them
        kv_heads=None if footprint.latent else model.kv_heads,
        backend=scenario.engine.backend,
        min_devices=choice.min_devices or (len(holding) if rule is not None and rule.takes_fewest else None),
    )


def _load(scenario: Scenario, flow: Engine) -> tuple[int, int]:
    """(tokens of context, chats) that are in memory at the end of the longest chat."""
    workload = scenario.workload
    return workload.prompt_tokens + workload.output_tokens, flow.memory_chats(workload.concurrency)


def _check_memory(scenario: Scenario, flow: Engine, rule: str, memory: tuple[MemoryUse, ...]) -> None:
    """Refuse what would page, unless the device is allowed to."""
    trouble = overfull([row for found in memory for row in _must_fit(found, scenario)])
    if trouble is None:
        return
    if not rules()[rule].counts_weights_alone:
        raise trouble
    why = overcommitted(flow, memory) or "it counts weights alone"
    note = f"\n{flow.name} itself would accept this placement: {why}"
    raise PlacementError(f"{trouble.fault}{note}", f"{trouble}".removeprefix(trouble.fault))


def _must_fit(row: MemoryUse, scenario: Scenario) -> list[MemoryUse]:
    """What of a device's memory must not page: nothing where it may, but for its cards, which cannot."""
    spec = scenario.devices[row.device]
    if not spec.allow_paging:
        return [row]
    if not isinstance(row, HostMemory):
        return []
    return [row.cards_alone]


def _check_roles(flow: Engine, placement: Placement) -> None:
    if placement.head is not None and flow.head_on == "all":
        others = " or ".join(name for name, other in engines().items() if other.head_on != "all")
        raise PlacementError(
            f"{placement.head} is pinned to the output head, but {flow.name} computes the head on every "
            f"device; pin it with engine {others}, or pin the embedding"
        )


def _check_split(flow: Engine, placement: Placement) -> None:
    if flow.splits_layers == placement.splits_layers:
        return
    if flow.splits_layers:
        raise PlacementError(
            f"rule {placement.rule!r} gives each device whole layers, but {flow.name} splits every layer "
            "equally "
            f"among all devices; leave layers out and take rule {flow.default_rule!r}, or shard by pipeline"
        )
    raise PlacementError(
        f"rule {placement.rule!r} splits layers among devices, which {flow.name} does not; take rule "
        f"{flow.default_rule!r}"
    )


def _misfits(flow: Engine, job: Job) -> list[str]:
    """Devices on which the engine does not run today, in one sentence."""
    known = [device for device in job.ring if device.platform != "unknown"]
    misfits = [device for device in known if device.platform not in flow.facts.runs_on]
    if not misfits:
        return []
    platforms = dict.fromkeys(device.platform for device in misfits)
    about = f"engine {flow.name} does not run on {' and '.join(platforms)}: {flow.facts.note}"
    return [f"{', '.join(device.name for device in misfits)}: {about}"]


def _warnings(scenario: Scenario, flow: Engine, job: Job, memory: tuple[MemoryUse, ...]) -> tuple[str, ...]:
    """What the reader should doubt."""
    warnings = []
    warnings += _misfits(flow, job)
    warnings += [f"{scenario.model.name}: {doubt}" for doubt in scenario.model.doubts]
    bits = scenario.model.quantisation
    computing = {device.platform for device, shard in zip(job.ring, job.shards, strict=True) if shard.layers}
    if bits not in (None, UNQUANTISED) and flow.facts.is_unquantised_on(computing):
        warnings.append(
            f"{flow.name} ran {bits} models on {flow.facts.quantised_on} alone and 16-bit ones elsewhere, so "
            "nobody could run this; leave quantisation out to see what they ran"
        )
    warnings += host_doubts(scenario, flow)
    warnings += split_doubts(scenario, flow, job) + cable_doubts(scenario) + stand_in_doubts(scenario, flow)
    if flow.facts.chats_note and scenario.workload.concurrency > 1 and len(job.shards) > 1:
        warnings.append(flow.facts.chats_note)
    left_out = set(scenario.devices) - {device.name for device in job.ring}
    if left_out:
        warnings.append(
            f"{', '.join(sorted(left_out))}: left out by the placement; it costs nothing and helps nothing"
        )
    ranks = {shard.device: rank for rank, shard in enumerate(job.shards)}
    for row in (row for row in memory if not row.fits and row.device in ranks):
        again_s = paging_s(job, ranks[row.device])
        again = format_bytes(again_s * job.cluster.device(row.device).disk_bytes_per_s)
        warnings.append(
            f"{row.device}: {format_bytes(row.over_bytes)} more than it can keep, so "
            f"{again} are read from its disk again at each token, {format_seconds(again_s)}"
        )
    for name, device in scenario.devices.items():
        doubt = catalog.doubt_memory(device.kind, device.memory) if device.kind and device.memory else None
        warnings += [f"{name}: {doubt}"] if doubt else []
    if scenario.events:
        kinds = ", ".join(dict.fromkeys(event.event for event in scenario.events))
        warnings.append(f"events ({kinds}) are not part of this prediction; `sim dropout` predicts with them")
    return tuple(warnings)
