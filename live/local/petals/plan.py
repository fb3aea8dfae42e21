"""Plan of a local Petals swarm: who serves which blocks how
fast, and with which of Petals' faults repaired.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from live.local.petals.weights import PetalsRecipe, model_file, recipe
from live.local.plan import (
    ClusterPlan,
    DevicePlan,
    check_memory,
    device_plans,
    link_shape,
    model_must_be,
    prepared_for,
)
from live.local.shaping import LinkShape
from simulator.errors import LiveError
from simulator.prepare import Prepared
from simulator.runtime.cost import prefill_s, seconds_per_layer
from simulator.scenario import Scenario
from simulator.swarm_spec import SwarmSpec

__all__ = ["MOST_CHATS", "MOST_SERVERS", "PetalsPlan", "ServerPlan", "plan_petals"]

MOST_SERVERS, MOST_CHATS = 6, 8
FASTEST_BLOCK_S = 0.0015
"""Twice what a block of ours takes a core: a faster device cannot be played by waiting."""
PROCESS_BYTES, SHARED_BYTES = 300e6, 600e6
"""Of a server with its handlers and its p2pd; of what forks them, and of the bootstrap; measured."""


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """One device as a server."""

    name: str
    start: int
    end: int
    """Its blocks [start, end)."""
    block_s: float
    """Of one token in one block."""
    token_s: float
    """Of each of many tokens in one block."""


@dataclass(frozen=True, slots=True)
class PetalsPlan(ClusterPlan):
    """The first device is the client; `links` lead from it to each server that is another machine."""

    shape: PetalsRecipe
    servers: tuple[ServerPlan, ...]
    spares: tuple[ServerPlan, ...] = ()
    """Servers of blocks that others have as well, for whoever loses those."""

    source = "petals"

    @property
    def swarm(self) -> SwarmSpec:
        """Periods, time-outs and repairs: the scenario's, else as Petals comes."""
        return self.scenario.swarm or SwarmSpec()

    @property
    def pushes(self) -> bool:
        """Whether servers hand hidden states on."""
        return bool(self.scenario.engine.push)

    @property
    def client(self) -> str:
        """The device that chats."""
        return self.devices[0].name


def plan_petals(scenario: Scenario, threads: int = 1) -> PetalsPlan:
    """What `scenario` asks for; makes its model if it is not cached.

    Raises LiveError for what the local swarm cannot do, and whatever preparing the scenario raises.
    """
    prepared = prepared_for(scenario, "the local Petals swarm", most_chats=MOST_CHATS)
    full, job = prepared.scenario, prepared.job
    if full.model.name is None or full.model.gguf:
        raise LiveError(f"{full.name}: the local Petals swarm runs its own models alone; name one as model")
    shape = recipe(full.model.name)
    model_must_be(shape.figures(), prepared, full.model.name)
    devices = _client_first(prepared, device_plans(prepared, scenario, threads))
    servers = tuple(
        _server(prepared, device.name, (device.start_layer, device.start_layer + device.layers))
        for device in devices
        if device.layers
    )
    spares = tuple(_spares(full, prepared))
    _check(full, (*servers, *spares), devices[0].name)
    others = [one.name for one in (*servers, *spares) if one.name != devices[0].name]
    links = tuple(
        link_shape(job.cluster, devices[0].name, name, full.seed).model_copy(update={"messages": "sized"})
        for name in others
    )
    if job.engine.push:
        _check_alike(full, links)
    tokens = full.workload.prompt_tokens + full.workload.output_tokens
    chosen = PetalsPlan(prepared, model_file(full.model.name), devices, links, tokens, shape, servers, spares)
    check_memory(chosen, PROCESS_BYTES, SHARED_BYTES)
    return chosen


def _client_first(prepared: Prepared, devices: tuple[DevicePlan, ...]) -> tuple[DevicePlan, ...]:
    client = prepared.job.placement.embedding or devices[0].name
    return tuple(sorted(devices, key=lambda device: device.name != client))


def _server(prepared: Prepared, name: str, span: tuple[int, int]) -> ServerPlan:
    """How slow a server is: as the simulator has it."""
    job = prepared.job
    known = job.cluster.device(name)
    block_s, tokens = seconds_per_layer(known, job.model), job.workload.prompt_tokens
    token_s = prefill_s(known, job.model.average(1), tokens) / tokens
    return ServerPlan(name, *span, block_s, token_s)


def _spares(full: Scenario, prepared: Prepared) -> Iterator[ServerPlan]:
    """Devices that are on no route, with the blocks that `swarm.stays` has them serve."""
    placed = prepared.job.placement.layer_counts
    for name, stay in (full.swarm.stays if full.swarm else {}).items():
        if name not in placed and stay.span is not None:
            yield _server(prepared, name, stay.span)


def _check_alike(full: Scenario, links: tuple[LinkShape, ...]) -> None:
    ways = [(way.legs, way.seconds_per_byte) for link in links for way in (link.forth, link.back)]
    if any(way != ways[0] for way in ways):
        raise LiveError(
            f"{full.name}: with push the links of all servers must be alike: two servers share one "
            "connection, and who dialled first decides which of their relays it passes"
        )


def _check(full: Scenario, servers: tuple[ServerPlan, ...], client: str) -> None:
    if not 1 <= len(servers) <= MOST_SERVERS:
        raise LiveError(
            f"{full.name}: {len(servers)} servers, but the local Petals swarm runs 1 to {MOST_SERVERS}; take "
            "some out"
        )
    if any(device.link.power_save for device in full.devices.values()):
        raise LiveError(
            f"{full.name}: a link dozes (power_save), which the relay of a swarm does not play; leave it out"
        )
    for one in servers:
        if one.block_s < FASTEST_BLOCK_S:
            raise LiveError(
                f"{full.name}: {one.name} needs {one.block_s * 1e3:.2g} ms for a block of {full.model.name}, "
                "and a "
                f"server here at least {FASTEST_BLOCK_S * 1e3:.2g} ms; lower its decode_bandwidth"
            )
