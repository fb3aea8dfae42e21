"""Chats that come one by one: queueing, goodput under a bound on latency, and where more chats stop to help.

A chat is *met* if its first token comes within a bound after it arrived, waiting included, and its tokens
then follow at the rate that is asked for. Goodput counts met chats only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import simpy

from simulator.engine.base import Engine, engine, engines
from simulator.errors import Fault, ScenarioError
from simulator.laws.law import Exponential, Floats
from simulator.laws.streams import Streams
from simulator.plan.place.costs import decode_costs
from simulator.plan.place.solve import value_s
from simulator.prepare import Prepared, ground, prepare
from simulator.result.estimate import Estimate, estimate, rounded
from simulator.result.summary import summarise
from simulator.run.evaluate import token_times_s
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.record import Recorder
from simulator.scenario import ArrivalSpec, Scenario
from simulator.spec import Spec

__all__ = [
    "Bound",
    "Crossing",
    "Crossover",
    "LoadPoint",
    "Served",
    "arrivals_s",
    "crossover",
    "load_curve",
    "load_point",
    "serve",
]

HOUR_S = 3600.0
MOST_CHATS = 16
"""Chats at once up to which the crossover is drawn, if nobody says otherwise."""
CURVE_ROWS, CURVE_TOKENS, CURVE_PROMPT, SIMPY_TOKENS, LEAST_ROWS = 50, 32, 2, 3000, 5
"""The crossover's replications and tokens; where only SimPy will do, so many tokens in
all, about a second's worth.
"""


class Bound(Spec):
    """What a user puts up with: seconds until the first token, and tokens/s from then on."""

    first_token_s: float = 10.0
    tokens_per_s: float = 0.0


class LoadPoint(Spec):
    """One arrival rate and what becomes of the chats; medians and intervals over replications."""

    arrivals_per_hour: float
    chats: int
    share_met: Estimate
    goodput_per_hour: Estimate
    """Met chats per hour, from the first arrival to the last token."""
    served_per_hour: Estimate
    tokens_per_s: Estimate
    """Of one chat, from its first token to its last."""
    total_tokens_per_s: Estimate
    first_token_p50_s: Estimate
    first_token_p95_s: Estimate


class Crossing(Spec):
    """So many chats at once, all started together, and the two bounds on what they get."""

    chats: int
    total_tokens_per_s: Estimate
    by_sum: float
    """`chats / (stages + hops)`: nobody waits for anybody."""
    by_slowest: float
    """`1 / slowest stage`: one stage is always busy. Both are medians over the same worlds."""
    in_step: bool


class Crossover(Spec):
    """Rates over the number of chats; beyond `at_chats` the slowest stage is the limit, below it the sum."""

    scenario: str
    engine: str
    at_chats: float
    in_step: bool
    """The engine decodes all chats as one batch: then the sum of stages is the
    limit for any number of chats.
    """
    rows: tuple[Crossing, ...]


@dataclass(frozen=True, slots=True)
class Served:
    """Chats of all rows: `arrivals_s` (chats, rows) and `times_s` (chats, tokens,
    rows), both from the start.
    """

    arrivals_s: Floats
    times_s: Floats

    @property
    def first_token_s(self) -> Floats:
        """Seconds from a chat's arrival to its first token, (chats, rows)."""
        return np.asarray(self.times_s[:, 0] - self.arrivals_s)

    @property
    def tokens_per_s(self) -> Floats:
        """Each chat's rate from its first token to its last, (chats, rows)."""
        return np.asarray((self.times_s.shape[1] - 1) / (self.times_s[:, -1] - self.times_s[:, 0]))

    def met(self, bound: Bound) -> Floats:
        """1 where a chat met the bound, (chats, rows)."""
        in_time = (self.first_token_s <= bound.first_token_s) & (self.tokens_per_s >= bound.tokens_per_s)
        return np.asarray(in_time, dtype=float)


