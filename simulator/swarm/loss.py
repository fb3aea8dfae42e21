"""One loss in the middle of a reply, predicted: how often
the client asks for another way, and how long that takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from simpy.events import ProcessGenerator

from simulator.scenario import Scenario
from simulator.swarm.chats import Recovery
from simulator.swarm.population import setting
from simulator.swarm.run import Swarm
from simulator.swarm_spec import LossSpec, StaySpec, SwarmSpec

__all__ = ["NEVER", "LossPrediction", "predict_loss"]

NEVER, FEWEST = -1, 10
DETERMINED = 0.9
"""Share of the replications that agree in a number of attempts that is called determined."""
FIRST_LOOK_S = 1.0
"""When a swarm's users begin, and look for the first time."""
LOOKS_BEFORE = 4
"""Of the client, the last one in the middle of the reply; a look pings some of the servers alone."""
PHASES = ("notice_s", "waited_s", "replay_s", "rest_s")
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class LossPrediction:
    """What a loss does to the reply that uses the lost server; times in seconds."""

    attempts: Mapping[int, float]
    """Share of the replications by number of attempts; 0 where
    nothing had to be tried, `NEVER` where it never goes on.
    """
    recovery_s: tuple[float, float, float] | None
    """5, 50 and 95 % of the time until the reply goes on; None where it never does."""
    phases_s: Mapping[str, float]
    """Medians."""
    replications: int
    """Of which the reply used that server."""

    @property
    def likeliest(self) -> int:
        """The number of attempts."""
        return max(self.attempts, key=lambda number: self.attempts[number])

    @property
    def is_determined(self) -> bool:
        """Whether chance has next to no part in the number of attempts."""
        return self.replications >= FEWEST and self.attempts[self.likeliest] >= DETERMINED


def predict_loss(
    scenario: Scenario, spans: Mapping[str, tuple[int, int]], loss: LossSpec, replications: int = 60
) -> LossPrediction | None:
    """What becomes of the reply of one user if `loss.server` goes `loss.at` after the client's last look.

    `spans` are the blocks of each server; the looks come each
    `swarm.update_period`, and the loss so late that the reply is under way. None
    where no replication's client used that server, or all replies were over.
    """
    told = scenario.swarm or SwarmSpec()
    at_s = FIRST_LOOK_S + LOOKS_BEFORE * told.update_period + loss.at
    spec = told.model_copy(
        update={
            "stays": {name: StaySpec(span=span) for name, span in spans.items()},
            "losses": (loss.model_copy(update={"at": at_s}),),
            "hours": (at_s + told.patience + told.request_timeout) / HOUR_S,
            "users": 1,
            "think": None,
            "arrivals": None,
            "balance_quality": 0.0,
        }
    )
    given = setting(scenario.model_copy(update={"swarm": spec}))
    found: list[Recovery] = []
    for number in range(replications):
        replies = _Acquainted(given, number).tale().replies
        found += [one for reply in replies for one in reply.recoveries[:1]]
    return _summed(found) if found else None


class _Acquainted(Swarm):
    """A swarm of one user, who asks once, when the client
    has looked often enough to have pinged every server.
    """

    def user(self, number: int) -> ProcessGenerator:
        """One chat, between two looks."""
        client, period_s = self.client(number), self.given.spec.update_period
        client.view.refresh()
        self.env.process(client.look())
        yield self.env.timeout((LOOKS_BEFORE - 0.5) * period_s)
        yield self.env.process(client.chat(number))


def _summed(found: list[Recovery]) -> LossPrediction:
    mended = [one for one in found if one.recovered]
    counts = Counter(one.attempts if one.recovered else NEVER for one in found)
    totals = [one.total_s for one in mended]
    low, middle, high = np.quantile(totals, (0.05, 0.5, 0.95)).tolist() if mended else (0.0, 0.0, 0.0)
    return LossPrediction(
        attempts={number: count / len(found) for number, count in sorted(counts.items())},
        recovery_s=(low, middle, high) if mended else None,
        phases_s={
            name: float(np.median([getattr(one, name) for one in mended])) for name in PHASES if mended
        },
        replications=len(found),
    )
