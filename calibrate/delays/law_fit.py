"""LawFit: one fitted law, how sure its parameters are, how far it is from the samples, and what to doubt."""

from __future__ import annotations

from typing import Literal

from simulator.laws import Law
from simulator.spec import Spec

__all__ = ["LawFit", "LawParameter", "Tail"]

Tail = Literal["ok", "too light", "too heavy", "unknown"]


class LawParameter(Spec):
    """A parameter under the name that the law gives it (times in s); `stderr` is None
    where it sits at a bound.
    """

    name: str
    value: float
    stderr: float | None


class LawFit(Spec):
    """One candidate after fitting.

    A law without a density (empirical; constant unless all samples are equal) has no
    likelihood, hence no AIC or BIC. `log_likelihood` sums natural logarithms of
    densities in 1/s, so only differences on one sample mean anything.
    """

    name: str
    law: Law
    parameters: tuple[LawParameter, ...]
    n: int
    """Samples that were fitted."""
    n_effective: float
    """Independent samples that would say as much: smaller where neighbours are alike;
    the standard errors use it.
    """
    log_likelihood: float | None
    aic: float | None
    bic: float | None
    delta_bic: float | None
    """BIC minus the smallest BIC of the ranking."""
    ks: float
    """Kolmogorov-Smirnov distance: largest gap between the two distribution functions."""
    anderson_darling: float | None
    """Anderson-Darling's A squared, which weighs both tails; None where it is infinite."""
    tail_error_p99: float
    """99th percentile of the law over that of the samples, minus 1."""
    tail: Tail
    """Whether the samples contradict the law's 99th percentile by more than 20 % and more than chance."""
    warnings: tuple[str, ...]

    def parameter(self, name: str) -> LawParameter:
        """The parameter of that name; KeyError for a name that the law lacks."""
        found = {each.name: each for each in self.parameters}
        return found[name]
