"""fit: non-negative, robust, weighted least squares on the engine's own design matrix, with bootstrap draws.

The loss is `sum_i rho(log(measured_i / gap_i(values)))` with Huber's rho (1964): a gap of 100 ms may be off
by more than one of 10 ms, and as much too long as too short. Devices of one kind are pulled to their mean
(`prior`), so a device that few placements tell apart borrows from its siblings instead of taking any value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from calibrate.forward import Design, design, job_of, parameter_names
from calibrate.growth import cost_by_growth
from calibrate.lack import LackOfFit, lack_of_fit
from calibrate.parameters import CONTEXT_COST, device_of, kind_of_parameter
from calibrate.prior import MODEL_ERROR, USUAL_ERROR, Prior, is_unpacked, prior
from calibrate.samples import Sample
from simulator.engine.base import engine
from simulator.errors import CalibrationError
from simulator.laws.law import Floats
from simulator.runtime.job import Job

__all__ = ["Fit", "fit"]

FARTHEST = 10.0
"""Logarithm of a drawn time over the fitted one: farther off is only what a damaged file says."""
HUBER = 1.345
"""Huber's constant: 95 % efficiency if errors are normal after all."""
USUAL_SESSION_SIGMA = 0.1
"""Log sd between sessions before any are measured: one placement of another engine, measured four times
within two minutes on a shared machine, gave medians of 28, 28, 30 and 36 ms (log sd 0.12).
"""
USUAL_FREEDOM = 3
"""Degrees of freedom behind that, of four visits: what any belief about sessions counts beside data."""
SESSIONS_OVER_RUNS = 1.25
"""Where runs of one session were repeated, their log sd times this is the belief: sessions are quiet on a
quiet machine, and on a busy one hours differ by more than minutes. Recorded: 1.1 to 1.7 on one busy machine
(sessions 0.08 to 0.12, runs 0.07), 1 to 2 on another (runs 0.11), 0.3 and 1.4 on two quiet ones (repeats of
one placement 0.006 and 0.013, runs 0.024 and 0.009).
"""
FEWEST_RUNS = 3
"""Degrees of freedom from which a spread of runs is believed."""
ROUNDS = 8
"""Re-linearisations: logarithms are curved, so from a start that is off by a factor of two it takes four."""
REWEIGHTINGS = 12
UNCHECKED = 0.8
"""Leverage from which a placement is its own witness: four fifths of what is fitted to it is its own value.
Huber (Robust Statistics, 1981) calls 0.5 too much, which few clusters have placements enough to stay under.
"""
SMALLEST_SCALE = 0.01
"""Relative errors below 1 % are never called outliers."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Values with their joint draws, and what they leave unexplained."""

    names: tuple[str, ...]
    values: dict[str, float]
    draws: Floats
    """Bootstrap draws, shape (draws, parameters)."""
    predicted_s: Floats
    """Gap of each sample at `values`."""
    measured_s: Floats
    """Median gap of each sample."""
    condition: float
    """Condition number of the weighted, scaled design matrix without the pooling."""
    unseparated: tuple[tuple[str, ...], ...]
    """Groups of parameters that only appear together in these placements."""
    design: Design
    lack: LackOfFit
    """Whether the placements scatter about the model as repeats do."""
    session_sd: float
    """Log sd of sessions about the model, whichever is to blame; `lack` has the freedom behind it."""
    unchecked: tuple[int, ...]
    """Numbers of placements that no other one checks: the fit follows them wherever they are."""
    placements: tuple[tuple[tuple[str, int], ...], ...]
    """Layers in ring order of each sample."""

    @property
    def verdict(self) -> str:
        """Whether the model lacks something, in words."""
        return self.lack.text(self._named(self.lack.worst))

    @property
    def believed(self) -> str:
        """The placements that are believed because nothing checks them, in words; empty without any."""
        told = ", ".join(map(self._named, self.unchecked))
        return f"no other placement checks {told}: measure one between it and the others" if told else ""

    def _named(self, number: int) -> str:
        placement = list(dict.fromkeys(self.placements))[number]
        return "/".join(f"{device} {layers}" for device, layers in placement if layers)

    @property
    def error(self) -> Floats:
        """`predicted / measured - 1` of each sample, in the fit."""
        return self.predicted_s / self.measured_s - 1


