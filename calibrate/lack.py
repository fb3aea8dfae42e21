"""Lack of fit: do placements scatter about the model as repeats of one placement do?

The classical test compares two mean squares (Draper and Smith, Applied Regression Analysis, ch. 2):
what the model misses of each placement against what measuring one again differs by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import f as f_law

from simulator.laws.law import Floats

__all__ = ["LackOfFit", "lack_of_fit"]

SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class LackOfFit:
    """The test's outcome; standard deviations of natural logarithms, of one placement's mean."""

    missed_sd: float
    """Of placements about the model; nan where no degree of freedom is left."""
    repeats_sd: float
    """What repeats alone would make of it."""
    freedom: tuple[float, float]
    """Degrees of freedom of both."""
    worst: int
    """Number of the placement that is missed most."""

    @property
    def ratio(self) -> float:
        """The F statistic; nan where no degree of freedom is left."""
        return (self.missed_sd / self.repeats_sd) ** 2

    @property
    def both_sd(self) -> float:
        """What sessions scatter by about the model: repeats, and what it misses as far as it can be told."""
        left, repeats = self.freedom
        missed = left * self.missed_sd**2 if left else 0.0
        return float(np.sqrt((missed + repeats * self.repeats_sd**2) / (left + repeats)))

    @property
    def p(self) -> float:
        """How often repeats alone would make placements scatter so much; 1 where nothing can be said."""
        return float(f_law.sf(self.ratio, *self.freedom)) if self.freedom[0] > 0 else 1.0

    @property
    def is_lacking(self) -> bool:
        """Whether the model lacks something that these placements show."""
        return self.p < SIGNIFICANT

    def text(self, worst: str) -> str:
        """The outcome in words; `worst` is the placement that is missed most."""
        if self.freedom[0] <= 0:
            return "lack of fit cannot be told: no placement is left that the parameters do not explain"
        found = (
            f"{self.missed_sd:.0%}, where measuring one again differs by {self.repeats_sd:.0%} (F = "
            f"{self.ratio:.1f}, p = {self.p:.2g})"
        )
        if not self.is_lacking:
            return f"no lack of fit seen: placements miss the model by {found}"
        return (
            f"lack of fit: placements miss the model by {found}, most of all {worst}; intervals are as wide"
        )


def lack_of_fit(
    session: Floats, placements: Floats, parameters: float, session_sd: float, session_freedom: int
) -> LackOfFit:
    """Test sessions that miss the model by `session` (log), at the placements of these numbers.

    `parameters` is how many the fit used up; `session_sd` what repeated sessions are known to differ by, with
    the degrees of freedom of that knowledge, which several sessions of one placement add to.
    """
    every, of, count = np.unique(placements, return_inverse=True, return_counts=True)
    mean = np.bincount(of, session) / count
    freedom = session_freedom + len(session) - len(every)
    repeats = (session_freedom * session_sd**2 + float(np.sum((session - mean[of]) ** 2))) / freedom
    left = len(every) - parameters
    # a fraction of one would divide what is hardly missed by next to nothing
    left = left if left >= 1 else 0.0
    # a placement that was visited twice is known twice as well
    missed = float(np.sum(count * mean**2)) / left if left > 0 else np.nan
    return LackOfFit(
        float(np.sqrt(missed)), float(np.sqrt(repeats)), (left, freedom), int(every[np.abs(mean).argmax()])
    )