def arrivals_s(job: Job, row: int) -> Floats:
    """When the chats of one row come (s): the trace, or sums of exponential gaps with
    mean `1 / rate` (Poisson).
    """
    spec = _arrivals(job)
    if spec.times is not None:
        return np.array(spec.times)
    assert spec.rate is not None
    gap = Exponential.model_construct(mean=HOUR_S / spec.rate)
    return np.asarray(np.cumsum(Streams(job.seed, row, 1).draws("arrivals", gap, spec.chats)[:, 0]))


def serve(job: Job, rows: int, progress: Callable[[int], None] | None = None) -> Served:
    """Chats as they come, by SimPy, one row after the other;
    raises ScenarioError for an engine that cannot tell how.
    """
    flow, spec = engine(job.engine.name), _arrivals(job)
    came, times_s = (
        np.empty((spec.count, rows)),
        # what is never filled in must not pass for a time
        np.full((spec.count, job.workload.output_tokens, rows), np.nan),
    )
    for row in range(rows):
        came[:, row] = arrivals_s(job, row)
        for chat, token, time_s, _ in _serve_row(flow, job, row, came[:, row]).tokens:
            times_s[chat, token, row] = time_s
        if progress is not None:
            progress(row + 1)
    return Served(came, times_s)


def _serve_row(flow: Engine, job: Job, row: int, came_s: Floats) -> Recorder:
    if flow.serve is None:
        able = " or ".join(name for name, other in engines().items() if other.serve is not None)
        raise ScenarioError(
            "scenario",
            [
                Fault(
                    "workload.arrivals",
                    f"how {flow.name} serves chats that come one by one is not recorded; use engine {able}",
                )
            ],
        )
    env, recorder = simpy.Environment(), Recorder()
    flow.serve(env, job, Draws(job, row, 1), recorder, came_s.tolist())
    env.run()
    return recorder


def _arrivals(job: Job) -> ArrivalSpec:
    if job.workload.arrivals is None:
        reason = "is missing; give for example {rate: 20 /h}, or times"
        raise ScenarioError("scenario", [Fault("workload.arrivals", reason)])
    return job.workload.arrivals


def load_point(prepared: Prepared, bound: Bound, progress: Callable[[int], None] | None = None) -> LoadPoint:
    """What becomes of the chats of a scenario with arrivals; raises ScenarioError where it has none."""
    job = prepared.job
    served = serve(job, prepared.scenario.replications * job.workload.runs, progress)
    met, chats = served.met(bound), len(served.arrivals_s)
    span_s = served.times_s[:, -1].max(axis=0) - served.arrivals_s.min(axis=0)
    spec, tokens = _arrivals(job), job.workload.output_tokens
    # all may come at one moment
    measured = chats / max(1e-9, float(np.ptp(served.arrivals_s[:, 0]))) * HOUR_S
    return LoadPoint(
        arrivals_per_hour=rounded(spec.rate or measured),
        chats=chats,
        share_met=estimate(met.mean(axis=0)),
        goodput_per_hour=estimate(met.sum(axis=0) / span_s * HOUR_S),
        served_per_hour=estimate(chats / span_s * HOUR_S),
        tokens_per_s=estimate(served.tokens_per_s.mean(axis=0)),
        total_tokens_per_s=estimate(chats * tokens / span_s),
        first_token_p50_s=estimate(np.quantile(served.first_token_s, 0.5, axis=0)),
        first_token_p95_s=estimate(np.quantile(served.first_token_s, 0.95, axis=0)),
    )


