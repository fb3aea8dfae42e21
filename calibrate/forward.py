"""The model seen from the parameters: what inter-token time do these values give, and how
does it change with each?

The design matrix is the derivative of the engine's own token time, taken through the
same recursion that predicts. So an engine needs no second description of itself, and
what its flow hides (a wait that nobody feels) has derivative zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibrate.parameters import (
    BATCH_COST,
    CONTENTIONS,
    CONTEXT_COST,
    HOP_OVERHEAD,
    STEP_OVERHEAD,
    contention_of,
    device_of,
    kind_of_parameter,
    layer_time,
)
from simulator.cluster.cluster import Device
from simulator.hosts import one_processor_each
from simulator.laws.law import Constant, Floats
from simulator.prepare import prepare
from simulator.run.evaluate import token_times_s
from simulator.runtime.job import Job
from simulator.scenario import Scenario

__all__ = ["Design", "Values", "design", "gap_s", "job_of", "parameter_names", "with_values"]

Values = Mapping[str, float]
TOKENS = 8
"""Tokens simulated for one gap: the ring repeats itself after two."""
ROWS = 64
"""Replications behind one gap where delays are random: the median of 384 gaps."""
STEP = 1e-3
"""Relative step of the differences; the flow is piecewise linear, so its size hardly matters."""


@dataclass(frozen=True, slots=True)
class Design:
    """`gap(values) = base + matrix @ (values - at)` near `at`, one row per sample."""

    names: tuple[str, ...]
    at: Floats
    base: Floats
    matrix: Floats


def parameter_names(scenarios: Sequence[Scenario]) -> tuple[str, ...]:
    """Seconds per layer of each device that holds layers anywhere, then what all share."""
    for scenario in scenarios:
        one_processor_each(scenario, "a fit", ", or leave out what was measured with it")
    jobs = [prepare(scenario).job for scenario in scenarios]
    holding = dict.fromkeys(shard.device for job in jobs for shard in job.shards if shard.layers)
    # what no measurement bears on stays in, with its prior spread: a prediction that needs it must be wide
    shared = [STEP_OVERHEAD, CONTEXT_COST, BATCH_COST]
    if any(len(job.ring) > 1 for job in jobs):
        shared.insert(1, HOP_OVERHEAD)
        if any(scenario.shared_host is not None for scenario in scenarios):
            shared.append(contention_of(scenarios[0].engine.name))
    return tuple(map(layer_time, holding)) + tuple(shared)


def job_of(scenario: Scenario, context: float) -> Job:
    """The scenario's job, short, at a context length of `context` tokens, its radios awake."""
    job = prepare(scenario).job
    workload = job.workload.model_copy(
        # half of the tokens before the context, half behind it, so that the mean context is the measured one
        update={"prompt_tokens": max(3, round(context) - TOKENS // 2), "output_tokens": TOKENS, "runs": 1}
    )
    devices = tuple(
        # a radio dozes or not by what came before, which has no derivative; SimPy alone follows it
        replace(device, link=replace(device.link, power_save=None))
        for device in job.cluster.devices
    )
    return replace(job, cluster=replace(job.cluster, devices=devices), workload=workload, posterior=None)


def with_values(job: Job, values: Values) -> Job:
    """The job with these parameter values; devices without one keep their speed."""
    devices = tuple(_device(device, job, values) for device in job.cluster.devices)
    costs = replace(
        job.engine,
        step_overhead_s=values.get(STEP_OVERHEAD, job.engine.step_overhead_s),
        hop_overhead_s=values.get(HOP_OVERHEAD, job.engine.hop_overhead_s),
    )
    return replace(job, cluster=replace(job.cluster, devices=devices), engine=costs)


def _device(device: Device, job: Job, values: Values) -> Device:
    changes: dict[str, float] = {}
    layer_s = values.get(layer_time(device.name))
    if layer_s is not None:
        # a device is described by the rate at which it reads weights, so that other
        # models scale by their bytes
        one, layer_s = job.model.average(1), max(layer_s, 1e-9)
        changes |= {
            "decode_bandwidth": one.bytes_read() / layer_s,
            # a token's operations are done within its layer's time: a lower rate, told or of prompts, would
            # make the time depend on it and not on what is fitted
            "prefill_flops": max(device.speed.prefill_flops, one.flops / layer_s),
            # fixed time per layer cannot be told from bytes per layer on one model; it is part of the rate
            "layer_overhead": 0.0,
            # what a server does for a request is in what a message costs
            "serving_overhead": 0.0,
        }
    changes |= {key: values[key] for key in (CONTEXT_COST, BATCH_COST) if key in values}
    share = next((values[name] for name in CONTENTIONS if name in values), None)
    contention = device.contention if share is None else share * (len(job.ring) - 1)
    return replace(device, speed=device.speed.model_copy(update=changes), contention=contention)


def gap_s(job: Job, values: Values) -> float:
    """Median inter-token time (s) of a job whose only randomness is that of its delays.

    Delays are drawn, not replaced by their means: a rank waits for the latest of
    several messages, and the median of a sum with a tail is not the sum of the
    means. The draws are the same at each call, so differences are smooth.
    """
    rows = ROWS if _has_random_delays(job) else 1
    times_s = token_times_s(with_values(job, values), rows, certain=True)[0]
    # without the first gap: what follows a prompt is no steady state yet
    return float(np.median(np.diff(times_s[1:], axis=0)))


def _has_random_delays(job: Job) -> bool:
    laws = [device.link.delay for device in job.ring] + [wire.delay for wire in job.cluster.wires]
    return len(job.ring) > 1 and not all(isinstance(law, Constant) for law in laws)


def design(jobs: Sequence[Job], names: Sequence[str], at: Values) -> Design:
    """The linear model of all jobs' gaps around `at`."""
    # forward differences: central ones take twice the simulations, and between kinks nothing is curved
    base = np.array([gap_s(job, at) for job in jobs])
    matrix = np.empty((len(jobs), len(names)))
    for column, name in enumerate(names):
        kind, device = kind_of_parameter(name), device_of(name) or ""
        step = STEP * max(at[name], kind.size)
        moved = {**at, name: at[name] + step}
        for row, job in enumerate(jobs):
            # a column of zeros need not be simulated
            matrix[row, column] = (gap_s(job, moved) - base[row]) / step if kind.matters(job, device) else 0.0
    return Design(tuple(names), np.array([at[name] for name in names]), base, matrix)
