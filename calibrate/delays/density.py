"""Densities, distribution functions and distances of laws; `scipy.stats` holds the formulas."""

from __future__ import annotations

from typing import Any

import numpy as np

from calibrate.delays.law_fit import Tail
from simulator.laws import Constant, Empirical, Exponential, Gamma, Law, Lognormal, Mixture, Weibull
from simulator.laws.law import Floats

__all__ = ["anderson_darling", "cumulative", "distances", "ks", "log_density", "quantile_s", "tail_verdict"]

TAIL_TOLERANCE = 0.2
"""A 99th percentile within 20 % is what the project asks of its predictions."""


def _in_scipy(law: Law) -> tuple[Any, tuple[float, ...]]:
    """The family in `scipy.stats` and its arguments; not frozen there, which would
    take longer than a density.
    """
    from scipy import stats

    if isinstance(law, Exponential):
        return stats.expon, (law.shift, law.mean)
    if isinstance(law, Lognormal):
        return stats.lognorm, (law.sigma, law.shift, law.median)
    if isinstance(law, Gamma):
        return stats.gamma, (law.shape, law.shift, law.mean / law.shape)
    if isinstance(law, Weibull):
        return stats.weibull_min, (law.shape, law.shift, law.scale)
    raise TypeError(f"{law.law} has no density")


def log_density(law: Law, x: Floats) -> Floats:
    """Natural logarithm of the density (1/s) of `law` at x (s); of a mixture `ln sum_i w_i f_i(x)`."""
    if isinstance(law, Mixture):
        parts = [np.log(part.weight) + log_density(part.of, x) for part in law.parts]
        return np.asarray(np.logaddexp.reduce(parts))
    family, arguments = _in_scipy(law)
    return np.asarray(family.logpdf(x, *arguments))


def cumulative(law: Law, x: Floats) -> Floats:
    """Probability that a draw of `law` is at most x (s)."""
    if isinstance(law, Mixture):
        return np.asarray(sum(part.weight * cumulative(part.of, x) for part in law.parts))
    if isinstance(law, Constant):
        return np.asarray(x >= law.value, dtype=np.float64)
    if isinstance(law, Empirical):
        # linear between samples, as the law draws
        known = np.sort(np.asarray(law.samples))
        return np.interp(x, known, np.linspace(0, 1, known.size), left=0.0)
    family, arguments = _in_scipy(law)
    return np.asarray(family.cdf(x, *arguments))


def quantile_s(law: Law, u: float) -> float:
    """Quantile (s) of `law` at u; of a mixture the root of its distribution function
    between those of its parts.
    """
    if not isinstance(law, Mixture):
        return float(law.quantile(np.array([u]))[0])
    from scipy.optimize import brentq

    ends = [quantile_s(part.of, u) for part in law.parts]
    low, high = min(ends), max(ends)
    if high - low <= 1e-12 * high:
        return high
    # rounding may put both ends on one side of u, hence the slightly wider bracket
    return float(brentq(lambda x: float(cumulative(law, np.array([x]))[0]) - u, low * 0.999, high * 1.001))


def distances(law: Law, x: Floats) -> tuple[float, float | None]:
    """Kolmogorov-Smirnov distance and Anderson-Darling's A squared of `law` from the sorted samples x (s)."""
    if isinstance(law, Constant):  # both distribution functions are steps: the samples below, or those above
        return float(max(np.mean(x < law.value), np.mean(x > law.value))), None
    reached = cumulative(law, x)
    return ks(reached), anderson_darling(reached)


def ks(reached: Floats) -> float:
    """Kolmogorov-Smirnov distance from the law's distribution
    function at the sorted samples: `max |F_n - F|`.
    """
    n = reached.size
    steps = np.arange(n + 1) / n
    return float(max(np.max(steps[1:] - reached), np.max(reached - steps[:-1])))


def anderson_darling(reached: Floats) -> float | None:
    """`A^2 = -n - 1/n sum_i (2i - 1) (ln F(x_i) + ln(1 - F(x_(n+1-i))))` (Anderson and Darling 1954)."""
    n = reached.size
    if reached[0] <= 0 or reached[-1] >= 1:
        return None
    odd = 2 * np.arange(1, n + 1) - 1
    return float(-n - np.sum(odd * (np.log(reached) + np.log1p(-reached[::-1]))) / n)


def tail_verdict(share_beyond: float, n_effective: float, error: float) -> Tail:
    """Whether chance explains how many samples lie beyond the law's 99th percentile.

    Of n independent samples `Binomial(n, 0.01)` do. Light or heavy is said only where the percentile is off
    by more than 20 % as well: on a million samples any error is beyond chance.
    """
    from scipy.stats import binom

    n = round(n_effective)
    if n < 100:
        return "unknown"
    fewest, most = float(binom.ppf(0.005, n, 0.01)), float(binom.ppf(0.995, n, 0.01))
    if share_beyond * n > most and error < -TAIL_TOLERANCE:
        return "too light"
    if share_beyond * n < fewest and error > TAIL_TOLERANCE:
        return "too heavy"
    return "ok"
