"""From a fitted law to a LawFit: criteria, tail, doubts; and the order of a ranking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import log

import numpy as np

from calibrate.delays.density import tail_verdict
from calibrate.delays.law_fit import LawFit, LawParameter
from calibrate.delays.sample import DelaySample
from calibrate.delays.stderr import parameters_of
from simulator.laws import Law
from simulator.units import format_seconds

__all__ = ["Fitted", "assess", "best_first", "choose"]

ENOUGH_BEYOND = 5
"""Samples that must be expected beyond p99 before it is believed (Cochran's rule of five, 1954)."""
SAME_BIC = 2.0
"""A BIC difference up to 2 is not worth more than a bare mention (Kass and Raftery 1995)."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a fitter found out about one law; `p99_s` is that of whatever was measured."""

    name: str
    law: Law
    free: int
    """Number of free parameters."""
    log_likelihood: float | None
    errors: Mapping[str, float | None]
    ks: float
    anderson_darling: float | None
    p99_s: float
    doubts: tuple[str, ...] = ()


def assess(fitted: Fitted, sample: DelaySample, notes: tuple[str, ...]) -> LawFit:
    """The LawFit of one law: `AIC = 2 p - 2 ln L`, `BIC = p ln n - 2 ln L`; `notes`
    hold for the whole sample.
    """
    n_effective = sample.n * sample.effective_share
    error = fitted.p99_s / sample.p99_s - 1
    beyond = float(np.mean(sample.x > fitted.p99_s))
    tail = tail_verdict(beyond, n_effective, error)
    doubts = fitted.doubts
    if tail in ("too light", "too heavy"):
        doubts += (f"tail {tail}: {beyond:.1%} of samples beyond its p99 of {format_seconds(fitted.p99_s)}",)
    # equal samples have no tail to doubt
    if n_effective * 0.01 < ENOUGH_BEYOND and sample.distinct > 1:
        doubts += (f"too few samples for p99: {n_effective:.0f} of {ENOUGH_BEYOND * 100} independent ones",)
    deviance = None if fitted.log_likelihood is None else -2 * fitted.log_likelihood
    values = parameters_of(fitted.law)
    if len(values) > fitted.free:
        values.pop("shift", None)  # a family fitted without a shift has one that is 0
    return LawFit(
        name=fitted.name,
        law=fitted.law,
        parameters=tuple(
            LawParameter(name=key, value=at, stderr=fitted.errors.get(key)) for key, at in values.items()
        ),
        n=sample.n,
        n_effective=n_effective,
        log_likelihood=fitted.log_likelihood,
        aic=None if deviance is None else 2 * fitted.free + deviance,
        bic=None if deviance is None else fitted.free * log(sample.n) + deviance,
        delta_bic=None,
        ks=fitted.ks,
        anderson_darling=fitted.anderson_darling,
        tail_error_p99=error,
        tail=tail,
        warnings=doubts + notes,
    )


def best_first(fits: Iterable[LawFit]) -> tuple[LawFit, ...]:
    """By BIC; fits without one last, nearest first. Each gets its distance to the best BIC."""
    ranked = sorted(fits, key=lambda fit: (fit.bic is None, fit.bic if fit.bic is not None else fit.ks))
    least = ranked[0].bic if ranked else None
    return tuple(
        fit if fit.bic is None or least is None else fit.model_copy(update={"delta_bic": fit.bic - least})
        for fit in ranked
    )


def choose(fits: Iterable[LawFit]) -> LawFit:
    """The law to use: smallest BIC among those whose 99th percentile holds, the simpler within a BIC of 2.

    A 99th percentile holds when it is off by less than 20 %, or by no more than chance explains. When it
    holds for none with a likelihood, the empirical law is taken if the sample is large enough for its own p99
    (500 independent samples), else the smallest BIC.

    Raises ValueError for no fits.
    """
    ranked = best_first(fits)
    if not ranked:
        raise ValueError("no fits to choose from; fit_laws always returns at least one")
    likely = [fit for fit in ranked if fit.bic is not None]
    holding = [fit for fit in likely if fit.tail not in ("too light", "too heavy")]
    if not holding:
        empirical = [fit for fit in ranked if fit.law.law == "empirical"]
        if empirical and empirical[0].n_effective * 0.01 >= ENOUGH_BEYOND:
            return empirical[0]
    pool = holding or likely
    if not pool:
        return ranked[0]
    # a BIC that cannot tell them apart gives no ground for more parameters
    same = [fit for fit in pool if (fit.bic or 0.0) - (pool[0].bic or 0.0) <= SAME_BIC]
    return min(same, key=lambda fit: len(fit.parameters))
