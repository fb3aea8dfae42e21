"""Standard errors of a law's parameters from the information that the samples carry about them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from simulator.laws import Constant, Empirical, Law, Mixture
from simulator.laws.law import Floats

__all__ = ["parameters_of", "standard_errors", "with_parameter"]

STEP = 1e-4
"""Relative step of the numerical derivatives: cube root of the rounding error of a double, within a factor of 20."""
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
        parts = [part.model_copy(update={"weight": w}) for part, w in zip(law.parts, (value, 1 - value), strict=True)]
    else:
        inner, number = name.rsplit("_", 1)
        parts = list(law.parts)
        old = parts[int(number) - 1]
        parts[int(number) - 1] = old.model_copy(update={"of": old.of.model_copy(update={inner: value})})
    return law.model_copy(update={"parts": tuple(parts)})


def standard_errors(
    law: Law, free: tuple[str, ...], smallest_s: float, scores: Callable[[Law], Floats], counts: Floats | float = 1.0
) -> dict[str, float | None]:
    """Standard error of each parameter in `free`, from the inverse of the observed information.

    The information is the sum of outer products of the scores, `sum_i s_i s_i'`, `s_i = d ln f(x_i) / d parameter`
    (Berndt, Hall, Hall and Hausman 1974): never negative, where a numerical Hessian at a bound is. `scores` gives
    `ln f(x_i)` for a law, `counts` how often x_i was seen, `smallest_s` how far a shift may step (s). A value is None
    where the samples cannot tell the parameters apart.
    """
    if not free or isinstance(law, Constant | Empirical):
        return {}
    values = parameters_of(law)
    steps = {name: STEP * _room(name, values[name], values.get("shift", 0.0), smallest_s) for name in free}
    slopes = np.array(
        [
            (scores(with_parameter(law, name, values[name] + h)) - scores(with_parameter(law, name, values[name] - h))) / 2
            for name, h in steps.items()
        ]
    )  # per step, so that all rows have comparable sizes
    information = (slopes * counts) @ slopes.T
    if not np.all(np.isfinite(information)):
        return dict.fromkeys(free)
    eigenvalues = np.linalg.eigvalsh(information)
    if eigenvalues[0] <= SEPARABLE * eigenvalues[-1]:
        return dict.fromkeys(free)
    spread = np.sqrt(np.diag(np.linalg.inv(information)))
    return {name: float(each) * h for each, (name, h) in zip(spread, steps.items(), strict=True)}


def _room(name: str, value: float, shift_s: float, smallest_s: float) -> float:
    """What a step is relative to."""
    if name == "shift":
        return smallest_s - shift_s
    if name == "weight":
        return min(value, 1 - value)
    return abs(value)
