"""Cluster: the processes of one plan, from the first server to the last control group removed.

    with LocalCluster(plan) as cluster:
        run = cluster.generate(prompt_tokens=64, output_tokens=128, seed=1)

Weights travel before the links are shaped and before devices are slowed down; neither is what is measured.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from live.local import library
from live.local.cgroup import Groups, make_groups
from live.local.children import Child, Event
from live.local.guard import PERIOD_S
from live.local.plan import ClusterPlan
from live.local.server import free_port
from live.local.shaping import LinkShape
from simulator.errors import LiveError, Unreachable

__all__ = ["LocalCluster", "Run"]

START_S = 20.0
LOAD_S = 300.0
CONNECT_S = 5.0
SILENCE_S = 120.0  # longest wait for one token, a long prompt on a slow device included
PORT_TRIES = 3
# the kernel enforces a quota at its tick, 4 ms at 250 Hz: shorter stages would slip through
QUOTA_FROM_S = 0.012


@dataclass(frozen=True, slots=True)
class Run:
    """One chat as it was observed; times are `time.monotonic_ns`, seconds are lengths."""

    sent_ns: int
    token_ns: tuple[int, ...]
    flights: tuple[Event, ...]
    busy_s: dict[str, float]
    """CPU time of each device's process."""
    service_s: dict[str, float]
    """How long each device had work, as told from the links."""

    @property
    def wall_s(self) -> float:
        """From the request to the last token."""
        return (self.token_ns[-1] - self.sent_ns) / 1e9


