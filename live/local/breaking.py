"""Breaking: a local cluster that loses devices in the middle of a reply, and a client that
starts again without them.

A device goes in one of three ways. `kill`: kill -9 of its server, so the relay sees the connection closed and
closes the client's. `hang`: SIGSTOP, so the connection stays open and nobody answers. `dark`: its relay
passes nothing on any more, in neither direction, and closes nothing, as when a radio link is lost.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from live.local.cluster import LOAD_S
from live.local.plan import ClusterPlan, DevicePlan
from live.local.rpc import RpcCluster
from live.local.server import free_port
from simulator.errors import LiveError

__all__ = ["MODES", "BreakableCluster", "Mode", "answers"]

Mode = Literal["kill", "hang", "dark"]
MODES: tuple[Mode, ...] = ("kill", "hang", "dark")
# what a client says first: command 14, 24 bytes of its abilities, none set; captured
# from llama-cpp-python 0.3.36
HELLO = bytes([14]) + (24).to_bytes(8, "little") + bytes(24)
REPLY_HEADER_BYTES = 8
PROCESS_S = 30.0


def answers(endpoint: str, timeout_s: float) -> bool:
    """Whether a llama.cpp RPC server greets back within `timeout_s`: an open port alone proves nothing.

    A server serves one client at a time, so the client before must be gone.
    """
    host, _, port = endpoint.rpartition(":")
    deadline_s = time.monotonic() + timeout_s
    try:
        with socket.create_connection((host, int(port)), timeout=timeout_s) as probe:
            # the port alone proves nothing: a relay listens for a server that is gone, and a stopped
            # process accepts
            probe.sendall(HELLO)
            received = b""
            while len(received) < REPLY_HEADER_BYTES:
                # what is left of the whole, not a fresh time-out per packet
                probe.settimeout(max(0.001, deadline_s - time.monotonic()))
                part = probe.recv(REPLY_HEADER_BYTES)
                if not part:
                    return False
                received += part
    except OSError:
        return False
    return True


class BreakableCluster(RpcCluster):
    """A local cluster whose servers may go, and whose client may be replaced."""

    def __init__(self, plan: ClusterPlan, endpoints: tuple[str, ...] = ()) -> None:
        """See `RpcCluster`; servers at `endpoints` are real devices, which go without our doing."""
        super().__init__(plan, endpoints)
        self.lost: set[str] = set()

    def exit_reasons(self, names: Sequence[str]) -> str:
        """How the servers of these devices ended, as far as this machine knows; for a message."""
        ended = [
            (name, self._others[name])
            for name in names
            if name in self._others and self._others[name].has_ended()
        ]
        return "; ".join(f"{name} {server.how_it_ended()}{self._why(name, server)}" for name, server in ended)

    def endpoint(self, name: str) -> str:
        """Where the client reaches a server: its relay."""
        return self.endpoints[[device.name for device in self.plan.devices[1:]].index(name)]

    def lose(self, name: str, mode: Mode) -> int:
        """Take a device away; returns when (`time.monotonic_ns`).
        Raises LiveError for one that has no server.
        """
        if name not in self._others:
            known = ", ".join(self._others)
            raise LiveError(
                f"{name} cannot be taken away: only servers can ({known}); without the client, "
                f"{self.plan.devices[0].name}, nobody would be left to go on"
            )
        server = self._others[name]
        if mode == "hang":
            self._stand_still(name)
        # before the blow: what follows is already the recovery
        at_ns = time.monotonic_ns()
        if mode == "kill":
            server.process.kill()
        elif mode == "hang":
            os.kill(server.pid, signal.SIGSTOP)
        else:
            assert self._relay is not None
            self._relay.ask("dark", "darkened", port=int(self.endpoint(name).rpartition(":")[2]))
        self.lost.add(name)
        return at_ns

    def _stand_still(self, name: str) -> None:
        """The guard slows devices down by stopping and continuing them; it must
        not continue this one again.
        """
        assert self._guard is not None
        self._guard.ask("hold", "noted", pid=self._others[name].pid)

    def revive(self, name: str) -> None:
        """A device that was killed starts again, with nothing in memory; it answers once it listens."""
        device, port = next(one for one in self.plan.devices if one.name == name), free_port()
        server = self._child(
            name, "server", "--port", str(port), "--threads", str(device.threads), "--supervised"
        )
        self._others[name] = server
        self.lost.discard(name)
        # the client knows the relay's port, and the new server has another one of its own
        assert self._relay is not None
        self._relay.ask("lead", "led", port=int(self.endpoint(name).rpartition(":")[2]), to=port)
        self._slow_again(device, server.pid)

    def _slow_again(self, device: DevicePlan, pid: int) -> None:
        """A new process of a device is slowed down as the one before."""
        if device.name in self._groups:
            self._groups[device.name].take(pid)
        if self.throttled_by.get(device.name, "").startswith("stop"):
            assert self._guard is not None
            self._guard.ask("slow", "noted", pid=pid, share=device.share)

    def release(self) -> None:
        """End the client's process: closed connections make the servers give their memory back."""
        # llama.cpp cannot take a server out of a running context, so the whole process goes
        self._client.end()
        if self._client in self._children:
            self._children.remove(self._client)

    def answering(self, timeout_s: float, asked: Sequence[str] | None = None) -> tuple[str, ...]:
        """The client and whoever of the servers `asked` (all) answers, in the order of the
        plan; all are asked at once.
        """
        client, *servers = [device.name for device in self.plan.devices]
        names = [name for name in servers if asked is None or name in asked]
        # together: a device that hangs costs its whole time-out, and several must not add up
        with ThreadPoolExecutor(max_workers=len(names) + 1) as pool:
            found = list(pool.map(lambda name: answers(self.endpoint(name), timeout_s), names))
        return (client, *(name for name, there in zip(names, found, strict=True) if there))

    def start_client(self) -> None:
        """A new client's process, slowed down as the one before; returns when it takes commands."""
        device = self.plan.devices[0]
        self._client = self._child(device.name, "client")
        self._slow_again(device, self._client.pid)
        self._client.ask("busy", "busy", timeout_s=PROCESS_S)

    def load(self, layers: Sequence[tuple[str, int]], waiting: Callable[[], None] = lambda: None) -> None:
        """Load the model on these servers, (name, layers) in the order of the chain; over the shaped links.

        Raises LiveError when one of them leaves meanwhile; `waiting` is called now and then.
        """

        def watch() -> None:
            self.watch_relay()
            waiting()

        client = self.plan.devices[0]
        self._client.command(
            "load",
            model=str(self.plan.model),
            endpoints=[self.endpoint(name) for name, _ in layers],
            layers=[count for _, count in layers],
            threads=client.threads,
            context=self.plan.context_tokens,
        )
        self._client.wait_for("loaded", LOAD_S, watch)

    def stop(self) -> None:
        """Stop everything; servers that hang are killed, for they would not hear a farewell."""
        for name in self.lost:
            if (server := self._others.get(name)) is not None and not server.has_ended():
                server.process.kill()
        # only then the ordinary way, which waits for each to leave by itself
        super().stop()
