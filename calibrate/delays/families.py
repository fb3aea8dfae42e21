"""Maximum likelihood of one family: given its shift in closed form or by one root, the
shift by profile likelihood.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from calibrate.delays.density import log_density
from calibrate.delays.sample import DelaySample
from simulator.laws import Constant, Empirical, Exponential, Gamma, Law, Lognormal, Weibull
from simulator.laws.law import Floats

__all__ = [
    "SIGMA",
    "Family",
    "Simple",
    "at_bounds",
    "constant",
    "empirical",
    "exponential",
    "gamma",
    "lognormal",
    "seconds",
    "shifted",
    "weibull",
]

Simple = Exponential | Lognormal | Gamma | Weibull
Family = Callable[[Floats], Simple]

# what the laws of simulator.laws accept; at a bound the other parameter is still the likelihood's maximum
SIGMA = (1e-9, 5.0)
GAMMA_SHAPE = (0.05, 1e6)
WEIBULL_SHAPE = (0.2, 100.0)
GRID = 16
"""Shifts tried before the best is refined: a profile likelihood may have two hills,
one of them at the bound.
"""
EMPIRICAL_POINTS = 2_001
"""An empirical law keeps every two-thousandth quantile: enough for p99, small enough for a file."""


def seconds(value_s: float) -> str:
    """A time in the form that laws read: they take no number without its unit."""
    return f"{float(value_s)!r} s"


def constant(x: Floats) -> Constant:
    """The mean, which keeps sums of delays right; x is sorted, and rounding must not leave its range."""
    return Constant(value=seconds(np.clip(x.mean(), x[0], x[-1])))


def lognormal(y: Floats) -> Lognormal:
    """`ln median = mean(ln y)`, `sigma**2 = mean((ln y - ln median)**2)`."""
    logs = np.log(y)
    return Lognormal(median=seconds(np.exp(logs.mean())), sigma=float(np.clip(logs.std(), *SIGMA)))


def exponential(y: Floats) -> Exponential:
    """`mean = mean(y)`."""
    return Exponential(mean=seconds(y.mean()))


def gamma(y: Floats) -> Gamma:
    """`mean = mean(y)`; the shape k is the root of
    `ln k - digamma(k) = ln mean(y) - mean(ln y)`, by scipy.stats.
    """
    from scipy.special import digamma
    from scipy.stats import gamma as scipy_gamma

    mean_s, low, high = float(y.mean()), *GAMMA_SHAPE
    spread = float(np.log(mean_s) - np.log(y).mean())
    if spread <= np.log(high) - digamma(high):
        shape = high
    elif spread >= np.log(low) - digamma(low):
        shape = low
    else:
        shape = float(np.clip(scipy_gamma.fit(y / mean_s, floc=0)[0], low, high))
    return Gamma(mean=seconds(mean_s), shape=shape)


def weibull(y: Floats) -> Weibull:
    """The shape k is the root of `sum y^k ln y / sum y^k - 1/k = mean(ln y)`; `scale = mean(y^k)^(1/k)`.

    Johnson, Kotz and Balakrishnan, Continuous Univariate Distributions 1 (1994),
    chapter 21. `scipy.stats` searches both parameters blindly instead, four times
    slower, and the profile over the shift needs some thirty of these.
    """
    from scipy.optimize import brentq

    largest = float(y.max())
    logs = np.log(y / largest)  # at most 0, so that no power overflows
    mean_log = float(logs.mean())

    def slope(shape: float) -> float:
        powers = np.exp(shape * logs)
        return float(powers @ logs / powers.sum()) - 1 / shape - mean_log

    low, high = WEIBULL_SHAPE
    if slope(low) >= 0:
        shape = low
    elif slope(high) <= 0:
        shape = high
    else:
        shape = float(brentq(slope, low, high, xtol=1e-6, rtol=1e-9))
    return Weibull(scale=seconds(largest * np.exp(shape * logs).mean() ** (1 / shape)), shape=shape)


def shifted(family: Family, sample: DelaySample) -> Simple:
    """The family with the shift of highest profile likelihood between 0 and `min - sample.closest_shift_s`.

    An exponential's likelihood only grows with the shift, so it takes the bound.
    """
    from scipy.optimize import minimize_scalar

    least, most = sample.closest_shift_s, float(sample.x[0])
    if least >= most:
        return family(sample.x)
    if family is exponential:
        return _at(family, sample.x, most - least)

    def cost(log_distance: float) -> float:
        return -float(log_density(_at(family, sample.x, most - float(np.exp(log_distance))), sample.x).sum())

    grid = np.linspace(np.log(least), np.log(most), GRID)
    costs = np.array([cost(point) for point in grid])
    best = int(np.nanargmin(costs))
    bracket = grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]
    found = minimize_scalar(cost, bounds=bracket, method="bounded", options={"xatol": 1e-4})
    point = float(found.x) if found.fun < costs[best] else float(grid[best])
    return _at(family, sample.x, most - float(np.exp(point)))


def _at(family: Family, x: Floats, shift_s: float) -> Simple:
    """The family's best law with this shift; one under a thousandth of the smallest sample is none."""
    shift_s = shift_s if shift_s > 1e-3 * x[0] else 0.0
    return family(x - shift_s).model_copy(update={"shift": shift_s})


def at_bounds(law: Law) -> tuple[tuple[str, float], ...]:
    """A shape that sits at the end of what the law accepts, by name."""
    bounds = {
        "lognormal": ("sigma", SIGMA),
        "gamma": ("shape", GAMMA_SHAPE),
        "weibull": ("shape", WEIBULL_SHAPE),
    }
    if law.law not in bounds:
        return ()
    name, ends = bounds[law.law]
    value = getattr(law, name)
    return tuple((name, end) for end in ends if abs(value / end - 1) < 1e-6)


def empirical(x: Floats) -> Empirical:
    """The samples themselves, or 2,001 even quantiles of more than that; x is sorted."""
    if x.size > EMPIRICAL_POINTS:
        x = np.quantile(x, np.linspace(0, 1, EMPIRICAL_POINTS))
    return Empirical(samples=tuple(seconds(value) for value in x))
