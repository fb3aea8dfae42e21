"""The two cost equations of the catalogue, and their robust fit in log space.

decode:  seconds per token = (m * weights + k * KV bytes at the mean context) * (1 / (eta * bandwidth) +
         u * flops per stored byte / peak flops) + layers * overhead * (bandwidth / 300 GB/s)^x * (g for a mixture)
prefill: seconds per token = (m * (1 + T / n) * l * flops + attention flops * tokens / 2) / (eta * peak flops)

m is 1 for a dense model; a mixture of experts reads and multiplies many small matrices, at a lower rate, and
starts g times as many kernels in a layer. Of a chunk of a prompt each expert gets n tokens, in tiles of which
the last is not full: T tokens are computed for nothing. l is 1 but for latent attention. u is the work of
unpacking weights, in flops for each flop of the model: nothing for 16 bits, little for blocks with one scale
(Q4_0, MLX), much for nested blocks (K-quants); without it chips with few flops for their bandwidth (M1 Max)
came out a third too fast at Q4_K_M. A larger chip takes longer to start and to fill (x). On processors of PCs
and phones, whose peaks the catalogue lacks, eta holds u. RDNA 3 and 4 reach shares of their bandwidth so
different that generations have a factor each (generations.csv), believed to be 1 give or take 0.3; those of
Apple and NVIDIA were tried and do not help. Of prompts, M5 has one: kernels reach less of its matrix units'
peak than of the shaders'.

Unknown per platform, runtime and phase: eta, m, and for decode the others. All are positive (of x, e^x), so
their logarithms are fitted, with a wide prior that matters only where a platform has few rows. Rows of one
chip share one weight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import log, sqrt

import numpy as np
from fit_catalog_rows import Sample
from numpy.typing import NDArray
from scipy.optimize import least_squares

__all__ = ["LATENT_PRIOR", "MIN_SPREAD", "Fit", "Law", "fit", "log_ratio", "predict"]

Floats = NDArray[np.float64]

# (centre, log sd) of the priors: half to nine tenths of the bandwidth; tens of microseconds per layer (a
# handful of kernel launches of 2 to 10 us); KV bytes at the cost of weight bytes; a third of the peak flops
ETA_PRIOR, OVERHEAD_PRIOR, KV_PRIOR, PREFILL_PRIOR = (0.65, 0.35), (30e-6, 0.8), (1.5, 0.7), (0.33, 0.8)
MIXTURE_PRIOR = (1.2, 0.3)
# up to half of a kernel's tile, of 8 to 128 tokens; of five tried (4 to 32) the one that predicts left-out mixtures best
FILL_PRIOR = (5.0, 1.2)
# GLM-4.7-Flash beside the other mixtures on the two chips that were measured with it; no other row has latent attention
LATENT_PRIOR = (1.2, 0.2)
OVERHEAD_PRIOR_CPU = (10e-6, 0.8)  # no kernel launches, only a barrier between threads
# a few integer operations for a weight of one block, twice as many for a nested one
PLAIN_PRIOR, NESTED_PRIOR = (2.0, 0.8), (4.0, 0.8)
UNPACKING_PRIOR_CPU = (1e-3, 0.01)  # as good as none: see above
# of Arm boards the catalogue has peaks of 8-bit dot products, which go through the same units as unpacking
UNPACKING_PRIOR_ARM = (8.0, 0.8)
SIZE_PRIOR, MIXTURE_LAYER_PRIOR, GENERATION_PRIOR = (1.0, 0.3), (1.3, 0.3), (1.0, 0.3)
USUAL_BYTES_PER_S = 300e9
"""Bandwidth of the chip whose layer overhead is `overhead_s`: in the middle of all, so that x moves it little."""
OWN_LOG_SD = 1.0
"""Of the level of rows of a chip's own figure beside its platform: next to nothing is believed."""
SOFT = 0.25  # log residuals beyond this count ever less (soft L1)
MIN_SPREAD = 0.12  # nobody's setups agree better: the same M2 Ultra differs by 12 % between sources


@dataclass(frozen=True)
class Law:
    """Parameters of the equations of this module, for one platform, runtime and phase."""

    eta: float
    mixture_cost: float
    overhead_s: float = 0.0
    kv_cost: float = 0.0
    plain: float = 0.0
    nested: float = 0.0
    size: float = 1.0
    """e to the power of x."""
    mixture_layer: float = 1.0
    fill: float = 0.0
    """T: tokens that an expert computes for nothing."""
    latent_cost: float = 1.0
    generations: tuple[tuple[str, float], ...] = ()
    """What the bandwidth of a generation of chips is multiplied by, or of prompts the flop/s."""

    def unpacking(self, sample: Sample) -> float:
        """Flops of unpacking for each flop of the model."""
        return {"none": 0.0, "plain": self.plain, "nested": self.nested}[sample.unpacking]

    def fixed_s(self, sample: Sample) -> float:
        """Time of a token that no bytes explain."""
        of_chip = (sample.memory_bytes_per_s / USUAL_BYTES_PER_S) ** log(self.size)
        return sample.layers * self.overhead_s * of_chip * (self.mixture_layer if sample.mixture else 1.0)

    def read_s(self, sample: Sample) -> float:
        """Time of reading and unpacking a token's bytes."""
        factor = self.mixture_cost if sample.mixture else 1.0
        read = factor * sample.weight_bytes + self.kv_cost * sample.kv_bytes_per_token * sample.tokens
        work = self.unpacking(sample) * sample.flops_per_byte / sample.flop_per_s
        share = self.eta * dict(self.generations).get(sample.generation, 1.0)
        return read * (1 / (share * sample.memory_bytes_per_s) + work)


