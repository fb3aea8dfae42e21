"""Servers of a swarm, by hand or drawn from a population: how fast, how far, how large."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import exp, sqrt

import numpy as np

from simulator.cluster.cluster import Device
from simulator.engine.base import Engine
from simulator.engine.petals.blocks import announced_throughput, blocks_that_fit
from simulator.engine.petals.flow import FlowFacts, flow_facts, is_grouped
from simulator.errors import Fault, ScenarioError
from simulator.laws.law import Law, table
from simulator.model.model import Model
from simulator.prepare import Ground, ground
from simulator.runtime.cost import crowding, decode_s, head_s, prefill_s
from simulator.scenario import DeviceSpec, LinkSpec, Scenario
from simulator.swarm_spec import StaySpec, SwarmSpec

__all__ = ["START_S", "Kind", "Server", "Setting", "draw_s", "servers_of", "setting"]

ANNOUNCED_PROMPT = 1024
OWN_LOG_SD = 0.05
"""Of a server's speed among its kind (natural logarithm); of a kind the catalogue has more wrong."""
START_S = (8.0, 20.0)
"""From a server's start to its blocks' loading, as recorded: imports and its peer-to-peer process."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Servers that are alike but for luck; seconds and bytes of the middle one."""

    name: str
    device: Device
    stay: StaySpec
    blocks: int
    block_s: float
    """Of one block for one token in the middle of a reply."""
    step_s: float
    """Of each step beside its blocks .."""
    task_s: float
    """.. and of each further task of it."""
    forward_rps: float
    network_rps: float
    load_s: float
    """To read one block from the disk."""
    cache_tokens: float
    """Tokens, each in one block, that all caches have room for."""
    delay: Law
    rate_bytes_per_s: float


@dataclass(slots=True)
class Server:
    """One server: its luck, and what it does at present."""

    number: int
    kind: Kind
    name: str
    factor: float
    """Multiplies all of its times."""
    delay_s: float
    """One way to its hub, in the median."""
    relayed: bool
    alive: bool = False
    """Whether it answers: it is online, and neither dead nor hanging."""
    silent: bool = False
    """Whether it hangs: who dials it hears nothing, where a dead one's machine refuses."""
    start: int = 0
    end: int = 0
    life: int = 0
    """Counts its times online: a chat's stream belongs to one of them."""
    room_tokens: float = 0.0
    chats: dict[int, object] = field(default_factory=dict)
    """Chats that hold a stream here, by number."""

    @property
    def throughput(self) -> float:
        """What it announces (tokens/s)."""
        kind = self.kind
        return announced_throughput(
            kind.forward_rps / self.factor, kind.network_rps, kind.blocks, relayed=self.relayed
        )

    @property
    def block_s(self) -> float:
        """Seconds of one block for one token."""
        return self.kind.block_s * self.factor

    def busy_s(self, blocks: int) -> float:
        """How long one token's step keeps it busy."""
        return (blocks * self.kind.block_s + self.kind.step_s) * self.factor


