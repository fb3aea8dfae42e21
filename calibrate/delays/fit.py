"""Fit every candidate law to one sample of delays and rank them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from calibrate.delays import density, families
from calibrate.delays.assess import Fitted, assess, best_first
from calibrate.delays.law_fit import LawFit
from calibrate.delays.mixture import lognormal_mixture
from calibrate.delays.sample import DelaySample, take
from calibrate.delays.stderr import Evidence, uncertainty
from simulator.errors import CalibrationError, did_you_mean
from simulator.laws import Constant, Empirical, Law

__all__ = ["CANDIDATES", "fit_laws"]

FITTERS: dict[str, tuple[int, Callable[[DelaySample], Law]]] = {
    "constant": (1, lambda sample: families.constant(sample.x)),
    "lognormal": (2, lambda sample: families.lognormal(sample.x)),
    "gamma": (2, lambda sample: families.gamma(sample.x)),
    "weibull": (2, lambda sample: families.weibull(sample.x)),
    "exponential": (2, lambda sample: families.shifted(families.exponential, sample)),
    "shifted lognormal": (3, lambda sample: families.shifted(families.lognormal, sample)),
    "shifted gamma": (3, lambda sample: families.shifted(families.gamma, sample)),
    "shifted weibull": (3, lambda sample: families.shifted(families.weibull, sample)),
    "lognormal mixture": (5, lognormal_mixture),
    "empirical": (0, lambda sample: families.empirical(sample.x)),
}
"""How many free parameters, and how they are found. The exponential is shifted too."""

CANDIDATES = tuple(FITTERS)
"""Names that `fit_laws` knows, the simpler before the richer."""


def fit_laws(
    samples_s: Iterable[float] | ArrayLike, *, candidates: Sequence[str] | None = None
) -> tuple[LawFit, ...]:
    """Every candidate law by maximum likelihood, best BIC first; those without a likelihood last.

    `samples_s` are delays (s) in the order in which they were measured: drift and
    autocorrelation are looked for. `candidates` are names of `CANDIDATES`, all by default. A
    candidate with p parameters needs more than 2 p samples and more than p different values,
    else it is left out, which the other fits' warnings say. Constant and empirical laws have no
    density; a constant is first when all samples are equal, where no density exists.

    Raises CalibrationError for an unknown candidate, a sample that is no delay (see `sample.take`), and
    when no candidate is left.
    """
    wanted = _known(candidates)
    sample = take(samples_s)
    possible = [name for name in wanted if _possible(name, sample)]
    left_out = [name for name in wanted if name not in possible]
    if not possible:
        raise CalibrationError(
            f"{sample.n} samples with {sample.distinct} different values cannot carry {', '.join(wanted)}; "
            "a law needs more than twice as many samples as parameters: measure longer or allow 'constant'"
        )
    notes = sample.notes
    if left_out:
        notes += (f"left out for {sample.n} samples, {sample.distinct} different: {', '.join(left_out)}",)
    # far tails underflow, and a law that cannot hold a sample has likelihood 0
    with np.errstate(all="ignore"):
        return best_first(_fit(name, sample, notes) for name in possible)


def _known(candidates: Sequence[str] | None) -> tuple[str, ...]:
    """The names asked for, each once."""
    # a single name is a sequence of letters too
    if isinstance(candidates, str):
        candidates = (candidates,)
    for name in candidates or ():
        if name not in FITTERS:
            near = did_you_mean(name, CANDIDATES)
            raise CalibrationError(f"'{name}' is no candidate law{near}; choose from {', '.join(CANDIDATES)}")
    return tuple(dict.fromkeys(candidates)) if candidates else CANDIDATES


def _possible(name: str, sample: DelaySample) -> bool:
    """Whether there are samples enough for the parameters."""
    if name == "constant":
        return True
    free = FITTERS[name][0]
    # a law may meet as many different values as it has parameters, and its likelihood means nothing then
    return sample.distinct > max(1, free) and sample.n > 2 * free


def _fit(name: str, sample: DelaySample, notes: tuple[str, ...]) -> LawFit:
    """One candidate with everything that the ranking shows."""
    free, fitter = FITTERS[name]
    law = fitter(sample)
    distance, anderson_darling = density.distances(law, sample.x)
    errors, doubts = uncertainty(name, law, _evidence(sample))
    return assess(
        Fitted(
            name=name,
            law=law,
            free=free,
            log_likelihood=_log_likelihood(law, sample),
            errors=errors,
            ks=distance,
            anderson_darling=anderson_darling,
            p99_s=density.quantile_s(law, 0.99),
            doubts=doubts,
        ),
        sample,
        notes,
    )


def _log_likelihood(law: Law, sample: DelaySample) -> float | None:
    """Sum of log densities; 0 for a constant that every sample equals, None where there is no density."""
    if isinstance(law, Constant):
        return 0.0 if sample.distinct == 1 else None
    if isinstance(law, Empirical):
        return None
    total = float(density.log_density(law, sample.x).sum())
    return total if np.isfinite(total) else None


def _evidence(sample: DelaySample) -> Evidence:
    """What the samples say about a law of themselves."""
    return Evidence(
        scores=lambda law: density.log_density(law, sample.x),
        counts=1.0,
        smallest_s=float(sample.x[0]),
        closest_shift_s=sample.closest_shift_s,
        effective_share=sample.effective_share,
    )
