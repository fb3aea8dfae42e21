"""Standard errors of a law's parameters from the information that the samples carry about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from calibrate.delays.families import at_bounds
from simulator.laws import Constant, Empirical, Law, Mixture
from simulator.laws.law import Floats
from simulator.units import format_seconds

__all__ = ["Evidence", "parameters_of", "standard_errors", "uncertainty", "with_parameter"]

STEP = 1e-4
"""Relative step of the numerical derivatives: cube root of the rounding error of a
double, within a factor of 20.
"""
SEPARABLE = 1e-10
"""Least ratio of the eigenvalues of the information at which its inverse still means something."""


def parameters_of(law: Law) -> dict[str, float]:
    """The free parameters by name; of a mixture `weight` (of the first part), `median_1`, `sigma_1`, ..."""
    if isinstance(law, Empirical):
        return {}
    if not isinstance(law, Mixture):
        return {name: value for name, value in law.model_dump().items() if name != "law"}
    found = {"weight": law.parts[0].weight}
    for number, part in enumerate(law.parts, 1):
        inner = part.of.model_dump(exclude={"law", "shift"})
        found |= {f"{name}_{number}": value for name, value in inner.items()}
    return found


def with_parameter(law: Law, name: str, value: float) -> Law:
    """The law with one parameter changed, not checked against its bounds: derivatives step over them."""
    if not isinstance(law, Mixture):
        return law.model_copy(update={name: value})
    if name == "weight":
        parts = [
            part.model_copy(update={"weight": w})
            for part, w in zip(law.parts, (value, 1 - value), strict=True)
        ]
    else:
        # the number is that of `parameters_of`, from 1
        inner, number = name.rsplit("_", 1)
        parts = list(law.parts)
        old = parts[int(number) - 1]
        parts[int(number) - 1] = old.model_copy(update={"of": old.of.model_copy(update={inner: value})})
    return law.model_copy(update={"parts": tuple(parts)})


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the parameters of a law are judged by."""

    scores: Callable[[Law], Floats]
    """`ln f(x_i)` of a law, f its density (1/s)."""
    counts: Floats | float
    """How often x_i was seen."""
    smallest_s: float
    """No shift is beyond it."""
    closest_shift_s: float
    """Distance from `smallest_s` within which a shift is at its bound, and known no better."""
    effective_share: float
    """Independent samples per sample."""


def uncertainty(name: str, law: Law, evidence: Evidence) -> tuple[dict[str, float | None], tuple[str, ...]]:
    """Standard errors by parameter, and doubts about parameters; nothing for laws without a density.

    Errors are widened by the square root of samples per independent sample. A parameter at a bound is left
    out of the information, for the likelihood has a slope there; it has no error, but for a shift just under
    the smallest sample, whose error is `closest_shift_s`.
    """
    if isinstance(law, Constant | Empirical):
        return {}, ()
    shift_s = getattr(law, "shift", 0.0)
    at_top = shift_s > 0 and shift_s >= evidence.smallest_s - 1.01 * evidence.closest_shift_s
    bounded = dict(at_bounds(law))
    doubts = tuple(f"{key} at the bound {bound:g}" for key, bound in bounded.items())
    if name.startswith("shifted") and not shift_s:
        doubts += ("shift at the bound 0: the family without a shift says the same",)
    if at_top:
        doubts += (
            f"shift at the bound: {format_seconds(evidence.closest_shift_s)} under the smallest sample",
        )
    bounded |= {"shift": 0.0} if at_top or not shift_s else {}
    free = tuple(key for key in parameters_of(law) if key not in bounded)
    errors = standard_errors(law, free, evidence)
    if None in errors.values():
        doubts += ("these samples cannot tell its parameters apart",)
    widened = {
        key: None if each is None else each / evidence.effective_share**0.5 for key, each in errors.items()
    }
    return (widened | {"shift": evidence.closest_shift_s} if at_top else widened), doubts


def standard_errors(law: Law, free: tuple[str, ...], evidence: Evidence) -> dict[str, float | None]:
    """Standard error of each parameter in `free`, from the inverse of the observed information.

    The information is the sum of outer products of the scores, `sum_i s_i s_i'`, `s_i = d ln f(x_i) / d
    parameter` (Berndt, Hall, Hall and Hausman 1974): never negative, where a numerical Hessian at a bound is.
    A value is None where the samples cannot tell the parameters apart.
    """
    if not free:
        return {}
    values = parameters_of(law)
    steps = {name: STEP * _room(name, values, evidence.smallest_s) for name in free}

    def stepped(name: str, step: float) -> Floats:
        return evidence.scores(with_parameter(law, name, values[name] + step))

    # slopes per step, not per unit, so that all rows have comparable sizes
    slopes = np.array([(stepped(name, h) - stepped(name, -h)) / 2 for name, h in steps.items()])
    information = (slopes * evidence.counts) @ slopes.T
    if not np.all(np.isfinite(information)):
        return dict.fromkeys(free)
    eigenvalues = np.linalg.eigvalsh(information)
    # a parameter and its twin move the likelihood alike: their sum is known, neither of them is
    if eigenvalues[0] <= SEPARABLE * eigenvalues[-1]:
        return dict.fromkeys(free)
    spread = np.sqrt(np.diag(np.linalg.inv(information)))
    return {name: float(each) * h for each, (name, h) in zip(spread, steps.items(), strict=True)}


def _room(name: str, values: Mapping[str, float], smallest_s: float) -> float:
    """What a step is relative to: the value itself, or the distance to the nearer bound."""
    if name == "shift":
        return smallest_s - values[name]
    if name == "weight":
        return min(values[name], 1 - values[name])
    return abs(values[name])