def fit(samples: Sequence[Sample], *, draws: int = 500, seed: int = 1) -> Fit:
    """Fit all samples together.

    Raises CalibrationError without samples, or where they come from different engines or models.
    """
    _check(samples)
    names = parameter_names([sample.scenario for sample in samples])
    jobs = [
        job_of(sample.scenario, float(np.mean([run.context for run in sample.runs]))) for sample in samples
    ]
    # one row per run, so that a session with more runs weighs more and its runs can differ
    rows = np.concatenate([np.full(len(sample.runs), index) for index, sample in enumerate(samples)])
    measured = np.array([run.median_s for sample in samples for run in sample.runs])
    beliefs = believed = prior(names, [sample.scenario for sample in samples])
    # where a byte of the cache is a byte of weights that is known better than by growth
    is_open = not all(is_unpacked(sample.scenario) for sample in samples)
    values = _start(names, jobs, samples)
    # Gauss and Newton: the model is linear between the points where one rank begins to wait for another
    for _ in range(ROUNDS):
        model = design(jobs, names, values)
        beliefs = believed.told(CONTEXT_COST, cost_by_growth(samples, model) if is_open else None)
        solved = _solve(model, rows, measured, beliefs)
        # relative; from a bound of 0, relative to a nanosecond or a billionth of a share
        moved = np.max(np.abs(solved - model.at) / np.maximum(model.at, 1e-9))
        values = dict(zip(names, solved.tolist(), strict=True))
        if moved < 1e-3:
            break
    model = design(jobs, names, values)
    medians = np.array([sample.median_s for sample in samples])
    condition, groups = _separation(model, medians)
    placements = tuple(tuple(job.placement.layer_counts.items()) for job in jobs)
    scatter = _scatter(model, rows, measured, beliefs, samples, _numbered(placements))
    return Fit(
        names=names,
        values=values,
        draws=_bootstrap(model, rows, measured, beliefs, scatter, draws, seed),
        predicted_s=model.base,
        measured_s=medians,
        condition=condition,
        unseparated=groups,
        design=model,
        lack=scatter.lack,
        session_sd=scatter.session_sd,
        unchecked=scatter.unchecked,
        placements=placements,
    )


def _numbered(placements: Sequence[object]) -> Floats:
    """A number for each sample that those of one placement share."""
    numbers = {placement: number for number, placement in enumerate(dict.fromkeys(placements))}
    return np.array([numbers[placement] for placement in placements])


def _check(samples: Sequence[Sample]) -> None:
    if not samples:
        raise CalibrationError("no measurement to calibrate on; give one or more files of `sim live run`")
    engines = {engine(sample.scenario.engine.name).software for sample in samples}
    if len(engines) > 1:
        raise CalibrationError(
            f"the measurements come from engines {', '.join(sorted(engines))}; calibrate each alone"
        )
    models = {sample.scenario.model.layer_bytes for sample in samples}
    # layers of other bytes have another time each, and one name cannot hold both
    if len(models) > 1:
        raise CalibrationError(
            "the measurements come from models with different layers; calibrate each alone"
        )


def _start(names: Sequence[str], jobs: Sequence[Job], samples: Sequence[Sample]) -> dict[str, float]:
    """All time in the layers: a start from which the first linear solution is already near."""
    per_layer = [
        sample.median_s / sum(shard.layers for shard in job.shards)
        for sample, job in zip(samples, jobs, strict=True)
    ]
    kinds = {name: kind_of_parameter(name) for name in names}
    fastest_s = float(np.min(per_layer))
    return {name: kind.start * (fastest_s if kind.unit == "s" else 1.0) for name, kind in kinds.items()}


