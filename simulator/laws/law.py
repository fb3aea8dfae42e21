"""Laws of a duration: each knows its mean, its variance and its quantiles.

Sampling is by inverse transform through a table of 65,536 quantiles (see `table`). So every law
costs the same to draw from, one uniform number makes one draw whatever the law (common random
numbers stay aligned when a law changes), and a faster law gives a draw that is never slower.
A draw in the last cell is looked up exactly (`streams`), so that tails do not end there.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simulator.spec import Spec
from simulator.units import Seconds, Share

__all__ = [
    "TABLE_SIZE",
    "Constant",
    "Empirical",
    "Exponential",
    "Gamma",
    "Law",
    "Lognormal",
    "Mixture",
    "Part",
    "Weibull",
    "median_s",
    "scaled",
    "standard_normal_table",
    "student_scale_table",
    "table",
]

Floats = NDArray[np.float64]
# one cell for each value of 16 random bits: `streams` cuts four of them from a word
TABLE_SIZE = 1 << 16
MOST_STRETCH = 8.0
"""Of a spread in an odd world; one in 400 of 3 degrees of freedom would reach further, to absurd figures."""

NonNegativeSeconds = Annotated[Seconds, Field(ge=0, le=1e6)]
PositiveSeconds = Annotated[Seconds, Field(gt=0, le=1e6)]


class Constant(Spec):
    """Always `value_s`."""

    law: Literal["constant"] = "constant"
    value: NonNegativeSeconds

    @property
    def mean_s(self) -> float:
        """`value`."""
        return self.value

    @property
    def variance_s2(self) -> float:
        """0."""
        return 0.0

    def quantile(self, u: Floats) -> Floats:
        """`value` at every u."""
        return np.full_like(u, self.value)


class Exponential(Spec):
    """`shift` plus an exponential with mean `mean`."""

    law: Literal["exponential"] = "exponential"
    mean: PositiveSeconds
    shift: NonNegativeSeconds = 0.0

    @property
    def mean_s(self) -> float:
        """`shift + mean`."""
        return self.shift + self.mean

    @property
    def variance_s2(self) -> float:
        """`mean**2`."""
        return self.mean**2

    def quantile(self, u: Floats) -> Floats:
        """`shift - mean ln(1 - u)`."""
        return self.shift - self.mean * np.log1p(-u)


class Lognormal(Spec):
    """`shift` plus a lognormal with median `median`; `sigma` is the standard deviation of its logarithm."""

    law: Literal["lognormal"] = "lognormal"
    median: PositiveSeconds
    sigma: float = Field(ge=0, le=5)
    shift: NonNegativeSeconds = 0.0

    @property
    def mean_s(self) -> float:
        """`shift + median exp(sigma**2 / 2)`."""
        return self.shift + self.median * float(np.exp(self.sigma**2 / 2))

    @property
    def variance_s2(self) -> float:
        """`median**2 exp(sigma**2) (exp(sigma**2) - 1)`."""
        square = float(np.exp(self.sigma**2))
        return self.median**2 * square * (square - 1)

    def quantile(self, u: Floats) -> Floats:
        """`shift + median exp(sigma z(u))`."""
        # here and below only where it is needed: SciPy takes longer to load than `sim --help` may
        from scipy.special import ndtri

        return self.shift + self.median * np.exp(self.sigma * ndtri(u))


class Gamma(Spec):
    """`shift` plus a gamma with mean `mean` and shape `shape`."""

    law: Literal["gamma"] = "gamma"
    mean: PositiveSeconds
    shape: float = Field(ge=0.05, le=1e6)
    shift: NonNegativeSeconds = 0.0

    @property
    def mean_s(self) -> float:
        """`shift + mean`."""
        return self.shift + self.mean

    @property
    def variance_s2(self) -> float:
        """`mean**2 / shape`."""
        return self.mean**2 / self.shape

    def quantile(self, u: Floats) -> Floats:
        """`shift + mean / shape * P^-1(shape, u)`, P the regularised lower incomplete gamma function."""
        from scipy.special import gammaincinv

        unit = np.asarray(gammaincinv(self.shape, u), dtype=np.float64)
        return self.shift + self.mean / self.shape * unit


class Weibull(Spec):
    """`shift` plus a Weibull with scale `scale` and shape `shape`; a shape under 1 has a
    tail longer than exponential.
    """

    law: Literal["weibull"] = "weibull"
    scale: PositiveSeconds
    shape: float = Field(ge=0.2, le=100)
    shift: NonNegativeSeconds = 0.0

    @property
    def mean_s(self) -> float:
        """`shift + scale Gamma(1 + 1/shape)`."""
        return self.shift + self.scale * math.gamma(1 + 1 / self.shape)

    @property
    def variance_s2(self) -> float:
        """`scale**2 (Gamma(1 + 2/shape) - Gamma(1 + 1/shape)**2)`."""
        return self.scale**2 * (math.gamma(1 + 2 / self.shape) - math.gamma(1 + 1 / self.shape) ** 2)

    def quantile(self, u: Floats) -> Floats:
        """`shift + scale (-ln(1 - u))**(1/shape)`."""
        return self.shift + self.scale * (-np.log1p(-u)) ** (1 / self.shape)


class Empirical(Spec):
    """What was measured: piecewise linear between the sorted samples, none beyond the largest."""

    law: Literal["empirical"] = "empirical"
    samples: tuple[NonNegativeSeconds, ...] = Field(min_length=2, max_length=100_000)

    @property
    def mean_s(self) -> float:
        """Mean of the piecewise linear quantile function:
        the mean of the midpoints of neighbouring samples.
        """
        x = np.sort(np.asarray(self.samples))
        return float(np.mean((x[1:] + x[:-1]) / 2))

    @property
    def variance_s2(self) -> float:
        """Second moment of each linear piece, `(a**2 + a b + b**2) / 3`, minus the mean squared."""
        x = np.sort(np.asarray(self.samples))
        a, b = x[:-1], x[1:]
        return float(np.mean((a * a + a * b + b * b) / 3)) - self.mean_s**2

    def quantile(self, u: Floats) -> Floats:
        """Linear interpolation of the sorted samples at u (n - 1)."""
        x = np.sort(np.asarray(self.samples))
        return np.asarray(np.interp(u * (len(x) - 1), np.arange(len(x)), x))


class Part(Spec):
    """One component of a mixture."""

    weight: Annotated[Share, Field(gt=0, le=1)]
    of: Constant | Exponential | Lognormal | Gamma | Weibull | Empirical = Field(discriminator="law")


class Mixture(Spec):
    """With probability `weight` a draw from that part: the usual form of a Wi-Fi tail (mostly
    fast, sometimes stalled).
    """

    law: Literal["mixture"] = "mixture"
    parts: tuple[Part, ...] = Field(min_length=1, max_length=8)

    @model_validator(mode="after")
    def _weights_sum_to_one(self) -> Mixture:
        total = sum(part.weight for part in self.parts)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the weights of a mixture must sum to 1 and sum to {total:.6g}; scale them")
        return self

    @property
    def mean_s(self) -> float:
        """`sum_i w_i m_i`."""
        return sum(part.weight * part.of.mean_s for part in self.parts)

    @property
    def variance_s2(self) -> float:
        """`sum_i w_i (v_i + m_i**2) - mean**2`."""
        return (
            sum(part.weight * (part.of.variance_s2 + part.of.mean_s**2) for part in self.parts)
            - self.mean_s**2
        )

    def quantile(self, u: Floats) -> Floats:
        """Inverse of the mixed distribution function, read off the pooled quantile tables of the parts."""
        return np.asarray(np.interp(u, *_pooled(self)))


Law = Annotated[
    Constant | Exponential | Lognormal | Gamma | Weibull | Empirical | Mixture, Field(discriminator="law")
]


# the last cell in halves, and the rest again, to 2**-46: a mixture's tail is that of its widest part
_FAR_CELLS: Floats = np.asarray(0.5 ** np.arange(17, 47), dtype=np.float64)
_FAR: Floats = np.asarray(1.5 * _FAR_CELLS)


def _midpoints() -> Floats:
    # never 0 or 1, where the quantile of most laws with a tail is infinite
    return (np.arange(TABLE_SIZE) + 0.5) / TABLE_SIZE


# 512 KiB each, so a quarter of a GiB at most
@lru_cache(maxsize=512)
def table(law: Law) -> Floats:
    """The quantiles of `law` (seconds) at the midpoints of 65,536 equal cells, shape (65536,); read-only."""
    values = law.quantile(_midpoints())
    # everybody who draws from this law looks up in this one array
    values.flags.writeable = False
    return values


# 1 MiB for each part
@lru_cache(maxsize=32)
def _pooled(law: Mixture) -> tuple[Floats, Floats]:
    """(probability reached, value) of every cell of every part, in order."""
    # no closed form: each cell of each part becomes a step of that part's share of the probability
    values = np.concatenate([[*table(part.of)[:-1], *part.of.quantile(1 - _FAR)] for part in law.parts])
    cells = np.append(np.full(TABLE_SIZE - 1, 1 / TABLE_SIZE), _FAR_CELLS)
    weights = np.concatenate([part.weight * cells for part in law.parts])
    order = np.argsort(values, kind="stable")
    # in the middle of its step, as `table` takes quantiles at midpoints
    return np.cumsum(weights[order]) - weights[order] / 2, values[order]


@lru_cache(maxsize=1)
def standard_normal_table() -> Floats:
    """The standard normal's quantiles at the same midpoints, shape (65536,); read-only."""
    from scipy.special import ndtri

    values: Floats = ndtri(_midpoints())
    values.flags.writeable = False
    return values


