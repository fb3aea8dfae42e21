"""Evaluate a job: token times of many rows, by recursion where that is exact and by SimPy everywhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import simpy

from simulator.engine.base import engine
from simulator.errors import Fault, ScenarioError
from simulator.laws.law import Floats
from simulator.prepare import prepare
from simulator.result.summary import rates
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.record import Recorder
from simulator.scenario import Scenario, WorkloadSpec

__all__ = ["Evaluator", "excerpt", "replay", "scenario_rates", "token_times_s"]

Evaluator = Literal["auto", "recursion", "simpy"]
CHUNK_TOKENS = 100_000
"""Tokens evaluated at once: large enough to hide NumPy's call overhead, small enough
for the processor's cache.
"""
ROWS_PER_BLOCK = 32
"""Rows whose random numbers are drawn together for SimPy, which goes through them one by one."""


def token_times_s(
    job: Job,
    rows: int,
    evaluator: Evaluator = "auto",
    *,
    certain: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Floats:
    """Token times (s after the request), shape (streams, output tokens, rows).

    `auto` takes the recursion where it gives the same times as SimPy, which is the
    meaning. Row `i` is run `i % runs` of replication `i // runs`. `progress` is told the
    number of rows done. Raises ScenarioError for a workload with arrivals.
    """
    if job.workload.arrivals is not None:
        reason = (
            "chats that come one by one are what `sim load` is for; leave arrivals out to start them "
            "all together"
        )
        raise ScenarioError("scenario", [Fault("workload.arrivals", reason)])
    flow = engine(job.engine.name)
    fast = evaluator == "recursion" or (evaluator == "auto" and flow.is_recursion_exact(job))
    tokens = job.workload.output_tokens * len(flow.chats(job))
    # SimPy goes row by row anyway, so its blocks only save the setting up of streams
    step = max(1, min(CHUNK_TOKENS // tokens, rows if fast else ROWS_PER_BLOCK))
    # in place: parts put together at the end would take the memory twice
    times_s = np.empty((len(flow.chats(job)), job.workload.output_tokens, rows))
    for first in range(0, rows, step):
        draws = Draws(job, first, min(step, rows - first), certain)
        for part in [draws] if fast else draws.each_row():
            found = flow.token_times_s(job, part) if fast else _by_simpy(job, part)
            times_s[:, :, part.first : part.first + part.rows] = found
            if progress is not None:
                progress(part.first + part.rows)
    return times_s


def scenario_rates(scenario: Scenario) -> Floats:
    """Tokens/s of one chat in each run of each replication, shape (rows,); raises what `prepare` raises."""
    return rates(token_times_s(prepare(scenario).job, scenario.replications * scenario.workload.runs))


def excerpt(workload: WorkloadSpec, tokens: int) -> WorkloadSpec:
    """One run of so many tokens (all, where the reply is shorter), with the context of the reply's middle."""
    tokens = min(tokens, workload.output_tokens)
    middle = workload.prompt_tokens + (workload.output_tokens - tokens) // 2
    return workload.model_copy(update={"runs": 1, "output_tokens": tokens, "prompt_tokens": middle})


def replay(job: Job, row: int = 0, *, certain: bool = False) -> Recorder:
    """One row by SimPy with every span recorded."""
    return _simulate(job, Draws(job, row, 1, certain), Recorder(keep_spans=True))


def _by_simpy(job: Job, draws: Draws) -> Floats:
    recorder = _simulate(job, draws, Recorder())
    # a token that never comes shows, as no number
    times = np.full((len(engine(job.engine.name).chats(job)), job.workload.output_tokens, 1), np.nan)
    for stream, token, time_s, _ in recorder.tokens:
        times[stream, token, 0] = time_s
    return times


def _simulate(job: Job, draws: Draws, recorder: Recorder) -> Recorder:
    env = simpy.Environment()
    engine(job.engine.name).start(env, job, draws, recorder)
    env.run()
    return recorder
