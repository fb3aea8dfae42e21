"""Drill: a client that ends and starts again on the servers that are there; what its phases take is what recoveries take.

No device of the study has to be lost for it. With `kill` one more server goes first, and `detect` is measured as well.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from live.local import library
from live.local.breaking import BreakableCluster
from live.local.plan import Plan, plan
from simulator.churn.facts import recovery_facts
from simulator.churn.placing import Placed, Placer
from simulator.errors import LiveError, PlacementError
from simulator.result.estimate import rounded
from simulator.scenario import Scenario

__all__ = ["Drill", "drill", "wire_s"]

TOKENS, SEED, SILENCE_S = 20, 1, 60.0


@dataclass(frozen=True, slots=True)
class Drill:
    """One restart: what each phase took (s); `load_fixed` is what `load` took beyond the bytes over the links' rates."""

    scenario: str
    layers: dict[str, int]
    phases_s: dict[str, float]

    def document(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def wire_s(placed: Placed) -> float:
    """Time of the weights on the links alone: `sum over servers of bytes / rate of the way from the client`."""
    client, *servers = placed.memory
    cluster = placed.job.cluster
    return sum((use.weights_bytes + use.embedding_bytes + use.head_bytes)
               * max(1 / leg.rate_bytes_per_s for leg in cluster.path(client.device, use.device).legs) for use in servers)


def drill(scenario: Scenario, kill: str | None = None, threads: int = 1) -> Drill:
    """Restart the client of `scenario` once; raises LiveError when the cluster fails."""
    library.require()
    chosen = plan(scenario, threads)
    with BreakableCluster(chosen) as cluster:
        workload = chosen.scenario.workload
        cluster.generate(workload.prompt_tokens, TOKENS, SEED)
        phases_s = {"detect": _detect_s(cluster, chosen, kill)} if kill else {}
        ends = [time.monotonic()]
        cluster.release()
        ends.append(time.monotonic())
        placed = _place(chosen, cluster.answering(1.0))
        ends.append(time.monotonic())
        cluster.start_client()
        ends.append(time.monotonic())
        layers = {shard.device: shard.layers for shard in placed.job.shards}
        cluster.load(list(layers.items())[1:])
        ends.append(time.monotonic())
        cluster.ask_reply(workload.prompt_tokens, 1, SEED, [3] * TOKENS)
        while cluster.next_event(SILENCE_S)["event"] != "token":
            pass
        ends.append(time.monotonic())
        names = ("release", "decide", "start", "load", "prefill")
        phases_s |= {name: ends[k + 1] - ends[k] for k, name in enumerate(names)}
        phases_s["load_fixed"] = phases_s["load"] - wire_s(placed)
        return Drill(scenario.name, layers, {name: rounded(value) for name, value in phases_s.items()})


def _place(chosen: Plan, names: tuple[str, ...]) -> Placed:
    full = chosen.scenario
    placed = Placer(full, recovery_facts(full.engine.name)).place(names)
    if not isinstance(placed, Placed):
        raise PlacementError(placed.reason)
    return placed


def _detect_s(cluster: BreakableCluster, chosen: Plan, name: str) -> float:
    """From kill -9 in the middle of a reply to the client's knowing."""
    cluster.ask_reply(chosen.scenario.workload.prompt_tokens, 10 * TOKENS, SEED, [])
    for _ in range(TOKENS):
        cluster.next_event(SILENCE_S)
    at_ns = cluster.lose(name, "kill")
    try:
        while True:
            cluster.next_event(SILENCE_S)
    except LiveError:
        return (time.monotonic_ns() - at_ns) / 1e9