@lru_cache(maxsize=16)
def student_scale_table(degrees_of_freedom: float) -> Floats:
    """What makes a normal draw one of Student's t, `sqrt(df / chi2)`, at the same midpoints; at most
    `MOST_STRETCH`.
    """
    from scipy.special import chdtri

    values: Floats = np.sqrt(degrees_of_freedom / chdtri(degrees_of_freedom, _midpoints()))
    np.minimum(values, MOST_STRETCH, out=values)
    values.flags.writeable = False
    return values


def median_s(law: Law) -> float:
    """The law's quantile at one half (s)."""
    return float(law.quantile(np.array([0.5]))[0])


def scaled(law: Law, factor: float) -> Law:
    """The law of `factor` times a draw of `law`; shapes stay, everything that is a time is stretched."""
    if isinstance(law, Mixture):
        parts = [part.model_copy(update={"of": scaled(part.of, factor)}) for part in law.parts]
        return law.model_copy(update={"parts": tuple(parts)})
    if isinstance(law, Empirical):
        return law.model_copy(update={"samples": tuple(sample * factor for sample in law.samples)})
    # sigma and shape are numbers without a unit
    times = {"value", "mean", "median", "scale", "shift"} & set(type(law).model_fields)
    return law.model_copy(update={name: getattr(law, name) * factor for name in times})
