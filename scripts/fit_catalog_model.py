"""The two cost equations of the catalogue, and their robust fit in log space.

decode:  seconds per token = (m * weights + k * KV bytes at the mean context) / (eta * bandwidth) + layers *
         overhead
prefill: seconds per token = (m * flops + attention flops * tokens / 2) / (eta * peak flops)

m is 1 for a dense model; a mixture of experts reads and multiplies many small matrices, at a lower rate.
Unknown per platform, runtime and phase: eta, m, and for decode the overhead and k. All are positive, so
their logarithms are fitted, with a wide prior that matters only where a platform has few rows. Rows of one
chip share one weight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, log, sqrt

import numpy as np
from fit_catalog_rows import Sample
from numpy.typing import NDArray
from scipy.optimize import least_squares

__all__ = ["MIN_SPREAD", "Fit", "fit", "log_ratio", "predict"]

Floats = NDArray[np.float64]

# (centre, log sd) of the priors: half to nine tenths of the bandwidth; tens of microseconds per layer (a
# handful of kernel launches of 2 to 10 us); KV bytes at the cost of weight bytes; a third of the peak flops
ETA_PRIOR, OVERHEAD_PRIOR, KV_PRIOR, PREFILL_PRIOR = (0.65, 0.35), (30e-6, 0.8), (1.5, 0.7), (0.33, 0.8)
MIXTURE_PRIOR = (1.2, 0.3)
OVERHEAD_PRIOR_CPU = (10e-6, 0.8)  # no kernel launches, only a barrier between threads
SOFT = 0.25  # log residuals beyond this count ever less (soft L1)
MIN_SPREAD = 0.12  # nobody's setups agree better: the same M2 Ultra differs by 12 % between sources


@dataclass(frozen=True)
class Fit:
    """Parameters of one platform and runtime in one phase;
    `log_sd` is for a device that was not in the fit.
    """

    eta: float
    mixture_cost: float
    overhead_s: float
    kv_cost: float
    log_sd: float
    n_rows: int
    n_chips: int


def predict(
    sample: Sample, eta: float, mixture_cost: float, overhead_s: float = 0.0, kv_cost: float = 0.0
) -> float:
    """Seconds per token by the equations of this module."""
    factor = mixture_cost if sample.mixture else 1.0
    if sample.phase == "prefill":
        flops = factor * sample.flops_per_token + sample.attention_flops * sample.tokens / 2
        return flops / (eta * sample.flop_per_s)
    kv = kv_cost * sample.kv_bytes_per_token * sample.tokens
    return (factor * sample.weight_bytes + kv) / (
        eta * sample.memory_bytes_per_s
    ) + sample.layers * overhead_s


def log_ratio(sample: Sample, fitted: Fit) -> float:
    """ln(measured seconds / predicted seconds): positive where the device is slower than predicted."""
    return log(
        sample.seconds_per_token
        / predict(sample, fitted.eta, fitted.mixture_cost, fitted.overhead_s, fitted.kv_cost)
    )


def _weights(samples: Sequence[Sample]) -> Floats:
    """1 / rows of the chip, so that a chip with forty rows
    says no more than a chip with two; at least 1/8.
    """
    rows = Counter(sample.chip for sample in samples)
    return np.array(
        [max(2 / rows[sample.chip], 0.125) if rows[sample.chip] > 1 else 1.0 for sample in samples]
    )


def fit(samples: Sequence[Sample], spread_prior: float) -> Fit:
    """Robust least squares on log seconds per token;
    `spread_prior` is the log sd to lean on where chips are few.
    """
    prefill = samples[0].phase == "prefill"
    overhead = OVERHEAD_PRIOR_CPU if samples[0].platform.endswith("cpu") else OVERHEAD_PRIOR
    priors = (PREFILL_PRIOR, MIXTURE_PRIOR) if prefill else (ETA_PRIOR, MIXTURE_PRIOR, overhead, KV_PRIOR)
    root = np.sqrt(_weights(samples))
    measured = np.array([log(sample.seconds_per_token) for sample in samples])

    def residuals(logs: Floats) -> Floats:
        modelled = np.array([log(predict(sample, *np.exp(logs))) for sample in samples])
        pulls = [(value - log(centre)) / sd * SOFT for value, (centre, sd) in zip(logs, priors, strict=True)]
        return np.concatenate([root * (measured - modelled), np.array(pulls)])

    start = np.array([log(centre) for centre, _ in priors])
    solved = least_squares(residuals, start, loss="soft_l1", f_scale=SOFT)
    eta, mixture_cost, overhead_s, kv_cost = [*(exp(value) for value in solved.x), 0.0, 0.0][:4]
    chips = len({sample.chip for sample in samples})
    bare = Fit(eta, mixture_cost, overhead_s, kv_cost, 0.0, len(samples), chips)
    ratios = np.array([log_ratio(sample, bare) for sample in samples])
    return replace(bare, log_sd=_spread(ratios, samples, spread_prior))


def _spread(ratios: Floats, samples: Sequence[Sample], prior: float) -> float:
    """Log sd of a new device: weighted root mean square of
    the residuals, clipped, leaning on `prior` for few chips.

    `sqrt((n * s**2 + 2 * prior**2) / (n - 1 + 2) * (1 + 1/n))` with n chips: the prior counts as two chips,
    one is used up by eta, and the last factor is for eta itself, known from n chips only.
    """
    weights = _weights(samples)
    limit = 3 * max(1.4826 * float(np.median(np.abs(ratios))), 0.05)
    clipped = np.clip(ratios, -limit, limit)
    square = float(np.average(clipped**2, weights=weights))
    n = len({sample.chip for sample in samples})
    return max(sqrt((n * square + 2 * prior**2) / (n + 1) * (1 + 1 / n)), MIN_SPREAD)
