"""A local Petals swarm: a bootstrap, a server for each device behind the relay, and a client."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from live.local.children import Child, Event
from live.local.cluster import LOAD_S, LocalCluster
from live.local.petals.environment import PETALS
from live.local.petals.nursery import Nestling
from live.local.petals.plan import PetalsPlan, ServerPlan
from live.local.petals.processes import busy_ns, of_sessions
from live.local.server import free_port
from simulator.errors import LiveError

__all__ = ["PREFIX", "PetalsCluster", "load_alone"]

PREFIX = "_lab"  # as in `launch.py`
START_S = 120.0


def load_alone(client: Child, model: Path) -> None:
    """Have a client compute all blocks itself."""
    client.command("load", model=str(model), peers=[])


def identity(number: int) -> Path:
    """The key of the server of that number, made by whoever needs it first: that takes seconds."""
    folder = PETALS.home / "identities"
    folder.mkdir(exist_ok=True)
    return folder / f"{number}.id"


class PetalsCluster(LocalCluster):
    """Servers that chose nothing: each has the blocks that
    the scenario gives it, and is as slow as its device.
    """

    plan: PetalsPlan

    def __init__(self, plan: PetalsPlan) -> None:
        PETALS.require()
        super().__init__(plan)
        self.peers: dict[str, str] = {}
        """The device of each peer."""
        self.bootstrap: list[str] = []
        self.start_s = 0.0
        """How long the servers took until all were online."""
        self._ports: dict[str, int] = {}
        """Of each server, as others know it: its relay's, where it has one."""

    def _launch(self) -> None:
        plan = self.plan
        first = self._adopt(Nestling("bootstrap", "dht", {"port": free_port()}))
        self._client = self._adopt(Nestling(plan.client, "client", {}))
        if plan.links:
            self._relay = self._child("relay", "relay")
            # from the start: no weights travel, and what servers
            # and client think of each way is its round trip
            self._relay.ask("shape", "shaping", on=True)
        self.bootstrap = first.wait_for("listening", START_S)["addresses"]
        for server in (*plan.servers, *plan.spares):
            self._others[server.name] = self._serve(server)
        begin_s = time.monotonic()
        for name, child in self._others.items():
            self.peers[child.wait_for("online", START_S, self.watch)["peer"]] = name
        self.start_s = time.monotonic() - begin_s
        self._client.command(
            "load",
            model=str(plan.model.parent),
            peers=self.bootstrap,
            prefix=PREFIX,
            repairs=self._repairs(),
            config=self._config(),
        )
        self._client.wait_for("loaded", LOAD_S, self.watch)

    def _repairs(self) -> list[str]:
        # a client that hangs for ever measures nothing, so that one is always mended
        return ["del", *self.plan.swarm.repairs]

    def _config(self) -> dict[str, Any]:
        swarm = self.plan.swarm
        return {
            "update_period": swarm.update_period,
            "request_timeout": swarm.request_timeout,
            "max_backoff": swarm.max_backoff,
            "ban_timeout": swarm.ban,
        }

    def _serve(self, server: ServerPlan) -> Child:
        """Start a server; a second one of the same device has its identity and its relay."""
        port = free_port()
        if server.name in self._ports:
            assert self._relay is not None
            self._relay.ask("lead", "led", port=self._ports[server.name], to=port)
        else:
            self._ports[server.name] = self._relayed(server.name, port)
        return self._adopt(Nestling(server.name, "server", self._options(server, port)))

    def _relayed(self, name: str, port: int) -> int:
        """The relay's port before a server's, or that one itself on the client's machine."""
        for link in self.plan.links:
            if link.forth.sink == name:
                return self._open_link(link, port)
        return port

    def _options(self, server: ServerPlan, port: int) -> dict[str, Any]:
        return {
            "port": port,
            "announce": self._ports[server.name],
            "peers": self.bootstrap[0],
            "identity": str(identity(list(self._ports).index(server.name))),
            "blocks": f"{server.start}:{server.end}",
            "model": str(self.plan.model.parent),
            "block_s": server.block_s,
            "token_s": server.token_s,
            "push": self.plan.pushes,
            "update_period": self.plan.swarm.announce_period,
        }

    def _slow_down(self) -> None:
        """Each server waits inside its own queue."""
        self.throttled_by |= {one.name: "waits of its own behind each step" for one in self.plan.servers}

    @property
    def pids(self) -> tuple[int, ...]:
        """All processes of all sessions."""
        found = of_sessions(child.pid for child in self._children)
        return tuple(pid for pids in found.values() for pid in pids)

    def busy_ns(self) -> dict[str, int]:
        """CPU time of each server, with its handlers and its p2pd."""
        return {name: busy_ns(child.pid) for name, child in self._others.items()}

    def ask_reply(
        self,
        prompt_tokens: int,
        output_tokens: int,
        seed: int,
        received: Sequence[int] = (),
        *,
        exact: bool = False,
    ) -> None:
        """Ask for as many chats at once as the scenario has."""
        if received:
            raise LiveError("a local Petals swarm cannot go on behind tokens; ask for the whole reply")
        self._client.command(
            "generate",
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            seed=seed,
            chats=self.plan.scenario.workload.concurrency,
        )

    def next_event(self, timeout_s: float, waiting: Callable[[], None] = lambda: None) -> Event:
        """See `LocalCluster`; servers by their devices."""
        event = super().next_event(timeout_s, waiting)
        if "spans" in event:
            event["spans"] = [(self.peers.get(peer, peer), *times) for peer, *times in event["spans"]]
        return event

    def _service_s(self, wall_s: float, flights: list[Event]) -> dict[str, float]:
        """Nobody's: a server that waits in order to be slow uses no processor for it."""
        return {}
