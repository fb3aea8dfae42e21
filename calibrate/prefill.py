"""How fast prompts are read: three figures for all devices, from first-token times.

A first token takes what the engine's flow takes (messages and steps, known from the fit of decode times) and
three things of its own: the host's work for a request, the flops of matrix products, and those of attention,
which grow with the square of the prompt's length. Sessions scatter about that in two ways: the host's work,
which ends in queues and polled loops, by a share of itself, and reading by a share of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import least_squares
from scipy.stats import t as student

from calibrate.fit import Fit
from calibrate.forward import with_values
from calibrate.noise import Noise
from calibrate.samples import Sample
from simulator import catalog
from simulator.laws.law import Floats
from simulator.prepare import prepare
from simulator.run.evaluate import token_times_s
from simulator.runtime.cost import prefill_s
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
SCATTERS = np.geomspace(0.01, 1.0, 41)
"""Log sd that a request's own work may scatter by."""
USUAL_SCATTER, SCATTER_LOG_SD = 0.05, 1.0
"""What is believed of that before any first token: a quiet engine's scatter by 2 %, a busy host's by 13."""
TAIL = 4.0
"""Degrees of freedom of Student's law that first tokens scatter by: a request that also loads a cache is one
of few, and neither widens the interval of all others nor is it out of the question.
"""
STEPS = 5
"""Decode steps behind a first token: EXO's two single passes and three steps; others have fewer."""
FARTHEST = 3.0
"""Logarithm of a drawn factor: beyond it is only what no first token tells."""
STEP = 1e-2
"""Of the logarithms in differences: felt, though a maximum of reading and computing is flat."""


@dataclass(frozen=True, slots=True)
class Prefill:
    """What reading a prompt costs."""

    flops: float
    """flop/s of matrix products while a prompt is read."""
    attention_cost: float
    """Of attention, in flops of matrix products."""
    request_overhead_s: float
    log_sd: float
    """Of reading about the model, from session to session."""
    draws: Floats
    """What multiplies the seconds of products, of attention, of all reading and of the host's work in
    sessions that might be, shape (draws, 4).
    """


def fit_prefill(
    samples: Sequence[Sample], fitted: Fit, noise: Noise, *, draws: int = 500, seed: int = 1
) -> Prefill:
    """Fit the figures to all first tokens: robust least squares (Huber) on logarithms, with beliefs."""
    jobs = [_short(prepare(sample.scenario).job, sample, fitted) for sample in samples]
    # medians: a first request that also loads a cache must not decide
    measured = np.log([np.median([run.first_token_s for run in sample.timed]) for sample in samples])
    speed, engine = jobs[0].ring[0].speed, jobs[0].engine
    said = np.log([speed.prefill_flops, speed.prompt_attention_cost, engine.request_overhead_s or 1.0])
    is_told = speed.prompt_attention_cost != 1
    attention_sd = catalog.said_log_sd("prefill", measured=False) if is_told else ATTENTION_LOG_SD
    sd = np.array([RATE_LOG_SD, attention_sd, REQUEST_LOG_SD])

    def logs(x: Floats) -> Floats:
        return np.log([_first_token_s(job, x) for job in jobs])

    def residuals(x: Floats) -> Floats:
        return np.concatenate([(measured - logs(x)) / USUAL_ERROR, (x - said) / sd])

    x = least_squares(residuals, said, loss="huber", f_scale=1.345, diff_step=[1e-3] * 3, max_nfev=20).x
    base = logs(x)
    slopes = np.array([(logs(x + STEP * unit) - base) / STEP for unit in np.eye(3)]).T
    shares = _shares(jobs, x, base, slopes[:, 2])
    known = _known(jobs, x, shares, [len(sample.timed) for sample in samples], noise)
    generator = np.random.default_rng(np.random.SeedSequence((seed, 0xF157)))
    # three figures took their part of the scatter, as far as first tokens and not beliefs told them
    told = float(
        np.trace(np.linalg.solve(slopes.T @ slopes + np.diag((USUAL_ERROR / sd) ** 2), slopes.T @ slopes))
    )
    errors = (measured - base) * np.sqrt(len(jobs) / max(1.0, len(jobs) - told))
    scatter = _scatter(errors, shares, known, draws, generator)
    rate, attention, request = np.exp(x).tolist()
    return Prefill(
        flops=rate,
        attention_cost=attention,
        request_overhead_s=request if engine.request_overhead_s else 0.0,
        log_sd=float(np.sqrt(np.mean(scatter[:, 0] ** 2))),
        draws=_draws(slopes, shares, known, sd, scatter, generator),
    )


