"""Parts: devices, models and cables of all mixes, each prepared once, so that a mix is a Job in a moment.

`prepare` asks the catalogue and checks everything, which takes longer than a
short evaluation; a search over thousands of mixes cannot pay that each time.
`job` gives what `prepare(scenario_of(mix))` gives; tests hold it to that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from simulator.cluster.cluster import AccessPoint, Cluster, Device, Wire
from simulator.engine.base import Engine, engine
from simulator.errors import SimulatorError
from simulator.laws.law import Constant, Floats
from simulator.model.model import Model
from simulator.placement.footprint import Footprint
from simulator.placement.shard import Placement
from simulator.plan.buy.hops import hops_of, orders
from simulator.plan.buy.mix import Mix, fill
from simulator.plan.buy.money import Quote
from simulator.plan.buy.options import Cable, Member, ModelChoice
from simulator.plan.buy.worlds import Worlds
from simulator.prepare import Prepared, prepare
from simulator.result.summary import rates
from simulator.run.evaluate import excerpt, token_times_s
from simulator.runtime.cost import head_s, seconds_per_layer
from simulator.runtime.job import EngineCosts, Job
from simulator.scenario import (
    DeviceSpec,
    LinkSpec,
    ModelSpec,
    NoiseSpec,
    PlacementSpec,
    Scenario,
    SpeedSpec,
    WireSpec,
    WorkloadSpec,
)

__all__ = ["Parts"]

TOKENS = 16
"""Of one evaluation in the search, at the middle of the reply: enough for the mean of the fast noise."""
WORLDS = 48
"""Replications in the search, common to all mixes; what is shown is evaluated
again with the scenario's own.
"""
NO_MODEL = ModelSpec(name="no-model", layers=2, layer_bytes="1 B", hidden=1)
NO_DEVICE = DeviceSpec(
    memory="1000 TB",
    speed=SpeedSpec(decode_bandwidth="1 TB/s", prefill_flops="1000 TFLOPS"),
    link=LinkSpec(delay=Constant(value=0.0), rate="1 TB/s"),
)


@dataclass
class Parts:
    """What the search needs of a scenario's options, in numbers."""

    scenario: Scenario
    workload: WorkloadSpec = field(init=False)
    _devices: dict[tuple[str, str], Device | None] = field(default_factory=dict)
    _models: dict[str, Model] = field(default_factory=dict)
    _wires: dict[tuple[frozenset[str], str], Wire] = field(default_factory=dict)
    _edges: dict[tuple[str, str, str], float] = field(default_factory=dict)
    _slopes: dict[tuple[str, str], Floats] = field(default_factory=dict)
    _orders: dict[tuple[object, ...], tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    _points: tuple[AccessPoint, ...] = ()
    _costs: EngineCosts = field(init=False)
    _common_noise: NoiseSpec = field(init=False)
    _tails: float | None = field(init=False)
    _worlds: Worlds = field(init=False)

    def __post_init__(self) -> None:
        self.workload = excerpt(self.scenario.workload, TOKENS)
        self._worlds = Worlds(self.scenario.seed, WORLDS, self.scenario.posterior)
        bare = self._tiny({"any": NO_DEVICE}).job
        self._costs, self._points = bare.engine, bare.cluster.access_points
        self._common_noise, self._tails = bare.common_noise, bare.tails

    @property
    def engine(self) -> Engine:
        """The scenario's engine."""
        return engine(self._costs.name)

    def _tiny(
        self, devices: dict[str, DeviceSpec], wires: tuple[WireSpec, ...] = (), model: ModelSpec = NO_MODEL
    ) -> Prepared:
        return prepare(
            self.scenario.model_copy(
                update={
                    "devices": devices,
                    "wires": wires,
                    "model": model,
                    "placement": PlacementSpec(rule="even"),
                    # what sharing costs depends on who else is in the mix: `_cluster` puts it in
                    "shared_host": None,
                    "workload": WorkloadSpec(prompt_tokens=1, output_tokens=2),
                }
            )
        )

    def device(self, member: Member, choice: ModelChoice) -> Device | None:
        """The numeric device of a member; None where it cannot hold even the engine."""
        # how fast weights are read depends on how they are stored
        key = (member.key, choice.title)
        if key not in self._devices:
            stored = {"name": choice.model.name, "quantisation": choice.model.quantisation}
            bare = NO_MODEL.model_copy(update=stored)
            try:
                made = self._tiny({member.name: member.spec}, model=bare)
                found: Device | None = made.job.cluster.devices[0]
            except SimulatorError:
                # of what a person owns the fault is theirs to hear; what is only for sale is no offer then
                if member.owned:
                    raise
                found = None
            self._devices[key] = found
        return self._devices[key]

    def model(self, choice: ModelChoice) -> Model:
        """The numeric model of one of the choices."""
        if choice.title not in self._models:
            self._models[choice.title] = self._tiny({"any": NO_DEVICE}, model=choice.model).job.model
        return self._models[choice.title]

    def wire(self, cable: Cable) -> Wire:
        """The numeric cable."""
        return self._wire(WireSpec(between=cable.ends, kind=cable.network))

    def _wire(self, spec: WireSpec) -> Wire:
        key = (frozenset(spec.between), spec.model_dump_json())
        if key not in self._wires:
            a, b = spec.between
            self._wires[key] = self._tiny({a: NO_DEVICE, b: NO_DEVICE}, (spec,)).job.cluster.wires[0]
        return self._wires[key]

    def mix(
        self,
        members: tuple[Member, ...],
        choice: ModelChoice,
        cables: tuple[Cable, ...] = (),
        shared: tuple[tuple[str, Quote], ...] = (),
        left_out: tuple[str, ...] = (),
    ) -> Mix | None:
        """The mix in its best order with its best layers; None where the model does not fit."""
        devices = [device for member in members if (device := self.device(member, choice)) is not None]
        if len(devices) < len(members):
            return None
        layers, room = self.model(choice).layers, self._room(devices, choice)
        if sum(room) < layers or min(room) < 1:
            return None
        costs_s = [self._layer_s(device, choice) for device in devices]
        # the best order may leave its first or last device too little room beside embedding and head
        for order in self._orders_of(members, cables, choice):
            caps = self._caps([devices[rank] for rank in order], choice)
            counts = fill(layers, [costs_s[rank] for rank in order], caps)
            if counts is not None:
                return Mix(tuple(members[rank] for rank in order), counts, choice, cables, shared, left_out)
            if self.engine.head_on == "all":  # then no order gives more room
                break
        return None

    def _room(self, devices: list[Device], choice: ModelChoice) -> list[int]:
        """Layers that each device has room for when it holds neither embedding nor
        head: no order gives it more.
        """
        bare = replace(self._footprint(choice, devices), embedding_bytes=0.0, head_bytes=0.0)
        return [bare.room_layers((), device.name, device.usable_bytes) for device in devices]

    def _footprint(self, choice: ModelChoice, devices: list[Device]) -> Footprint:
        """What devices hold at the end of the longest chat."""
        asked = self.scenario.workload
        chats = self.engine.memory_chats(asked.concurrency)
        context = asked.prompt_tokens + asked.output_tokens
        return self._costs.footprint(self.model(choice), context, chats, devices)

    def _layer_s(self, device: Device, choice: ModelChoice) -> float:
        return seconds_per_layer(device, self.model(choice), self.workload.prompt_tokens)

    def _caps(self, ring: list[Device], choice: ModelChoice) -> list[int]:
        """Whole layers that each rank has room for."""
        footprint, names = self._footprint(choice, ring), [device.name for device in ring]
        return [footprint.room_layers(names, device.name, device.usable_bytes) for device in ring]

    def _orders_of(
        self, members: tuple[Member, ...], cables: tuple[Cable, ...], choice: ModelChoice
    ) -> tuple[tuple[int, ...], ...]:
        """Ring orders of these members, the best first."""
        key = (tuple(member.key for member in members), tuple(cable.ends for cable in cables), choice.title)
        if key not in self._orders:
            devices = [device for member in members if (device := self.device(member, choice)) is not None]
            cluster = self._cluster(devices, cables)
            edges = {
                (i, j): self._edge_s(cluster, members[i], members[j], cables)
                for i in range(len(members))
                for j in range(len(members))
                if i != j
            }
            last = [
                0.0 if self.engine.head_on == "all" else head_s(device, self.model(choice))
                for device in devices
            ]
            self._orders[key] = orders(hops_of(self._costs.name), edges, last)
        return self._orders[key]

    def _edge_s(self, cluster: Cluster, a: Member, b: Member, cables: tuple[Cable, ...]) -> float:
        """Mean one-way delay (s) of a small message from a to b."""
        joined = next((cable.network for cable in cables if {a.name, b.name} == set(cable.ends)), "")
        key = (a.key, b.key, joined)
        if key not in self._edges:
            legs = cluster.path(a.name, b.name).legs
            self._edges[key] = sum(leg.law.mean_s * leg.stretch + leg.extra_s for leg in legs)
        return self._edges[key]

    def _cluster(self, devices: list[Device], cables: tuple[Cable, ...]) -> Cluster:
        joined = {frozenset(cable.ends) for cable in cables}
        names = {device.name for device in devices}
        kept = [
            self._wire(wire)
            for wire in self.scenario.wires
            if set(wire.between) <= names and frozenset(wire.between) not in joined
        ]
        host = self.scenario.shared_host
        if host is not None:
            devices = [replace(device, contention=host.contention * (len(devices) - 1)) for device in devices]
        return Cluster(tuple(devices), self._points, (*kept, *(self.wire(cable) for cable in cables)))

    def job(self, mix: Mix) -> Job:
        """The mix as a short Job, with the scenario's seed: mixes meet the same worlds."""
        ring = [d for member in mix.members if (d := self.device(member, mix.choice)) is not None]
        return self._job(self._cluster(ring, mix.cables), self.model(mix.choice), mix.placement)

    def _job(self, cluster: Cluster, model: Model, layers: Mapping[str, int]) -> Job:
        return Job(
            cluster,
            model,
            Placement.from_layers(layers.items(), "manual"),
            self._costs,
            self.workload,
            self.scenario.seed,
            self._common_noise,
            self.scenario.posterior,
            tails=self._tails,
        )

    def rates(self, mix: Mix) -> Floats:
        """Tokens/s of one chat in each world of the search, by the fast path, shape (WORLDS,)."""
        return self.rates_of(self.job(mix))

    def rates_of(self, job: Job) -> Floats:
        """The same of any job of these parts."""
        # the recursion is asked for by name: a dozing radio would need SimPy, which is
        # for the few that are shown
        return rates(token_times_s(self._worlds.given(job), WORLDS, "recursion"))

    def ceiling(self, mix: Mix) -> float:
        """A bound that the median of `rates` cannot exceed:
        links free, head and overheads free, these layers.

        In each world a token passes all stages in turn, so its time is at least
        `sum_i n_i s_i`, where `s_i` is what one more layer costs on device i in
        that same world, noise included; medians keep the order of the worlds.
        """
        slopes = (
            count * self._slope_s(member, mix.choice)
            for member, count in zip(mix.members, mix.layers, strict=True)
        )
        return float(np.median(1 / np.sum(list(slopes), axis=0)))

    def _slope_s(self, member: Member, choice: ModelChoice) -> Floats:
        """Seconds per token of one layer in each world: a ring of one with two layers less the same with one.

        The device's own random streams are those of any ring that it is part of, so
        this is exact world by world.
        """
        key = (f"{member.name}|{member.spec.memory}", choice.title)
        if key not in self._slopes:
            device, model = self.device(member, choice), self.model(choice)
            assert device is not None
            # no paging: the bound must not pay for what fits elsewhere
            roomy = replace(device, usable_bytes=1e30)
            alone = Cluster((roomy,), self._points)
            one_s, two_s = (
                1 / self.rates_of(self._job(alone, replace(model, layers=layers), {device.name: layers}))
                for layers in (1, 2)
            )
            self._slopes[key] = two_s - one_s
        return self._slopes[key]
