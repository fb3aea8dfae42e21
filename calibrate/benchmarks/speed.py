"""From what a benchmark measured to a device's speed: the cost equations turned round.

Nothing of the physics is written again: one device is predicted with a trial speed, by the engine and by
`simulator.runtime.cost`, and the trial is changed until the prediction is what was measured::

    decode_bandwidth: tokens_per_s(decode_bandwidth) = measured decode rate, at the depth it was measured at
    prefill_flops:    prompt_tokens / first_token_s(prefill_flops) = measured prompt rate
    context_cost:     where several depths are given, the one with which their rates ask for one bandwidth
    layer_overhead:   where several models are given, likewise

Fixed costs that no run tells of (layer_overhead, the engine's own) stay those of the catalogue. Where these
leave so little of a token's time that the memory would have to be faster than it is built, the bandwidth
stays that of the catalogue instead, and layer_overhead is what is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from statistics import fmean, pstdev

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from calibrate.benchmarks.record import Rate, Record
from simulator import catalog
from simulator.engine.base import engine
from simulator.errors import MeasurementError
from simulator.laws.law import Floats
from simulator.prepare import prepare
from simulator.result.estimate import rounded
from simulator.result.summary import rates
from simulator.run.evaluate import token_times_s
from simulator.runtime.job import Job
from simulator.scenario import (
    DeviceSpec,
    EngineSpec,
    LinkSpec,
    ModelSpec,
    NoiseSpec,
    Scenario,
    SpeedSpec,
    WorkloadSpec,
)

__all__ = ["FEWEST_PROMPT_TOKENS", "FEWEST_TOKENS", "FLOOR_LOG_SD", "TrialSpeed", "solved_speed"]

FLOOR_LOG_SD = 0.1
"""What a run says of another model on the same device, at best: the median over the 18 chips of
llamacpp_single_device.csv with two models or more of how far their `rate * file size` differ (0.100)."""
FEWEST_TOKENS = 8
"""A reply shorter than this is mostly its beginning."""
FEWEST_PROMPT_TOKENS = 64
"""A shorter prompt costs one reading of the weights and says nothing of flops."""
SLOWEST_BYTES_PER_S, FASTEST_BYTES_PER_S = 1e7, 1e14
SLOWEST_FLOPS, FASTEST_FLOPS = 1e8, 1e17
MOST_CONTEXT_COST = 100.0
MOST_LAYER_OVERHEAD_S = 0.01
"""Both fifty times what the catalogue's platforms have."""
IMPOSSIBLE = 1e3
"""Disagreement of what cannot be; it grows, so that the search leaves by the right side."""
ROUNDS = 2
"""Decoding hardly depends on flops and a prompt hardly on bandwidth, so each round leaves a hundredth of the
error of the one before."""
MEDIAN_ROWS = 40_000
"""Give the median of a rate that is unsure by 15 % to 0.1 %."""
EXCERPT_TOKENS = 8
"""Of a reply that are predicted: a token's time grows evenly with its context, so the middle is the mean."""
HUGE_BYTES = 1e14
"""Of memory: what was measured did fit."""