@dataclass(frozen=True)
class Setting:
    """What all swarms of a scenario have in common."""

    ground: Ground
    spec: SwarmSpec
    kinds: tuple[Kind, ...]
    counts: tuple[int, ...]
    client: Device

    @property
    def scenario(self) -> Scenario:
        """Complete."""
        return self.ground.scenario

    @property
    def model(self) -> Model:
        """Whose blocks are served."""
        return self.ground.model

    @property
    def flow(self) -> FlowFacts:
        """What Petals sends and keeps."""
        return flow_facts()

    @cached_property
    def _prompts_s(self) -> dict[tuple[str, int, int], float]:
        return {}

    def prompt_s(self, kind: Kind, blocks: int, tokens: int) -> float:
        """How long so many tokens at once keep a server busy, with Petals' overhead for each task."""
        key = kind.name, blocks, tokens
        if key not in self._prompts_s:
            device, flow, model = kind.device, self.flow, self.model
            work_s = prefill_s(device, model.average(blocks), tokens)
            work_s += flow.unpacking_s(device, model, blocks, tokens)
            launch_s = blocks * flow.launching_s(device, model)
            more_s = (flow.tasks(model, blocks, tokens) - 1) * kind.task_s
            self._prompts_s[key] = max(work_s, launch_s) + kind.step_s + more_s
        return self._prompts_s[key]

    def rtt_s(self, a: str, b: str) -> float:
        """Round trip between the hubs of two regions; raises nothing: who is not told is near."""
        regions = self.spec.regions
        return regions.get(a, {}).get(b, regions.get(b, {}).get(a, 0.0))

    @cached_property
    def client_s(self) -> float:
        """The client's own work per token: head, sampling, the loop."""
        own = self.flow.client_overhead_s * crowding(self.client)
        return head_s(self.client, self.model) + own

    @cached_property
    def message_bytes(self) -> tuple[float, float]:
        """Of one hidden state, and of what is around it there and back together."""
        flow, spec = self.flow, self.scenario.engine
        around = flow.framing_bytes + flow.metadata_bytes + flow.reply_bytes + sum(flow.wire_bytes)
        return flow.state_bytes(self.model, spec.compression), around


def draw_s(law: Law, rng: np.random.Generator) -> float:
    """One draw of a law (s)."""
    quantiles = table(law)
    return float(quantiles[rng.integers(len(quantiles))])


def setting(scenario: Scenario) -> Setting:
    """The kinds of servers and the client of a scenario; raises ScenarioError, and what `ground` raises."""
    spec = scenario.swarm
    if spec is None:
        reason = "is not there; say who serves and for how long (swarm: {population: ..}), or take `sim run`"
        raise ScenarioError("scenario", [Fault("swarm", reason)])
    base = ground(_with_prototypes(scenario, spec))
    if not base.engine.forms_swarm:
        raise ScenarioError("scenario", [Fault("engine.name", _no_swarm(base.engine))])
    _names_are_servers(scenario, spec)
    flow_facts().refuse_longer(base.model, base.scenario.workload)
    client = base.cluster.device(base.request.pinned("embedding") or next(iter(scenario.devices)))
    kinds = tuple(_kinds(base, spec, client))
    _serve_blocks_that_are_there(kinds, spec, base.model)
    counts = tuple(spec.population[kind.name].count if kind.name in spec.population else 1 for kind in kinds)
    return Setting(base, spec, kinds, counts, client)


def _no_swarm(flow: Engine) -> str:
    return f"{flow.name!r} has a ring that somebody places, and no swarm; take petals, or `sim run`"


def _names_are_servers(scenario: Scenario, spec: SwarmSpec) -> None:
    known = {*scenario.devices}
    known |= {f"{name}-{i}" for name, one in spec.population.items() for i in range(one.count)}
    told = [(f"swarm.stays.{name}", name) for name in spec.stays]
    told += [(f"swarm.losses.{i}.server", loss.server) for i, loss in enumerate(spec.losses)]
    faults = [
        Fault(where, f"{name!r} is no server; those of a population are called <name>-0, <name>-1, ..")
        for where, name in told
        if name not in known
    ]
    faults += [
        Fault(f"swarm.population.{name}", "is a device's name too; give it another")
        for name in spec.population
        if name in scenario.devices
    ]
    if faults:
        raise ScenarioError("scenario", faults)


def _serve_blocks_that_are_there(kinds: tuple[Kind, ...], spec: SwarmSpec, model: Model) -> None:
    """Raise ScenarioError for spans beyond the model, and for stays and losses of who serves nothing."""
    faults = [
        Fault(
            f"swarm.{'population' if kind.name in spec.population else 'stays'}.{kind.name}.span",
            f"{list(kind.stay.span)} goes beyond the {model.layers} blocks of {model.name}",
        )
        for kind in kinds
        if kind.stay.span and kind.stay.span[1] > model.layers
    ]
    serving = {kind.name for kind in kinds if kind.blocks}
    named = [(f"swarm.stays.{name}", name, name) for name in spec.stays]
    for at, loss in enumerate(spec.losses):
        kind, _, number = loss.server.rpartition("-")
        of_population = kind in spec.population and number.isdecimal()
        named.append((f"swarm.losses.{at}.server", loss.server, kind if of_population else loss.server))
    faults += [
        Fault(where, f"{name!r} serves no block: it is the client, or has no room for one; name another")
        for where, name, kind in named
        if kind not in serving
    ]
    if faults:
        raise ScenarioError("scenario", faults)


