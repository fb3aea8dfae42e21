"""glance: what a scenario's token times tell at once; `predict` adds what limits it, which takes SimPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import hypot
from typing import Any

from simulator.errors import PlacementError
from simulator.laws.law import Floats
from simulator.library import must_be_scenario
from simulator.placement.memory import HostMemory, MemoryUse
from simulator.prepare import Prepared, prepare
from simulator.result.estimate import Estimate, estimate, rounded
from simulator.result.summary import Summary, summarise
from simulator.run.evaluate import Evaluator, token_times_s
from simulator.run.ways_out import refused
from simulator.runtime.cost import decode_parts
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.scenario import Label, Scenario
from simulator.version import VERSION

__all__ = ["Glance", "glance", "label"]


@dataclass(frozen=True, slots=True)
class Glance:
    """How fast a scenario is expected to be, how sure that is, and who holds what."""

    prepared: Prepared
    times_s: Floats
    """Token times after the request, shape (streams, output tokens, rows)."""
    summary: Summary
    stages: tuple[Estimate, ...]
    """Seconds per token of each stage in ring order, at the middle of the reply."""

    @property
    def scenario(self) -> Scenario:
        """The completed scenario."""
        return self.prepared.scenario

    def document(self) -> dict[str, Any]:
        """The figures as plain data, for JSON; numbers with six significant digits."""
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


def glance(
    scenario: Scenario, *, evaluator: Evaluator = "auto", progress: Callable[[int, int], None] | None = None
) -> Glance:
    """The token times of a scenario and what they tell.

    `progress` is told rows done and rows in all. Raises PlacementError, CatalogError, ScenarioError.
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
    return Glance(prepared, times_s, summary, _stages(prepared))


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
