"""The random numbers of one replication's churn; each name is a stream of its own, counted from 0."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from simulator.laws.law import Constant, Law
from simulator.laws.streams import Streams

__all__ = ["ChurnRng"]


@dataclass(slots=True)
class ChurnRng:
    """Draws of replication `replication` of a study with this seed."""

    seed: int
    replication: int
    _drawn: Counter[str] = field(default_factory=Counter)

    def draw(self, name: str, law: Law) -> float:
        """The next draw (s) of the stream `name`; other names' draws do not move it."""
        if isinstance(law, Constant):
            return law.value
        number = self._drawn[name]
        self._drawn[name] += 1
        # a stream of its own for each draw: a shared one would have to know beforehand how many there will be
        return float(Streams(self.seed, self.replication).draws(f"churn/{name}/{number}", law, 1)[0, 0])

    def factor(self, name: str, log_sd: float) -> float:
        """A lognormal factor with median 1 that stays the same over the replication."""
        if log_sd == 0:
            return 1.0
        return float(Streams(self.seed, self.replication).factors(f"churn/{name}", log_sd)[0])
