"""Laws of durations, named random streams, closed forms."""

from simulator.laws.law import (
    Constant,
    Empirical,
    Exponential,
    Gamma,
    Law,
    Lognormal,
    Mixture,
    Part,
    Weibull,
    median_s,
    scaled,
    table,
)
from simulator.laws.streams import Streams

__all__ = [
    "Constant",
    "Empirical",
    "Exponential",
    "Gamma",
    "Law",
    "Lognormal",
    "Mixture",
    "Part",
    "Streams",
    "Weibull",
    "median_s",
    "scaled",
    "table",
]
