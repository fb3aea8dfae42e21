"""Scenario: everything that one run needs, as a person writes it.

Only `model`, `devices` and where a device's link is unusual need saying; `simulator.complete` fills the rest
from the catalogue, labelled *assumed*, and the completed scenario runs again anywhere, catalogue or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from simulator.churn.spec import EventSpec, HeatSpec, RecoverySpec
from simulator.engine_spec import EngineSpec
from simulator.errors import Fault, ScenarioError, did_you_mean
from simulator.files.explain import explain
from simulator.files.tree import Tree
from simulator.laws.law import Law
from simulator.model_spec import ModelSpec
from simulator.processor_spec import Label, Name, NoiseSpec, OffloadSpec, ProcessorSpec, SpeedSpec
from simulator.spec import (
    Busy,
    Duration,
    LogSd,
    PositiveBytes,
    PositiveRate,
    Spec,
    ToldRate,
    ToldSeconds,
    ToldSpec,
)
from simulator.swarm_spec import SwarmSpec
from simulator.units import RATE, TIME, PerHour, Share

__all__ = [
    "AccessPointSpec",
    "ArrivalSpec",
    "DeviceSpec",
    "EngineSpec",
    "Label",
    "LinkSpec",
    "ModelSpec",
    "NoiseSpec",
    "OffloadSpec",
    "PlacementSpec",
    "PosteriorSpec",
    "PowerSaveSpec",
    "ProcessorSpec",
    "Scenario",
    "SharedHostSpec",
    "SpeedSpec",
    "WireSpec",
    "WorkloadSpec",
]


def _named(key: str) -> BeforeValidator:
    """Let a plain string stand for a mapping with one key: `engine: exo` for `engine: {name: exo}`."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class PosteriorSpec(Spec):
    """Joint draws of what a calibration leaves uncertain, as factors; replication i takes
    draw `i modulo their number`.

    `names` are those of the simulator's world factors: `world/<device>/decode`, `world/engine/step`, ...
    """

    names: tuple[str, ...]
    draws: tuple[tuple[Annotated[float, Field(gt=0, le=1e6)], ...], ...] = Field(
        min_length=1, max_length=2000
    )

    @model_validator(mode="after")
    def _draws_are_complete(self) -> PosteriorSpec:
        for number, draw in enumerate(self.draws, 1):
            if len(draw) != len(self.names):
                raise ValueError(
                    f"draw {number} has {len(draw)} values for {len(self.names)} names; give one for each"
                )
        return self


class PowerSaveSpec(Spec):
    """A radio that dozes: after `awake` without traffic the next incoming message waits for `wake` first."""

    awake: Duration
    wake: Law


class LinkSpec(ToldSpec):
    """How a device reaches the LAN."""

    PLUS_MINUS: ClassVar = {"rtt": ("delay_spread", TIME), "rate": ("rate_spread", RATE)}

    kind: str | None = Field(default=None, description="a network of the catalogue: wifi6, ethernet_1g, ...")
    via: Name | None = Field(default=None, description="the access point or switch; default: the only one")
    rtt: Annotated[ToldSeconds, Field(gt=0, le=60)] | None = Field(
        default=None,
        description="median round trip between the device and its access point or switch: 3 ms, 3 ms ± 20 %",
    )
    delay: Law | None = Field(
        default=None, description="one-way delay between the device and its access point"
    )
    rate: ToldRate | None = Field(default=None, description="throughput of the link alone")
    vpn: str | None = Field(default=None, description="an overlay of the catalogue: tailscale, wireguard")
    vpn_delay: Duration | None = Field(
        default=None, description="one-way delay that the overlay adds on this side"
    )
    vpn_rate_share: Annotated[Share, Field(gt=0, le=1)] | None = None
    delay_spread: LogSd | None = Field(
        default=None, description="home to home, of the logarithm of all delays"
    )
    rate_spread: LogSd | None = None
    collective_delay: Law | None = Field(
        default=None, description="delay in the collectives of tensor parallelism, where it is another"
    )
    collective_spread: LogSd | None = None
    delay_home_spread: LogSd | None = Field(
        default=None, description="part of delay_spread that all radios of this access point share"
    )
    rate_home_spread: LogSd | None = Field(default=None, description="the same of rate_spread")
    power_save: PowerSaveSpec | bool | None = Field(default=None, description="true: the catalogue's figures")
    shared: bool | None = Field(
        default=None, description="true: half duplex, the air is shared with the others there"
    )
    label: Label = "assumed"


class AccessPointSpec(Spec):
    """A Wi-Fi access point, or a switch when its links are wired."""

    background: Busy = Field(default=0.0, description="share of the airtime that other traffic takes")


class SharedHostSpec(Spec):
    """All devices are processes on one machine, as in a local cluster: those that
    wait slow the one that works.
    """

    contention: float = Field(
        default=0.0, ge=0, le=5, description="slow-down by each further device of the ring"
    )
    cores: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="that all devices share: with tensor all compute at once, and more devices take turns",
    )


