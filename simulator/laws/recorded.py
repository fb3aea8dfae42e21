"""What one more repeat of something would take that was timed a few times."""

from __future__ import annotations

from functools import cache

import numpy as np

from simulator.laws.law import Empirical

__all__ = ["one_more"]

USUAL_LOG_SD = 0.15
"""How much repeats of one phase differ (natural logarithm) where few were timed: starts of a client process
by 0.13 in 12 restarts on a quiet machine (`results/dropout/drills.jsonl`), of EXO's runners by 0.16 in two.
"""
USUAL_FREEDOM = 3
"""Degrees of freedom that this counts beside the repeats, as a calibration counts what it believes."""
CELLS = 200


@cache
def one_more(samples: tuple[float, ...]) -> Empirical:
    """The law of one more repeat of what took `samples` (s, all above 0).

    One more lies between the smallest and the largest of n repeats in (n - 1) of (n + 1) cases, of two in a
    third. So its logarithm is Student's (1908) about theirs: `mean + s sqrt(1 + 1/n) t`, s being what they
    differ by and what repeats usually do, each with its degrees of freedom.
    """
    # only where it is needed: SciPy takes longer to load than `sim --help` may
    from scipy.special import stdtrit

    logs = np.log(np.asarray(samples, dtype=float))
    freedom = len(logs) - 1 + USUAL_FREEDOM
    squares = float(np.sum((logs - logs.mean()) ** 2)) + USUAL_FREEDOM * USUAL_LOG_SD**2
    scale = np.sqrt(squares / freedom * (1 + 1 / len(logs)))
    # the outermost cells end where half of them is left: Student's tails have no end
    shares = np.clip(np.arange(CELLS + 1) / CELLS, 0.5 / CELLS, 1 - 0.5 / CELLS)
    quantiles = np.exp(logs.mean() + scale * stdtrit(freedom, shares))
    return Empirical.model_construct(samples=tuple(quantiles.tolist()))
