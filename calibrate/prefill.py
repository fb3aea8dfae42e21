"""How fast prompts are read: three figures for all devices, from first-token times.

A first token takes what the engine's flow takes (messages and steps, known from the fit of decode times) and
three things of its own: the host's work for a request, the flops of matrix products, and those of attention,
which grow with the square of the prompt's length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import least_squares

from calibrate.fit import Fit
from calibrate.forward import with_values
from calibrate.samples import Sample
from simulator import catalog
from simulator.laws.law import Floats
from simulator.prepare import prepare
from simulator.run.evaluate import token_times_s
from simulator.runtime.job import Job

__all__ = ["Prefill", "fit_prefill"]

TOKENS = 2
"""Tokens of the reply that are simulated; the time of the first one alone is used."""
USUAL_ERROR = 0.1
"""Relative error of a first token against a good model: the unit of the fit, as in `prior`."""
RATE_LOG_SD = 3.0
"""Belief in a scenario's own flop/s while it reads a prompt: next to none, for a device of any kind."""
ATTENTION_LOG_SD = 1.0
"""Belief that attention costs as much as matrix products where nobody says otherwise. MLX on a processor
takes 4 to 6 times as long for a flop of it, fused kernels take about as long; one length alone leaves it
there. Who says another figure has seen some, and is believed as in any figure of prompts.
"""
REQUEST_LOG_SD = 0.7
"""Belief in the engine's own figure of its work for a request: the spread of its other overheads."""


@dataclass(frozen=True, slots=True)
class Prefill:
    """What reading a prompt costs."""

    flops: float
    """flop/s of matrix products while a prompt is read."""
    attention_cost: float
    """Of attention, in flops of matrix products."""
    request_overhead_s: float
    log_sd: float
    """Of first-token times about the model."""


def fit_prefill(samples: Sequence[Sample], fitted: Fit) -> Prefill:
    """Fit the figures to all first tokens: robust least squares (Huber) on their logarithms, with beliefs."""
    jobs = [_short(prepare(sample.scenario).job, sample, fitted) for sample in samples]
    # medians: a first request that also loads a cache must not decide
    measured = np.log([np.median([run.first_token_s for run in sample.timed]) for sample in samples])
    speed, engine = jobs[0].ring[0].speed, jobs[0].engine
    said = np.log([speed.prefill_flops, speed.prompt_attention_cost, engine.request_overhead_s or 1.0])
    is_told = speed.prompt_attention_cost != 1
    attention_sd = catalog.said_log_sd("prefill", measured=False) if is_told else ATTENTION_LOG_SD
    sd = np.array([RATE_LOG_SD, attention_sd, REQUEST_LOG_SD])

    def errors(x: Floats) -> Floats:
        return np.asarray(measured - np.log([_first_token_s(job, x) for job in jobs]))

    def residuals(x: Floats) -> Floats:
        return np.concatenate([errors(x) / USUAL_ERROR, (x - said) / sd])

    # a step that the differences feel, though a maximum of reading and computing is flat for short prompts
    found = least_squares(residuals, said, loss="huber", f_scale=1.345, diff_step=[1e-3] * 3, max_nfev=20).x
    rate, attention, request = np.exp(found).tolist()
    spread = float(np.median(np.abs(errors(found)))) / 0.6745
    # no narrower than 5 %: a handful of first tokens may agree by luck
    return Prefill(rate, attention, request if engine.request_overhead_s else 0.0, max(0.05, spread))


def _short(job: Job, sample: Sample, fitted: Fit) -> Job:
    prompt = round(float(np.mean([run.prompt_tokens for run in sample.timed])))
    workload = job.workload.model_copy(
        update={"prompt_tokens": max(1, prompt), "output_tokens": TOKENS, "runs": 1}
    )
    return with_values(replace(job, workload=workload, posterior=None), fitted.values)


def _first_token_s(job: Job, x: Floats) -> float:
    """Seconds until the first token at these logarithms of rate, attention cost and request overhead."""
    rate, attention, request = np.exp(x).tolist()
    devices = tuple(
        replace(
            device,
            speed=device.speed.model_copy(update={"prefill_flops": rate, "prompt_attention_cost": attention}),
        )
        for device in job.cluster.devices
    )
    # an engine without work of its own for a request keeps none
    costs = replace(job.engine, request_overhead_s=request if job.engine.request_overhead_s else 0.0)
    told = replace(job, cluster=replace(job.cluster, devices=devices), engine=costs)
    # of several chats the mean: they are read one after the other, and measured so
    return float(np.mean(token_times_s(told, 1, certain=True)[:, 0, 0]))
