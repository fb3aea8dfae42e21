"""A cluster of MLX ranks: one process per device in MLX's own environment, every link through the relay."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from live.local.children import Child, Event
from live.local.cluster import LOAD_S, LocalCluster
from live.local.mlx.environment import MLX, preload, rank_environment
from live.local.mlx.plan import MlxPlan
from live.local.mlx.weights import RANK
from live.local.server import free_port
from simulator.errors import LiveError

__all__ = ["MlxCluster", "rank_child"]


def _command() -> list[str]:
    # -P: the folder of a program comes first on its path, and there are modules of ours in it
    return [str(MLX.python), "-P", str(RANK)]


def rank_child(name: str, rank: int, hosts: Path) -> Child:
    """A rank outside any cluster, as the reference workload is."""
    return Child(name, "rank", command=_command(), environment=rank_environment(rank, hosts))


class MlxCluster(LocalCluster):
    """Ranks in a ring; the first device of the scenario tells the tokens."""

    plan: MlxPlan

    def __init__(self, plan: MlxPlan) -> None:
        MLX.require()
        _require_cores(plan)
        super().__init__(plan)
        self._ports: list[int] = []
        """Of the relay, for the link to the right of each rank."""

    def _launch(self) -> None:
        plan = self.plan
        with tempfile.TemporaryDirectory(prefix="mlx-hosts-") as folder:
            for place, device in enumerate(plan.devices):
                hosts = Path(folder) / f"{device.name}.json"
                process = self._child(
                    device.name,
                    "rank",
                    command=_command(),
                    environment=rank_environment(plan.rank_of(place), hosts),
                )
                if place:
                    self._others[device.name] = process
                else:
                    self._client = process
            self._pin()
            self._limit()
            self._link(Path(folder))
            ranks = list(self._processes().values())
            for child, device in zip(ranks, plan.devices, strict=True):
                child.command(
                    "load",
                    model=str(plan.model),
                    ranks=plan.size,
                    strategy="tensor" if plan.is_tensor else "pipeline",
                    start_layer=device.start_layer,
                    end_layer=device.start_layer + device.layers,
                    tells=child is self._client,
                    share=device.share,
                    flow="exo" if plan.is_exo else "mlx",
                )
            for child in ranks:
                child.wait_for("loaded", LOAD_S, self.watch)

    def _pin(self) -> None:
        """Keep all ranks to as many cores as the scenario says that they share, where the system can."""
        host = self.plan.scenario.shared_host
        if host is None or host.cores is None or not hasattr(os, "sched_setaffinity"):
            return
        mine = sorted(os.sched_getaffinity(0))
        for child in self._processes().values():
            # the last ones: interrupts like the first, and the relay may have whatever is left
            os.sched_setaffinity(child.pid, mine[-host.cores :])

    def _slow_down(self) -> None:
        """By tensor each rank paces itself; else as any device."""
        if not self.plan.is_tensor:
            super()._slow_down()
            return
        own = "waits of its own behind each piece of work"
        self.throttled_by |= {device.name: own for device in self.plan.devices if device.share < 1}

    def _link(self, folder: Path) -> None:
        """A relay between all neighbours, and for each rank a list of hosts with the relay as its right one.

        MLX takes whoever accepts for its peer, so every rank has its own list instead of a common one.
        """
        own = [free_port() for _ in self.plan.devices]
        if self.plan.links:
            self._relay = self._child("relay", "relay")
            targets = [*own[1:], own[0]]
            self._ports = [
                self._open_link(shape, port) for shape, port in zip(self.plan.links, targets, strict=True)
            ]
        for place, device in enumerate(self.plan.devices):
            rank = self.plan.rank_of(place)
            seen = list(own)
            if self._ports:
                seen[(rank + 1) % self.plan.size] = self._ports[rank]
            hosts = json.dumps([[f"127.0.0.1:{port}"] for port in seen])
            (folder / f"{device.name}.json").write_text(hosts, encoding="utf-8")

    def ask_reply(
        self,
        prompt_tokens: int,
        output_tokens: int,
        seed: int,
        received: Sequence[int] = (),
        *,
        exact: bool = False,
    ) -> None:
        """Announce the messages to the relay, then ask all ranks."""
        if received:
            raise LiveError("a local MLX cluster cannot go on behind tokens; ask for the whole reply")
        for place in range(self.plan.size if self._ports else 0):
            # a link leads to the right of a rank; what comes back through it, its right neighbour sends left
            rank = self.plan.rank_of(place)
            right = self.plan.place_of((rank + 1) % self.plan.size)
            assert self._relay is not None
            self._relay.ask(
                "expect",
                "expected",
                port=self._ports[rank],
                forth=self.plan.to_right(place, prompt_tokens, output_tokens),
                back=self.plan.to_left(right, prompt_tokens, output_tokens),
            )
        # those who wait for a neighbour first, the one that tells the time last
        for child in reversed(self._processes().values()):
            child.command("generate", prompt_tokens=prompt_tokens, output_tokens=output_tokens, seed=seed)

    def _service_s(self, wall_s: float, flights: list[Event]) -> dict[str, float]:
        """As the ranks tell; of tensor nobody can, where work and waiting alternate in each layer."""
        if self.plan.is_tensor and self.plan.size > 1:
            return {}
        told = {name: child.ask("worked", "worked") for name, child in self._processes().items()}
        return {name: event["worked_ns"] / 1e9 for name, event in told.items()}


def _require_cores(plan: MlxPlan) -> None:
    """Without the library that lets a waiting rank sleep, each keeps a core busy all the time."""
    cores, host = os.cpu_count() or 1, plan.scenario.shared_host
    if host is not None and host.cores is not None and host.cores > cores:
        raise LiveError(
            f"{plan.scenario.name}: shared_host.cores is {host.cores}, and this machine has {cores}; write "
            "what there is"
        )
    if preload() is None and plan.size > cores:
        raise LiveError(
            f"{plan.scenario.name} has {plan.size} ranks, and this machine {cores} cores: MLX keeps a core "
            "busy while a rank waits, and what would let it sleep needs Linux and a C compiler; install one "
            "(Debian, Ubuntu: apt-get install gcc), or take fewer devices"
        )
