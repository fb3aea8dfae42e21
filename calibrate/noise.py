"""The noise law: how gaps scatter about what the model expects, from token to token, run
to run, session to session, hour to hour.

Four levels, each with its own source: *fast* from the gaps of a run, *run* from the medians of a
session's runs, *session* from what the fit misses of sessions, with its degrees of freedom, *hour*, which all
sessions of a calibration share, from a reference beside them (`hours`). Beyond the body
of fast noise are the host's pauses (`pauses`). The body is split into what each device has of its own
and what all share (one machine, one room): with own noise only, a gap that is the sum of N equal stages
would scatter `1 / sqrt(N)` as much as one with a single stage, so placements with different N tell the
two apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls
from scipy.stats import norm
from scipy.stats import t as student

from calibrate.fit import Fit
from calibrate.forward import job_of, with_values
from calibrate.hours import hour_log_sd
from calibrate.pauses import Stream, fit_tail
from calibrate.samples import RunSample, Sample
from simulator.laws.law import Floats
from simulator.prepare import prepare
from simulator.runtime.cost import decode_s, head_s

__all__ = ["Noise", "fit_noise"]

DISTINCT = 0.1
"""Square sums of stage shares that differ by less cannot tell own noise from common noise."""
FEWEST_RUNS = 3
USUAL_RUN_SIGMA = 0.05
"""Log sd between the runs of one session where too few were repeated; assumed."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Standard deviations of natural logarithms; `correlation` is that of neighbouring tokens.

    `pauses_per_s` is how often the host pauses in a second of work, `pause_s` how long at the mean.
    """

    own_sigma: float
    common_sigma: float
    correlation: float
    run_sigma: float
    session_sigma: float
    hour_sigma: float
    pauses_per_s: float
    pause_s: float
    warnings: tuple[str, ...]


def fit_noise(samples: Sequence[Sample], fitted: Fit) -> Noise:
    """The noise of all samples together, given the fit."""
    warnings: list[str] = []
    stages = [_stages_s(sample, fitted) for sample in samples]
    # run by run: pooled over runs the drift between them would pass for noise
    streams = [
        _stream(sample, _single(sample), float(each.sum()))
        for sample, each in zip(samples, stages, strict=True)
    ]
    tail = fit_tail(streams)
    fast = np.array([(tail.body * stream.sigma) ** 2 for stream in streams])
    jitter = np.array([_delay_variance(sample) / sample.median_s**2 for sample in samples])
    weights = np.array([len(sample.gaps_s) for sample in samples], dtype=float)
    # noise is of what devices do: a gap that is half delay scatters half as much
    shares = [
        # where the fit says that devices do nothing, all of a gap may be theirs
        each / max(one.median_s, each.sum()) if each.any() else np.ones(1)
        for one, each in zip(samples, stages, strict=True)
    ]
    own, common = _split(
        # what the links bring is in the scenario already and must not be counted again as a device's noise
        np.maximum(fast - jitter, 0),
        np.array([share.sum() ** 2 for share in shares]),
        np.array([(share**2).sum() for share in shares]),
        weights,
    )
    correlation = float(
        np.average([np.mean([_lag_one(run) for run in _single(s)]) for s in samples], weights=weights)
    )
    return Noise(
        own_sigma=own,
        common_sigma=common,
        # at 1 a walk never returns; gaps between arrivals that only jitter correlate by -0.5
        correlation=min(0.95, max(-0.5, correlation)),
        run_sigma=_run_sigma(samples, warnings),
        session_sigma=_session_sigma(fitted, warnings),
        hour_sigma=hour_log_sd(samples),
        pauses_per_s=tail.pauses_per_s,
        pause_s=tail.pause_s,
        warnings=tuple(warnings),
    )


def _single(sample: Sample) -> Sequence[RunSample]:
    """The runs whose single gaps are true, or all where every one arrives in bursts."""
    return [run for run in sample.runs if not run.bursts] or sample.runs


def _stream(sample: Sample, runs: Sequence[RunSample], work_s: float = 0.0) -> Stream:
    return Stream(np.concatenate([run.gaps_s / run.median_s for run in runs]), sample.median_s, work_s)


def _lag_one(run: RunSample) -> float:
    """Correlation of ranks of neighbouring gaps, which outliers cannot dominate."""
    ranks = np.argsort(np.argsort(run.gaps_s)).astype(float)
    if len(ranks) < 20:
        return 0.0
    return float(np.corrcoef(ranks[:-1], ranks[1:])[0, 1])


def _delay_variance(sample: Sample) -> float:
    """Variance (s2) that the known delay laws of the hops on the critical path bring into a gap.

    Two crossings of each hop between neighbours in the ring, each of two independent sides.
    """
    job = prepare(sample.scenario).job
    names = [device.name for device in job.ring]
    legs = [leg for a, b in zip(names, names[1:], strict=False) for leg in job.cluster.path(a, b).legs]
    return 2 * sum(leg.law.variance_s2 for leg in legs)


def _stages_s(sample: Sample, fitted: Fit) -> Floats:
    """Seconds that each rank works for a token, by the fit; the last one's head included."""
    context = float(np.mean([run.context for run in sample.runs]))
    job = with_values(job_of(sample.scenario, context), fitted.values)
    batch = job.workload.concurrency
    layers_s = [decode_s(device, job.held(rank), context, batch) for rank, device in enumerate(job.ring)]
    stages_s = np.array(layers_s, dtype=float)
    stages_s[-1] += head_s(job.ring[-1], job.model, batch) + job.engine.step_overhead_s
    return stages_s


