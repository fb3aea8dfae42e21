"""Pauses of a host, which lengthen its work: stolen time of a virtual machine, turns of other programs."""

from __future__ import annotations

from math import ceil, exp, log

import numpy as np

from simulator.cluster.cluster import Device
from simulator.laws.law import Exponential, Floats
from simulator.laws.streams import Streams
from simulator.runtime.cost import decode_s, prefill_s
from simulator.runtime.job import Job
from simulator.scenario import NoiseSpec

__all__ = ["slow_downs", "usual_step_s"]

FEW = 0.5
"""Pauses that a slot may expect: there two in one are rare, and one that is longer stands for both."""
MOST_SLOTS = 64
"""Of one step: with as many pauses their sum hardly varies."""
NEVER = 1e-12
"""Pauses that a step expects: a float has no probability of one so small, and nobody waits for it."""
UNIT = Exponential.model_validate({"mean": "1 s"})


def usual_step_s(job: Job, device: Device, part: str, n: int) -> float:
    """Seconds of one of `n` steps of a device without noise, in mid-reply; parts as in `Draws`."""
    rank = next(i for i, shard in enumerate(job.shards) if shard.device == device.name)
    workload, held = job.workload, job.held(rank)
    if part == "request":
        return job.engine.request_overhead_s
    if part == "prefill":
        return prefill_s(device, held, workload.prompt_tokens) * workload.concurrency / max(1, n)
    context = workload.prompt_tokens + workload.output_tokens / 2
    return float(decode_s(device, held, context, workload.concurrency)) + job.engine.step_overhead_s


def slow_downs(streams: Streams, name: str, law: NoiseSpec, usual_s: float, n: int) -> Floats:
    """What the pauses multiply each of `n` steps of about `usual_s` seconds by, shape (n, rows).

    A step expects `pauses_per_s * usual_s` pauses. It is cut into slots that expect few, and of an
    exponential draw E of mean 1 what is above `-log p` is a pause in one of them: that is positive with
    probability p and then exponential again. So one number makes one draw, and where a step is longer the
    same draw is no shorter.
    """
    expected = law.pauses_per_s * usual_s
    if expected < NEVER:
        return np.ones((n, streams.rows))
    slots = min(MOST_SLOTS, ceil(expected / FEW))
    share = 1 - exp(-expected / slots)
    drawn = streams.draws(name, UNIT, n * slots).reshape(n, slots, streams.rows)
    lengths = np.maximum(drawn + log(share), 0).sum(axis=1)
    # the mean of what a slot pauses stays `pause` for each expected one
    return np.asarray(1 + lengths * (law.pause * expected / slots / share / usual_s))
