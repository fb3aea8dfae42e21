"""From round trips to the law of one crossing: maximum likelihood through the twofold convolution.

A round trip is two crossings, taken as independent draws of one law. That is the approximation: an uneven
link still gets the right mean and the right round trips, but its two directions share one law.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from calibrate.delays import density, families
from calibrate.delays.assess import Fitted, assess, best_first, choose
from calibrate.delays.convolution import Grid, search
from calibrate.delays.law_fit import LawFit
from calibrate.delays.mixture import lognormal_mixture
from calibrate.delays.sample import DelaySample, take
from calibrate.delays.stderr import Evidence, uncertainty
from simulator.errors import CalibrationError
from simulator.laws import Constant, Gamma, Law, Lognormal, Mixture, Part, Weibull
from simulator.units import format_seconds

__all__ = ["ROUND_TRIP_CANDIDATES", "fit_round_trips", "law_from_rtt"]

COARSE = 0.02
"""Bin width against the median round trip from which it is reported."""
SIMPLE: dict[str, families.Family] = {
    "lognormal": families.lognormal,
    "gamma": families.gamma,
    "weibull": families.weibull,
}
ROUND_TRIP_CANDIDATES = (*SIMPLE, *(f"shifted {name}" for name in SIMPLE), "lognormal mixture")
"""Names that `fit_round_trips` knows."""


def law_from_rtt(rtt_s: Iterable[float] | ArrayLike) -> LawFit:
    """The one-way law whose sum of two independent draws matches the measured round trips (s), by `choose`.

    `law` and `parameters` are of one crossing; likelihood, distances and p99 compare the sum of two draws
    with the sample. Raises CalibrationError as `fit_round_trips` does.
    """
    return choose(fit_round_trips(rtt_s))


def fit_round_trips(
    rtt_s: Iterable[float] | ArrayLike, *, candidates: Sequence[str] = ROUND_TRIP_CANDIDATES
) -> tuple[LawFit, ...]:
    """One-way laws by maximum likelihood of the round trips (s, in measured order), best BIC first.

    Fewer than 11 samples, or fewer than 6 different ones, get a constant of half their mean. Raises
    CalibrationError for a sample that is no delay (see `sample.take`) and for an unknown candidate.
    """
    for name in candidates:
        if name not in ROUND_TRIP_CANDIDATES:
            known = ", ".join(ROUND_TRIP_CANDIDATES)
            raise CalibrationError(f"'{name}' is no candidate for round trips; choose from {known}")
    sample = take(rtt_s)
    notes = ("round trips: both crossings taken as independent and alike", *sample.notes)
    # a mixture has 5 parameters, and `fit_laws` asks for more than twice as many samples
    if sample.n <= 10 or sample.distinct <= 5:
        return best_first([assess(_constant(sample), sample, notes)])
    grid = Grid.of(sample.x)
    if grid.width_s > COARSE * float(np.median(sample.x)):
        notes += (f"long tail: times of one crossing are resolved to {format_seconds(grid.width_s)} only",)
    with np.errstate(all="ignore"):
        return best_first([assess(_fit(name, sample, grid), sample, notes) for name in candidates or SIMPLE])


def _constant(sample: DelaySample) -> Fitted:
    """Half of the mean round trip."""
    twice = families.constant(sample.x)
    return Fitted(
        name="constant",
        law=Constant(value=families.seconds(twice.value / 2)),
        free=1,
        log_likelihood=0.0 if sample.distinct == 1 else None,
        errors={},
        ks=density.distances(twice, sample.x)[0],
        anderson_darling=None,
        p99_s=twice.value,
        doubts=() if sample.distinct == 1 else ("a constant: too few different samples for a law",),
    )


def _fit(name: str, sample: DelaySample, grid: Grid) -> Fitted:
    """One family, searched from its fit to half round trips."""
    most_shift_s = float(sample.x[0]) / 2
    law = search(_start(name, sample), grid, most_shift_s)
    # a shift cannot be known better than the bin that it lies in; half, for one crossing of two
    closest_s = max(sample.closest_shift_s, grid.width_s) / 2
    errors, doubts = uncertainty(
        name, law, Evidence(grid.log_density, grid.counts, most_shift_s, closest_s, sample.effective_share)
    )
    reached = grid.reached(law)
    bins = np.arange(reached.size)
    # rounding in the transform may leave the range of a probability
    at_samples = np.clip(np.interp(sample.x / grid.width_s, bins, reached), 0, 1)
    return Fitted(
        name=name,
        law=law,
        free=5 if isinstance(law, Mixture) else 3 if name.startswith("shifted") else 2,
        log_likelihood=grid.log_likelihood(law),
        errors=errors,
        ks=density.ks(at_samples),
        anderson_darling=density.anderson_darling(at_samples),
        p99_s=float(np.interp(0.99, reached, bins)) * grid.width_s,
        doubts=doubts,
    )


def _start(name: str, sample: DelaySample) -> Law:
    """A law near the answer: the fit to half round trips, made wider.

    `Var((X1 + X2) / 2) = Var(X) / 2`, so a crossing spreads sqrt(2) times as far as half a round trip.
    """
    half = sample.x / 2
    if name == "lognormal mixture":
        return _unstalled(lognormal_mixture(DelaySample(half, 0.0, 1.0, sample.resolution_s / 2, ())))
    shift_s = float(half[0]) / 2 if name.startswith("shifted") else 0.0
    law = SIMPLE[name.removeprefix("shifted ")](half - shift_s)
    return _wider(law).model_copy(update={"shift": shift_s})


def _wider(law: families.Simple) -> families.Simple:
    """About sqrt(2) times the spread around the same middle."""
    if isinstance(law, Lognormal):
        return law.model_copy(update={"sigma": min(law.sigma * 2**0.5, families.SIGMA[1])})
    if isinstance(law, Gamma):
        # a gamma's relative variance is 1 / shape
        return law.model_copy(update={"shape": max(law.shape / 2, families.GAMMA_SHAPE[0])})
    if isinstance(law, Weibull):
        return law.model_copy(update={"shape": max(law.shape / 2**0.5, families.WEIBULL_SHAPE[0])})
    return law


def _unstalled(half: Mixture) -> Mixture:
    """From fast and stalled halves to one crossing: a stalled round trip is one
    stalled and one fast crossing.

    If a share q of crossings stalls, `(1 - q)**2` of round trips have no stall.
    """
    fast, slow = (part.of for part in half.parts)
    assert isinstance(fast, Lognormal)
    assert isinstance(slow, Lognormal)
    # a start only: the search moves every value of it
    free = half.parts[0].weight ** 0.5
    stalled = _wider(slow).model_copy(update={"median": 2 * slow.median - fast.median})
    return Mixture(parts=(Part(weight=free, of=_wider(fast)), Part(weight=1 - free, of=stalled)))
