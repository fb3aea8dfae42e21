"""predict: Scenario in, Prediction out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.churn.facts import with_heat
from simulator.churn.heat import settled_slow_down
from simulator.churn.spec import HeatSpec
from simulator.laws.law import Floats
from simulator.prepare import Prepared
from simulator.result.bottleneck import Bottleneck, bottleneck
from simulator.result.critical import PathShare, critical_shares
from simulator.result.estimate import rounded
from simulator.result.summary import Summary, rates
from simulator.run.evaluate import Evaluator, replay
from simulator.run.glance import Glance, glance
from simulator.run.limits import limits
from simulator.run.what_if import WhatIf, alternatives
from simulator.runtime.record import Recorder
from simulator.scenario import Scenario
from simulator.units import format_seconds

__all__ = ["Prediction", "predict"]

REPLAYS = 4
"""Replications that SimPy replays with spans: enough for shares of a token's time
to within about a percent.
"""
WIDE = 2.0
"""A 90 % interval whose ends differ by more than this factor deserves a warning."""


@dataclass(frozen=True, slots=True)
class Prediction(Glance):
    """What a scenario is expected to do, how sure that is, and what limits it."""

    shares: tuple[PathShare, ...]
    bottleneck: Bottleneck
    what_ifs: tuple[WhatIf, ...]
    replay: Recorder
    """The row whose tokens/s are the median, with all its spans: what is shown as an example."""
    replayed_row: int
    warnings: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """The prediction as plain data, for JSON; numbers with six significant digits."""
        seen = Glance.document(self)  # not super(): a class with slots is made twice
        about = {key: seen.pop(key) for key in ("seed", "replications", "runs", "version")}
        return {
            **seen,
            "bottleneck": self.bottleneck.model_dump(exclude_none=True),
            "where_time_goes": [
                {"kind": share.kind, "where": share.where, "share": rounded(share.share)}
                for share in self.shares
            ],
            "what_if": [what_if.model_dump() for what_if in self.what_ifs],
            "warnings": list(self.warnings),
            **about,
        }


def predict(
    scenario: Scenario,
    *,
    evaluator: Evaluator = "auto",
    with_what_ifs: bool = True,
    progress: Callable[[int, int], None] | None = None,
    doubts: tuple[str, ...] = (),
) -> Prediction:
    """The prediction for a scenario.

    `progress` is told rows done and rows in all; `doubts` are added to the warnings.
    Raises PlacementError, CatalogError, ScenarioError.
    """
    seen = glance(scenario, evaluator=evaluator, progress=progress)
    prepared, job, times_s = seen.prepared, seen.prepared.job, seen.times_s
    worlds = min(REPLAYS, scenario.replications)
    replays = {
        # one run of each of some worlds, as where time goes may differ from world to world
        row: replay(job, row)
        for row in range(0, worlds * scenario.workload.runs, scenario.workload.runs)
    }
    shares = critical_shares(replays.values())
    limit = bottleneck(shares, job.cluster)
    if limit.kind != "queue" and scenario.replications > 1:  # only SimPy knows queues
        limit = limit.model_copy(update={"worlds": limits(job, scenario.replications, shares)})
    middle = _median_row(times_s)
    return Prediction(
        prepared=prepared,
        times_s=times_s,
        summary=seen.summary,
        stages=seen.stages,
        shares=shares,
        bottleneck=limit,
        what_ifs=alternatives(prepared, limit) if with_what_ifs else (),
        replay=replays[middle] if middle in replays else replay(job, middle),
        replayed_row=middle,
        warnings=doubts
        + prepared.warnings
        + _left_out_heat(prepared, shares)
        + _doubts(prepared, seen.summary),
    )


def _median_row(times_s: Floats) -> int:
    """The row with the median of tokens/s, the lower one of two: a mean of both would be nobody's."""
    order = np.argsort(rates(times_s), kind="stable")
    return int(order[(len(order) - 1) // 2])


def _left_out_heat(prepared: Prepared, shares: tuple[PathShare, ...]) -> tuple[str, ...]:
    """That devices are taken for cold, and how much that can matter."""
    devices = with_heat(prepared.scenario).devices
    laws = {name: spec.heat for name, spec in devices.items() if isinstance(spec.heat, HeatSpec)}
    if not laws:
        return ()
    busy: dict[str, float] = {}
    for part in shares:
        if part.kind != "queue":
            busy[part.where] = busy.get(part.where, 0.0) + part.share
    kept = 1 / settled_slow_down(busy, laws)
    approach = format_seconds(max(law.approach for law in laws.values()), 2)
    return (
        f"{', '.join(laws)}: taken for cold; after some {approach} of work their heat leaves a reply about "
        f"{kept:.0%} of these tokens/s; `sim dropout` predicts it as it comes",
    )


def _doubts(prepared: Prepared, summary: Summary) -> tuple[str, ...]:
    """What the numbers themselves give reason to doubt."""
    doubts, rate = [], summary.tokens_per_s
    if rate.p95 > WIDE * rate.p05:
        doubts.append(
            f"the interval spans a factor of {rate.p95 / rate.p05:.1f}, because the devices' speeds are "
            "catalogue figures; measure them (`sim live run`) and calibrate (`sim calibrate`) to narrow it"
        )
    if prepared.scenario.replications < 50:
        doubts.append(
            f"{prepared.scenario.replications} replications leave the interval's ends uncertain; use 200"
        )
    return tuple(doubts)
