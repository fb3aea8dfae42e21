"""Drill: a client that ends and starts again on the servers that are there; what its phases
take is what recoveries take.

No device of the study has to be lost for it. With `kill` one more server goes first, and
`detect` is measured as well.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from live.local import library
from live.local.breaking import BreakableCluster
from live.local.plan import ClusterPlan, plan
from simulator.churn.placing import Placed, Placer
from simulator.errors import LiveError, PlacementError
from simulator.result.estimate import rounded
from simulator.scenario import Scenario

__all__ = ["Drill", "drill", "wire_s"]

TOKENS, SEED, SILENCE_S = 20, 1, 60.0


@dataclass(frozen=True, slots=True)
class Drill:
    """One restart: what each phase took (s), and what is left of it when physics has had its share.

    `load_fixed` is what `load` took beyond the bytes over the links' rates and the round
    trips, `first_prompt_fixed` what the first prompt took beyond a second one of the same
    length and its own round trips.
    """

    scenario: str
    layers: dict[str, int]
    phases_s: dict[str, float]
    round_trips: dict[str, dict[str, int]] = field(default_factory=dict)
    """In `load` and in `first_prompt` (beyond a second one):
    how often the client waited for each server's answer.
    """

    def document(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def wire_s(placed: Placed) -> float:
    """Time of the weights on the links alone:
    `sum over servers of bytes / rate of the way from the client`.
    """
    client, *servers = placed.memory
    cluster = placed.job.cluster
    return sum(
        (use.weights_bytes + use.embedding_bytes + use.head_bytes)
        * max(1 / leg.rate_bytes_per_s for leg in cluster.path(client.device, use.device).legs)
        for use in servers
    )


def round_trip_s(placed: Placed, server: str) -> float:
    """Mean time of a question to a server and its answer, without their bytes."""
    cluster, client = placed.job.cluster, placed.devices[0]
    return sum(
        leg.law.mean_s * leg.stretch + leg.extra_s
        for ends in ((client, server), (server, client))
        for leg in cluster.path(*ends).legs
    )


def drill(scenario: Scenario, kill: str | None = None, threads: int = 1) -> Drill:
    """Restart the client of `scenario` once; raises LiveError when the cluster fails."""
    library.require()
    chosen = plan(scenario, threads)
    with BreakableCluster(chosen) as cluster:
        cluster.generate(chosen.scenario.workload.prompt_tokens, TOKENS, SEED)
        phases_s = {"detect": _detect_s(cluster, chosen, kill)} if kill else {}
        clock = _Clock(phases_s)
        cluster.release()
        clock.lap("release")
        placed = _place(chosen, cluster.answering(1.0))
        clock.lap("decide")
        cluster.start_client()
        cluster.flights()
        clock.lap("start")
        layers = {shard.device: shard.layers for shard in placed.job.shards}
        cluster.load(list(layers.items())[1:])
        clock.lap("load")
        loading = _answers(cluster, placed)
        first, later = (
            _prompt(cluster, chosen, placed, clock, name) for name in ("prefill", "prefill_again")
        )
        # the second prompt of the same length pays for the physics; what is left is paid once per process
        extra = {server: first[server] - later[server] for server in loading}
        phases_s["load_fixed"] = phases_s["load"] - wire_s(placed) - _waits_s(placed, loading)
        phases_s["first_prompt_fixed"] = (
            phases_s["prefill"] - phases_s["prefill_again"] - _waits_s(placed, extra)
        )
        return Drill(
            scenario.name,
            layers,
            {name: rounded(value) for name, value in phases_s.items()},
            {"load": dict(loading), "first_prompt": extra},
        )


@dataclass
class _Clock:
    """Writes down how long it was since the last time."""

    laps_s: dict[str, float]
    since_s: float = field(default_factory=time.monotonic)

    def lap(self, name: str) -> None:
        now_s = time.monotonic()
        self.laps_s[name], self.since_s = now_s - self.since_s, now_s


def _prompt(
    cluster: BreakableCluster, chosen: ClusterPlan, placed: Placed, clock: _Clock, name: str
) -> Counter[str]:
    """The first token of a reply with `TOKENS` received; how often each server answered."""
    clock.since_s = time.monotonic()
    cluster.ask_reply(chosen.scenario.workload.prompt_tokens, 1, SEED, [3] * TOKENS)
    while cluster.next_event(SILENCE_S)["event"] != "token":
        pass
    clock.lap(name)
    cluster.next_event(SILENCE_S)  # that it is done
    return _answers(cluster, placed)


def _answers(cluster: BreakableCluster, placed: Placed) -> Counter[str]:
    """How often each server has answered since the last call."""
    return Counter(flight["source"] for flight in cluster.flights() if flight["source"] != placed.devices[0])


def _waits_s(placed: Placed, answers: Mapping[str, int]) -> float:
    return sum(count * round_trip_s(placed, server) for server, count in answers.items())


def _place(chosen: ClusterPlan, names: tuple[str, ...]) -> Placed:
    full = chosen.scenario
    placed = Placer(full).place(names)
    if not isinstance(placed, Placed):
        raise PlacementError(placed.reason)
    return placed


def _detect_s(cluster: BreakableCluster, chosen: ClusterPlan, name: str) -> float:
    """From kill -9 in the middle of a reply to the client's knowing."""
    # longer than what is read, so that the kill falls into the middle of a reply
    cluster.ask_reply(chosen.scenario.workload.prompt_tokens, 10 * TOKENS, SEED, [])
    for _ in range(TOKENS):
        cluster.next_event(SILENCE_S)
    at_ns = cluster.lose(name, "kill")
    try:
        while True:
            cluster.next_event(SILENCE_S)
    except LiveError:
        return (time.monotonic_ns() - at_ns) / 1e9
