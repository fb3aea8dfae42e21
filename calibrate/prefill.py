"""How fast prompts are read: one factor for all devices, from first-token times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from calibrate.fit import Fit
from calibrate.forward import with_values
from calibrate.samples import Sample
from simulator.prepare import prepare
from simulator.run.evaluate import token_times_s
from simulator.runtime.job import Job

__all__ = ["fit_prefill"]

SLOWEST, FASTEST = 1e9, 1e15
"""flop/s between which any device of today lies."""
HALVINGS = 30
TOKENS = 2
"""Tokens of the reply that are simulated; the time of the first one alone is used."""


def fit_prefill(samples: Sequence[Sample], fitted: Fit) -> tuple[float, float]:
    """(flop/s of a device while it reads a prompt, log sd of first-token times about the model).

    The rate is where the median of log(measured / predicted first-token time)
    is zero; the prediction falls with the rate, so bisection finds it.
    """
    jobs = [_short(prepare(sample.scenario).job, sample, fitted) for sample in samples]
    # medians: a first request that also loads a cache must not decide
    measured = np.log([np.median([run.first_token_s for run in sample.runs]) for sample in samples])

    def errors(flops: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return measured - np.log([_first_token_s(job, flops) for job in jobs])

    low, high = SLOWEST, FASTEST
    for _ in range(HALVINGS):
        # the geometric middle, for there are six decades to halve
        middle = float(np.sqrt(low * high))
        # a reply that came later than predicted is one of a slower device
        low, high = (low, middle) if np.median(errors(middle)) > 0 else (middle, high)
    rate = float(np.sqrt(low * high))
    residual = errors(rate)
    # no narrower than 5 %: a handful of first tokens may agree by luck
    return rate, float(max(0.05, np.median(np.abs(residual)) / 0.6745))


def _short(job: Job, sample: Sample, fitted: Fit) -> Job:
    prompt = round(float(np.mean([run.prompt_tokens for run in sample.runs])))
    workload = job.workload.model_copy(
        update={"prompt_tokens": max(1, prompt), "output_tokens": TOKENS, "runs": 1}
    )
    return with_values(replace(job, workload=workload, posterior=None), fitted.values)


def _first_token_s(job: Job, flops: float) -> float:
    devices = tuple(
        replace(device, speed=device.speed.model_copy(update={"prefill_flops": flops}))
        for device in job.cluster.devices
    )
    fast = replace(job, cluster=replace(job.cluster, devices=devices))
    return float(np.mean(token_times_s(fast, 1, certain=True)[:, 0, 0]))