def _solve(
    model: Design,
    rows: Floats,
    measured: Floats,
    beliefs: Prior,
    generator: np.random.Generator | None = None,
) -> Floats:
    """Iteratively reweighted non-negative least squares; `rows` maps measurements to design rows.

    With a generator the prior beliefs are drawn too, so that what no measurement bears
    on keeps its whole spread.
    """
    base = np.maximum(model.base[rows], 1e-9)
    matrix = model.matrix[rows] / base[:, None]
    # `log gap = log base + matrix (values - at) / base`, solved for the values. Relative to what was
    # measured, gaps that are short by chance would weigh more: all values 1.5 s2 too low at a scatter of s
    goal = np.log(measured / base) + matrix @ model.at
    weights = np.ones(len(goal))
    # columns in units of their own effect: nnls takes in one column after the other by the size of its
    # gradient (Lawson and Hanson 1974), which in seconds may be a thousand times that of a share
    scale = np.maximum(np.abs(matrix).max(axis=0), 1e-12)
    solved, moved = model.at, None
    for _ in range(REWEIGHTINGS):
        # inside the loop: how strongly devices of a kind are pulled together goes by their mean, which moves
        extra, wanted = beliefs.rows(solved, float(np.median(measured)))
        if generator is not None:
            # drawn once for a whole solution: a belief that changed from step to step would never settle
            moved = generator.normal(0, USUAL_ERROR, len(wanted)) if moved is None else moved
            wanted = wanted + moved
        stacked = np.vstack([matrix * weights[:, None], extra]) / scale
        before, solved = solved, nnls(stacked, np.concatenate([goal * weights, wanted]))[0] / scale
        errors = np.abs(goal - matrix @ solved)
        # 0.6745 turns a median absolute deviation into a standard deviation, of a normal law
        spread = max(SMALLEST_SCALE, float(np.median(errors)) / 0.6745)
        # a root, because rows are squared
        weights = np.sqrt(np.minimum(1.0, HUBER * spread / np.maximum(errors, 1e-12)))
        if np.allclose(before, solved, rtol=1e-4, atol=1e-9):
            break
    return solved


@dataclass(frozen=True, slots=True)
class _Scatter:
    """What measuring again would change."""

    lack: LackOfFit
    session_sd: float
    """Log sd of sessions about the model."""
    deviations: Floats
    """Of runs about their session."""
    unchecked: tuple[int, ...]
    alone: NDArray[np.bool_]
    """Whether each session's placement is unchecked."""

    def draw_sd(self, generator: np.random.Generator) -> Floats:
        """What sessions may scatter by, for each: few of them know it badly, as Student (1908) found."""
        freedom = sum(self.lack.freedom)
        sd = self.session_sd * np.sqrt(freedom / generator.chisquare(freedom))
        # what the fit follows wherever it is leaves no residual, so what the model may miss of it is believed
        return np.asarray(np.where(self.alone, np.hypot(sd, MODEL_ERROR), sd))


def _scatter(
    model: Design, rows: Floats, measured: Floats, beliefs: Prior, samples: Sequence[Sample], same: Floats
) -> _Scatter:
    """`same` numbers the placement of each session."""
    # about the fit and not about the measured medians: else each session's error would be counted twice
    logs = np.log(measured / np.maximum(model.base[rows], 1e-9))
    session = np.array([logs[rows == group].mean() for group in np.unique(rows)])
    deviations, leverage = _deviations(logs, rows, session), _leverage(model, rows, measured, beliefs)
    lack = lack_of_fit(session, same, float(np.trace(leverage)), *_usual_sessions(samples))
    sd = _without_runs(lack.both_sd, deviations, np.bincount(rows).astype(float))
    unchecked = _unchecked(model, leverage, rows, same)
    return _Scatter(lack, sd, deviations, unchecked, np.isin(same, unchecked))


def _unchecked(model: Design, leverage: Floats, rows: Floats, same: Floats) -> tuple[int, ...]:
    # one device alone times its own layers, and needs no other witness
    of_devices = [device_of(name) is not None for name in model.names]
    several = np.count_nonzero(model.matrix[:, of_devices] > 0, axis=1) > 1
    blocks = {int(one): same[rows] == one for one in np.unique(same[several])}
    return tuple(
        one for one, at in blocks.items() if np.linalg.eigvalsh(leverage[np.ix_(at, at)])[-1] > UNCHECKED
    )


def _bootstrap(
    model: Design, rows: Floats, measured: Floats, beliefs: Prior, scatter: _Scatter, draws: int, seed: int
) -> Floats:
    """Solutions for measurements that might have been: the fitted ones with new session and run errors.

    The blocks are sessions: a session's error moves all its runs together, its runs' own deviations are
    resampled from those of all sessions. The design stays as it was, because leaving out the only placement
    that tells two parameters apart (as resampling whole sessions would) asks another question.
    """
    generator = np.random.default_rng(np.random.SeedSequence((seed, 0xCA1)))
    fitted = np.maximum(model.base[rows], 1e-9)
    out = np.empty((draws, len(model.names)))
    for draw in range(draws):
        moved = generator.normal(0, scatter.draw_sd(generator))[rows]
        moved = moved + generator.choice(scatter.deviations, len(rows))
        out[draw] = _solve(
            model, rows, fitted * np.exp(np.clip(moved, -FARTHEST, FARTHEST)), beliefs, generator
        )
    return out


