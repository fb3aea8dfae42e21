"""A bound that no placement beats: every layer on the device that runs it cheapest, as far as memory goes.

Each device is simulated alone, with room for the whole model: there is no network then, and its time divided
by the number of layers is what one layer costs there, in that very replication. Filling the cheapest first,
in fractions of layers and with nothing for the hops, costs less than any placement, row by row: every real
placement pays at least its layers' times one after the other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simulator.laws.law import Floats
from simulator.placement.shard import Placement
from simulator.plan.place.costs import mean_parts
from simulator.prepare import Ground, engine_costs
from simulator.run.evaluate import token_times_s
from simulator.runtime.job import Job
from simulator.scenario import NoiseSpec, WorkloadSpec

__all__ = ["first_token_bound_s", "tokens_per_s_bound"]

UNLIMITED_BYTES = 1e18


def tokens_per_s_bound(ground: Ground, chats: int, *, fills_pipeline: bool) -> Floats:
    """Most tokens/s of all chats together, by row: `chats / least sum of stages`, shape (rows,).

    Where chats fill the pipeline (`fills_pipeline`) no more than one token per slowest stage comes out
    either, and that one is least where all stages are equally long: `layers / sum_d 1 / layer_s_d`.
    """
    # where chats go their own ways, one alone tells what a stage costs
    workload = ground.scenario.workload.model_copy(update={"concurrency": 1 if fills_pipeline else chats})
    times_s = _alone_s(ground, workload)
    per_token_s = (times_s[:, -1] - times_s[:, 0]) / (workload.output_tokens - 1)
    rate = chats / _least_sum_s(ground, per_token_s)
    return np.minimum(rate, 1 / _least_slowest_s(per_token_s)) if fills_pipeline else rate


def first_token_bound_s(ground: Ground) -> Floats:
    """Least seconds to the first token of one chat, by row."""
    workload = ground.scenario.workload.model_copy(update={"concurrency": 1})
    times_s = _alone_s(ground, workload)
    per_token_s = (times_s[:, -1] - times_s[:, 0]) / (workload.output_tokens - 1)
    # a pass that follows another through the stages may cost next to nothing
    first_s = times_s[:, 0] - ground.engine.passes_in_flight * per_token_s
    overlaps_from = ground.engine.overlaps_prompt_from_tokens
    if overlaps_from is not None and workload.prompt_tokens >= overlaps_from:
        return _least_slowest_s(first_s)
    return _least_sum_s(ground, first_s)


def _alone_s(ground: Ground, workload: WorkloadSpec) -> Floats:
    """Token times with the whole model on one device, shape (devices, tokens, rows)."""
    scenario, spec, model = ground.scenario, ground.scenario.engine, ground.model
    shared = ground.engine.head_on == "all"
    if not shared:  # then somebody else may have the head, or drive: leave both out
        model = replace(model, head_bytes=0.0, head_flops=0.0)
    step_s = (spec.step_overhead or 0.0) if shared else 0.0
    own = engine_costs(spec)
    costs = replace(own, step_overhead_s=step_s, hop_overhead_s=0.0, memory_overhead_bytes=0.0)
    found = []
    for device in ground.cluster.devices:
        # a bound must not pay for what a placement may avoid: neither paging nor a dozing radio
        roomy = replace(device, usable_bytes=UNLIMITED_BYTES, link=replace(device.link, power_save=None))
        alone = replace(ground.cluster, devices=(roomy,), wires=())
        placement = Placement.from_layers([(device.name, model.layers)], "alone")
        noise = scenario.common_noise or NoiseSpec(sigma=0.0)
        job = Job(
            alone,
            model,
            placement,
            costs,
            workload,
            scenario.seed,
            noise,
            scenario.posterior,
            tails=scenario.tails,
        )
        found.append(token_times_s(job, scenario.replications * workload.runs, "recursion")[0])
    return np.stack(found)


def _least_sum_s(ground: Ground, whole_s: Floats) -> Floats:
    """Least sum of stages: `whole_s` is the whole model on each device, (devices, rows)."""
    layers = ground.model.layers
    # in the place of the ring where it has most room
    room = mean_parts(ground).ring().caps.max(axis=0).astype(float)
    cheapest = np.argsort(whole_s, axis=0)
    rooms = room[cheapest]
    before = np.cumsum(rooms, axis=0) - rooms
    taken = np.clip(layers - before, 0.0, rooms)
    return np.asarray((taken * np.take_along_axis(whole_s, cheapest, axis=0)).sum(axis=0) / layers)


def _least_slowest_s(whole_s: Floats) -> Floats:
    """Least slowest stage: all equally long."""
    return np.asarray(1 / (1 / whole_s).sum(axis=0))
