"""Estimate: a number with its interval and its label; only as many digits as the interval supports."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from simulator.scenario import Label
from simulator.spec import Spec

__all__ = ["Estimate", "digits", "estimate", "rounded"]

SIGNIFICANT = 6
"""Digits kept in files: far beyond any interval, short of where processors differ in the last bit."""


def rounded(value: float) -> float:
    """`value` to six significant digits, so that the same scenario gives the same bytes on every machine."""
    return float(f"{value:.{SIGNIFICANT}g}") if math.isfinite(value) else value


class Estimate(Spec):
    """Median and 90 % interval (5th to 95th percentile) of what one run would show."""

    median: float
    p05: float
    p95: float
    n: int
    label: Label = "assumed"

    def text(self, unit: str = "") -> str:
        """'5.1 [4.6, 5.5] tokens/s': digits end where the interval's do."""
        places = digits(self.p95 - self.p05, self.median)
        numbers = f"{self.median:.{places}f} [{self.p05:.{places}f}, {self.p95:.{places}f}]"
        return f"{numbers} {unit}".rstrip()


def digits(width: float, value: float) -> int:
    """Decimal places that show an interval of this width with two significant digits, at most 6.

    >>> digits(0.9, 5.1), digits(24.0, 310.0)
    (2, 0)
    """
    scale = width if width > 0 else abs(value) / 100
    if scale <= 0 or not math.isfinite(scale):
        return 1
    return min(6, max(0, 1 - math.floor(math.log10(scale))))


def estimate(values: ArrayLike, label: Label = "assumed") -> Estimate:
    """The Estimate of a sample; its quantiles interpolate linearly between order statistics."""
    sample = np.asarray(values, dtype=float)
    p05, median, p95 = (rounded(float(q)) for q in np.quantile(sample, [0.05, 0.5, 0.95]))
    return Estimate(median=median, p05=p05, p95=p95, n=sample.size, label=label)
