"""Devices of several processors: from their specs to Devices, to what each processor holds, to its memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from simulator import catalog
from simulator.cluster.cluster import Cluster, Device, Link, Processor
from simulator.defaults import main_processor, platform_of
from simulator.engine.base import Engine
from simulator.errors import Fault, PlacementError, ScenarioError
from simulator.model.model import Model
from simulator.placement.footprint import Footprint
from simulator.placement.memory import HostMemory, MemoryUse
from simulator.placement.shard import Placement, Shard
from simulator.runtime.cost import decode_s, seconds_per_layer
from simulator.runtime.portions import Divided, HostTask, Portion
from simulator.scenario import DeviceSpec, Label, NoiseSpec, ProcessorSpec, Scenario

__all__ = [
    "experts_are_there",
    "host_device",
    "host_doubts",
    "host_memory",
    "host_tasks",
    "layers_per_s",
    "one_processor_each",
]


def one_processor_each(scenario: Scenario, what: str, instead: str = "") -> None:
    """Raise ScenarioError where a device has several processors, for `what` that knows one of each alone.

    The way out is the main processor as the whole device, or what `instead` says.
    """
    faults = [
        Fault(
            f"devices.{name}.processors",
            f"{what} knows devices of one processor alone; {_as_one(spec)}{instead}",
        )
        for name, spec in scenario.devices.items()
        if spec.processors is not None
    ]
    if faults:
        raise ScenarioError("scenario", faults)


def _as_one(spec: DeviceSpec) -> str:
    """What to write so that the main processor stands for the device, with what belongs to several gone."""
    key = main_processor(spec)
    place = "it" if spec.offload is None else "it and offload"
    main = spec.processors[key] if spec.processors else None
    if main is None or main.kind is None:
        return f"write platform, memory and speed of its main processor, {key}, in place of {place}"
    return f"write `kind: {main.kind}` in place of {place}"


def experts_are_there(scenario: Scenario, model: Model) -> None:
    """Raise ScenarioError where experts are to be left in RAM, of a model that has none."""
    if any(kind.experts for kind in model.kinds):
        return
    faults = [
        Fault(
            f"devices.{name}.offload.cpu_moe_layers",
            f"leaves {spec.offload.cpu_moe_layers} layers' experts in RAM, and {model.name} has none; "
            "leave it out, or say gpu_layers",
        )
        for name, spec in scenario.devices.items()
        if spec.offload is not None and spec.offload.cpu_moe_layers
    ]
    if faults:
        raise ScenarioError("scenario", faults)


def host_device(name: str, spec: DeviceSpec, link: Link, flow: Engine, overhead_bytes: float) -> Device:
    """A complete device of several processors, as the engine uses it: divided among
    them, or as the first card alone.

    Raises PlacementError where nobody knows how the engine uses several.
    """
    assert spec.processors, "asked of a device of several processors"
    if flow.divide_host is None and not flow.takes_one_processor:
        raise PlacementError(
            f"devices.{name}.processors: how engine {flow.name!r} uses several processors of a device is not "
            f"known; give the kind of one of them to {name} itself, or take an engine that divides layers "
            "among them (llama.cpp)"
        )
    parts = {key: _alone(f"{name}/{key}", one, spec, link) for key, one in spec.processors.items()}
    main = parts[main_processor(spec)]
    if flow.divide_host is None:
        return replace(main, name=name)
    told = [one.speed.label for one in parts.values()]
    weakest: Label = "assumed" if "assumed" in told else told[0]
    return Device(
        name=name,
        kind=_in_words(part.kind for part in parts.values()),
        platform=platform_of(spec),
        memory_bytes=sum(part.memory_bytes for part in parts.values()),
        # the engine's own is counted once for each device, and is on each of its processors
        usable_bytes=sum(part.usable_bytes for part in parts.values()) - (len(parts) - 1) * overhead_bytes,
        speed=main.speed.model_copy(update={"label": weakest}),
        noise=main.noise,
        disk_bytes_per_s=main.disk_bytes_per_s,
        background_load=spec.background_load,
        allow_paging=spec.allow_paging,
        link=link,
        # the embedding is left to a host whose memory nobody told
        is_card=all(part.is_card for part in parts.values()),
        processors=tuple(
            Processor(parts[key], one.bus_rate or float("inf"), one.bus_delay or 0.0)
            for key, one in spec.processors.items()
        ),
        offload=spec.offload,
    )


def _alone(name: str, spec: ProcessorSpec, device: DeviceSpec, link: Link) -> Device:
    assert spec.speed is not None, "a complete scenario says how fast each processor is"
    return Device(
        name=name,
        kind=spec.kind or "unknown",
        platform=spec.platform or "unknown",
        memory_bytes=spec.memory or 0.0,
        usable_bytes=spec.usable_memory or 0.0,
        speed=spec.speed,
        noise=device.noise or NoiseSpec(sigma=0.0),
        disk_bytes_per_s=device.disk or 1e9,
        background_load=device.background_load,
        allow_paging=device.allow_paging,
        link=link,
        is_card=catalog.is_card(spec.platform),
    )


def _in_words(kinds: Iterable[str]) -> str:
    """Kinds of processors, alike ones counted: '2x RTX 3090 desktop + Ryzen 9 9950X CPU desktop'."""
    return " + ".join(f"{count}x {kind}" if count > 1 else kind for kind, count in Counter(kinds).items())


def host_doubts(scenario: Scenario, flow: Engine) -> tuple[str, ...]:
    """What an engine makes of devices of several processors that a reader may not expect."""
    found = []
    hosts = {name: spec for name, spec in scenario.devices.items() if spec.processors is not None}
    for name, spec in hosts.items():
        main = main_processor(spec)
        idle = [key for key in spec.processors or () if key != main]
        if flow.divide_host is None and idle:
            found.append(
                f"{name}: {flow.name} computes on one processor of a device, {main}; {', '.join(idle)} stand "
                f"idle, and only {main}'s memory counts here{flow.facts.host_note}"
            )
        elif flow.divide_host is not None and spec.offload is None and idle:
            found.append(
                f"{name}: offload is left out, so its cards hold as much as fits; builds that do not fit by "
                "themselves, and `-ngl` as you give it, hold something else (`offload: {gpu_layers: ...}`)"
            )
    if len(hosts) and flow.divide_host is not None and next(iter(scenario.devices)) not in hosts:
        found.append(
            f"{', '.join(hosts)}: a server shows each of its processors as one of its own; what one hands to "
            "the next is counted inside of the device here, and goes by way of the client in truth"
        )
    return tuple(found)


def host_task(
    device: Device,
    model: Model,
    footprint: Footprint,
    ring: Sequence[str],
    shard: Shard,
    load: tuple[int, int],
) -> HostTask:
    """What an engine is asked to divide: the layers of a shard of a ring, at `load` = (tokens
    of context, chats).
    """
    embedding, _, overhead = footprint.fixed_bytes(ring, device.name)
    return HostTask(
        device=device,
        model=model,
        start=shard.start_layer,
        end=shard.end_layer,
        has_head=footprint.holds_head(ring, device.name),
        embedding_bytes=embedding,
        overhead_bytes=overhead,
        context=load[0],
        chats=load[1],
    )


def layers_per_s(
    device: Device, model: Model, flow: Engine, footprint: Footprint, load: tuple[int, int]
) -> float:
    """Average layers that a device decodes per second at an empty context."""
    if flow.divide_host is None or not device.processors:
        return 1 / seconds_per_layer(device, model)
    # as if it held them all: what does not fit on cards then makes it as slow as it would be
    everything = Shard(device=device.name, start_layer=0, end_layer=model.layers)
    task = host_task(device, model, footprint, [device.name], everything, load)
    return model.layers / float(decode_s(device, flow.divide_host(task), 0.0))


def host_tasks(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    flow: Engine,
    footprint: Footprint,
    load: tuple[int, int],
) -> dict[str, HostTask]:
    """The tasks of the devices of several processors that hold layers, by name."""
    if flow.divide_host is None:
        return {}
    pinned = footprint.pinned(placement.embedding, placement.head)
    ring = [shard.device for shard in placement.shards if shard.layers]
    return {
        shard.device: host_task(device, model, pinned, ring, shard, load)
        for shard in placement.shards
        for device in [cluster.device(shard.device)]
        if device.processors and shard.layers
    }


def host_memory(row: MemoryUse, task: HostTask, divided: Divided) -> HostMemory:
    """The row of a device with what each of its processors holds."""
    host = task.device.host_processor
    return HostMemory(
        **row.model_dump(),
        processors=tuple(_use(task, part) for part in divided.portions),
        pages=None if host is None else host.device.name,
    )


def _use(task: HostTask, part: Portion) -> MemoryUse:
    weights, kv, embedding, head, overhead = task.bytes_by_use(part)
    return MemoryUse(
        device=part.processor.device.name,
        layers=part.whole_layers + part.layers_without_experts,
        weights_bytes=weights,
        kv_bytes=kv,
        embedding_bytes=embedding,
        head_bytes=head,
        overhead_bytes=overhead,
        total_bytes=weights + kv + embedding + head + overhead,
        cap_bytes=part.processor.device.usable_bytes,
    )