class WireSpec(ToldSpec):
    """A cable straight between two devices, past the access point."""

    PLUS_MINUS: ClassVar = {"rate": ("rate_spread", RATE)}

    between: tuple[Name, Name]
    kind: str | None = "ethernet_10g"
    bridged: bool = Field(
        default=False,
        description="both ends pass on what is for others, as macOS's Thunderbolt Bridge does: devices "
        "without a cable between them meet over several (a daisy chain)",
    )
    delay: Law | None = Field(
        default=None, description="one-way delay of one end; a message passes both ends"
    )
    rate: ToldRate | None = None
    delay_spread: LogSd | None = None
    rate_spread: LogSd | None = None
    collective_delay: Law | None = Field(
        default=None, description="delay in the collectives of tensor parallelism, where it is another"
    )
    collective_spread: LogSd | None = None
    label: Label = "assumed"

    @model_validator(mode="after")
    def _rdma_ends_at_the_neighbour(self) -> Self:
        if self.bridged and (self.kind or "").endswith("_rdma"):
            raise ValueError(
                f"bridged cables carry no RDMA, and kind is {self.kind}: leave `bridged` out and join every "
                "two devices, or take the same cable without RDMA"
            )
        return self


OF_ONE_PROCESSOR = ("kind", "memory", "usable_memory", "platform", "speed")
"""Keys of a device that each of its processors has, where it holds several."""


class DeviceSpec(Spec):
    """A machine; whatever is missing comes from the catalogue's entry for `kind`."""

    kind: str | None = Field(
        default=None, description="a device of the catalogue; `sim catalog devices` lists them"
    )
    memory: PositiveBytes | None = Field(
        default=None, description="installed memory, which tells the variant"
    )
    usable_memory: PositiveBytes | None = Field(default=None, description="what an engine may fill")
    platform: str | None = None
    speed: SpeedSpec | None = None
    noise: NoiseSpec | None = None
    disk: PositiveRate | None = Field(default=None, description="sequential read rate of the model's file")
    background_load: Busy = Field(
        default=0.0, description="share of the device's speed that other work takes"
    )
    allow_paging: bool = Field(
        default=False, description="let a shard exceed the memory and be re-read from disk"
    )
    heat: HeatSpec | bool | None = Field(
        default=None, description="true: the catalogue's law for its kind of device"
    )
    link: LinkSpec = LinkSpec()
    processors: dict[Name, ProcessorSpec] | None = Field(
        default=None,
        min_length=1,
        max_length=17,
        description="graphics cards and the processor of a device that holds several, in llama.cpp's order",
    )
    offload: OffloadSpec | None = Field(
        default=None, description="what its cards hold; default: as much as fits, as llama.cpp does it"
    )

    @model_validator(mode="after")
    def _processors_say_the_rest(self) -> DeviceSpec:
        if self.processors is None:
            if self.offload is not None:
                raise ValueError(
                    "offload divides layers among processors, and none are given; give processors: "
                    "{gpu: {kind: ...}, cpu: {kind: ...}}, or leave offload out"
                )
            return self
        twice = [key for key in OF_ONE_PROCESSOR if getattr(self, key) is not None]
        if twice:
            raise ValueError(
                f"{', '.join(twice)} beside processors; each processor has its own, so give "
                f"{'it' if len(twice) == 1 else 'them'} there"
            )
        return self


class PlacementSpec(Spec):
    """Who holds which layers."""

    rule: str | None = Field(
        default=None, description="exo, exo-legacy, speed, even or manual; default: the engine's"
    )
    layers: dict[Name, Annotated[int, Field(ge=0, le=1000)]] | None = Field(
        default=None, description="manual: layers of each device, in ring order"
    )
    order: tuple[Name, ...] | None = None
    roles: dict[Name, Literal["embedding", "head", "layers"]] = Field(
        default_factory=dict,
        description="pin a device to a role; embedding and head hold no transformer layers",
    )
    min_devices: int | None = Field(
        default=None, ge=1, le=1000, description="EXO's min_nodes; default: all devices"
    )

    @model_validator(mode="after")
    def _layers_mean_manual(self) -> PlacementSpec:
        if self.layers is not None and self.rule not in (None, "manual"):
            raise ValueError(
                f"layers are given, so the rule must be manual and is {self.rule!r}; remove one of them"
            )
        if self.layers is None and self.rule == "manual":
            raise ValueError("rule manual needs layers: {device: count, ...}")
        return self


