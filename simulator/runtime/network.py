"""The network at run time: ports that send one message after
the other, hops that keep their order, shared air.

A chat's own messages never queue for the air against each other: they follow each other
by cause, and where two do overlap (a hidden state and the all-gather behind it) the loss
is at most one transmission time. Several chats, or the chunks of a long prompt, do
contend: then each access point is one resource (`Network(flows=...)`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import simpy

from simulator.cluster.cluster import PowerSave
from simulator.runtime.draws import Draws
from simulator.runtime.record import Recorder

__all__ = ["Arrival", "Hop", "Network", "Port"]


class Arrival(simpy.Event):
    """The arrival of one message; a receiver may wait for it before the message is sent."""

    def after(self, delay_s: float, span: int) -> None:
        """Happen in `delay_s` seconds; the value is the span that ends then."""
        self._ok, self._value = True, span
        self.env.schedule(self, delay=delay_s)


@dataclass(slots=True)
class Port:
    """A device's network interface: messages leave one after the other, and a radio without traffic dozes."""

    free_s: float = 0.0
    last_active_s: float = 0.0
    doze: PowerSave | None = None
    wake_s: Iterator[float] = field(default_factory=lambda: iter(()))

    def wake_up_s(self, at_s: float) -> float:
        """Extra delay of a message that reaches this device's access point at `at_s`."""
        if self.doze is None or at_s - self.last_active_s <= self.doze.awake_s:
            return 0.0
        return next(self.wake_s)

    def active(self, at_s: float) -> None:
        """Traffic at `at_s` keeps the radio awake."""
        self.last_active_s = max(self.last_active_s, at_s)


@dataclass(slots=True)
class Hop:
    """One direction of one connection (TCP: what is sent first arrives first)."""

    env: simpy.Environment
    source: str
    sink: str
    port: Port
    seconds_per_byte: float
    recorder: Recorder
    medium: simpy.Resource | None = None
    """The air that several flows contend for; None where one flow has it for itself."""
    listener: Port | None = None
    """The receiving device's interface."""
    last_arrival_s: float = 0.0
    name: str = field(init=False)
    _sent: deque[Arrival] = field(default_factory=deque)
    """Messages on their way, or arrived, that nobody has asked for yet."""
    _asked: deque[Arrival] = field(default_factory=deque)
    """Messages that were asked for and are not sent yet."""

    def __post_init__(self) -> None:
        self.name = f"{self.source} -> {self.sink}"

    def send(self, size_bytes: float, delay_s: float, cause: int, step: int) -> None:
        """Hand a message to the port; it arrives after its turn, its transmission and `delay_s`."""
        if self.medium is not None:
            self.env.process(self._contend(size_bytes, delay_s, cause, step))
            return
        begin_s, port = self.env.now, self.port
        if begin_s < port.free_s:
            cause = self.recorder.span("queue", self.name, step, begin_s, port.free_s, cause)
            begin_s = port.free_s
        port.free_s = begin_s + size_bytes * self.seconds_per_byte
        self._fly(port.free_s + delay_s, begin_s, cause, step)

    def receive(self) -> Arrival:
        """The event of the next message's arrival; its value is the span that ends with it."""
        if self._sent:
            return self._sent.popleft()
        arrival = Arrival(self.env)
        self._asked.append(arrival)
        return arrival

    def _fly(self, arrival_s: float, begin_s: float, cause: int, step: int) -> None:
        if self.port.doze is not None:
            self.port.active(begin_s)
        if self.listener is not None:
            arrival_s += self.listener.wake_up_s(begin_s)
            self.listener.active(arrival_s)
        if arrival_s < self.last_arrival_s:
            arrival_s = self.last_arrival_s
        self.last_arrival_s = arrival_s
        if self._asked:
            arrival = self._asked.popleft()
        else:
            arrival = Arrival(self.env)
            self._sent.append(arrival)
        arrival.after(
            arrival_s - self.env.now, self.recorder.span("hop", self.name, step, begin_s, arrival_s, cause)
        )

    def _contend(
        self, size_bytes: float, delay_s: float, cause: int, step: int
    ) -> Generator[simpy.Event, Any, None]:
        """Wait for the air, hold it while transmitting, then fly."""
        assert self.medium is not None
        asked_s = self.env.now
        with self.medium.request() as turn:
            yield turn
            begin_s = self.env.now
            cause = self.recorder.span("queue", self.name, step, asked_s, begin_s, cause)
            yield self.env.timeout(size_bytes * self.seconds_per_byte)
        self._fly(self.env.now + delay_s, begin_s, cause, step)


class Network:
    """All hops of one replication (row 0 of the draws).

    `flows` is how many independent streams of messages there are; with more
    than one, each access point's air is a resource that they queue for.
    """

    def __init__(self, env: simpy.Environment, draws: Draws, recorder: Recorder, flows: int = 1) -> None:
        self.env, self.draws, self.recorder, self.flows = env, draws, recorder, flows
        self.ports = {
            device.name: Port(doze=device.link.power_save, wake_s=draws.wake_s(device))
            for device in draws.job.cluster.devices
        }
        self.air: dict[str, simpy.Resource] = {}

    def hop(self, source: str, sink: str) -> Hop:
        """A new connection from `source` to `sink`."""
        path = self.draws.job.cluster.path(source, sink)
        per_byte = float(self.draws.seconds_per_byte(path)[0])
        listener = self.ports[sink] if path.power_save is not None else None
        medium = self._air(path.medium)
        return Hop(self.env, source, sink, self.ports[source], per_byte, self.recorder, medium, listener)

    def _air(self, medium: str | None) -> simpy.Resource | None:
        if medium is None or self.flows == 1:
            return None
        return self.air.setdefault(medium, simpy.Resource(self.env))
