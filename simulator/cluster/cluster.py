"""Cluster: devices, the links between them, and the one question asked of a network:
what does a message cost?

Everything here is complete and numeric; `prepare` makes it from a completed Scenario.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from simulator.laws.factors import WorldFactor, cable, link_factor, parted
from simulator.laws.law import Law, median_s
from simulator.scenario import Label, NoiseSpec, OffloadSpec, SpeedSpec

__all__ = ["AccessPoint", "Cluster", "Device", "Leg", "Link", "Path", "PowerSave", "Processor", "Wire"]


@dataclass(frozen=True, slots=True)
class PowerSave:
    """A radio that dozes after `awake_s` without traffic and needs `wake` to hear
    the next incoming message.
    """

    awake_s: float
    wake: Law


@dataclass(frozen=True, slots=True)
class Link:
    """One side of a path: a device and its access point or switch."""

    kind: str
    via: str
    delay: Law
    """One-way delay (s) of a small message on this side, beyond the transmission time."""
    rate_bytes_per_s: float
    shared: bool
    """True for Wi-Fi: half duplex, and two devices of one access point share its airtime."""
    delay_log_sd: float
    rate_log_sd: float
    vpn_delay_s: float
    power_save: PowerSave | None
    label: Label
    delay_home_log_sd: float = 0.0
    """Part of `delay_log_sd` that is the home's: its walls and neighbours meet all its radios."""
    rate_home_log_sd: float = 0.0
    collective: Law | None = None
    """`delay` of messages between ranks of a collective, which poll for them; None: as of any other."""
    collective_log_sd: float = 0.0


@dataclass(frozen=True, slots=True)
class Device:
    """A machine of the cluster."""

    name: str
    kind: str
    platform: str
    memory_bytes: float
    usable_bytes: float
    speed: SpeedSpec
    noise: NoiseSpec
    disk_bytes_per_s: float
    background_load: float
    allow_paging: bool
    link: Link
    contention: float = 0.0
    """Slow-down by the other devices of the ring, where one machine plays them all."""
    slow_down: float = 1.0
    """Multiplies all of its computing times: 1 as catalogued, more while it is throttled or hot."""
    is_card: bool = False
    """A graphics card with memory of its own beside that of its host."""
    processors: tuple[Processor, ...] = ()
    """Of a device of several; empty where it is one. What is said above is then the sum of their memories
    and the speed of the first card.
    """
    offload: OffloadSpec | None = None

    @property
    def cards(self) -> tuple[Processor, ...]:
        """Those of its processors that are graphics cards."""
        return tuple(one for one in self.processors if one.device.is_card)

    @property
    def host_processor(self) -> Processor | None:
        """The one of its processors that its cards are plugged into, where it is told."""
        return next((one for one in self.processors if not one.device.is_card), None)


@dataclass(frozen=True, slots=True)
class Processor:
    """One of several processors of a device; `device` is it alone, called `<device>/<processor>`."""

    device: Device
    bus_bytes_per_s: float = float("inf")
    """Between a card and the processor that it is plugged into, each way."""
    bus_delay_s: float = 0.0
    """Of a card that hands a step over, or takes one."""


@dataclass(frozen=True, slots=True)
class AccessPoint:
    """A Wi-Fi access point or a switch; `background` is the share of its airtime that others take."""

    name: str
    background: float


@dataclass(frozen=True, slots=True)
class Wire:
    """A cable straight between two devices; `delay` is that of one end, and a message passes both."""

    ends: frozenset[str]
    kind: str
    delay: Law
    rate_bytes_per_s: float
    delay_log_sd: float
    rate_log_sd: float
    collective: Law | None = None
    """As of a link."""
    collective_log_sd: float = 0.0
    is_bridged: bool = False
    """Whether its ends pass on what is for others."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One crossing of one side: its law, what scales it, and the constant on top."""

    name: str
    law: Law
    scales: tuple[WorldFactor, ...]
    stretch: float
    """`1 / (1 - background)`: a queue at load u waits 1 / (1 - u) times as long (M/M/1)."""
    extra_s: float
    rate_bytes_per_s: float
    rates: tuple[WorldFactor, ...]

    def polled(self, by: Link | Wire) -> Leg:
        """The same leg for the messages of a collective."""
        if by.collective is None:
            return self
        # one cause for all cables of a kind: the system that drives them, and how they were set up
        scales = (WorldFactor(link_factor(f"every {by.kind} in a ring", "delay"), by.collective_log_sd),)
        return replace(self, law=by.collective, scales=scales)


