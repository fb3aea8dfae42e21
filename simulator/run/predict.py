"""predict: Scenario in, Prediction out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import hypot
from typing import Any

import numpy as np

from simulator.churn.facts import with_heat
from simulator.churn.heat import settled_slow_down
from simulator.churn.spec import HeatSpec
from simulator.errors import PlacementError
from simulator.laws.law import Floats
from simulator.library import must_be_scenario
from simulator.placement.memory import HostMemory, MemoryUse
from simulator.prepare import Prepared, prepare
from simulator.result.bottleneck import Bottleneck, bottleneck
from simulator.result.critical import PathShare, critical_shares
from simulator.result.estimate import Estimate, estimate, rounded
from simulator.result.summary import Summary, rates, summarise
from simulator.run.evaluate import Evaluator, replay, token_times_s
from simulator.run.limits import limits
from simulator.run.ways_out import refused
from simulator.run.what_if import WhatIf, alternatives
from simulator.runtime.cost import decode_parts
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.record import Recorder
from simulator.scenario import Label, Scenario
from simulator.units import format_seconds
from simulator.version import VERSION

__all__ = ["Prediction", "label", "predict"]

REPLAYS = 4
"""Replications that SimPy replays with spans: enough for shares of a token's time
to within about a percent.
"""
WIDE = 2.0
"""A 90 % interval whose ends differ by more than this factor deserves a warning."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a scenario is expected to do, how sure that is, and what limits it."""

    prepared: Prepared
    times_s: Floats
    """Token times after the request, shape (streams, output tokens, rows)."""
    summary: Summary
    stages: tuple[Estimate, ...]
    """Seconds per token of each stage in ring order, at the middle of the reply."""
    shares: tuple[PathShare, ...]
    bottleneck: Bottleneck
    what_ifs: tuple[WhatIf, ...]
    replay: Recorder
    """The row whose tokens/s are the median, with all its spans: what is shown as an example."""
    replayed_row: int
    warnings: tuple[str, ...]

    @property
    def scenario(self) -> Scenario:
        """The completed scenario."""
        return self.prepared.scenario

    def document(self) -> dict[str, Any]:
        """The prediction as plain data, for JSON; numbers with six significant digits."""
        scenario, summary = self.scenario, self.summary
        return {
            "scenario": scenario.name,
            "question": scenario.question,
            "engine": scenario.engine.name,
            "model": f"{scenario.model.name} {scenario.model.quantisation or ''}".strip(),
            "tokens_per_s": summary.tokens_per_s.model_dump(),
            "total_tokens_per_s": summary.total_tokens_per_s.model_dump(),
            "first_token_s": summary.first_token_s.model_dump(),
            **summary.inter_token_document(),
            "placement": self._placement(),
            "bottleneck": self.bottleneck.model_dump(exclude_none=True),
            "where_time_goes": [
                {"kind": share.kind, "where": share.where, "share": rounded(share.share)}
                for share in self.shares
            ],
            "what_if": [what_if.model_dump() for what_if in self.what_ifs],
            "warnings": list(self.warnings),
            "seed": scenario.seed,
            "replications": scenario.replications,
            "runs": scenario.workload.runs,
            "version": VERSION,
        }

    def _placement(self) -> list[dict[str, Any]]:
        shards = {shard.device: shard for shard in self.prepared.job.shards}
        stages = dict(zip(shards, self.stages, strict=True))
        rows = []
        for row in self.prepared.memory:
            shard, stage = shards.get(row.device), stages.get(row.device)
            device = self.prepared.job.cluster.device(row.device)
            rows.append(
                {
                    "device": row.device,
                    "kind": device.kind,
                    "first_layer": shard.start_layer if shard and shard.layers else None,
                    "last_layer": shard.end_layer - 1 if shard and shard.layers else None,
                    "layers": shard.layers if shard else 0,
                    "memory_bytes": round(row.total_bytes),
                    "cap_bytes": round(row.cap_bytes),
                    "stage_s": stage.median if stage else 0.0,
                    "stage_interval_s": [stage.p05, stage.p95] if stage else [0.0, 0.0],
                    "label": device.speed.label,
                    # how far each may be off: its draws tell of a calibrated one
                    "speed_spread": rounded(device.speed.decode_spread or 0.0),
                    "link_label": device.link.label,
                    "link_spread": rounded(device.link.delay_log_sd),
                }
                | _processors(row, self.prepared.job)
            )
        return rows


