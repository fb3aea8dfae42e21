"""The network at run time: ports that send one message after the other, hops that
keep their order, shared air.

A chat's own messages never queue for the air against each other: they follow each other
by cause, and where two do overlap (a hidden state and the all-gather behind it) the loss
is at most one transmission time. Several chats, or the chunks of a long prompt, do
contend: then each access point is one queue (`Network(flows=...)`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import simpy
from simpy.events import NORMAL

from simulator.cluster.cluster import PowerSave
from simulator.runtime.draws import Draws
from simulator.runtime.record import Recorder

__all__ = ["Arrival", "Hop", "Network", "Port"]


class Arrival(simpy.Event):
    """The arrival of one message; a receiver may wait for it before the message is sent.

    Its value is the span that ends with it. It is scheduled by its hop, which knows when that is.
    """


@dataclass(slots=True)
class Port:
    """A network interface, or air: messages leave one after the other; a radio without traffic dozes."""

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
    """The sending device's interface."""
    seconds_per_byte: float
    recorder: Recorder
    medium: Port | None = None
    """The air that several flows contend for; None where one flow has it for itself."""
    listener: Port | None = None
    """The receiving device's interface, where its radio may doze."""
    last_arrival_s: float = 0.0
    name: str = field(init=False)
    _queue: Port = field(init=False)
    """Where messages wait for their turn: the air where it is contended for, else the port."""
    _dozes: bool = field(init=False)
    _sent: deque[Arrival] = field(default_factory=deque)
    """Messages on their way, or arrived, that nobody has asked for yet."""
    _asked: deque[Arrival] = field(default_factory=deque)
    """Messages that were asked for and are not sent yet."""

    def __post_init__(self) -> None:
        self.name = f"{self.source} -> {self.sink}"
        self._queue = self.medium or self.port
        self._dozes = self.listener is not None or self.port.doze is not None

    def send(self, size_bytes: float, delay_s: float, cause: int, step: int) -> None:
        """Hand a message over; it arrives after its turn, its transmission and `delay_s`.

        A queue that serves in order of sending needs no events: when a message's turn comes is known at once.
        This and `receive` are the simulator's inner loop, so spans cost a look where nobody keeps them.
        """
        queue = self._queue
        now_s = begin_s = self.env.now
        if begin_s < queue.free_s:
            cause = self.recorder.span("queue", self.name, step, begin_s, queue.free_s, cause)
            begin_s = queue.free_s
        queue.free_s = begin_s + size_bytes * self.seconds_per_byte
        arrival_s = queue.free_s + delay_s
        if self._dozes:
            arrival_s = self._woken_s(begin_s, arrival_s)
        # a connection hands over in order, so a late message holds up those behind it
        if arrival_s < self.last_arrival_s:
            arrival_s = self.last_arrival_s
        self.last_arrival_s = arrival_s
        if self.recorder.keep_spans:
            cause = self.recorder.span("hop", self.name, step, begin_s, arrival_s, cause)
        if self._asked:
            arrival = self._asked.popleft()
        else:
            arrival = Arrival(self.env)
            self._sent.append(arrival)
        # as simpy.Timeout does when it is made; but here the event may be older than its time is known,
        # for a receiver may have asked before anything was sent
        arrival._ok, arrival._value = True, cause
        self.env.schedule(arrival, NORMAL, arrival_s - now_s)

    def receive(self) -> Arrival:
        """The event of the next message's arrival; its value is the span that ends with it."""
        if self._sent:
            return self._sent.popleft()
        arrival = Arrival(self.env)
        self._asked.append(arrival)
        return arrival

    def _woken_s(self, begin_s: float, arrival_s: float) -> float:
        """The arrival at a radio that may have to wake up; traffic keeps those of both ends awake."""
        if self.port.doze is not None:
            self.port.active(begin_s)
        if self.listener is not None:
            arrival_s += self.listener.wake_up_s(begin_s)
            self.listener.active(arrival_s)
        return arrival_s


class Network:
    """All hops of one replication (row 0 of the draws).

    `flows` is how many independent streams of messages there are; with more than one, each access point's air
    is a queue that they share.
    """

    def __init__(self, env: simpy.Environment, draws: Draws, recorder: Recorder, flows: int = 1) -> None:
        self.env, self.draws, self.recorder, self.flows = env, draws, recorder, flows
        self.ports = {
            device.name: Port(doze=device.link.power_save, wake_s=draws.wake_s(device))
            for device in draws.job.cluster.devices
        }
        self.air: dict[str, Port] = {}

    def hop(self, source: str, sink: str) -> Hop:
        """A new connection from `source` to `sink`."""
        path = self.draws.job.cluster.path(source, sink)
        per_byte = float(self.draws.seconds_per_byte(path)[0])
        # on a direct wire there is no radio to wake, and the path says so
        listener = self.ports[sink] if path.power_save is not None else None
        medium = self._air(path.medium)
        return Hop(self.env, source, sink, self.ports[source], per_byte, self.recorder, medium, listener)

    def _air(self, medium: str | None) -> Port | None:
        if medium is None or self.flows == 1:
            return None
        return self.air.setdefault(medium, Port())
