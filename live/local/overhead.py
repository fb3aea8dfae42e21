"""What the relay itself costs: round trips of small messages with it and without it."""

from __future__ import annotations

import socket
import threading
import time

import numpy as np

from live.local.children import Child
from live.local.shaping import DirectionSpec, LinkShape
from simulator.laws.law import Floats

__all__ = ["relay_overhead_s"]

# framed as llama.cpp's are, and as small as they get
MESSAGE = b"\x0d" + (64).to_bytes(8, "little") + bytes(64)
WARM_UP = 30


def _echo(listener: socket.socket) -> None:
    """Send back whatever comes, connection after connection."""
    while True:
        try:
            end, _ = listener.accept()
        except OSError:
            return
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with end:
            while data := end.recv(4096):
                end.sendall(data)


def _round_trips_s(port: int, count: int) -> Floats:
    with socket.create_connection(("127.0.0.1", port)) as end:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        taken = []
        for _ in range(count + WARM_UP):
            begin_ns = time.monotonic_ns()
            end.sendall(MESSAGE)
            came = 0
            while came < len(MESSAGE):
                came += len(end.recv(4096))
            taken.append((time.monotonic_ns() - begin_ns) / 1e9)
            time.sleep(0.001)  # as between real messages: both ends have gone to sleep
    return np.asarray(taken[WARM_UP:])


def relay_overhead_s(count: int = 200) -> Floats:
    """Added time per message (s) of `count` messages through a relay without delay, less
    the median without relay.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_echo, args=(listener,), daemon=True).start()
        port = listener.getsockname()[1]
        relay = Child("relay", "live.local.relay")
        try:
            shape = LinkShape(
                target=("127.0.0.1", port),
                forth=DirectionSpec(source="a", sink="b"),
                back=DirectionSpec(source="b", sink="a"),
            )
            through = relay.ask("link", "port", shape=shape.model_dump(mode="json"))["port"]
            relay.ask("shape", "shaping", on=True)
            direct_s = float(np.median(_round_trips_s(port, count)))
            # there and back pass the relay once each
            return (_round_trips_s(through, count) - direct_s) / 2
        finally:
            relay.end()
