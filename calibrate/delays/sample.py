"""The samples before any law: what is refused, what is set aside, what is doubtful
about their order and clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from simulator.errors import CalibrationError
from simulator.laws.law import Floats
from simulator.units import format_seconds

__all__ = ["FITTED_AT_MOST", "SHORTEST_S", "DelaySample", "take"]

SHORTEST_S = 1e-9
"""Measurement files count nanoseconds, so nothing shorter can have been measured."""
LONGEST_S = 1e6
"""The longest time that a law of `simulator.laws` accepts."""
FITTED_AT_MOST = 20_000
"""At 20,000 samples the standard error of a scale is under 1 % of the spread; more only costs time."""
TIED_SHARE = 0.01
"""From this share of repeated values on the steps of the clock are looked for:
continuous delays do not repeat.
"""
COARSE = 0.05
"""A step this large against the interquartile range shows in every distance, so it is reported."""
DRIFT = 0.05
"""The recorded rig's own repeats differ by 5 % between runs: a smaller difference of medians is no news."""


@dataclass(frozen=True, slots=True)
class DelaySample:
    """Checked delays: `x` sorted (s), and what is known about them."""

    x: Floats
    p99_s: float
    effective_share: float
    """Independent samples per sample."""
    resolution_s: float
    """Smallest step of the clock that shows, at least a nanosecond."""
    notes: tuple[str, ...]

    @property
    def n(self) -> int:
        """Samples that are fitted."""
        return self.x.size

    @property
    def distinct(self) -> int:
        """How many different values there are."""
        return int(np.unique(self.x).size)

    @property
    def closest_shift_s(self) -> float:
        """Least distance between a law's shift and the smallest sample:
        `max(resolution / 2, (median - min) / n)`.

        Nearer, the likelihood of a shifted law with a pole at its shift (lognormal, and
        gamma and Weibull with a shape under 1) grows without bound while nothing is
        learnt. (median - min) / n is about the distance at which the smallest of n
        samples lies above the shift, exactly `ln 2` of it for an exponential.
        """
        return max(self.resolution_s / 2, (float(np.median(self.x)) - float(self.x[0])) / self.n)


def take(samples_s: Iterable[float] | ArrayLike) -> DelaySample:
    """Check delays (s, in the order in which they were measured), thin them out and look for doubts.

    Raises CalibrationError for an empty sample, and for a value that is not a number
    or outside 1 ns to 1e6 s.
    """
    ordered = _numbers(samples_s)
    _refuse(ordered)
    notes: list[str] = []
    resolution_s = _clock(ordered, notes)
    _drift(ordered, notes)
    share = _effective_share(ordered, notes)
    kept = _thinned(ordered, notes)
    p99_s = float(np.quantile(ordered, 0.99))
    return DelaySample(np.sort(kept), p99_s, share, resolution_s, tuple(notes))


def _numbers(samples_s: Iterable[float] | ArrayLike) -> Floats:
    """The samples as one row of floats."""
    try:
        raw = samples_s if isinstance(samples_s, np.ndarray) else list(samples_s)  # type: ignore[arg-type]
        values = np.asarray(raw, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise CalibrationError(
            f"delays must be numbers of seconds: {error}; give one number per sample"
        ) from error
    if values.ndim != 1:
        raise CalibrationError(
            f"delays have {values.ndim} dimensions, the rule is one row; give one link at a time"
        )
    if not values.size:
        raise CalibrationError(
            "no delays at all, and a law needs at least one; measure the link, or name another one"
        )
    return values


def _refuse(values: Floats) -> None:
    """Raise for the first value that cannot be a delay."""
    wrong = np.flatnonzero(~((values >= SHORTEST_S) & (values <= LONGEST_S)))
    if not wrong.size:
        return
    first = int(wrong[0])
    value, place = float(values[first]), f"sample {first + 1} of {values.size}"
    more = f" ({wrong.size} such samples)" if wrong.size > 1 else ""
    if not np.isfinite(value):
        way_out = "drop samples that were lost, and count them as losses"
    elif value == 0:
        way_out = (
            "a clock of coarse steps reads 0: add half of its step to every sample, or measure with a "
            "finer clock"
        )
    elif value < 0:
        way_out = (
            "the clocks of the two ends differ or one jumped: measure round trips on one monotonic clock"
        )
    else:
        way_out = "check the unit: samples are seconds"
    raise CalibrationError(f"{place} is {value:g} s{more}; a delay lies between 1 ns and 1e6 s; {way_out}")


def _clock(values: Floats, notes: list[str]) -> float:
    """The clock's step (s): the smallest distance between different values, when values repeat."""
    # rounded below a picosecond: sums of binary fractions differ in the last bit and would hide a repetition
    distinct = np.unique(np.round(values, 12))
    tied = 1 - distinct.size / values.size
    if tied <= TIED_SHARE or distinct.size < 2:
        return SHORTEST_S
    step_s = max(SHORTEST_S, float(f"{np.diff(distinct).min():.3g}"))
    low, high = np.quantile(values, [0.25, 0.75])
    if step_s > COARSE * (high - low):
        notes.append(
            f"duplicates: clock resolution {format_seconds(step_s)}, {tied:.0%} of samples repeat another"
        )
    return step_s


def _drift(values: Floats, notes: list[str]) -> None:
    """Note when the first and the last third are not one law: Kolmogorov-Smirnov at
    0.1 %, medians 5 % apart.
    """
    from scipy.stats import ks_2samp

    third = values.size // 3
    if third < 20:  # the asymptotic p-value needs some samples
        return
    first, last = values[:third], values[-third:]
    before_s, after_s = float(np.median(first)), float(np.median(last))
    if abs(after_s / before_s - 1) > DRIFT and ks_2samp(first, last, method="asymp").pvalue < 1e-3:
        medians = f"median {format_seconds(before_s)} then {format_seconds(after_s)}"
        notes.append(f"drift: first and last third differ, {medians}")


def _effective_share(values: Floats, notes: list[str]) -> float:
    """`1 / (1 + 2 sum_k rho_k)`, rho the autocorrelation of the ranks, summed until it is lost in the noise.

    The variance of a mean of correlated samples (Bartlett 1946); ranks, so that one stall does not decide.
    """
    n = values.size
    if n < 20 or values.min() == values.max():
        return 1.0
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable") - (n - 1) / 2
    spectrum = np.fft.rfft(ranks, 2 * n)
    rho = np.fft.irfft(np.abs(spectrum) ** 2)[1 : n // 4 + 1] / float(ranks @ ranks)
    # three standard errors of white noise: else every third sample would raise a doubt
    if rho[0] < 3 / np.sqrt(n):
        return 1.0
    lost = np.flatnonzero(rho < 2 / np.sqrt(n))
    share = 1 / (1 + 2 * float(rho[: lost[0] if lost.size else rho.size].sum()))
    notes.append(f"autocorrelated: effective n = {share * n:.0f} of {n}")
    return share


def _thinned(values: Floats, notes: list[str]) -> Floats:
    """At most 20,000 of the samples, drawn with a fixed seed; every k-th would alias
    with the beacons of Wi-Fi.
    """
    if values.size <= FITTED_AT_MOST:
        return values
    notes.append(f"fitted to {FITTED_AT_MOST} of {values.size} samples, drawn evenly with a fixed seed")
    return np.random.default_rng(0).choice(values, FITTED_AT_MOST, replace=False)
