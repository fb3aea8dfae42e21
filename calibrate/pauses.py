"""Pauses of a host, read from the tail of recorded gaps: how often work stops, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import ndtri

from simulator.laws.law import Floats

__all__ = ["Stream", "Tail", "fit_tail"]

BODY = np.array([0.75, 0.9])
"""Quantiles that the lognormal body is read from. The upper half, because that is what a reader waits for,
and because a token that arrives late makes the next gap nearly zero, which is the path to the client and no
noise of the cluster.
"""
QUANTILES = np.array([0.75, 0.9, 0.95, 0.975, 0.99, 0.995])
FEWEST_BEYOND = 1.5
"""Gaps that must lie beyond a quantile before it says anything."""
MEAN_ERROR = 0.03
"""What of a mean gap counts as much as one standard deviation at a quantile: who waits for a whole reply
feels the mean, and part of a late gap is a packet's, which the next gap gives back.
"""
FEWEST_GAPS = 200
"""One gap in a hundred is what a tail is about."""
FAR = 1e-6
STARTS = ((0.3, 0.05), (2.0, 0.03))
"""Pauses in a second, and seconds of each, to begin a fit from: a crowded virtual machine, a busy system."""
GRID = np.linspace(-4, 4.5, 171)
WEIGHTS = np.exp(-(GRID**2) / 2) / np.exp(-(GRID**2) / 2).sum()


@dataclass(frozen=True, slots=True)
class Stream:
    """The gaps of one measurement, each as a share of its run's median."""

    relative: Floats
    gap_s: float
    """Their median (s)."""
    work_s: float
    """What of it is the devices' work (s): a pause lengthens that, and no message that is on its way."""

    @property
    def sigma(self) -> float:
        """Log sd of a lognormal through the body: `log q_p = sigma z_p` by least squares."""
        z = ndtri(BODY)
        # a line through the origin: the median is the law's own scale
        return max(1e-4, float(np.dot(np.log(np.quantile(self.relative, BODY)), z) / np.dot(z, z)))


@dataclass(frozen=True, slots=True)
class Tail:
    """Pauses, and what share of the log sd that a body seems to have is not theirs."""

    pauses_per_s: float = 0.0
    pause_s: float = 0.0
    body: float = 1.0


def fit_tail(streams: Sequence[Stream]) -> Tail:
    """The pauses under which the gaps of all streams together have the quantiles and the mean that they had.

    A gap is a lognormal body plus the pauses in its work, a Poisson process of exponential lengths.
    """
    if sum(len(stream.relative) for stream in streams) < FEWEST_GAPS:
        return Tail()
    known = _Known(streams)

    def loss(logs: Floats) -> float:
        body, pauses_per_s, pause_s = np.exp(logs).tolist()
        return known.loss(body, pauses_per_s, pause_s)

    fits = [
        # from two starts: rare long and frequent short pauses are two valleys
        minimize(
            loss,
            np.log([0.95, *start]),
            method="Nelder-Mead",
            options={"maxiter": 150, "xatol": 0.02, "fatol": 1e-5},
        )
        for start in STARTS
    ]
    best = min(fits, key=lambda found: float(found.fun))
    # no more than the body alone would say: gaps without a tail have no pauses
    if best.fun >= known.loss(1.0, 0.0, 1.0):
        return Tail()
    body, pauses_per_s, pause_s = np.exp(best.x).tolist()
    return Tail(pauses_per_s, pause_s, body)


class _Known:
    """What the streams show, as arrays: one row for each, one column for each quantile."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.gaps = np.array([len(stream.relative) for stream in streams], dtype=float)
        self.gap_s = np.array([stream.gap_s for stream in streams])
        self.work_s = np.array([min(stream.work_s, stream.gap_s) for stream in streams])
        self.sigma = np.array([stream.sigma for stream in streams])
        self.mean = np.array([stream.relative.mean() for stream in streams])
        self.at = np.array([np.quantile(stream.relative, QUANTILES, method="hazen") for stream in streams])
        counts = self.gaps[:, None] * (1 - QUANTILES) >= FEWEST_BEYOND
        self.weights = self.gaps[:, None] * counts / self.gaps.sum()

    def loss(self, body: float, pauses_per_s: float, pause_s: float) -> float:
        """Squared errors in standard normal deviates, and that of the mean gap."""
        sigma, expected = body * self.sigma, pauses_per_s * self.work_s
        share = -np.expm1(-expected)
        # several pauses in one gap count as one that is as long, as in the simulator
        length = pause_s / self.gap_s * expected / np.maximum(share, 1e-12)
        # pauses lift the median that all gaps are shares of, so the body's own lies below it
        more = _beyond(np.ones((len(sigma), 1)), np.zeros_like(sigma), sigma, share, length)[:, 0] - 0.5
        middle = -sigma * ndtri(np.minimum(0.5 + more, 0.99))
        errors = ndtri(1 - _beyond(self.at, middle, sigma, share, length)) - ndtri(QUANTILES)
        mean = np.exp(middle + sigma**2 / 2) + share * length
        off = np.average(mean - self.mean, weights=self.gaps) / MEAN_ERROR
        return float((self.weights * errors**2).sum() + off**2)


def _beyond(at: Floats, middle: Floats, sigma: Floats, share: Floats, length: Floats) -> Floats:
    """Probability of a gap beyond `at`, shape (streams, n): the body's draws, each with or without pauses."""
    left = at[:, :, None] - np.exp(middle[:, None, None] + sigma[:, None, None] * GRID)
    paused = share[:, None, None] * np.exp(-np.maximum(left, 0) / np.maximum(length, 1e-9)[:, None, None])
    return np.asarray(np.clip(np.where(left < 0, 1.0, paused) @ WEIGHTS, FAR, 1 - FAR))
