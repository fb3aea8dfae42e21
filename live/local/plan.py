"""Plan: what a scenario asks of the local cluster, checked before anything is started."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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

__all__ = ["ClusterPlan", "DevicePlan", "plan"]

ENGINE_NAME = "llama-rpc"
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

    @property
    def scenario(self) -> Scenario:
        """The completed scenario."""
        return self.prepared.scenario


def plan(scenario: Scenario, threads: int = 1) -> ClusterPlan:
    """What `scenario` asks for; makes its model if that is one of ours and not cached.

    Raises LiveError for what the local cluster cannot do, and whatever preparing the scenario raises.
    """
    one_processor_each(scenario, "the local cluster")
    prepared = prepare(scenario)
    full, job = prepared.scenario, prepared.job
    if full.engine.name != ENGINE_NAME:
        raise LiveError(
            f"{full.name}: engine is {full.engine.name}, but the local cluster runs {ENGINE_NAME}; set "
            f"`engine: {ENGINE_NAME}`"
        )
    if full.workload.concurrency != 1:
        raise LiveError(
            f"{full.name}: workload.concurrency is {full.workload.concurrency}, but the local cluster "
            "measures one chat at a time; set it to 1"
        )
    model = Path(full.model.gguf) if full.model.gguf else model_file(full.model.name)
    _check_model(prepared, model)
    devices = tuple(
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
    client = job.ring[0].name
    links = tuple(_shape(job.cluster, client, device.name, full.seed) for device in job.ring[1:])
    tokens = full.workload.prompt_tokens + full.workload.output_tokens
    context = -(-tokens // CACHE_STEP_TOKENS) * CACHE_STEP_TOKENS
    chosen = ClusterPlan(prepared, model, devices, links, context)
    _check_memory(chosen)
    return chosen


def _shape(cluster: Cluster, client: str, server: str, seed: int) -> LinkShape:
    """The link between client and server as the scenario describes the way between the two."""
    forth, back = cluster.path(client, server), cluster.path(server, client)
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
    found, said = catalog.from_gguf(file), prepared.job.model
    for what, in_file, in_scenario in (
        ("layers", found.layers, said.layers),
        ("hidden", found.hidden, said.hidden),
        ("layer_bytes", found.layer_bytes, said.layer_bytes),
        ("head_bytes", found.head_bytes, said.head_bytes),
    ):
        if abs(in_file - in_scenario) > SIZE_TOLERANCE * in_file:
            raise LiveError(
                f"model.{what} is {in_scenario:g} in the scenario and {in_file:g} in {file.name}; take the "
                f"figures that `sim live local model {prepared.scenario.model.name}` prints"
            )


def _check_memory(chosen: ClusterPlan) -> None:
    """All devices share this machine's memory; refuse before it is full."""
    free = _available_bytes()
    needed = chosen.model.stat().st_size + PROCESS_BYTES * (len(chosen.devices) + 1)
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
