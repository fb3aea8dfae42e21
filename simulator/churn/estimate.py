"""Dropout: what a loss costs, as Estimates: recovery time and its phases, tokens/s
before and after, tokens lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.churn.recovery import PHASES
from simulator.churn.study import Study
from simulator.churn.trace import ChurnTrace, RecoveryTrace, ReplyTrace
from simulator.errors import Fault, PlacementError, ScenarioError
from simulator.result.estimate import Estimate, estimate, rounded
from simulator.scenario import Label, Scenario
from simulator.version import VERSION

__all__ = ["FAILURES_PER_HOUR", "Dropout", "drawn", "lost_tokens_per_hour", "predict_dropout"]

FAILURES_PER_HOUR = (0.1, 0.5, 1.0, 2.0, 5.0)
HOUR_S = 3600.0
LABEL: Label = "assumed"  # disks, caches and the client's own choices stand on no measurement of this cluster


@dataclass(frozen=True, slots=True)
class Dropout:
    """The prediction for a scenario with events; Estimates are over the
    replications that have the quantity.
    """

    study: Study
    traces: tuple[ChurnTrace, ...]
    recovery_s: Estimate | None
    """From the loss to the next token, the first loss of each replication; None
    where no reply ever went on.
    """
    before_tokens_per_s: Estimate | None
    """Up to the first loss."""
    after_tokens_per_s: Estimate | None
    """From the first token after the last recovery to the end of the reply."""
    regrown_s: Estimate | None
    """From a request to its first token where the client first took in a device that had come back."""
    regrown_tokens_per_s: Estimate | None
    """Of the replies that began so."""
    phases: dict[str, Estimate]
    interrupted: float
    """Share of the replies that lost the ring at least once."""
    completed: float
    """Share of the replies that got all their tokens."""
    refusals: tuple[tuple[str, float], ...]
    """Why survivors could not hold the model, and in what share of the replications."""

    @property
    def scenario(self) -> Scenario:
        """The completed scenario."""
        return self.study.scenario

    def document(self) -> dict[str, Any]:
        """The prediction as plain data, for JSON."""
        return {
            "scenario": self.scenario.name,
            "question": self.scenario.question,
            "engine": self.scenario.engine.name,
            "recovery_s": _plain(self.recovery_s),
            "regrown_s": _plain(self.regrown_s),
            "tokens_per_s": {
                "before": _plain(self.before_tokens_per_s),
                "after": _plain(self.after_tokens_per_s),
                "regrown": _plain(self.regrown_tokens_per_s),
            },
            "phases_s": {name: value.model_dump() for name, value in self.phases.items()},
            "tokens_lost_per_hour": {
                f"{rate:g}": _plain(value) for rate, value in self.lost_per_hour().items()
            },
            "replies": {"interrupted": rounded(self.interrupted), "completed": rounded(self.completed)},
            "refusals": [{"reason": reason, "share": rounded(share)} for reason, share in self.refusals],
            "placements": self._placements(),
            "seed": self.scenario.seed,
            "replications": len(self.traces),
            "version": VERSION,
        }

    def lost_per_hour(self) -> dict[float, Estimate | None]:
        """Tokens that an hour of decoding loses to recoveries, for some failure rates (per hour)."""
        pairs = [
            (found.seconds, _rate(times))
            for reply, found in _first_losses(self.traces)
            if (times := reply.times_s[: found.token]) and found.seconds is not None
        ]
        usable = [(seconds, rate) for seconds, rate in pairs if rate is not None]
        return {
            per_hour: estimate([lost_tokens_per_hour(per_hour, seconds, rate) for seconds, rate in usable])
            if usable
            else None
            for per_hour in FAILURES_PER_HOUR
        }

    def _placements(self) -> list[dict[str, Any]]:
        """The placements before and after, of the first replication, layers by device."""
        found = [] if not self.traces else [placed for _, placed in self.traces[0].placements]
        return [{shard.device: shard.layers for shard in placed.job.shards} for placed in found[:20]]


def lost_tokens_per_hour(failures_per_hour: float, recovery_s: float, tokens_per_s: float) -> float:
    """Tokens that one hour loses: `3600 rate (1 - 1 / (1 + lambda R))`, lambda
    failures per second of decoding.

    Alternating renewal: decoding lasts 1 / lambda on average, then a recovery of R
    makes no token; so the share of the time in which tokens are made is `1 / (1 +
    lambda R)` (Cox, Renewal Theory, 1962, section 7.1). After a recovery the rate is
    taken to be what it was: the device is back, or another one takes its place.

    >>> lost_tokens_per_hour(1.0, 3600.0, 1.0)
    1800.0
    """
    return HOUR_S * tokens_per_s * (1 - 1 / (1 + failures_per_hour / HOUR_S * recovery_s))


def predict_dropout(
    scenario: Scenario,
    replications: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    believed: Scenario | None = None,
) -> Dropout:
    """What the scenario's events do to one reply; `believed` as for `Study`.

    Raises PlacementError where not even the devices of the beginning hold the model, ScenarioError for an
    event at or after the reply's last token, and what `Study` raises.
    """
    _within_the_reply(scenario)
    study = Study(scenario, replications, believed=believed)
    traces = tuple(study.traces(progress))
    replies = [reply for trace in traces for reply in trace.replies]
    if not any(reply.times_s for reply in replies):
        reasons = [reason for reply in replies for found in reply.recoveries for reason in found.refusals]
        raise PlacementError(
            reasons[0] if reasons else "no reply ever got a token; give events a later moment"
        )
    losses, told = _first_losses(traces), drawn(traces)
    regrown = [(reply, found) for reply in replies for found in reply.recoveries if found.is_planned]
    return Dropout(
        study=study,
        traces=traces,
        recovery_s=_estimate(told["recovery"]),
        before_tokens_per_s=_estimate(told["before"]),
        after_tokens_per_s=_estimate(told["after"]),
        regrown_s=_estimate([found.seconds for _, found in regrown]),
        regrown_tokens_per_s=_estimate([_rate(reply.times_s) for reply, _ in regrown]),
        phases=_phases([found for _, found in losses if found.resumed_s is not None]),
        interrupted=sum(any(not found.is_planned for found in reply.recoveries) for reply in replies)
        / len(replies),
        completed=sum(reply.complete for reply in replies) / len(replies),
        refusals=_refusals(traces),
    )


def drawn(traces: Sequence[ChurnTrace]) -> dict[str, list[float | None]]:
    """What the replications gave: seconds of the first `recovery`, tokens/s `before` it and `after` the last
    one; None where there was none.
    """
    replies = [reply for trace in traces for reply in trace.replies]
    return {
        "recovery": [found.seconds for _, found in _first_losses(traces)],
        "before": [_rate(_before(reply)) for reply in replies],
        "after": [_rate(_after(reply)) for reply in replies],
    }


def _within_the_reply(scenario: Scenario) -> None:
    """Refuse what happens when the only reply is over already: nothing would come of it."""
    most = scenario.workload.output_tokens - 1
    late = [
        Fault(
            f"events[{number}].at_token",
            f"{event.at_token} must be at most {most}: the reply has {most + 1} tokens",
        )
        for number, event in enumerate(scenario.events)
        if event.at_token is not None and event.at_token > most
    ]
    if late:
        raise ScenarioError(scenario.name, late)


def _first_losses(traces: Sequence[ChurnTrace]) -> list[tuple[ReplyTrace, RecoveryTrace]]:
    """The first loss of each replication's first interrupted reply."""
    found = []
    for trace in traces:
        losses = [
            (reply, loss) for reply in trace.replies for loss in reply.recoveries if not loss.is_planned
        ]
        found += losses[:1]
    return found


