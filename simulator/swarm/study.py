"""Many replications of a swarm, here or elsewhere, and what they say together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from typing import Any

import numpy as np

from simulator.errors import PlacementError
from simulator.laws.law import Floats
from simulator.result.estimate import Estimate, estimate, rounded
from simulator.scenario import Scenario
from simulator.spec import Spec
from simulator.swarm.population import setting
from simulator.swarm.run import Tale, replicate

__all__ = ["Gain", "SwarmAnswer", "enough", "one_more", "rows_of", "swarm_answer", "tale_row"]

Row = dict[str, Any]
BUCKETS = 48
"""Of a swarm's hours, for rates over time."""
MOST_COUNT = 4096


class SwarmAnswer(Spec):
    """What a swarm gives its users; intervals are over replications."""

    scenario: str
    question: str
    servers: int
    hours: float
    replications: int
    tokens_per_s: Estimate | None
    """Of the middle reply, from its first token on."""
    tokens_per_s_slow: Estimate | None
    """Of one reply in twenty, which is slower."""
    first_token_s: Estimate | None
    first_token_slow_s: Estimate | None
    all_tokens_per_s: Estimate
    """Of all chats together."""
    completed: Estimate
    """Share of the replies that ended."""
    lost: Estimate
    refused: Estimate
    """Who gave up before the first token."""
    losses_per_hour: Estimate
    """Servers lost to replies in their middle."""
    recovery_s: Estimate | None
    lost_share: Mapping[str, Estimate]
    """Of all time that users waited or read, by cause."""
    whole: Estimate
    """Share of time in which every block was served."""
    moves_per_hour: Estimate
    scarce: tuple[tuple[int, float], ...]
    """Blocks that were missing longest, or else held by fewest: (block, share of time it was missing)."""
    servers_per_block: tuple[float, float, float]
    """Least, mean and most over blocks, in the mean over time."""


class Gain(Spec):
    """What one server more of a kind brings, in the same luck."""

    kind: str
    whole: float
    """Share of time in which all blocks are served, with it less without it."""
    all_tokens_per_s: float


def tale_row(payload: str, replication: int) -> str:
    """One replication of a scenario (JSON), as JSON: made for other processes."""
    given = setting(Scenario.model_validate_json(payload))
    return json.dumps(_row(replicate(given, replication), given.spec.hours))


def _row(tale: Tale, hours: float) -> Row:
    done = [one for one in tale.replies if one.outcome != "unfinished"]
    began = [one for one in tale.replies if np.isfinite(one.first_s) and one.outcome != "refused"]
    rates = [(one.tokens - 1) / (one.ended_s - one.first_s) for one in done if one.outcome == "complete"]
    lost_s: Counter[str] = Counter()
    for one in done:
        lost_s.update(one.lost_s)
    recoveries = [found for one in tale.replies for found in one.recoveries]
    outcomes = Counter(one.outcome for one in done)
    return {
        "servers": tale.servers,
        "outcomes": dict(outcomes),
        "tokens_per_s": _quantiles(rates),
        "first_token_s": _quantiles([one.first_s - one.asked_s for one in began]),
        "all_tokens_per_s": sum(one.tokens for one in tale.replies) / tale.span_s,
        "losses_per_hour": len(recoveries) / hours,
        "recovery_s": _quantiles([found.total_s for found in recoveries if found.recovered]),
        "lost_s": dict(lost_s),
        "user_s": sum(one.ended_s - one.asked_s for one in done),
        "whole": tale.coverage.whole_s / tale.span_s,
        "missing": (tale.coverage.missing_s / tale.span_s).tolist(),
        "moves_per_hour": tale.moves / hours,
        "counts": tale.counts.tolist(),
        "sampled_s": tale.sampled_s.tolist(),
        "rate_over_time": _rate_over_time(tale).tolist(),
    }


def _quantiles(values: list[float]) -> list[float]:
    """5, 50 and 95 %; empty where there is nothing."""
    return [float(q) for q in np.quantile(values, [0.05, 0.5, 0.95])] if values else []


def _rate_over_time(tale: Tale) -> Floats:
    """Tokens/s of all chats in each bucket of time, replies spread evenly over theirs."""
    edges = np.linspace(0.0, tale.span_s, BUCKETS + 1)
    total = np.zeros(BUCKETS)
    for one in tale.replies:
        if one.outcome in ("complete", "lost") and one.ended_s > one.first_s:
            inside = np.clip(edges, one.first_s, one.ended_s)
            total += one.tokens * np.diff(inside) / (one.ended_s - one.first_s)
    return total / np.diff(edges)


def rows_of(
    scenario: Scenario,
    replications: int,
    executor: Callable[[], Executor] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Row]:
    """One row for each replication, in order; on the executor's workers, or one after the other here."""
    setting(scenario)  # what is wrong is said here and not by a worker
    payload = scenario.model_dump_json(round_trip=True)
    if executor is None:
        lines: Iterable[str] = (tale_row(payload, at) for at in range(replications))
        return _told(lines, progress)
    with executor() as pool:
        waiting = [pool.submit(tale_row, payload, at) for at in range(replications)]
        return _told((one.result() for one in waiting), progress)