def _deviations(logs: Floats, rows: Floats, session: Floats) -> Floats:
    """Runs about their session's mean, stretched for the degree of freedom that each
    mean took; 0 for single runs.
    """
    counts = np.bincount(rows)[rows]
    stretch = np.sqrt(counts / np.maximum(counts - 1, 1))
    return np.asarray((logs - session[rows]) * stretch)


def _leverage(model: Design, rows: Floats, measured: Floats, beliefs: Prior) -> Floats:
    """The matrix that makes fitted values of measured ones, `X (X^T X + P)^-1 X^T`, by runs.

    Its trace is the effective number of parameters: one that its prior holds uses up no data.
    """
    matrix = model.matrix[rows] / np.maximum(model.base[rows], 1e-9)[:, None]
    extra, _ = beliefs.rows(np.maximum(model.at, 1e-12), float(np.median(measured)))
    # columns in their own size, then a pseudo-inverse: what neither data nor belief bear on uses up nothing
    scale = np.maximum(np.sqrt((matrix**2).sum(axis=0) + (extra**2).sum(axis=0)), 1e-12)
    matrix, extra = matrix / scale, extra / scale
    inverse = np.linalg.pinv(matrix.T @ matrix + extra.T @ extra, rcond=1e-10, hermitian=True)
    return np.asarray(matrix @ inverse @ matrix.T)


def _without_runs(session_sd: float, deviations: Floats, counts: Floats) -> float:
    """What of it is the sessions' own: their means scatter by their runs too, and runs are drawn apart."""
    # an analysis of variance: the mean of n runs scatters by the runs' variance over n
    runs = float(np.mean(deviations**2) * np.mean(1 / counts[counts > 0]))
    # not less than half of it: both are estimated from the same few sessions
    return float(np.sqrt(max(session_sd**2 - runs, (session_sd / 2) ** 2)))


def _usual_sessions(samples: Sequence[Sample]) -> tuple[float, int]:
    """Log sd that is expected between sessions, and its degrees of freedom: what the repeated visits of these
    measurements show beside what their runs let believe.
    """
    squares, freedom = USUAL_FREEDOM * _believed_session_sigma(samples) ** 2, USUAL_FREEDOM
    for one in samples:
        if len(one.visits_s) > 1:
            squares += float(np.var(np.log(one.visits_s), ddof=1)) * (len(one.visits_s) - 1)
            freedom += len(one.visits_s) - 1
    return float(np.sqrt(squares / freedom)), freedom


def _believed_session_sigma(samples: Sequence[Sample]) -> float:
    freedom = sum(len(one.runs) - 1 for one in samples if one.runs)
    if freedom < FEWEST_RUNS:
        return USUAL_SESSION_SIGMA
    logs = [np.log([run.median_s for run in one.runs]) for one in samples if one.runs]
    runs = np.sqrt(sum(float(np.sum((each - each.mean()) ** 2)) for each in logs) / freedom)
    # runs that agree to the last digit were made so, and no sessions do
    return max(SMALLEST_SCALE, SESSIONS_OVER_RUNS * float(runs))


def _separation(model: Design, medians: Floats) -> tuple[float, tuple[tuple[str, ...], ...]]:
    """Condition number, and the parameters of each direction in which the data say (next to) nothing."""
    # what no placement touches is known to be unknown, and would make every condition number infinite
    seen = [i for i, column in enumerate(model.matrix.T) if np.any(column)]
    names = [model.names[i] for i in seen]
    matrix = model.matrix[:, seen] / medians[:, None]
    scale = np.maximum(np.linalg.norm(matrix, axis=0), 1e-12)
    _, singular, directions = np.linalg.svd(matrix / scale, full_matrices=True)
    full = np.zeros(len(names))
    full[: len(singular)] = singular
    # Belsley, Kuh and Welsch (1980) call a condition index above 30 strong dependence: 1 / 30 is 0.03
    weak = [directions[i] for i in range(len(full)) if full[i] < 0.03 * full[0]]
    groups = tuple(
        tuple(name for name, part in zip(names, direction, strict=True) if abs(part) > 0.3)
        for direction in weak
    )
    return float(full[0] / max(full[-1], 1e-12)), tuple(dict.fromkeys(group for group in groups if group))
