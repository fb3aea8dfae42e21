"""What happened in one replication: replies token by token, the recoveries in
between, and every placement.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from simulator.churn.placing import Placed
from simulator.churn.script import Happening

__all__ = ["ChurnTrace", "Phase", "RecoveryTrace", "ReplyTrace"]


class Phase(NamedTuple):
    """One phase of a recovery, as long as it really lasted."""

    name: str
    start_s: float
    end_s: float


@dataclass(slots=True)
class RecoveryTrace:
    """One recovery: from the loss to the next token, several losses in a row included."""

    fault_s: float
    """When the device left; for one that left while nobody asked, when the next reply wanted to begin."""
    token: int
    """How many tokens the reply had."""
    phases: list[Phase] = field(default_factory=list)
    placed: Placed | None = None
    """The placement that the reply went on with."""
    resumed_s: float | None = None
    """When the next token came; None if it never did."""
    refusals: list[str] = field(default_factory=list)
    is_planned: bool = False
    """True where nothing was lost: the client placed again to use a device that had come back."""

    @property
    def seconds(self) -> float | None:
        """From the loss to the next token (s)."""
        return None if self.resumed_s is None else self.resumed_s - self.fault_s

    def spent_s(self, phase: str) -> float:
        """Time in a phase (s), over all attempts."""
        return sum(found.end_s - found.start_s for found in self.phases if found.name == phase)


@dataclass(slots=True)
class ReplyTrace:
    """One request as its client sees it."""

    number: int
    asked_s: float
    wanted: int
    """Tokens asked for."""
    started_s: float = 0.0
    """When its turn came."""
    times_s: list[float] = field(default_factory=list)
    """Arrival of each token, in the order of the text."""
    epochs: list[tuple[int, Placed]] = field(default_factory=list)
    """The first token made with each placement."""
    recoveries: list[RecoveryTrace] = field(default_factory=list)
    end_s: float = 0.0
    given_up: bool = False
    """The client got no token for longer than it has patience."""

    @property
    def complete(self) -> bool:
        """Whether every token came."""
        return len(self.times_s) == self.wanted


@dataclass(slots=True)
class ChurnTrace:
    """One replication."""

    replication: int
    replies: list[ReplyTrace] = field(default_factory=list)
    happened: list[Happening] = field(default_factory=list)
    placements: list[tuple[float, Placed]] = field(default_factory=list)
    """Every placement that was loaded, and when it was asked for."""
    slow: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """(time, slow-down) of each device that gets hot."""