def load_curve(
    scenario: Scenario,
    rates_per_hour: Sequence[float],
    bound: Bound,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[LoadPoint, ...]:
    """A LoadPoint for each rate of Poisson arrivals, on the same random numbers:
    chats come in the same rhythm.
    """
    points, asked = [], scenario.workload.arrivals
    chats = asked.count if asked else ArrivalSpec.model_fields["chats"].default
    for done, rate in enumerate(rates_per_hour):
        spec = ArrivalSpec.model_construct(rate=float(rate), times=None, chats=chats)
        workload = scenario.workload.model_copy(update={"arrivals": spec})
        points.append(load_point(prepare(scenario.model_copy(update={"workload": workload})), bound))
        if progress is not None:
            progress(done + 1, len(rates_per_hour))
    return tuple(points)


def crossover(
    scenario: Scenario, most_chats: int = MOST_CHATS, progress: Callable[[int, int], None] | None = None
) -> Crossover:
    """Tokens/s of 1 to `most_chats` chats at once while decoding, simulated, and the two bounds of a ring."""
    counts, found, crossings = _counts(most_chats), [], []
    rows = _rows(prepare(_short(scenario, most_chats)))  # the same worlds for every number of chats
    for done, chats in enumerate(counts):
        prepared = prepare(_short(scenario, chats))
        at_once = prepared.engine.memory_chats(chats)
        streams = prepared.engine.chats(prepared.job)
        in_step = max(streams) > 1
        # a batch reads its weights once, so both bounds move with it
        total_s, slowest_s = _means_s(prepared, at_once if in_step else 1, rows)
        total = summarise(token_times_s(prepared.job, rows), streams).total_tokens_per_s
        found.append(
            Crossing(
                chats=chats,
                total_tokens_per_s=total,
                by_sum=estimate(at_once / total_s).median,
                in_step=in_step,
                by_slowest=estimate((at_once if in_step else 1) / slowest_s).median,
            )
        )
        if chats == 1:
            crossings.append(estimate(total_s / slowest_s).median)
        if progress is not None:
            progress(done + 1, len(counts))
    return Crossover(
        scenario=scenario.name,
        engine=scenario.engine.name,
        at_chats=crossings[0],
        in_step=any(row.in_step for row in found),
        rows=tuple(found),
    )


def _counts(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, 16, ... up to `most`."""
    steps = sorted({*range(1, 5), *(base << shift for base in (2, 3) for shift in range(1, 8))})
    return [count for count in steps if count < most] + [most]


def _short(scenario: Scenario, chats: int) -> Scenario:
    """Short prompts, so that the rate is that of decoding, and chats that begin at about the same time."""
    asked = scenario.workload
    workload = asked.model_copy(
        update={
            "runs": 1,
            "concurrency": chats,
            "arrivals": None,
            "prompt_tokens": min(CURVE_PROMPT, asked.prompt_tokens),
            "output_tokens": min(CURVE_TOKENS, asked.output_tokens),
        }
    )
    return scenario.model_copy(
        update={"workload": workload, "replications": min(CURVE_ROWS, scenario.replications)}
    )


def _rows(prepared: Prepared) -> int:
    if prepared.engine.is_recursion_exact(prepared.job):
        return prepared.scenario.replications
    workload = prepared.scenario.workload
    return max(
        LEAST_ROWS,
        min(prepared.scenario.replications, SIMPY_TOKENS // (workload.output_tokens * workload.concurrency)),
    )


def _means_s(prepared: Prepared, batch: int, rows: int) -> tuple[Floats, Floats]:
    """(sum of stages and hops, slowest stage) of the placement: mean seconds in each
    world, shape (rows,) both.
    """
    base, job, draws = ground(prepared.scenario), prepared.job, Draws(prepared.job, 0, rows)
    costs, names = decode_costs(base, batch), [device.name for device in base.cluster.devices]
    order, layers = (
        [names.index(shard.device) for shard in job.shards],
        [shard.layers for shard in job.shards],
    )
    total_s, _ = value_s(costs, order, layers)
    ends_s = np.zeros(len(order))
    ends_s[0] += costs.first_s[order[0]]
    ends_s[-1] += costs.last_s[order[-1]]
    stages_s = np.array(layers) * costs.layer_s[order] + costs.each_s[order] + ends_s
    # stages move with their world, hops stay at their means: enough for a line in a chart
    world = np.stack([draws.speed_factor(device, "decode") for device in job.ring])
    in_world_s = stages_s[:, None] * world
    return total_s + (in_world_s - stages_s[:, None]).sum(axis=0), in_world_s.max(axis=0)