def _before(reply: ReplyTrace) -> list[float]:
    # to take a returned device in is no loss: tokens before it count as undisturbed
    first = next((found.token for found in reply.recoveries if not found.is_planned), len(reply.times_s))
    return reply.times_s[:first]


def _after(reply: ReplyTrace) -> list[float]:
    resumed = [
        found.token for found in reply.recoveries if found.resumed_s is not None and not found.is_planned
    ]
    return reply.times_s[resumed[-1] :] if resumed else []


def _rate(times_s: Sequence[float]) -> float | None:
    """Tokens/s between the first and the last of these tokens, None without two."""
    return (
        (len(times_s) - 1) / (times_s[-1] - times_s[0])
        if len(times_s) > 1 and times_s[-1] > times_s[0]
        else None
    )


def _estimate(values: Sequence[float | None]) -> Estimate | None:
    known = [value for value in values if value is not None]
    return estimate(known, LABEL) if known else None


def _phases(losses: Sequence[RecoveryTrace]) -> dict[str, Estimate]:
    """Time in each phase over the losses that were mended; phases that never took any time are left out."""
    spent = {name: [loss.spent_s(name) for loss in losses] for name in PHASES}
    return {name: estimate(values, LABEL) for name, values in spent.items() if any(values)}


def _refusals(traces: Sequence[ChurnTrace]) -> tuple[tuple[str, float], ...]:
    counts: Counter[str] = Counter()
    for trace in traces:
        counts.update(
            {reason for reply in trace.replies for loss in reply.recoveries for reason in loss.refusals}
        )
    return tuple((reason, count / len(traces)) for reason, count in counts.most_common(5))


def _plain(value: Estimate | None) -> dict[str, Any] | None:
    return value.model_dump() if value is not None else None
