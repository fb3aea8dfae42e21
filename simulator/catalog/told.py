"""How far figures are off that a person says of a machine or a link of their own."""

from __future__ import annotations

from functools import cache
from typing import Literal

from simulator.catalog.tables import Facts, tree

__all__ = ["Statement", "ToldFacts", "said_log_sd", "stand_in_log_sd", "tails"]

Statement = Literal["decode", "prefill", "delay", "rate"]


class ToldFacts(Facts):
    """One kind of statement; figures are standard deviations of natural logarithms."""

    told: float
    measured: float
    source: str
    confidence: str


@cache
def stand_in_log_sd() -> float:
    """How much further off a time is where another engine is meant than the one that is simulated."""
    return float(tree("stand_in")["log_sd"])


@cache
def tails() -> float:
    """Degrees of freedom of Student's t in which worlds are drawn."""
    return float(tree("tails")["degrees_of_freedom"])


@cache
def _facts() -> dict[str, ToldFacts]:
    return {name: ToldFacts(**entry) for name, entry in tree("told").items()}


def said_log_sd(statement: Statement, *, measured: bool, of_kind: float | None = None) -> float:
    """Standard deviation of the natural logarithm of what is said without ±.

    `of_kind` is how unsure the catalogue is of the same figure. Who only says it takes that over: else to
    repeat the catalogue's own figure would make it surer. Who measured it knows better than either.
    """
    facts = _facts()[statement]
    usual = facts.told if of_kind is None else of_kind
    return min(facts.measured, usual) if measured else usual