@dataclass(frozen=True)
class TrialSpeed:
    """One device with one model on one engine, to be predicted with any speed."""

    model: ModelSpec
    engine: EngineSpec
    kind: str | None = None
    """Its name in the catalogue."""

    @cached_property
    def start(self) -> SpeedSpec:
        """The catalogue's speed of the device; for one that it does not know any, without fixed costs."""
        speed = _job(self, 1, 2).cluster.devices[0].speed
        # a model by numbers counts as one layer: what layers cost beside their bytes is then in the bandwidth
        return speed if self.model.layers is None else speed.model_copy(update={"layer_overhead": 0.0})

    @cached_property
    def peak_bytes_per_s(self) -> float:
        """What its memory is built for, infinite where the catalogue does not know it."""
        return math.inf if self.kind is None else catalog.device(self.kind).memory_bytes_per_s

    def decode_tokens_per_s(self, speed: SpeedSpec, record: Record) -> float:
        """Tokens/s of one chat in the middle of the reply that was measured, behind what stood before it."""
        return float(self._rates(speed, record, 1)[0])

    def median_tokens_per_s(self, speed: SpeedSpec, record: Record) -> float:
        """The same as the median of a prediction, in which engine and device are as unsure as they are.

        What an engine costs is unsure to one side more than to the other, so this is not the certain rate.
        """
        return float(np.median(self._rates(speed, record, MEDIAN_ROWS)))

    def prompt_tokens_per_s(self, speed: SpeedSpec, tokens: int) -> float:
        """Prompt tokens/s: `tokens / time to the first token`, the engine's own steps and work for a request
        taken off, which no benchmark's prompt rate holds.
        """
        first_s, second_s = map(float, self._times_s(speed, tokens, 2, 1)[0, :2, 0])
        costs = _job(self, tokens, 2).engine
        behind_s = engine(costs.name).steps_behind * (second_s - first_s) + costs.request_overhead_s
        return tokens / (first_s - behind_s)

    def _rates(self, speed: SpeedSpec, record: Record, rows: int) -> Floats:
        tokens = min(EXCERPT_TOKENS, max(2, record.output_tokens))
        return rates(
            self._times_s(speed, max(1, record.depth + (record.output_tokens - tokens) // 2), tokens, rows)
        )

    def _times_s(self, speed: SpeedSpec, prompt_tokens: int, output_tokens: int, rows: int) -> Floats:
        job = _job(self, prompt_tokens, output_tokens)
        device = replace(job.cluster.devices[0], speed=speed)
        job = replace(job, cluster=replace(job.cluster, devices=(device,)))
        # one device has nobody to wait for, so the recursion is exact and SimPy would only take longer
        return token_times_s(job, rows, "recursion", certain=rows == 1)


@lru_cache(maxsize=64)
def _job(trial: TrialSpeed, prompt_tokens: int, output_tokens: int) -> Job:
    """The job of a trial; a search asks for the same one at each step."""
    known = trial.kind is not None
    device = DeviceSpec.model_construct(
        kind=trial.kind,
        usable_memory=HUGE_BYTES,
        noise=NoiseSpec(sigma=0.0),
        speed=None if known else SpeedSpec.model_construct(decode_bandwidth=1e11, prefill_flops=1e13),
        link=LinkSpec() if known else LinkSpec(kind="ethernet_1g"),
    )
    workload = WorkloadSpec(prompt_tokens=prompt_tokens, output_tokens=output_tokens, runs=1)
    scenario = Scenario.model_construct(
        name="benchmark",
        model=trial.model,
        devices={"device": device},
        engine=trial.engine,
        workload=workload,
    )
    return prepare(scenario).job


Run = tuple[TrialSpeed, Record, Rate]


def solved_speed(runs: Sequence[tuple[TrialSpeed, Record]]) -> SpeedSpec:
    """The speed with which each run's device is predicted as it was measured, as nearly as one speed can.

    Several runs give the geometric mean of theirs. `decode_spread` and `prefill_spread` are what they and the
    repeats of each differ by, and `FLOOR_LOG_SD`. Without a prompt rate `prefill_flops` stays the
    catalogue's. Raises MeasurementError where no speed gives the measured rate.
    """
    speed, spreads = runs[0][0].start, dict[str, float]()
    decodes = [(trial, record, record.decode) for trial, record in runs if record.decode]
    prompts = [(trial, record, record.prompt) for trial, record in runs if record.prompt]
    for _ in range(ROUNDS):
        if prompts:
            flops = [_flops(*run, speed) for run in prompts]
            speed = _with(speed, prefill_flops=_mean(flops))
            spreads["prefill_spread"] = _spread(flops, [rate for _, _, rate in prompts])
        speed, spreads["decode_spread"] = _decoding(_with(speed, **spreads), decodes)
    speed, _ = _decoding(_with(speed, **spreads), [_for_the_median(run, speed) for run in decodes])
    numbers = {name: rounded(value) for name, value in speed if isinstance(value, float)}
    # a device that was measured is off by what its own runs differ by, not by what its platform is
    own = {"decode_shared": (), "prefill_shared": (), "label": "measured"}
    return speed.model_copy(update={**numbers, **own})


def _for_the_median(run: Run, speed: SpeedSpec) -> Run:
    """The run with that rate without uncertainty for which the prediction's median is the measured one."""
    trial, record, rate = run
    certain_to_median = trial.decode_tokens_per_s(speed, record) / trial.median_tokens_per_s(speed, record)
    return trial, record, rate.model_copy(update={"tokens_per_s": rate.tokens_per_s * certain_to_median})


def _decoding(speed: SpeedSpec, runs: Sequence[Run]) -> tuple[SpeedSpec, float]:
    """The speed with what decoding tells of it, and the spread of that."""
    # a model by numbers has no cache that a cost could be of
    whole = all(trial.model.layers is None for trial, _, _ in runs)
    if whole and len({record.depth for _, record, _ in runs}) > 1:
        speed = _agreeing(speed, runs, "context_cost", MOST_CONTEXT_COST)
    if whole and len({trial.model for trial, _, _ in runs}) > 1:
        speed = _agreeing(speed, runs, "layer_overhead", MOST_LAYER_OVERHEAD_S)
    trial, measured = runs[0][0], [rate for _, _, rate in runs]
    try:
        bandwidths = [_bandwidth(*run, speed) for run in runs]
    except MeasurementError:  # the fixed costs alone take longer than was measured
        bandwidths = []
    if bandwidths and _mean(bandwidths) <= trial.peak_bytes_per_s:
        return _with(speed, decode_bandwidth=_mean(bandwidths)), _spread(bandwidths, measured)
    speed = _with(speed, decode_bandwidth=trial.start.decode_bandwidth)
    overheads_s = [_overhead_s(*run, speed) for run in runs]
    return _with(speed, layer_overhead=fmean(overheads_s)), _spread(overheads_s, measured)


def _bandwidth(trial: TrialSpeed, record: Record, rate: Rate, speed: SpeedSpec) -> float:
    """Bytes/s with which this run is predicted as measured."""
    return _solve(
        lambda value: trial.decode_tokens_per_s(_with(speed, decode_bandwidth=value), record),
        (rate, record),
        (SLOWEST_BYTES_PER_S, FASTEST_BYTES_PER_S),
    )


def _overhead_s(trial: TrialSpeed, record: Record, rate: Rate, speed: SpeedSpec) -> float:
    """Seconds of a layer beside its bytes, with which this run is predicted as measured."""
    return 1 / _solve(
        lambda value: trial.decode_tokens_per_s(_with(speed, layer_overhead=1 / value), record),
        (rate, record),
        (1 / MOST_LAYER_OVERHEAD_S, 1e12),
    )


def _flops(trial: TrialSpeed, record: Record, rate: Rate, speed: SpeedSpec) -> float:
    """Flop/s with which this run's prompt is predicted as measured."""
    return _solve(
        lambda value: trial.prompt_tokens_per_s(_with(speed, prefill_flops=value), record.prompt_tokens),
        (rate, record),
        (SLOWEST_FLOPS, FASTEST_FLOPS),
    )


def _solve(
    predicted: Callable[[float], float], run: tuple[Rate, Record], bounds: tuple[float, float]
) -> float:
    """Where the rate, which grows with its argument, is the measured one; sought over the logarithm."""
    (rate, record), (low, high) = run, bounds
    measured, best = rate.tokens_per_s, predicted(high)
    if best <= measured or predicted(low) >= measured:
        what = "decode" if rate is record.decode else "prompt"
        raise MeasurementError(
            f"{record.place}: no speed of this device gives {measured:.4g} {what} tokens/s with this model, "
            f"{best:.4g} at most; check --device, --model and --quantisation"
        )

    def surplus(log: float) -> float:
        return math.log(predicted(math.exp(log)) / measured)

    return math.exp(brentq(surplus, math.log(low), math.log(high), xtol=1e-5))


def _agreeing(speed: SpeedSpec, runs: Sequence[Run], name: str, most: float) -> SpeedSpec:
    """With the `name`, from 0 to `most`, for which all rates ask most nearly for one bandwidth."""

    def disagreement(value: float) -> float:
        try:
            return pstdev(math.log(_bandwidth(*run, _with(speed, **{name: value}))) for run in runs)
        except MeasurementError:  # this alone would take longer than was measured
            return IMPOSSIBLE + value / most

    found = minimize_scalar(
        disagreement, bounds=(0.0, most), method="bounded", options={"xatol": most * 1e-5}
    )
    return _with(speed, **{name: float(found.x)})


def _with(speed: SpeedSpec, **changes: float) -> SpeedSpec:
    return speed.model_copy(update=changes)


def _mean(values: Sequence[float]) -> float:
    return math.exp(fmean(math.log(value) for value in values))


def _spread(values: Sequence[float], measured: Sequence[Rate]) -> float:
    """`sqrt(floor**2 + between runs**2 + within a run**2)` of logarithms, the last the mean over the runs."""
    between = pstdev(math.log(value) for value in values) if len(values) > 1 else 0.0
    within = fmean(rate.log_sd or 0.0 for rate in measured)
    return min(2.0, math.hypot(FLOOR_LOG_SD, between, within))