@dataclass(frozen=True)
class Fit(Law):
    """A law that was fitted; `log_sd` is for a device that was not in the fit."""

    log_sd: float = 0.0
    n_rows: int = 0
    n_chips: int = 0


def predict(sample: Sample, law: Law) -> float:
    """Seconds per token by the equations of this module."""
    if sample.phase == "prefill":
        factor = law.mixture_cost * (1 + law.fill / sample.tokens_per_expert) if sample.mixture else 1.0
        factor *= law.latent_cost if sample.latent else 1.0
        flops = factor * sample.flops_per_token + sample.attention_flops * sample.tokens / 2
        share = law.eta * dict(law.generations).get(sample.generation, 1.0)
        return flops / (share * sample.flop_per_s)
    return law.read_s(sample) + law.fixed_s(sample)


def log_ratio(sample: Sample, fitted: Law) -> float:
    """ln(measured seconds / predicted seconds): positive where the device is slower than predicted."""
    return log(sample.seconds_per_token / predict(sample, fitted))


def _weights(samples: Sequence[Sample]) -> Floats:
    """1 / rows of the chip, so that a chip with forty rows
    says no more than a chip with two; at least 1/8.
    """
    chips = [(sample.chip, sample.is_own) for sample in samples]
    rows = Counter(chips)
    return np.array([max(2 / rows[chip], 0.125) if rows[chip] > 1 else 1.0 for chip in chips])


def _priors(sample: Sample) -> tuple[tuple[float, float], ...]:
    """(centre, log sd) of each parameter, in the order of `Law`."""
    if sample.phase == "prefill":
        return PREFILL_PRIOR, MIXTURE_PRIOR, FILL_PRIOR, LATENT_PRIOR
    on_cpu = sample.platform.endswith("cpu")
    unpacking = (UNPACKING_PRIOR_CPU,) * 2 if on_cpu else (PLAIN_PRIOR, NESTED_PRIOR)
    unpacking = (UNPACKING_PRIOR_ARM,) * 2 if sample.platform == "arm-cpu" else unpacking
    overhead = OVERHEAD_PRIOR_CPU if on_cpu else OVERHEAD_PRIOR
    return ETA_PRIOR, MIXTURE_PRIOR, overhead, KV_PRIOR, *unpacking, SIZE_PRIOR, MIXTURE_LAYER_PRIOR


def fit(samples: Sequence[Sample], spread_prior: float) -> Fit:
    """Robust least squares on log seconds per token;
    `spread_prior` is the log sd to lean on where chips are few.

    Rows of a chip's own figure have a level of their own: they tell how its models differ, not how fast the
    platform's chips are.
    """
    common = _priors(samples[0])
    is_prompt = samples[0].phase == "prefill"
    generations = sorted({sample.generation for sample in samples} - {""})
    is_own = np.array([sample.is_own for sample in samples])
    levels = [(1.0, OWN_LOG_SD)] if is_own.any() else []
    priors = (*common, *(GENERATION_PRIOR for _ in generations), *levels)

    def law(logs: Floats) -> Law:
        values = np.exp(logs).tolist()
        named = zip(generations, values[len(common) :], strict=False)
        if is_prompt:
            return Law(*values[:2], fill=values[2], latent_cost=values[3], generations=tuple(named))
        return Law(*values[: len(common)], generations=tuple(named))

    root = np.sqrt(_weights(samples))
    measured = np.array([log(sample.seconds_per_token) for sample in samples])

    def residuals(logs: Floats) -> Floats:
        modelled = np.array([log(predict(sample, law(logs))) for sample in samples])
        modelled += is_own * (logs[-1] if levels else 0.0)
        pulls = [(value - log(centre)) / sd * SOFT for value, (centre, sd) in zip(logs, priors, strict=True)]
        return np.concatenate([root * (measured - modelled), np.array(pulls)])

    start = np.array([log(centre) for centre, _ in priors])
    solved = least_squares(residuals, start, loss="soft_l1", f_scale=SOFT)
    usual = [sample for sample in samples if not sample.is_own]
    bare = Fit(**asdict(law(solved.x)), n_rows=len(usual), n_chips=len({sample.chip for sample in usual}))
    ratios = np.array([log_ratio(sample, bare) for sample in usual])
    return replace(bare, log_sd=_spread(ratios, usual, spread_prior))


def _spread(ratios: Floats, samples: Sequence[Sample], prior: float) -> float:
    """Log sd of a new device: weighted root mean square of
    the residuals, clipped, leaning on `prior` for few chips.

    `sqrt((n * s**2 + 2 * prior**2) / (n - g + 2) * (1 + 1/n))` with n chips of g generations: the prior counts
    as two chips, one is used up by eta and each generation's factor but one, and the last factor is for eta
    itself, known from n chips only.
    """
    weights = _weights(samples)
    limit = 3 * max(1.4826 * float(np.median(np.abs(ratios))), 0.05)
    clipped = np.clip(ratios, -limit, limit)
    square = float(np.average(clipped**2, weights=weights))
    n = len({sample.chip for sample in samples})
    left = n - len({sample.generation for sample in samples}) + 2
    return max(sqrt((n * square + 2 * prior**2) / left * (1 + 1 / n)), MIN_SPREAD)
