"""Hours: by how much all of a cluster is faster or slower when it is asked again than when it was calibrated.

A calibration is measured in one sitting, so its placements share that hour and none of their residuals shows
it. What can be seen beside them is the reference, a fixed workload that a local cluster times before each
visit: where its times scatter, hours differ. By how much stands in `data/hours.csv`, of circles that measured
their training placements twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from calibrate.samples import Sample
from calibrate.tables import lines

__all__ = ["Circle", "circles", "hour_log_sd", "reference_log_sd"]

FEWEST = 4
"""Times of the reference from which their scatter is believed: three degrees of freedom, as for runs."""
MOST = 0.5
"""A log sd beyond that is of no machine that was measured, but of a damaged file."""


class Circle(NamedTuple):
    """What one recorded circle showed, in natural logarithms."""

    moved: float
    """Mean change of its training placements, measured again among those that were predicted."""
    reference: float
    """Standard deviation of the reference's times while it was calibrated."""


@cache
def circles() -> tuple[Circle, ...]:
    """The recorded circles that timed a reference."""
    return tuple(
        Circle(float(line["moved_log"]), float(line["reference_log_sd"])) for line in lines("hours.csv")
    )


def reference_log_sd(samples: Iterable[Sample]) -> float:
    """Log sd of the reference's times, 0 where fewer than `FEWEST` were taken."""
    times = [seconds for one in samples for seconds in one.reference_s]
    return float(np.std(np.log(times), ddof=1)) if len(times) >= FEWEST else 0.0


def hour_log_sd(samples: Iterable[Sample], recorded: Sequence[Circle] | None = None) -> float:
    """Log sd by which another hour differs from that of these samples, 0 where no reference tells of it.

    `sqrt(mean((moved / reference)^2))` over the recorded circles, times what the reference scattered by here,
    as much wider as so few of them know a scatter badly: Student's 90 % over the normal's.
    """
    recorded = circles() if recorded is None else recorded
    share = np.sqrt(np.mean([(one.moved / one.reference) ** 2 for one in recorded]))
    wider = student.ppf(0.95, len(recorded)) / norm.ppf(0.95)
    return float(min(MOST, share * wider * reference_log_sd(samples)))