class LocalCluster:
    """A running cluster; a context manager that leaves nothing behind."""

    def __init__(self, plan: ClusterPlan, endpoints: tuple[str, ...] = ()) -> None:
        """Of `plan`; with `endpoints` (host:port of servers that already run) nothing
        is relayed or slowed down.
        """
        library.require()
        if endpoints and len(endpoints) != len(plan.links):
            raise LiveError(
                f"{plan.scenario.name} needs {len(plan.links)} servers beside the client "
                f"{plan.devices[0].name}, and {len(endpoints)} addresses are given; give one per device"
            )
        self.plan, self.endpoints = plan, endpoints
        self.throttled_by: dict[str, str] = {}
        self.capped_by: dict[str, str] = {}
        self._children: list[Child] = []
        self._servers: dict[str, Child] = {}
        self._groups: dict[str, Groups] = {}
        self._guard: Child | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.stop()

    def _child(self, name: str, module: str, *arguments: str) -> Child:
        """Start a child and let the guard know of it."""
        child = Child(name, f"live.local.{module}", *arguments)
        self._children.append(child)
        # before anything else is done with it: a kill -9 of ours between the two would leave it running
        self._keep(pids=[child.pid])
        return child

    def _keep(self, pids: Sequence[int] = (), folders: Sequence[str] = ()) -> None:
        assert self._guard is not None
        self._guard.ask("keep", "noted", pids=list(pids), folders=list(folders))

    def _start(self) -> None:
        plan = self.plan
        # the first to live and the last to go, so that it knows every other process
        self._guard = Child("guard", "live.local.guard")
        client = plan.devices[0]
        if not self.endpoints:
            ports = [self._start_server(device.name, device.threads) for device in plan.devices[1:]]
            self._relay = self._child("relay", "relay")
            self.endpoints = tuple(
                self._open_link(shape, port) for shape, port in zip(plan.links, ports, strict=True)
            )
        else:
            self._require_servers()
        # after the servers: it connects to all of them while it loads, and aborts where one is missing
        self._client = self._child(client.name, "client")
        self._limit()
        self._client.command(
            "load",
            model=str(plan.model),
            endpoints=list(self.endpoints),
            threads=client.threads,
            layers=[device.layers for device in plan.devices[1:]],
            context=plan.context_tokens,
        )
        self._client.wait_for("loaded", LOAD_S, self.watch)
        # real devices have their own speed; a client alone may be throttled as well
        if self._servers or not plan.links:
            self._slow_down()
        if self._servers:
            # only now: the weights would take hours over a slow link, and loading is not what is measured
            self._relay.ask("shape", "shaping", on=True)

    def _start_server(self, name: str, threads: int) -> int:
        """Start one server on a free port; another program may take the port first, so try again."""
        for tries_left in reversed(range(PORT_TRIES)):
            port = free_port()
            server = self._child(
                name, "server", "--port", str(port), "--threads", str(threads), "--supervised"
            )
            try:
                self._await_port(server, port)
            except LiveError:
                if not tries_left:
                    raise
                # out of the list, so that `stop` does not end it a second time
                self._children.remove(server)
                server.end()
                continue
            self._servers[name] = server
            break
        return port

    def _await_port(self, server: Child, port: int) -> None:
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                if server.has_ended():
                    # no port will open any more, so the reason it gave is worth more than a time-out
                    server.next_event(1.0)  # raises with the reason that it gave
                time.sleep(0.02)
            else:
                return
        raise LiveError(
            f"the server of {server.name} did not listen within {START_S:.0f} s{server.last_words()}"
        )

    def _require_servers(self) -> None:
        """Servers that were named must answer now: the engine would abort without a word that helps."""
        for device, endpoint in zip(self.plan.devices[1:], self.endpoints, strict=True):
            host, _, port = endpoint.rpartition(":")
            try:
                socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
            except OSError as error:
                raise Unreachable(
                    f"{device.name}: nothing answers at {endpoint} ({error.strerror or error}); start `sim "
                    f"live local serve --host ADDRESS --port {port}` there, and mind its firewall"
                ) from error

    def _open_link(self, shape: LinkShape, port: int) -> str:
        full = shape.model_copy(update={"target": ("127.0.0.1", port)})
        opened = self._relay.ask("link", "port", shape=full.model_dump(mode="json"))
        return f"{shape.listen_host}:{opened['port']}"

    def _processes(self) -> dict[str, Child]:
        """The local process of each device."""
        return {self.plan.devices[0].name: self._client, **self._servers}

    def _limit(self) -> None:
        """Put each device into groups of its own, and cap its memory where the
        scenario states what is usable.
        """
        for device in self.plan.devices:
            if device.name not in self._processes() or (
                device.share == 1 and device.memory_cap_bytes is None
            ):
                continue
            groups = self._groups[device.name] = make_groups(device.name)
            self._keep(folders=[str(folder) for folder in groups.folders])
            # before the model is loaded: memory that was taken earlier is not charged to the group
            groups.take(self._processes()[device.name].pid)
            if device.memory_cap_bytes is not None:
                permitted = groups.limit_memory(device.memory_cap_bytes)
                self.capped_by[device.name] = "cgroup" if permitted else "not permitted"

    def _slow_down(self) -> None:
        """Slow devices down to their share: by quota where permitted and precise, else
        by stopping and continuing.
        """
        for device in self.plan.devices:
            if device.share == 1:
                continue
            groups = self._groups[device.name]
            # a quota is spent in one burst and refilled per period; a stage shorter than the tick never
            # meets it
            if device.stage_s >= QUOTA_FROM_S and groups.limit_cpu(device.share * device.threads):
                self.throttled_by[device.name] = "cgroup quota"
            else:
                assert self._guard is not None
                pid = self._processes()[device.name].pid
                self._guard.ask("slow", "noted", pid=pid, share=device.share)
                self.throttled_by[device.name] = f"stop and continue every {PERIOD_S * 1e3:g} ms"

    def watch(self) -> None:
        """Raise LiveError when a process of the cluster has ended."""
        for name, server in self._servers.items():
            if server.has_ended():
                raise LiveError(f"device {name}: its server {server.how_it_ended()}{self._why(name, server)}")
        self.watch_relay()

    def watch_relay(self) -> None:
        """Raise LiveError when the relay has ended; what becomes of a server a client that
        mends finds out by itself.
        """
        if self._servers and self._relay.has_ended():
            raise LiveError(f"the relay {self._relay.how_it_ended()}{self._relay.last_words()}")

    def _why(self, name: str, server: Child) -> str:
        cap = self.capped_by.get(name) == "cgroup"
        return "; is its memory cap (usable_memory) below its shard?" if cap else server.last_words()

    @property
    def pids(self) -> tuple[int, ...]:
        """Processes of the cluster."""
        return tuple(child.pid for child in self._children)

    def busy_ns(self) -> dict[str, int]:
        """CPU time that each server's process has used so far (ns)."""
        return {name: int(server.ask("busy", "busy")["busy_ns"]) for name, server in self._servers.items()}

    def generate(self, prompt_tokens: int, output_tokens: int, seed: int) -> Run:
        """One chat; raises LiveError when it breaks."""
        before = self.begin_watch()
        self._client.command("generate", prompt_tokens=prompt_tokens, output_tokens=output_tokens, seed=seed)
        sent = self._client.wait_for("request", SILENCE_S, self.watch)
        tokens: list[int] = []
        while (event := self._client.next_event(SILENCE_S, self.watch))["event"] != "done":
            tokens.append(event["at_ns"])
        return self.end_watch(before, sent["sent_ns"], tuple(tokens), event["busy_ns"] - sent["busy_ns"])

    def begin_watch(self) -> dict[str, int]:
        """Forget older flights; the CPU time of each server so far, for `end_watch`."""
        self.flights()
        return self.busy_ns()

    def end_watch(
        self, before: dict[str, int], sent_ns: int, token_ns: tuple[int, ...], client_busy_ns: int
    ) -> Run:
        """The chat since `begin_watch`, with what was imposed on its messages and how busy everybody was."""
        flights, after = self.flights(), self.busy_ns()
        busy_s = {self._client.name: client_busy_ns / 1e9}
        busy_s |= {name: (after[name] - before[name]) / 1e9 for name in after}
        return Run(
            sent_ns,
            token_ns,
            tuple(flights),
            busy_s,
            self._service_s((token_ns[-1] - sent_ns) / 1e9, flights),
        )

    def flights(self) -> list[Event]:
        """What the relay has imposed since the last call."""
        return list(self._relay.ask("collect", "flights", timeout_s=60.0)["flights"]) if self._servers else []

    def _service_s(self, wall_s: float, flights: list[Event]) -> dict[str, float]:
        """How long each device had work, told from the flights:
        from a delivered request to the begin of its reply.

        The client has the rest: what no request or reply was under way for. Prompts that overlap make this an
        overestimate for servers and an underestimate for the client.
        """
        client, away_s = self.plan.devices[0].name, 0.0
        service_s = {device.name: 0.0 for device in self.plan.devices[1:]}
        asked: dict[str, Event] = {}
        for flight in flights:
            if flight["source"] == client:
                asked[flight["sink"]] = flight
            # the first flight back answers the request; further ones belong to the same reply
            elif (request := asked.pop(flight["source"], None)) is not None:
                delivered_ns = request["last_ns"] + request["imposed_ns"] + request["late_ns"]
                service_s[flight["source"]] += (flight["sent_ns"] - delivered_ns) / 1e9
                arrived_ns = flight["last_ns"] + flight["imposed_ns"] + flight["late_ns"]
                away_s += (arrived_ns - request["last_ns"]) / 1e9
        # without flights (real devices) nobody was watched, and an empty answer says so
        return {client: wall_s - away_s, **service_s} if flights or not self.plan.links else {}

    def stop(self) -> None:
        """Stop everything; safe to call twice."""
        # in the order opposite to the start: the client goes first, so that no server breaks under it
        for child in reversed(self._children):
            child.end()
        self._children.clear()
        if self._guard is not None:
            # without it the guard takes the closed pipe for our death, and kills what it knows
            self._guard.command("farewell")
            self._guard.end()