@dataclass(frozen=True, slots=True)
class Path:
    """How a message gets from one device to another."""

    source: str
    sink: str
    legs: tuple[Leg, ...]
    airtime_adds: bool
    """Both legs use the same air: their transmission times add up; otherwise the slower one counts."""
    medium: str | None
    """The access point whose air this path uses, None when no leg is shared."""
    power_save: PowerSave | None
    """Of the receiving side."""

    @property
    def median_s(self) -> float:
        """One way, in the median world, without what the bytes take."""
        return sum(median_s(leg.law) * leg.stretch for leg in self.legs)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Devices in the order in which they joined, access points and direct wires."""

    devices: tuple[Device, ...]
    access_points: tuple[AccessPoint, ...]
    wires: tuple[Wire, ...] = ()

    def device(self, name: str) -> Device:
        """The device of that name; raises KeyError."""
        return _named(self.devices, name)

    def path(self, source: str, sink: str, *, polled: bool = False) -> Path:
        """The path from `source` to `sink`: over cables if they lead there, else out to the
        access point and in again; with `polled` as the ranks of a collective meet it.
        """
        if way := self._way(source, sink):
            sides = [side for a, wire, b in way for side in ((wire, a, "out"), (wire, b, "in"))]
            over = tuple(_wire_leg(*side).polled(side[0]) if polled else _wire_leg(*side) for side in sides)
            return Path(source, sink, over, False, None, None)
        a, b = self.device(source).link, self.device(sink).link
        legs = (self._leg(source, a, "out"), self._leg(sink, b, "in"))
        if polled:
            legs = (legs[0].polled(a), legs[1].polled(b))
        # with one end on a cable only the other one takes air, and takes it once
        medium = a.via if a.shared else b.via if b.shared else None
        return Path(source, sink, legs, a.shared and b.shared and a.via == b.via, medium, b.power_save)

    def _way(self, source: str, sink: str) -> list[tuple[str, Wire, str]]:
        """The cables between two devices: one of their own, else the fewest bridged ones; none where no cable
        leads there.

        A machine between them takes a message in and sends it on, for which it pays as both ends do.
        """
        ways: list[list[tuple[str, Wire, str]]] = [[]]
        seen = {source}
        for way in ways:
            here = way[-1][2] if way else source
            for wire in self.wires:
                if here not in wire.ends or wire.ends <= seen:
                    continue
                (there,) = wire.ends - {here}
                if there == sink and (wire.is_bridged or not way):
                    return [*way, (here, wire, there)]
                if wire.is_bridged:
                    seen.add(there)
                    ways.append([*way, (here, wire, there)])
        return []

    def kinds_between(self, a: str, b: str) -> tuple[str, ...]:
        """The kinds of the cables that lead from one device to another, else those of both links."""
        if way := self._way(a, b):
            return tuple(dict.fromkeys(wire.kind for _, wire, _ in way))
        return tuple(dict.fromkeys((self.device(a).link.kind, self.device(b).link.kind)))

    def kind_at(self, device: str, other: str) -> str:
        """The kind of what messages between two devices take at the first one."""
        way = self._way(device, other)
        return way[0][1].kind if way else self.device(device).link.kind

    def _leg(self, device: str, link: Link, side: str) -> Leg:
        # what others send takes from the rate and, as a queue, stretches the delay
        free = 1 - _named(self.access_points, link.via).background
        return Leg(
            name=f"link/{device}/{side}",
            law=link.delay,
            scales=_home_parted(device, link, "delay", link.delay_log_sd, link.delay_home_log_sd),
            stretch=1 / free,
            extra_s=link.vpn_delay_s,
            rate_bytes_per_s=link.rate_bytes_per_s * free,
            rates=_home_parted(device, link, "rate", link.rate_log_sd, link.rate_home_log_sd),
        )


def _home_parted(
    device: str, link: Link, part: Literal["delay", "rate"], log_sd: float, home_log_sd: float
) -> tuple[WorldFactor, ...]:
    """The device's own factor of its link, and that of the home."""
    home = WorldFactor(link_factor(f"every radio on {link.via}", part), home_log_sd)
    return parted(link_factor(device, part), log_sd, (home,))


def _wire_leg(wire: Wire, end: str, side: str) -> Leg:
    name = cable(wire.ends)
    return Leg(
        name=f"wire/{name}/{end}/{side}",
        law=wire.delay,
        scales=(WorldFactor(link_factor(name, "delay"), wire.delay_log_sd),),
        stretch=1.0,
        extra_s=0.0,
        rate_bytes_per_s=wire.rate_bytes_per_s,
        rates=(WorldFactor(link_factor(name, "rate"), wire.rate_log_sd),),
    )


Named = TypeVar("Named", Device, AccessPoint)


def _named(things: tuple[Named, ...], name: str) -> Named:
    """The thing of that name."""
    for thing in things:
        if thing.name == name:
            return thing
    raise KeyError(name)
