"""Two-component lognormal mixture by expectation and maximisation: mostly fast, sometimes stalled."""

from __future__ import annotations

import numpy as np

from calibrate.delays.families import SIGMA, seconds
from calibrate.delays.sample import DelaySample
from simulator.laws import Lognormal, Mixture, Part
from simulator.laws.law import Floats

__all__ = ["lognormal_mixture"]

STARTS = (0.5, 0.8, 0.95)
"""Shares of the samples that start as the fast part: an even split, a shoulder, a rare stall."""
TRIAL_STEPS, MOST_STEPS = 30, 1_000
GAINED_ENOUGH = 1e-3
"""Log-likelihood per step below which a start is done; a BIC difference of 2 is the
least that means anything.
"""

State = tuple[Floats, Floats, Floats]
"""Weights, means and variances of the logarithms, shape (2,) each."""


def lognormal_mixture(sample: DelaySample) -> Mixture:
    """`w LN(median_1, sigma_1) + (1 - w) LN(median_2, sigma_2)` of highest penalised
    likelihood, faster part first.

    A component that closes in on one sample has infinite likelihood. So each variance is
    penalised as if 2/sqrt(n) samples with the whole sample's variance had been added (Chen,
    Tan and Zhang, Statistica Sinica 18, 2008: the estimate stays consistent), and no component
    is narrower than the rounding of the clock, `resolution / sqrt(12)`.
    """
    z = np.log(sample.x)
    # the likelihood has several hills, and a climb ends on the one it began at
    tried = [_climb(z, _start(z, share), sample.resolution_s, TRIAL_STEPS) for share in STARTS]
    best = max(tried, key=lambda each: each[1])
    (weights, means, variances), _ = _climb(z, best[0], sample.resolution_s, MOST_STEPS)
    fast, slow = np.argsort(means, kind="stable")
    # at least one sample in each part, or its law would say nothing
    weight = float(np.clip(weights[fast], 1 / z.size, 1 - 1 / z.size))
    sigmas = np.clip(np.sqrt(variances), *SIGMA)
    parts = [
        Part(weight=share, of=Lognormal(median=seconds(np.exp(means[one])), sigma=float(sigmas[one])))
        for share, one in ((weight, fast), (1 - weight, slow))
    ]
    return Mixture(parts=tuple(parts))


def _start(z: Floats, share: float) -> State:
    """Sorted logarithms cut in two."""
    # a part needs a sample to have a mean
    cut = min(max(1, round(share * z.size)), z.size - 1)
    low, high = z[:cut], z[cut:]
    floor = max(float(z.var()) * 1e-2, SIGMA[0] ** 2)
    return (
        np.array([cut, z.size - cut]) / z.size,
        np.array([low.mean(), high.mean()]),
        np.maximum([low.var(), high.var()], floor),
    )


def _climb(z: Floats, state: State, resolution_s: float, steps: int) -> tuple[State, float]:
    """Steps of expectation and maximisation until nothing is gained; the state and its log-likelihood."""
    n, whole = z.size, float(z.var())
    penalty = 2 / np.sqrt(n)
    reached = -np.inf
    for _ in range(steps):
        weights, means, variances = state
        terms = np.log(weights)[:, None] - 0.5 * ((z - means[:, None]) ** 2 / variances[:, None])
        terms -= 0.5 * np.log(2 * np.pi * variances)[:, None]
        total = np.logaddexp(terms[0], terms[1])
        gained, reached = float(total.sum()) - reached, float(total.sum())
        if gained < GAINED_ENOUGH:
            break
        share = np.exp(terms - total)
        # a part that lost all its samples must not divide by zero
        mass = np.maximum(share.sum(axis=1), 1e-9)
        means = share @ z / mass
        squares = (share * (z - means[:, None]) ** 2).sum(axis=1)
        narrowest = (resolution_s / np.exp(means)) ** 2 / 12
        variances = np.maximum(
            (squares + penalty * whole) / (mass + penalty), np.maximum(narrowest, SIGMA[0] ** 2)
        )
        state = np.clip(mass / n, 1e-9, 1.0), means, variances
    return state, reached