def _with_prototypes(scenario: Scenario, spec: SwarmSpec) -> Scenario:
    """The scenario with one device more for each kind of the population, for the catalogue to complete."""
    point = next(iter(scenario.access_points))
    prototypes = {
        name: DeviceSpec(
            kind=one.kind,
            memory=one.memory,
            link=LinkSpec().model_copy(update={"delay": one.delay, "rate": one.rate, "via": point}),
        )
        for name, one in spec.population.items()
    }
    return scenario.model_copy(update={"devices": {**scenario.devices, **prototypes}, "swarm": None})


def _kinds(base: Ground, spec: SwarmSpec, client: Device) -> Iterator[Kind]:
    for device in base.cluster.devices:
        if device.name in spec.population:
            yield _kind(base, device, spec.population[device.name], holds_ends=False)
        elif device.name != client.name or not base.request.pinned("embedding"):
            stay = spec.stays.get(device.name, StaySpec())
            yield _kind(base, device, stay, holds_ends=device.name == client.name)


def _kind(base: Ground, device: Device, stay: StaySpec, *, holds_ends: bool) -> Kind:
    flow, model, request = flow_facts(), base.model, base.request
    room = flow.cache_tokens[is_grouped(model)]
    held = request.overhead_bytes + (request.embedding_bytes + request.head_bytes) * holds_ends
    cache_bytes = room * model.kv_bytes_per_token_per_layer
    fits = blocks_that_fit(device.usable_bytes - held, model.layer_bytes, cache_bytes, model.hidden)
    told = stay.blocks or (stay.span[1] - stay.span[0] if stay.span else fits)
    blocks, workload = min(model.layers, told), base.scenario.workload
    context = workload.prompt_tokens + workload.output_tokens / 2
    work_s = float(decode_s(device, model.average(1), context))
    task_s = base.scenario.engine.step_overhead or 0.0
    return Kind(
        name=device.name,
        device=device,
        stay=stay,
        blocks=blocks,
        block_s=max(work_s, flow.launching_s(device, model) * crowding(device)),
        step_s=(task_s + flow.card_s(device) + device.speed.stage_overhead) * crowding(device),
        task_s=task_s * crowding(device),
        forward_rps=ANNOUNCED_PROMPT / prefill_s(device, model.average(1), ANNOUNCED_PROMPT),
        network_rps=device.link.rate_bytes_per_s / (2 * model.hidden),
        load_s=model.layer_bytes / device.disk_bytes_per_s,
        cache_tokens=float(room * blocks),
        delay=device.link.delay,
        rate_bytes_per_s=device.link.rate_bytes_per_s,
    )


def servers_of(given: Setting, luck: dict[str, np.random.Generator]) -> list[Server]:
    """All servers of one replication; those of one kind share what the catalogue has wrong about it."""
    found: list[Server] = []
    for kind, count in zip(given.kinds, given.counts, strict=True):
        rng = luck[kind.name]
        spread = kind.device.speed.decode_spread or 0.0
        own_sd = min(OWN_LOG_SD, spread)
        shared = exp(sqrt(spread**2 - own_sd**2) * rng.standard_normal())
        for i in range(count):
            own = exp(own_sd * rng.standard_normal())
            name = f"{kind.name}-{i}" if kind.name in given.spec.population else kind.name
            delay_s, relayed = draw_s(kind.delay, rng), bool(rng.random() < kind.stay.relayed)
            if kind.blocks:
                found.append(Server(len(found), kind, name, shared * own, delay_s, relayed))
    return found
