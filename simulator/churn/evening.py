"""An evening: requests at random while devices come and go, summed up over replications."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.churn.study import Evening, Study
from simulator.churn.trace import ChurnTrace, RecoveryTrace
from simulator.result.estimate import Estimate, estimate
from simulator.scenario import Scenario
from simulator.version import VERSION

__all__ = ["EveningOutcome", "predict_evening"]


@dataclass(frozen=True, slots=True)
class EveningOutcome:
    """What the people who asked got; Estimates are over replications unless said."""

    study: Study
    traces: tuple[ChurnTrace, ...]
    requests: Estimate
    completed: Estimate
    """Share of the requests that got all their tokens."""
    interrupted: Estimate
    """Share of the replies that lost the ring at least once."""
    waiting_s: Estimate | None
    """Of single requests: until its turn came."""
    reply_s: Estimate | None
    """Of single complete replies: from the request to the last token."""
    recovery_s: Estimate | None
    """Of single recoveries."""
    tokens: Estimate
    """Tokens that reached anybody."""

    def document(self) -> dict[str, Any]:
        """The outcome as plain data, for JSON."""
        evening = self.study.evening
        found = {
            name: getattr(self, name)
            for name in (
                "requests",
                "completed",
                "interrupted",
                "waiting_s",
                "reply_s",
                "recovery_s",
                "tokens",
            )
        }
        return {
            "scenario": self.study.scenario.name,
            "question": self.study.scenario.question,
            "hours": evening.hours if evening else 0.0,
            "requests_per_hour": evening.requests_per_hour if evening else 0.0,
            **{name: value.model_dump() if value else None for name, value in found.items()},
            "first_evening": [
                {"time_s": round(at, 3), "what": what, "device": device}
                for at, what, device in self.traces[0].happened[:200]
            ],
            "seed": self.study.scenario.seed,
            "replications": len(self.traces),
            "version": VERSION,
        }


def predict_evening(
    scenario: Scenario,
    evening: Evening,
    replications: int = 10,
    progress: Callable[[int, int], None] | None = None,
) -> EveningOutcome:
    """Simulate evenings of this scenario; raises what `Study` raises."""
    study = Study(scenario, replications, evening)
    traces = tuple(study.traces(progress))
    replies = [reply for trace in traces for reply in trace.replies]
    return EveningOutcome(
        study=study,
        traces=traces,
        requests=estimate([len(trace.replies) for trace in traces]),
        completed=estimate([_share([reply.complete for reply in trace.replies]) for trace in traces]),
        interrupted=estimate(
            [_share([bool(_losses(reply.recoveries)) for reply in trace.replies]) for trace in traces]
        ),
        # of every reply: who gave up has waited too
        waiting_s=_maybe([reply.started_s - reply.asked_s for reply in replies]),
        reply_s=_maybe([reply.end_s - reply.asked_s for reply in replies if reply.complete]),
        recovery_s=_maybe(
            [
                loss.seconds
                for reply in replies
                for loss in _losses(reply.recoveries)
                if loss.seconds is not None
            ]
        ),
        tokens=estimate([sum(len(reply.times_s) for reply in trace.replies) for trace in traces]),
    )


def _losses(recoveries: Sequence[RecoveryTrace]) -> list[RecoveryTrace]:
    return [found for found in recoveries if not found.is_planned]


def _share(yes: Sequence[bool]) -> float:
    return sum(yes) / len(yes) if yes else 1.0


def _maybe(values: Sequence[float]) -> Estimate | None:
    return estimate(values) if values else None
