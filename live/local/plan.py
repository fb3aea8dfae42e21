"""Plan: what a scenario asks of the local cluster, checked before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from live.local.shaping import DirectionSpec, DozeSpec, LegSpec, LinkShape
from live.local.weights import model_file, recipes
from simulator import catalog
from simulator.cluster.cluster import Cluster
from simulator.cluster.cluster import Path as Way
from simulator.errors import LiveError
from simulator.hosts import one_processor_each
from simulator.prepare import Prepared, prepare
from simulator.runtime.cost import seconds_per_layer
from simulator.scenario import Scenario
from simulator.units import format_bytes

__all__ = [
    "ENGINE_NAME",
    "ClusterPlan",
    "DevicePlan",
    "check_memory",
    "device_plans",
    "link_shape",
    "model_must_be",
    "plan",
    "prepared_for",
]

ENGINE_NAME = "llama-rpc"
CHECKED = ("layers", "hidden", "layer_bytes", "head_bytes")
SIZE_TOLERANCE = 0.02  # between the sizes that a scenario states and those of the file
PROCESS_BYTES = 150e6  # a Python process with llama.cpp and its compute buffers, measured with small models
CACHE_STEP_TOKENS = 256


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """One device as a process."""

    name: str
    start_layer: int
    layers: int
    share: float
    """Of full speed, from the scenario's background load."""
    threads: int
    memory_cap_bytes: float | None
    stage_s: float
    """One decode step's work at full speed, as the scenario has it."""


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """Everything that starting the cluster needs; the first device is the client."""

    prepared: Prepared
    model: Path
    devices: tuple[DevicePlan, ...]
    links: tuple[LinkShape, ...]
    """To each server in order; the targets' ports are filled in when the servers run."""
    context_tokens: int

    source: ClassVar[Literal["llama-rpc", "petals"]] = "llama-rpc"
    """Whose devices they are where they are not this machine's."""

    @property
    def model_bytes(self) -> float:
        """Of the model's files."""
        return float(self.model.stat().st_size)

    @property
    def is_ring(self) -> bool:
        """Whether messages go round among equals, else from a client to its servers and back."""
        return any(link.messages == "sized" for link in self.links)

    @property
    def scenario(self) -> Scenario:
        """The completed scenario."""
        return self.prepared.scenario


def plan(scenario: Scenario, threads: int = 1) -> ClusterPlan:
    """What `scenario` asks for; makes its model if that is one of ours and not cached.

    Raises LiveError for what the local cluster cannot do, and whatever preparing the scenario raises.
    """
    prepared = prepared_for(scenario)
    full, job = prepared.scenario, prepared.job
    if full.engine.name != ENGINE_NAME:
        raise LiveError(
            f"{full.name}: engine is {full.engine.name}, and not {ENGINE_NAME}, which alone is asked here; "
            f"set `engine: {ENGINE_NAME}`"
        )
    model = Path(full.model.gguf) if full.model.gguf else model_file(full.model.name)
    _check_model(prepared, model)
    client = job.ring[0].name
    links = tuple(link_shape(job.cluster, client, device.name, full.seed) for device in job.ring[1:])
    tokens = full.workload.prompt_tokens + full.workload.output_tokens
    context = -(-tokens // CACHE_STEP_TOKENS) * CACHE_STEP_TOKENS
    chosen = ClusterPlan(prepared, model, device_plans(prepared, scenario, threads), links, context)
    check_memory(chosen)
    return chosen


def prepared_for(scenario: Scenario, cluster: str = "the local cluster", *, most_chats: int = 1) -> Prepared:
    """The scenario prepared; raises LiveError for more chats than
    that `cluster` measures at once, or devices of several processors.
    """
    one_processor_each(scenario, cluster)
    prepared = prepare(scenario)
    if prepared.scenario.workload.concurrency > most_chats:
        at_once = "one chat at a time" if most_chats == 1 else f"{most_chats} chats at once at most"
        raise LiveError(
            f"{scenario.name}: workload.concurrency is {scenario.workload.concurrency}, but {cluster} "
            f"measures {at_once}; set it to {most_chats}"
        )
    return prepared


def device_plans(prepared: Prepared, scenario: Scenario, threads: int) -> tuple[DevicePlan, ...]:
    """Each device of the ring as a process; memory is capped where `scenario` itself says what is usable."""
    job = prepared.job
    return tuple(
        DevicePlan(
            device.name,
            shard.start_layer,
            shard.layers,
            1 - device.background_load,
            threads,
            scenario.devices[device.name].usable_memory,
            shard.layers * seconds_per_layer(device, job.model) * (1 - device.background_load),
        )
        for device, shard in zip(job.ring, job.shards, strict=True)
    )


def link_shape(cluster: Cluster, source: str, sink: str, seed: int) -> LinkShape:
    """The link between two devices as the scenario describes the way between them."""
    forth, back = cluster.path(source, sink), cluster.path(sink, source)
    return LinkShape(medium=forth.medium, forth=_direction(forth), back=_direction(back), seed=seed)


def _direction(way: Way) -> DirectionSpec:
    per_leg = [1 / leg.rate_bytes_per_s for leg in way.legs]
    doze = way.power_save
    return DirectionSpec(
        source=way.source,
        sink=way.sink,
        legs=tuple(LegSpec(law=leg.law, stretch=leg.stretch, extra_s=leg.extra_s) for leg in way.legs),
        seconds_per_byte=sum(per_leg) if way.airtime_adds else max(per_leg),
        doze=DozeSpec(awake_s=doze.awake_s, wake=doze.wake) if doze else None,
    )


def _check_model(prepared: Prepared, file: Path) -> None:
    """The file must be the model that the scenario describes, or prediction and
    measurement speak of two things.
    """
    if not file.exists():
        raise LiveError(
            f"model.gguf: {file} does not exist; give the path of a GGUF file, or name one of "
            f"{', '.join(sorted(recipes()))}"
        )
    found = catalog.from_gguf(file)
    model_must_be({what: getattr(found, what) for what in CHECKED}, prepared, file.name)


def model_must_be(found: Mapping[str, float], prepared: Prepared, file: str) -> None:
    """Raise LiveError unless the scenario's model is the one that was `found` in a file."""
    for what in CHECKED:
        in_file, in_scenario = found[what], getattr(prepared.job.model, what)
        if abs(in_file - in_scenario) > SIZE_TOLERANCE * in_file:
            raise LiveError(
                f"model.{what} is {in_scenario:g} in the scenario and {in_file:g} in {file}; take the "
                f"figures that `sim live local model {prepared.scenario.model.name}` prints"
            )


def check_memory(
    chosen: ClusterPlan, process_bytes: float = PROCESS_BYTES, shared_bytes: float = PROCESS_BYTES
) -> None:
    """All devices share this machine's memory; refuse before it is full."""
    free = _available_bytes()
    needed = chosen.model.stat().st_size + process_bytes * len(chosen.devices) + shared_bytes
    model, device_count = chosen.prepared.job.model, len(chosen.devices)
    needed += float(model.average(model.layers).kv_bytes(chosen.context_tokens))
    if free is not None and needed > free:
        raise LiveError(
            f"{device_count} devices with {chosen.model.name} need about {format_bytes(needed)} of memory "
            f"and {format_bytes(free)} are free; close other programs or take a smaller model"
        )


def _available_bytes() -> float | None:
    """Memory that can be had without swapping, None where the system does not tell."""
    info = Path("/proc/meminfo")
    for line in info.read_text(encoding="utf-8").splitlines() if info.exists() else ():
        if line.startswith("MemAvailable:"):
            return float(line.split()[1]) * 1024
    return None
