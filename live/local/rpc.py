"""A cluster of llama.cpp RPC: a server for each device but the first, whose client drives them in turn."""

from __future__ import annotations

import socket
import time

from live.local import library
from live.local.children import Child, Event
from live.local.cluster import LOAD_S, LocalCluster
from live.local.plan import ClusterPlan
from live.local.server import free_port
from simulator.errors import LiveError, Unreachable

__all__ = ["RpcCluster"]

START_S = 20.0
CONNECT_S = 5.0
PORT_TRIES = 3


class RpcCluster(LocalCluster):
    """Servers behind links to one client."""

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
        super().__init__(plan)
        self.endpoints = endpoints

    @property
    def is_local(self) -> bool:
        """Not where servers were named that already run."""
        return bool(self._others) or not self.plan.links

    def _launch(self) -> None:
        plan = self.plan
        client = plan.devices[0]
        if not self.endpoints:
            ports = [self._start_server(device.name, device.threads) for device in plan.devices[1:]]
            self._relay = self._child("relay", "relay") if ports else None
            self.endpoints = tuple(
                f"{shape.listen_host}:{self._open_link(shape, port)}"
                for shape, port in zip(plan.links, ports, strict=True)
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
            self._others[name] = server
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