class ArrivalSpec(Spec):
    """When chats come, instead of all together: a Poisson process, or a trace."""

    rate: Annotated[PerHour, Field(gt=0, le=1e6)] | None = Field(
        default=None, description="Poisson: chats per hour"
    )
    times: tuple[Duration, ...] | None = Field(
        default=None, max_length=10_000, description="trace: seconds after the start"
    )
    chats: int = Field(default=40, ge=1, le=10_000, description="how many come, with a rate")

    @model_validator(mode="after")
    def _one_of_both(self) -> ArrivalSpec:
        if (self.rate is None) == (self.times is None):
            raise ValueError(
                "arrivals need either a rate (20 /h) or times ([0 s, 12 s, ...]); give one of them"
            )
        if self.times is not None and (not self.times or list(self.times) != sorted(self.times)):
            raise ValueError("times must rise and hold one at least; sort them")
        return self

    @property
    def count(self) -> int:
        """Chats that come in all."""
        return self.chats if self.times is None else len(self.times)


class WorkloadSpec(Spec):
    """What the cluster is asked to do."""

    prompt_tokens: int = Field(default=128, ge=1, le=1_000_000)
    # a rate needs two tokens
    output_tokens: int = Field(default=256, ge=2, le=100_000)
    runs: int = Field(default=5, ge=1, le=1000)
    concurrency: int = Field(
        default=1,
        ge=1,
        le=256,
        description="chats at once, all started together; with arrivals the most that are let in, others "
        "wait",
    )
    arrivals: ArrivalSpec | None = Field(
        default=None, description="chats that come one by one; see `sim load`"
    )


class Scenario(Spec):
    """One question to the simulator; `sim run` answers it."""

    name: Name
    question: str = ""
    model: Annotated[ModelSpec, _named("name")]
    devices: dict[Name, DeviceSpec] = Field(
        min_length=1, max_length=64, description="in the order in which they join"
    )
    # one for all, where nobody says more
    access_points: dict[Name, AccessPointSpec] = Field(
        default_factory=lambda: {"lan": AccessPointSpec()}, min_length=1
    )
    wires: tuple[WireSpec, ...] = ()
    engine: Annotated[EngineSpec, _named("name")] = EngineSpec()
    placement: Annotated[PlacementSpec, _named("rule")] = PlacementSpec()
    workload: WorkloadSpec = WorkloadSpec()
    shared_host: SharedHostSpec | None = Field(
        default=None, description="present when one machine plays all devices"
    )
    common_noise: NoiseSpec | None = Field(
        default=None, description="noise that all devices share: one machine, one room, one load"
    )
    posterior: PosteriorSpec | None = Field(default=None, description="written by a calibration")
    tails: float | None = Field(
        default=None,
        ge=1,
        le=1e6,
        description="how rare odd worlds are: degrees of freedom of Student's t, of which spreads are scales",
    )
    events: tuple[EventSpec, ...] = Field(
        default=(), max_length=1000, description="what changes; see `sim dropout`"
    )
    recovery: RecoverySpec | None = Field(
        default=None, description="what the client does when a reply breaks off"
    )
    swarm: SwarmSpec | None = Field(
        default=None, description="servers that come, choose their layers and go; see `sim swarm`"
    )
    # the most that the reader of files takes for a whole number
    seed: int = Field(default=1, ge=0, lt=2**63)
    replications: int = Field(default=200, ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _names_are_known(self) -> Scenario:
        faults = [Fault(where, reason) for where, reason in self._unknown_names()]
        if faults:
            raise ScenarioError("", faults)
        return self

    def _unknown_names(self) -> Iterator[tuple[str, str]]:
        """Where a device or an access point is named that is not there, and why that is wrong."""
        # all of them at once, so that a file is mended in one go
        used = [(f"wires[{i}].between", end) for i, wire in enumerate(self.wires) for end in wire.between]
        used += [(f"placement.layers.{name}", name) for name in self.placement.layers or ()]
        used += [("placement.order", name) for name in self.placement.order or ()]
        used += [(f"events.{i}.device", event.device) for i, event in enumerate(self.events)]
        used += [(f"placement.roles.{name}", name) for name in self.placement.roles]
        for where, name in used:
            if name not in self.devices:
                near = did_you_mean(name, list(self.devices))
                yield where, f"{name!r} is no device; devices are {', '.join(self.devices)}{near}"
        for name, device in self.devices.items():
            via = device.link.via
            if via is not None and via not in self.access_points:
                near = did_you_mean(via, list(self.access_points))
                yield (
                    f"devices.{name}.link.via",
                    f"{via!r} is no access point of this scenario; access points are "
                    f"{', '.join(self.access_points)}{near}",
                )

    def replace(self, **changes: Any) -> Scenario:
        """A copy with these fields changed, checked again; raises ScenarioError with every fault."""
        # by way of JSON, so that numbers come with their units, as a file has them
        try:
            return Scenario.model_validate({**self.model_dump(mode="json"), **changes})
        except ValidationError as error:
            raise ScenarioError("replace", explain(error, Scenario, Tree())) from None
