"""Relay: one process through which all links of a local cluster run, `python -m live.local.relay`.

Each link listens on a port of its own and passes bytes to its server, as `shaping` decides, over plain
sockets. The process sleeps until `SPIN_NS` before something is due and then watches the clock, so that the
delay that was imposed is the delay that was asked for. Commands: `link` (adds one), `shape` (on or off),
`dark` (one goes dead), `lead` (one leads to another port), `expect` (sizes of the messages that come next),
`collect` (flights since the last).
"""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from live.local.children import Event, Lifeline, be_punctual
from live.local.frames import FrameReader, SizedReader
from live.local.shaping import Direction, DirectionSpec, Flight, LinkShape, Transmitter

__all__ = ["Relay", "main"]

SPIN_NS = 150_000  # what a sleeping process may be late by, on an idle machine
CHUNK_BYTES = 1 << 18
SHAPED_CHUNK_BYTES = 1 << 14  # finer, so that a rate limit is smooth
QUEUE_BYTES = 1 << 23  # what a lane holds before it lets the sender wait, as a real network would
RETRY_S = 0.01  # between two tries to reach a target that does not listen yet


@dataclass(slots=True, eq=False)
class RelayLane:
    """One direction of one connection: what was read and is not yet due."""

    source: socket.socket
    sink: socket.socket
    direction: Direction
    frames: FrameReader | SizedReader
    link: RelayLink
    queue: deque[tuple[int, memoryview, Flight | None]] = field(default_factory=deque)
    queued_bytes: int = 0
    is_blocked: bool = False
    """The sink's buffer is full: wait until it can be written."""
    opposite: RelayLane | None = None


@dataclass(slots=True, eq=False)
class RelayLink:
    """A listening socket, where it leads, and the two directions."""

    listener: socket.socket
    shape: LinkShape
    forth: Direction
    back: Direction
    target: tuple[str, int]
    is_dark: bool = False
    """Passes nothing on and closes nothing, as a link that is lost."""
    kept: list[RelayLane] = field(default_factory=list)
    """Connections of a dark link, kept open."""