def _split(variance: Floats, together: Floats, apart: Floats, weights: Floats) -> tuple[float, float]:
    """(own, common) sigma by non-negative least squares of `variance = common**2 together + own**2 apart`.

    `together` is the square of the stages' share of a gap, `apart` the sum of the squares of each one's.
    Placements of one kind only cannot tell the two apart; then all of it is called the devices' own.
    """
    if np.ptp(apart / together) < DISTINCT:
        return float(np.sqrt(np.average(variance / apart, weights=weights))), 0.0
    # a variance from n gaps is known to sqrt(2 / n) of itself, so in least squares it weighs n
    root = np.sqrt(weights)
    matrix = np.column_stack([together, apart]) * root[:, None]
    common2, own2 = nnls(matrix, variance * root)[0]
    return float(np.sqrt(own2)), float(np.sqrt(common2))


def _run_sigma(samples: Sequence[Sample], warnings: list[str]) -> float:
    """Log sd of a session's run medians, what the median of so few noisy gaps scatters anyway taken off."""
    squares, freedom = 0.0, 0
    for sample in samples:
        if len(sample.runs) < 2:
            continue
        logs = np.log([run.median_s for run in sample.runs])
        # the median of n gaps with log sd s scatters by 1.25 s / sqrt(n)
        chance = np.mean([1.57 * _stream(sample, [run]).sigma ** 2 / len(run.gaps_s) for run in sample.runs])
        # never below zero: runs that agree better than chance are luck
        squares += max(0.0, float(np.var(logs, ddof=1)) - float(chance)) * (len(logs) - 1)
        freedom += len(logs) - 1
    if freedom < FEWEST_RUNS:
        warnings.append(f"too few repeated runs to see how runs differ; {USUAL_RUN_SIGMA:.0%} is assumed")
        return USUAL_RUN_SIGMA
    return float(np.sqrt(squares / freedom))


def _session_sigma(fitted: Fit, warnings: list[str]) -> float:
    """What sessions of other placements scatter by, as the fit draws its own.

    So much wider as few of them know a scatter badly: Student's 90 % over the normal's.
    """
    if not fitted.lack.freedom[0]:
        told = f"too few measurements to see what the model misses; {fitted.session_sd:.0%} is assumed"
        warnings.append(told)
    return float(fitted.session_sd * student.ppf(0.95, sum(fitted.lack.freedom)) / norm.ppf(0.95))
