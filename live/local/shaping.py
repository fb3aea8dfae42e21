"""Shaping: what one link does to the bytes that cross it, decided from arrival times alone.

Bytes that follow each other in one direction, until the other side speaks or `GAP_NS` of silence pass, are
one *flight*: one message of the layer above, and it meets one delay, drawn from the link's laws. Where sizes
of messages are told (`frames.SizedReader`) they alone say where a flight ends. Byte by byte, with `port`
shared by all links of one medium, else by what one device sends:

    begin    = max(arrival, port.free)
    port.free = begin + size * seconds_per_byte
    delivery = max(port.free + delay, delivery of what was sent before)

so order is kept (TCP), a stalled flight holds back all that follow it, and contending
links queue for the airtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from simulator.laws.law import Law
from simulator.laws.streams import Streams
from simulator.spec import Spec

__all__ = ["Direction", "DirectionSpec", "DozeSpec", "Flight", "LegSpec", "LinkShape", "Transmitter"]

GAP_NS = 20_000_000  # longer than a busy client pauses inside one burst, shorter than a stage of a real model
DRAWS = 8192  # delays drawn in advance per direction, used over and over: about 30 runs of 256 tokens
NS = 1e9


class LegSpec(Spec):
    """One side of the way: the law of its delay, its stretch by background traffic,
    and a constant on top (s).
    """

    law: Law
    stretch: float = Field(default=1.0, ge=1)
    extra_s: float = Field(default=0.0, ge=0)


class DozeSpec(Spec):
    """A receiver whose radio sleeps after `awake_s` of silence and needs `wake` to hear the next message."""

    awake_s: float = Field(ge=0)
    wake: Law


class DirectionSpec(Spec):
    """What one direction of a link imposes."""

    source: str
    sink: str
    legs: tuple[LegSpec, ...] = ()
    seconds_per_byte: float = Field(default=0.0, ge=0)
    doze: DozeSpec | None = None

    def delays_ns(self, seed: int) -> list[int]:
        """`DRAWS` delays (ns), one per flight: the sum of the legs' draws."""
        # drawn before the cluster starts: the relay has no time to draw when a byte arrives
        total = [0.0] * DRAWS
        for number, leg in enumerate(self.legs):
            name = f"relay/{self.source}/{self.sink}/{number}"
            drawn = Streams(seed).draws(name, leg.law, DRAWS)[:, 0]
            total = [
                sum_s + leg.stretch * float(one) + leg.extra_s
                for sum_s, one in zip(total, drawn, strict=True)
            ]
        return [round(one * NS) for one in total]

    def wakes_ns(self, seed: int) -> list[int]:
        """What waking adds (ns), empty without power saving."""
        if self.doze is None:
            return []
        drawn = Streams(seed).draws(f"relay/{self.source}/{self.sink}/wake", self.doze.wake, DRAWS)[:, 0]
        return [round(float(one) * NS) for one in drawn]


class LinkShape(Spec):
    """One link between two devices, both directions; links with the same
    `medium` share its airtime.
    """

    target: tuple[str, int] = ("127.0.0.1", 0)
    """Where the server listens; filled in when it does."""
    listen_host: str = "127.0.0.1"
    listen_port: int = 0
    medium: str | None = None
    forth: DirectionSpec
    back: DirectionSpec
    seed: int = 1
    messages: Literal["rpc", "sized"] = "rpc"
    """How the relay tells one message from the next, see `frames`."""
    patience_s: float = Field(default=0.0, ge=0)
    """How long a connection waits for its target to listen; then, or at once, it is closed again."""


@dataclass(slots=True)
class Transmitter:
    """What can carry one thing at a time: a device's interface, or the air."""

    free_ns: int = 0


@dataclass(slots=True)
class Flight:
    """One burst in one direction and what was done to it; times are `time.monotonic_ns`."""

    first_ns: int
    """Arrival of its first byte at the relay."""
    delay_ns: int
    """Drawn for it, waking included."""
    last_ns: int = 0
    """Arrival of its last byte."""
    due_ns: int = 0
    """When its last byte was to be delivered."""
    sent_ns: int = 0
    """When its last byte was handed to the network."""
    size_bytes: int = 0
    messages: list[str] = field(default_factory=list)

    def record(self, direction: DirectionSpec) -> dict[str, Any]:
        """As an event: what was imposed on the last byte, and how late it was delivered beyond that."""
        return {
            "source": direction.source,
            "sink": direction.sink,
            "size_bytes": self.size_bytes,
            "sent_ns": self.first_ns,
            "last_ns": self.last_ns,
            "imposed_ns": self.due_ns - self.last_ns,
            "late_ns": self.sent_ns - self.due_ns,
            "messages": self.messages,
        }


@dataclass(slots=True)
class Direction:
    """The state of one direction: when the bytes that arrive now are to be delivered."""

    spec: DirectionSpec
    port: Transmitter
    delays_ns: Sequence[int]
    wakes_ns: Sequence[int] = ()
    flights: list[Flight] = field(default_factory=list)
    _last_due_ns: int = 0
    _drawn: int = 0
    _open: Flight | None = None

    def close(self) -> None:
        """The other side has spoken: what comes next is a new flight."""
        self._open = None

    def arrive(self, size: int, now_ns: int) -> tuple[int, Flight]:
        """When `size` bytes that arrived at `now_ns` are due (ns), and the flight that they belong to."""
        flight = self._open
        # one delay per message and not per packet: a burst of one tensor meets the air once
        if flight is None or now_ns - flight.last_ns > GAP_NS:
            flight = self._open = Flight(now_ns, self._next_delay_ns(now_ns))
            self.flights.append(flight)
        begin_ns = max(now_ns, self.port.free_ns)
        self.port.free_ns = begin_ns + round(size * self.spec.seconds_per_byte * NS)
        # never before what was sent earlier: TCP delivers in order, whatever the draws say
        self._last_due_ns = max(self.port.free_ns + flight.delay_ns, self._last_due_ns)
        flight.last_ns, flight.due_ns = now_ns, self._last_due_ns
        flight.size_bytes += size
        return self._last_due_ns, flight

    def _next_delay_ns(self, now_ns: int) -> int:
        index = self._drawn % DRAWS
        self._drawn += 1
        delay_ns = self.delays_ns[index]
        # silence since the last delivery, as the radio counts it, not since the last arrival here
        if self.spec.doze is not None and now_ns - self._last_due_ns > self.spec.doze.awake_s * NS:
            delay_ns += self.wakes_ns[index]
        return delay_ns