def _told(lines: Iterable[str], progress: Callable[[int], None] | None) -> list[Row]:
    rows = []
    for line in lines:
        rows.append(json.loads(line))
        if progress is not None:
            progress(len(rows))
    return rows


def swarm_answer(scenario: Scenario, rows: list[Row]) -> SwarmAnswer:
    """What the rows of all replications say."""
    spec = scenario.swarm
    assert spec is not None, "`rows_of` has refused a scenario without"
    counts = np.mean([np.mean(row["counts"], axis=0) for row in rows], axis=0)
    return SwarmAnswer(
        scenario=scenario.name,
        question=scenario.question,
        servers=rows[0]["servers"],
        hours=spec.hours,
        replications=len(rows),
        tokens_per_s=_over(rows, "tokens_per_s", 1),
        tokens_per_s_slow=_over(rows, "tokens_per_s", 0),
        first_token_s=_over(rows, "first_token_s", 1),
        first_token_slow_s=_over(rows, "first_token_s", 2),
        all_tokens_per_s=estimate([row["all_tokens_per_s"] for row in rows]),
        completed=_share(rows, "complete"),
        lost=_share(rows, "lost"),
        refused=_share(rows, "refused"),
        losses_per_hour=estimate([row["losses_per_hour"] for row in rows]),
        recovery_s=_over(rows, "recovery_s", 1),
        lost_share=_lost_shares(rows),
        whole=estimate([row["whole"] for row in rows]),
        moves_per_hour=estimate([row["moves_per_hour"] for row in rows]),
        scarce=_scarce(rows, counts),
        servers_per_block=(rounded(counts.min()), rounded(counts.mean()), rounded(counts.max())),
    )


def _over(rows: list[Row], name: str, at: int) -> Estimate | None:
    values = [row[name][at] for row in rows if row[name]]
    return estimate(values) if values else None


def _share(rows: list[Row], outcome: str) -> Estimate:
    return estimate([row["outcomes"].get(outcome, 0) / max(1, sum(row["outcomes"].values())) for row in rows])


def _lost_shares(rows: list[Row]) -> dict[str, Estimate]:
    causes = sorted({cause for row in rows for cause in row["lost_s"]})
    return {
        cause: estimate([row["lost_s"].get(cause, 0.0) / max(row["user_s"], 1e-9) for row in rows])
        for cause in causes
    }


def _scarce(rows: list[Row], counts: Floats, most: int = 8) -> tuple[tuple[int, float], ...]:
    missing = np.mean([row["missing"] for row in rows], axis=0)
    order = np.lexsort((counts, -missing))[:most].tolist()
    return tuple((block, rounded(float(missing[block]))) for block in order)


def _with_count(scenario: Scenario, kind: str, count: int, **changes: Any) -> Scenario:
    spec = scenario.swarm
    assert spec is not None
    population = {**spec.population, kind: spec.population[kind].model_copy(update={"count": count})}
    return scenario.model_copy(
        update={"swarm": spec.model_copy(update={"population": population, **changes})}
    )


def _whole(scenario: Scenario, replications: int, executor: Callable[[], Executor] | None) -> float:
    return float(np.mean([row["whole"] for row in rows_of(scenario, replications, executor)]))


def enough(
    scenario: Scenario,
    kind: str,
    share: float,
    replications: int,
    executor: Callable[[], Executor] | None = None,
) -> int:
    """The least number of servers of a kind with which all blocks are served for that share of the time.

    Nobody chats meanwhile, which would take longer and change nothing. Raises PlacementError where 4,096 are
    too few: then they all leave at times, or hold nothing.
    """

    def holds(count: int) -> bool:
        asked = _with_count(scenario, kind, count, users=0, arrivals=None)
        return _whole(asked, replications, executor) >= share

    few, many = 0, 1
    while not holds(many):
        few, many = many, 2 * many
        if many > MOST_COUNT:
            raise PlacementError(
                f"not even {MOST_COUNT} servers of {kind!r} keep all blocks served {share:.2%} of the time",
                "; let them stay longer, or take larger ones",
            )
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if holds(middle) else (middle, many)
    return many


def one_more(
    scenario: Scenario, rows: list[Row], executor: Callable[[], Executor] | None = None
) -> tuple[Gain, ...]:
    """What one server more of each kind brings; all other servers have the luck that they had."""
    spec = scenario.swarm
    assert spec is not None
    gains = []
    for kind, one in spec.population.items():
        more = rows_of(_with_count(scenario, kind, one.count + 1), len(rows), executor)
        difference = [
            (new["whole"] - old["whole"], new["all_tokens_per_s"] - old["all_tokens_per_s"])
            for new, old in zip(more, rows, strict=True)
        ]
        whole, rate = np.mean(difference, axis=0)
        gains.append(Gain(kind=kind, whole=rounded(float(whole)), all_tokens_per_s=rounded(float(rate))))
    return tuple(gains)