class Relay:
    """All links of one cluster and the loop that serves them."""

    def __init__(self) -> None:
        self.links: dict[socket.socket, RelayLink] = {}
        self.lanes: dict[socket.socket, RelayLane] = {}
        self.ports: dict[str, Transmitter] = {}
        self.is_shaping = False
        self.waiting: list[tuple[socket.socket, RelayLink, float]] = []
        """Connections whose target does not listen yet, and until when they may wait."""

    def add(self, shape: LinkShape) -> int:
        """Open one link; returns the port at which it listens. Raises OSError when the port is taken."""
        listener = socket.create_server((shape.listen_host, shape.listen_port))
        forth, back = (
            Direction(spec, self._port(shape, spec), spec.delays_ns(shape.seed), spec.wakes_ns(shape.seed))
            for spec in (shape.forth, shape.back)
        )
        self.links[listener] = RelayLink(listener, shape, forth, back, shape.target)
        port: int = listener.getsockname()[1]
        return port

    def _port(self, shape: LinkShape, spec: DirectionSpec) -> Transmitter:
        """The air of the medium, else the sender's own interface, which all its links share."""
        return self.ports.setdefault(
            f"medium {shape.medium}" if shape.medium else f"device {spec.source}", Transmitter()
        )

    def collect(self) -> list[Event]:
        """What was imposed on each flight since the last call, oldest first."""
        records = []
        for link in self.links.values():
            for direction in (link.forth, link.back):
                records += [flight.record(direction.spec) for flight in direction.flights if flight.sent_ns]
                direction.flights.clear()
                direction.close()
        return sorted(records, key=lambda record: record["sent_ns"])

    def darken(self, port: int) -> None:
        """Let the link that listens at `port` go dead without a word to anybody."""
        for listener, link in self.links.items():
            if listener.getsockname()[1] == port:
                link.is_dark = True
                # out of the loop but open: nothing is read, nothing is closed, as behind a wall
                link.kept += [
                    self.lanes.pop(lane.source) for lane in list(self.lanes.values()) if lane.link is link
                ]

    def lead(self, port: int, to: int) -> None:
        """Let new connections at `port` go to another port of the same host: its server has started again."""
        for listener, link in self.links.items():
            if listener.getsockname()[1] == port:
                link.target = (link.shape.target[0], to)

    def expect(self, port: int, forth: list[tuple[int, int]], back: list[tuple[int, int]]) -> None:
        """Announce the messages of the link at `port`: (how many, bytes of each)."""
        for lane in self.lanes.values():
            if lane.link.listener.getsockname()[1] == port and isinstance(lane.frames, SizedReader):
                lane.frames.expect(forth if lane.direction is lane.link.forth else back)

    def turn(self, extra: int) -> bool:
        """Deliver what is due, wait, take what has come;
        returns whether `extra` (a file descriptor) can be read.
        """
        wait_s = self._deliver()
        if self.waiting:
            self._try_again()
            wait_s = min(wait_s or RETRY_S, RETRY_S)
        # a full lane is not read, so TCP itself slows its sender down
        readers: list[Any] = [lane.source for lane in self.lanes.values() if lane.queued_bytes < QUEUE_BYTES]
        listeners = [listener for listener, link in self.links.items() if not link.is_dark]
        blocked = [lane.sink for lane in self.lanes.values() if lane.is_blocked]
        readable, writable, _ = select.select([*readers, *listeners, extra], blocked, [], wait_s)
        for lane in self.lanes.values():
            if lane.sink in writable:
                lane.is_blocked = False
        for source in readable:
            if source in self.lanes:
                self._take(self.lanes[source])
            elif source in self.links:
                self._accept(self.links[source])
        return extra in readable

    def _deliver(self) -> float | None:
        """Send all that is due; returns how long nothing more will be (s), None for ever,
        watching short times out.
        """
        while True:
            next_ns = None
            for lane in list(self.lanes.values()):
                due_ns = self._send_due(lane)
                if due_ns is not None and (next_ns is None or due_ns < next_ns):
                    next_ns = due_ns
            if next_ns is None:
                return None
            ahead_ns = next_ns - time.monotonic_ns()
            if ahead_ns > SPIN_NS:
                return (ahead_ns - SPIN_NS) / 1e9
            # awake until it is due: a sleep may end 50 us late, half of what a message may cost
            while time.monotonic_ns() < next_ns:
                pass

    def _send_due(self, lane: RelayLane) -> int | None:
        """Send a lane's due bytes; returns when its next ones are due (ns), None when
        it has none or cannot send.
        """
        while lane.queue and not lane.is_blocked:
            due_ns, data, flight = lane.queue[0]
            if due_ns > time.monotonic_ns():
                return due_ns
            try:
                sent = lane.sink.send(data)
            except BlockingIOError:
                lane.is_blocked = True
                return None
            except OSError:
                self._close(lane)
                return None
            lane.queued_bytes -= sent
            if sent < len(data):
                # the socket took a part; the rest stays at the head, or the order of bytes would be lost
                lane.queue[0] = (due_ns, data[sent:], flight)
                continue
            lane.queue.popleft()
            if flight is not None:
                flight.sent_ns = time.monotonic_ns()
        return None

    def _accept(self, link: RelayLink) -> None:
        """Take a connection and make the one to its target."""
        near, _ = link.listener.accept()
        self._join(near, link, time.monotonic() + link.shape.patience_s)

    def _try_again(self) -> None:
        waiting, self.waiting = self.waiting, []
        for near, link, until_s in waiting:
            self._join(near, link, until_s)

    def _join(self, near: socket.socket, link: RelayLink, until_s: float) -> None:
        """Connect `near` with its target; one that is gone shows as a closed connection.

        A rank of MLX takes whoever accepts for its peer and never looks again: there a target that does not
        listen yet must not show, so the connection waits.
        """
        try:
            far = socket.create_connection(link.target, timeout=5)
        except OSError:
            if time.monotonic() < until_s:
                self.waiting.append((near, link, until_s))
            else:
                near.close()
            return
        for end in (near, far):
            # Nagle's algorithm would hold small messages back for an acknowledgement: delay that nobody
            # asked for
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setblocking(False)
        forth = RelayLane(near, far, link.forth, _reader(link.shape, is_request=True), link)
        back = RelayLane(far, near, link.back, _reader(link.shape, is_request=False), link, opposite=forth)
        forth.opposite = back
        self.lanes |= {near: forth, far: back}

    def _take(self, lane: RelayLane) -> None:
        """Read once from a lane's source, and decide when that is due."""
        try:
            data = lane.source.recv(SHAPED_CHUNK_BYTES if self.is_shaping else CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(lane)
            return
        now_ns, flight = time.monotonic_ns(), None
        due_ns = now_ns
        if self.is_shaping and lane.frames.is_dialogue:
            assert lane.opposite is not None
            # bytes one way end the flight of the other way: what comes back next is another message
            lane.opposite.direction.close()
        for piece, names, begins in lane.frames.pieces(memoryview(data)):
            if self.is_shaping:
                if begins:
                    lane.direction.close()
                due_ns, flight = lane.direction.arrive(len(piece), now_ns)
                flight.messages += names
            lane.queue.append((due_ns, piece, flight))
        lane.queued_bytes += len(data)

    def _close(self, lane: RelayLane) -> None:
        """Close both ends: TCP tells client and server, each of which knows what to do."""
        # both, as a device that is gone is gone for its client as well
        for end in (lane.source, lane.sink):
            self.lanes.pop(end, None)
            end.close()


def _reader(shape: LinkShape, *, is_request: bool) -> FrameReader | SizedReader:
    return FrameReader(is_request) if shape.messages == "rpc" else SizedReader()


def main() -> None:
    """Serve until the parent goes."""
    lifeline, relay = Lifeline(), Relay()
    be_punctual()
    # a collection takes longer than the overhead that we allow ourselves; nothing here makes cycles
    gc.disable()
    pending = b""
    # commands come on the same pipe whose end means that the parent is gone
    os.set_blocking(0, False)
    while True:
        if not relay.turn(0):
            continue
        came = os.read(0, 1 << 16)
        if not came:
            return
        *lines, pending = (pending + came).split(b"\n")
        for line in lines:
            _obey(relay, lifeline, json.loads(line))


def _obey(relay: Relay, lifeline: Lifeline, command: Event) -> None:
    if command["do"] == "link":
        shape = LinkShape.model_validate(command["shape"])
        try:
            lifeline.tell("port", port=relay.add(shape))
        except OSError as error:
            lifeline.tell(
                "error",
                text=f"cannot listen at {shape.listen_host}:{shape.listen_port}: {error.strerror}; "
                "stop what uses that port",
            )
    elif command["do"] == "shape":
        relay.is_shaping = bool(command["on"])
        lifeline.tell("shaping", on=relay.is_shaping)
    elif command["do"] == "dark":
        relay.darken(command["port"])
        lifeline.tell("darkened")
    elif command["do"] == "lead":
        relay.lead(command["port"], command["to"])
        lifeline.tell("led")
    elif command["do"] == "expect":
        relay.expect(command["port"], command["forth"], command["back"])
        lifeline.tell("expected")
    elif command["do"] == "collect":
        lifeline.tell("flights", flights=relay.collect())


if __name__ == "__main__":
    main()