def _shares(jobs: Sequence[Job], x: Floats, base: Floats, request: Floats) -> Floats:
    """Of a first token: reading, and the host's work, shape (jobs, 2)."""
    # not from a slope: where weights are read slower than computed with, none of flops is felt
    reading = [_reading_s(_with(job, x)) for job in jobs] / np.exp(base)
    return np.column_stack([np.minimum(reading, 1 - request), request])


def _reading_s(job: Job) -> float:
    tokens = job.workload.prompt_tokens
    each = [prefill_s(device, job.held(rank), tokens) for rank, device in enumerate(job.ring)]
    # parts of layers are read at the same time, stages one after the other, and so are the prompts of chats
    return job.workload.concurrency * (max(each) if job.placement.parts > 1 else sum(each))


def _known(jobs: Sequence[Job], x: Floats, shares: Floats, runs: Sequence[int], noise: Noise) -> Floats:
    """Variance of a session's first token (its logarithm) by the noise of decoding, which is drawn anyway."""
    steps = 1 - shares.sum(axis=1)
    fast = noise.own_sigma**2 + noise.common_sigma**2
    # half a dozen steps have noise of their own
    token = fast * (shares[:, 0] ** 2 + shares[:, 1] ** 2 + steps**2 / STEPS)
    return np.asarray(noise.session_sigma**2 + (noise.run_sigma**2 + token) / np.array(runs))


def _scatter(
    errors: Floats, shares: Floats, known: Floats, draws: int, generator: np.random.Generator
) -> Floats:
    """Logarithms by which reading and the host's work of sessions may be off, shape (draws, 2).

    Each draw takes a pair of log sd as likely as these first tokens and the belief make it, so that few of
    them know their scatter badly.
    """
    pairs = np.stack(np.meshgrid(SCATTERS, SCATTERS), axis=-1).reshape(-1, 2)
    sd = np.sqrt(known + pairs**2 @ (shares**2).T)
    likely = np.sum(student.logpdf(errors / sd, TAIL) - np.log(sd), axis=1)
    likely -= np.sum((np.log(pairs / USUAL_SCATTER) / SCATTER_LOG_SD) ** 2, axis=1) / 2
    weights = np.exp(likely - likely.max())
    chosen = pairs[generator.choice(len(pairs), draws, p=weights / weights.sum())]
    # evenly spread, for a few hundred draws of a law with such tails have a median of their own
    levels = (np.stack([generator.permutation(draws) for _ in range(2)], axis=1) + 0.5) / draws
    return np.asarray(chosen * student.ppf(levels, TAIL))


def _draws(
    slopes: Floats, shares: Floats, known: Floats, sd: Floats, scatter: Floats, generator: np.random.Generator
) -> Floats:
    """The figures as unsure as first tokens and beliefs leave them, times what sessions scatter by."""
    variance = known + shares**2 @ np.mean(np.minimum(np.abs(scatter), 1.0) ** 2, axis=0)
    covariance = np.linalg.inv(slopes.T @ (slopes / variance[:, None]) + np.diag(1 / sd**2))
    rate, attention, request = generator.multivariate_normal(np.zeros(3), covariance, len(scatter)).T
    if covariance[0, 0] > 1:
        # prompts that are read as fast as weights tell no rate, and one that is drawn would slow them down
        rate = np.zeros_like(rate)
    logs = np.column_stack([-rate, attention - rate, scatter[:, 0], request + scatter[:, 1]])
    return np.asarray(np.exp(np.clip(logs, -FARTHEST, FARTHEST)))


def _short(job: Job, sample: Sample, fitted: Fit) -> Job:
    prompt = round(float(np.mean([run.prompt_tokens for run in sample.timed])))
    workload = job.workload.model_copy(
        update={"prompt_tokens": max(1, prompt), "output_tokens": TOKENS, "runs": 1}
    )
    return with_values(replace(job, workload=workload, posterior=None), fitted.values)


def _with(job: Job, x: Floats) -> Job:
    """The job at these logarithms of rate, attention cost and request overhead."""
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
    return replace(job, cluster=replace(job.cluster, devices=devices), engine=costs)


def _first_token_s(job: Job, x: Floats) -> float:
    # of several chats the mean: they are read one after the other, and measured so
    return float(np.mean(token_times_s(_with(job, x), 1, certain=True)[:, 0, 0]))