def _processors(row: MemoryUse, job: Job) -> dict[str, Any]:
    """What each processor of a device holds; nothing where it is one."""
    if not isinstance(row, HostMemory):
        return {}
    context = job.workload.prompt_tokens + job.workload.output_tokens / 2
    rank, divided = job.placement.devices.index(row.device), job.divided[row.device]
    parts = decode_parts(job.ring[rank], divided, context)
    stage_s = {one.name: float(base) for one, base in parts}
    # of a sum of independent terms, each as large a part as it has of the time
    weighed = [(float(base), one.speed.decode_spread or 0.0) for one, base in parts]
    spread = hypot(*(base * log_sd for base, log_sd in weighed)) / sum(base for base, _ in weighed)
    return {
        "speed_spread": rounded(spread),
        "processors": [
            {
                "processor": use.device,
                "kind": part.processor.device.kind,
                "layers": part.whole_layers,
                "layers_without_experts": part.layers_without_experts,
                "layers_of_experts": part.expert_layers,
                "has_head": part.has_head,
                "memory_bytes": round(use.total_bytes),
                "cap_bytes": round(use.cap_bytes),
                "stage_s": rounded(stage_s.get(use.device, 0.0)),
                "label": part.processor.device.speed.label,
                "speed_spread": rounded(part.processor.device.speed.decode_spread or 0.0),
            }
            for use, part in zip(row.processors, divided.portions, strict=True)
        ],
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
    must_be_scenario("predict", scenario)
    try:
        prepared = prepare(scenario)
    except PlacementError as error:
        raise refused(scenario, error) from None
    job = prepared.job
    rows = scenario.replications * scenario.workload.runs
    times_s = token_times_s(job, rows, evaluator, progress=progress and (lambda done: progress(done, rows)))
    summary = summarise(times_s, prepared.engine.chats(job), label(prepared))
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
        summary=summary,
        stages=_stages(prepared),
        shares=shares,
        bottleneck=limit,
        what_ifs=alternatives(prepared, limit) if with_what_ifs else (),
        replay=replays[middle] if middle in replays else replay(job, middle),
        replayed_row=middle,
        warnings=doubts + prepared.warnings + _left_out_heat(prepared, shares) + _doubts(prepared, summary),
    )


def _median_row(times_s: Floats) -> int:
    """The row with the median of tokens/s, the lower one of two: a mean of both would be nobody's."""
    order = np.argsort(rates(times_s), kind="stable")
    return int(order[(len(order) - 1) // 2])


def label(prepared: Prepared) -> Label:
    """The weakest label of all speeds that the prediction stands on."""
    labels = {device.speed.label for device in prepared.job.ring} | {prepared.scenario.engine.label}
    labels |= {device.link.label for device in prepared.job.ring}
    return "assumed" if "assumed" in labels else "calibrated" if "calibrated" in labels else "measured"


def _stages(prepared: Prepared) -> tuple[Estimate, ...]:
    """Stage times over the worlds, at the middle of the reply."""
    job = prepared.job
    draws = Draws(job, 0, prepared.scenario.replications * job.workload.runs)
    context = job.workload.prompt_tokens + job.workload.output_tokens / 2
    return tuple(
        estimate(
            # each processor in its own world, and a step goes through one after the other
            sum(
                base * draws.speed_factor(one, "decode")
                for one, base in decode_parts(device, job.held(rank), context)
            ),
            device.speed.label,
        )
        for rank, device in enumerate(job.ring)
    )


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
