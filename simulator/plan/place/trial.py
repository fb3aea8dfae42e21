"""Placements tried by simulation: all on the same random numbers, each scored by the objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from simulator.laws.law import Floats
from simulator.placement.shard import Placement, Shard
from simulator.plan.place.costs import decode_costs
from simulator.plan.place.solve import value_s
from simulator.prepare import Ground, Prepared, prepare
from simulator.result.summary import Summary, inter_token_s, summarise, tokens_per_s
from simulator.run.evaluate import token_times_s
from simulator.run.glance import label
from simulator.scenario import PlacementSpec, Scenario

__all__ = ["MOST_TOKENS", "Tried", "fills_pipeline", "manual", "simulated"]

MOST_TOKENS = 64
"""A paired comparison shows nothing new beyond these."""
SIMPY_TOKENS, LEAST_ROWS = 1500, 3
"""Per placement where only SimPy will do: about half a second each."""


def manual(placement: Placement) -> PlacementSpec:
    """The `placement:` of a scenario that gives exactly this one."""
    if placement.splits_layers:
        return PlacementSpec(rule="tensor", order=placement.devices)
    roles = {
        name: role for role, name in (("embedding", placement.embedding), ("head", placement.head)) if name
    }
    layers = {shard.device: shard.layers for shard in placement.shards if shard.layers}
    return PlacementSpec.model_validate(
        {"rule": "manual", "layers": layers, "roles": roles, "min_devices": len(layers)}
    )


@dataclass(frozen=True, slots=True)
class Tried:
    """A placement that was simulated: `score` is smaller where the objective is better, one value per row."""

    name: str
    placement: Placement
    prepared: Prepared
    summary: Summary
    score: Floats


def fills_pipeline(base: Ground) -> bool:
    """Whether chats are under way at different stages at once; else they decode in one batch, in step."""
    return base.scenario.workload.concurrency > 1 and not base.engine.decodes_in_step


def simulated(
    base: Ground,
    objective: str,
    wanted: Mapping[str, Placement],
    progress: Callable[[int, int], None] | None,
    begin: Callable[[Scenario, int], None] | None = None,
) -> list[Tried]:
    """All wanted placements on the same rows of random numbers; equal ones only once."""
    prepared = {placement.shards: _prepared(base, placement) for placement in wanted.values()}
    rows, seen = _rows(list(prepared.values())), dict[tuple[Shard, ...], Tried]()
    if begin is not None:
        one = next(iter(prepared.values())).scenario
        begin(one, len(prepared) * rows * one.workload.output_tokens * one.workload.concurrency)
    for done, (name, placement) in enumerate(wanted.items()):
        if placement.shards not in seen:
            # rules often agree with each other and with the search
            seen[placement.shards] = _try(base, objective, name, prepared[placement.shards], rows)
        if progress is not None:
            progress(done + 1, len(wanted))
    return [
        replace(seen[placement.shards], name=name, placement=placement) for name, placement in wanted.items()
    ]


def _prepared(base: Ground, placement: Placement) -> Prepared:
    workload = base.scenario.workload
    short = workload.model_copy(update={"output_tokens": min(workload.output_tokens, MOST_TOKENS)})
    return prepare(base.scenario.model_copy(update={"placement": manual(placement), "workload": short}))


def _rows(prepared: Sequence[Prepared]) -> int:
    """As many replications for each as the slowest evaluator among them allows, so that all can be paired."""
    scenario = prepared[0].scenario
    if all(one.engine.is_recursion_exact(one.job) for one in prepared):
        return scenario.replications
    tokens = scenario.workload.output_tokens * scenario.workload.concurrency
    return max(LEAST_ROWS, min(scenario.replications, SIMPY_TOKENS // tokens))


def _try(base: Ground, objective: str, name: str, prepared: Prepared, rows: int) -> Tried:
    times_s = token_times_s(prepared.job, rows)
    summary = summarise(times_s, prepared.engine.chats(prepared.job), label(prepared))
    return Tried(name, prepared.job.placement, prepared, summary, _score(base, objective, prepared, times_s))


def _score(base: Ground, objective: str, prepared: Prepared, times_s: Floats) -> Floats:
    """What the objective makes smallest, in seconds, one value per row."""
    chats = np.asarray(prepared.engine.chats(prepared.job), dtype=float)
    if objective == "first-token":
        return np.asarray(np.average(times_s[:, 0], axis=0, weights=chats))
    if objective == "p99":
        return np.asarray(np.quantile(inter_token_s(times_s), 0.99, axis=(0, 1)))
    if objective == "users":
        span_s = times_s[:, -1].max(axis=0) - times_s[:, 0].min(axis=0)
        return np.asarray(span_s / (chats.sum() * (times_s.shape[1] - 1)))
    if objective == "slowest-stage":
        # of the mean costs: so many chats as are meant here cannot be simulated
        job = prepared.job
        names = [device.name for device in base.cluster.devices]
        order = [names.index(shard.device) for shard in job.shards]
        batch = 1 if fills_pipeline(base) else base.engine.memory_chats(job.workload.concurrency)
        slowest_s = value_s(decode_costs(base, batch), order, [shard.layers for shard in job.shards])[1]
        return np.full(times_s.shape[-1], slowest_s)
    return np.asarray(1 / np.average(tokens_per_s(times_s), axis=0, weights=chats))
