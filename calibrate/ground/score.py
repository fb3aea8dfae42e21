"""Figures of a set of outcomes: errors, how many intervals held, how many should, how wide they are."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np

from calibrate.ground.predict import Outcome
from calibrate.validation import LEVELS
from simulator.errors import CalibrationError
from simulator.result.estimate import rounded
from simulator.spec import Spec

__all__ = ["Coverage", "Score", "binomial_band", "score"]

BAND = 0.9
"""Of so many sets whose intervals are right, the share of intervals that hold lies in the band."""


class Coverage(Spec):
    """How many intervals of one level held, and the band in which that share lies when all is right."""

    level: int
    held: float
    low: float
    high: float


class Score(Spec):
    """The figures of one set of outcomes; errors and widths are shares."""

    n: int
    sources: int
    median_error: float
    p90_error: float
    bias: float
    """Median of the errors with their sign: above 0 is predicted too slow."""
    coverage: tuple[Coverage, ...]
    width: float
    """Median width of the 90 % intervals over their medians: sharpness."""


def score(outcomes: Sequence[Outcome]) -> Score:
    """The figures of a set of outcomes; raises CalibrationError for an empty one."""
    if not outcomes:
        raise CalibrationError("no outcome to score; take the groups that have rows")
    errors = np.array([one.error for one in outcomes])
    return Score(
        n=len(outcomes),
        sources=len({one.source for one in outcomes}),
        median_error=rounded(float(np.median(np.abs(errors)))),
        p90_error=rounded(float(np.quantile(np.abs(errors), 0.9))),
        bias=rounded(float(np.median(errors))),
        coverage=tuple(_coverage(outcomes, level) for level in LEVELS),
        width=rounded(float(np.median([one.width for one in outcomes]))),
    )


def _coverage(outcomes: Sequence[Outcome], level: int) -> Coverage:
    low, high = binomial_band(len(outcomes), level / 100)
    held = float(np.mean([one.holds(level) for one in outcomes]))
    return Coverage(level=level, held=rounded(held), low=rounded(low), high=rounded(high))


def binomial_band(n: int, share: float) -> tuple[float, float]:
    """The 5th and 95th percentile of the share that holds, of `n` intervals that each hold with `share`.

    It takes the rows as independent. Rows of one source are not, so the true band is wider.

    >>> binomial_band(20, 0.9)
    (0.8, 1.0)
    """
    if n < 1 or not 0 < share < 1:
        raise CalibrationError(
            f"a band of {n} intervals of {share:g}: give at least one, and a share within (0, 1)"
        )
    # exact: n is a few hundred at most, and the normal approximation fails near shares of 0 and 1
    total, low, high = 0.0, None, n
    for held in range(n + 1):
        total += comb(n, held) * share**held * (1 - share) ** (n - held)
        if low is None and total >= (1 - BAND) / 2:
            low = held
        if total >= (1 + BAND) / 2:
            high = held
            break
    return (low or 0) / n, high / n
