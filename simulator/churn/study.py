"""Study: what happens in many replications of a scenario with events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np
import simpy

from simulator.churn.facts import with_heat
from simulator.churn.heat import Heat
from simulator.churn.membership import Membership
from simulator.churn.pace import EpochPaces, Rows
from simulator.churn.placing import Placer, survivors
from simulator.churn.recovery import PhaseDurations
from simulator.churn.rng import ChurnRng
from simulator.churn.script import HOUR_S, Script
from simulator.churn.session import ClientSession
from simulator.churn.spec import HeatSpec, RecoverySpec
from simulator.churn.trace import ChurnTrace
from simulator.complete import complete
from simulator.engine.base import engine
from simulator.hosts import one_processor_each
from simulator.laws.law import Exponential
from simulator.laws.streams import Streams
from simulator.prepare import prepare
from simulator.scenario import Scenario

__all__ = ["Evening", "Study"]


@dataclass(frozen=True, slots=True)
class Evening:
    """Requests at random over some hours; those that have come are served, however long that takes."""

    hours: float
    requests_per_hour: float

    @property
    def most(self) -> int:
        """Requests for which random numbers are kept: the mean and six standard deviations more."""
        mean = self.hours * self.requests_per_hour
        return int(mean + 6 * sqrt(mean)) + 1


class Study:
    """A scenario with events, made ready once for all its replications."""

    def __init__(
        self,
        scenario: Scenario,
        replications: int | None = None,
        evening: Evening | None = None,
        believed: Scenario | None = None,
    ) -> None:
        """With `evening` there are requests at random, else those of `workload.arrivals`, else
        one reply per replication; `believed` is what the client places by, where it knows other speeds.

        Raises what `complete` raises, CatalogError for a heat law or a recovery that nobody
        knows, and PlacementError where the devices that are there from the start cannot hold the
        model, unless others join.
        """
        one_processor_each(scenario, "a dropout")
        self.scenario = with_heat(complete(scenario))
        self.replications = replications if replications is not None else scenario.replications
        self.evening = evening
        self.facts = engine(self.scenario.engine.name).recovers()
        self.placer = Placer(self.scenario, believed and complete(believed))
        arrivals = scenario.workload.arrivals
        runs = evening.most if evening else arrivals.count if arrivals else 1
        hot = tuple(name for name, spec in self.scenario.devices.items() if isinstance(spec.heat, HeatSpec))
        self.paces = EpochPaces(Rows(0, self.replications * runs, runs), hot)
        joining = {event.device for event in scenario.events if event.event == "join"}
        self.at_first = tuple(name for name in self.scenario.devices if name not in joining)
        # fail here, not after the first of many replications
        if not joining:
            prepare(survivors(self.scenario, self.at_first))

    def traces(self, progress: Callable[[int, int], None] | None = None) -> list[ChurnTrace]:
        """All replications; `progress` is told how many are done, and of how many."""
        told = []
        for replication in range(self.replications):
            told.append(self.trace(replication))
            if progress is not None:
                progress(replication + 1, self.replications)
        return told

    def trace(self, replication: int) -> ChurnTrace:
        """One replication, from the first request until every reply is complete or given up."""
        env, rng = simpy.Environment(), ChurnRng(self.scenario.seed, replication)
        members = Membership(env, self.at_first)
        script = Script(env, self.scenario.events, members, rng, self.facts.delay("rejoin"))
        trace = ChurnTrace(replication, happened=script.happened)
        client = self.scenario.recovery or RecoverySpec()
        first = next(iter(self.at_first), "")
        recovery = PhaseDurations(self.facts, client, self.paces, rng, first)
        workload = self.scenario.workload
        session = ClientSession(
            env,
            members,
            self.placer,
            self.paces,
            recovery,
            script,
            trace,
            self._heats(rng),
            workload.prompt_tokens,
            replication * self.paces.rows.runs,
        )
        replies = [
            env.process(session.reply(number, asked_s, workload.output_tokens))
            for number, asked_s in enumerate(self._arrivals(rng))
        ]
        # until the replies are done: events at random would go on for ever
        env.run(until=env.all_of(replies))
        return trace

    def _arrivals(self, rng: ChurnRng) -> list[float]:
        """When requests come (s)."""
        if self.evening is None:
            return self._written(rng.replication)
        gap = Exponential.model_construct(mean=HOUR_S / self.evening.requests_per_hour)
        now_s = rng.draw("requests", gap)
        times: list[float] = []
        while now_s < self.evening.hours * HOUR_S and len(times) < self.evening.most:
            times.append(now_s)
            now_s += rng.draw("requests", gap)
        return times

    def _written(self, replication: int) -> list[float]:
        """The requests that the scenario itself tells of, drawn as `sim load` draws them."""
        spec = self.scenario.workload.arrivals
        if spec is None or spec.times is not None:
            return [0.0] if spec is None else list(spec.times or ())
        gap = Exponential.model_construct(mean=HOUR_S / (spec.rate or 1.0))
        draws = Streams(self.scenario.seed, replication).draws("arrivals", gap, spec.chats)
        times: list[float] = np.cumsum(draws[:, 0]).tolist()
        return times

    def _heats(self, rng: ChurnRng) -> dict[str, Heat]:
        """Cold devices; how well each one holds its speed differs from replication to replication."""
        found = {}
        for name, spec in self.scenario.devices.items():
            if isinstance(spec.heat, HeatSpec):
                sustained = spec.heat.sustained * rng.factor(f"heat/{name}", spec.heat.spread)
                # within the bounds of HeatSpec, which a wide spread would leave
                found[name] = Heat(spec.heat.approach, min(1.0, max(0.05, sustained)))
        return found
