"""Synthetic measurements from known parameters: the first test of a fit is that it finds what was put in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from calibrate.applied import apply
from calibrate.calibration import calibrate_samples
from calibrate.parameters import BATCH_COST, CONTEXT_COST, HOP_OVERHEAD, STEP_OVERHEAD, layer_time
from calibrate.samples import RunSample, Sample
from calibrate.validation import predict_sessions, validate
from simulator.laws.law import Floats
from simulator.prepare import prepare
from simulator.run.evaluate import token_times_s
from simulator.scenario import Scenario

__all__ = ["PLACEMENTS", "TRUTH", "Trial", "report", "synthetic", "trials"]

TRUTH = {
    layer_time("a"): 2.5e-3,
    layer_time("b"): 5.0e-3,
    layer_time("c"): 1.2e-3,
    STEP_OVERHEAD: 8e-3,
    HOP_OVERHEAD: 4e-3,
    CONTEXT_COST: 1.4,
    BATCH_COST: 0.2,
}
"""What the synthetic cluster is made of: a middling, a slow and a fast device."""
REPLICATIONS = 100
MEDIAN_ERROR = 1.25
"""Standard error of a median over that of a mean, of normal values."""
PLACEMENTS: tuple[dict[str, object], ...] = (
    {"layers": {"a": 24}},
    {"layers": {"b": 24}},
    {"layers": {"c": 24}},
    {"layers": {"a": 12, "b": 12}},
    {"layers": {"b": 4, "c": 20}},
    {"layers": {"c": 12, "a": 12}},
    {"layers": {"a": 8, "b": 8, "c": 8}},
    {"layers": {"c": 18, "a": 4, "b": 2}},
    {"layers": {"a": 4}},
    {"layers": {"a": 24}, "prompt": 3000},
    {"layers": {"a": 12, "c": 12}, "chats": 4},
)
"""Splits, orders, a short stack, a long context and several chats: enough to separate every parameter."""
HELD_OUT: tuple[dict[str, object], ...] = (
    {"layers": {"a": 6, "b": 6, "c": 12}},
    {"layers": {"b": 20, "c": 4}},
    {"layers": {"c": 8, "b": 8, "a": 8}},
    {"layers": {"a": 20, "c": 4}, "prompt": 1500},
)
"""What is predicted from the fit and then simulated from the truth: other splits, another
order, a middling context.
"""
NOISE = {"sigma": 0.2, "correlation": 0.1, "run_sigma": 0.05, "session_sigma": 0.05}


def _scenario(placement: dict[str, object], seed: int) -> Scenario:
    layers = placement["layers"]
    assert isinstance(layers, dict)
    hidden, layer_bytes = 1024, 20e6

    def device(name: str) -> dict[str, object]:
        # the simulator knows rates, the fit seconds per layer
        rate = layer_bytes / TRUTH[layer_time(name)]
        return {
            "memory": "64 GB",
            "kind": None,
            "speed": {
                "decode_bandwidth": f"{rate} B/s",
                "prefill_flops": "1 TFLOPS",
                "context_cost": TRUTH[CONTEXT_COST],
                "batch_cost": TRUTH[BATCH_COST],
                # what is known is known exactly: a told figure would be drawn anew for each session
                "decode_spread": 0.0,
                "prefill_spread": 0.0,
            },
            "link": {
                "delay": {"law": "lognormal", "median": "1 ms", "sigma": 0.5},
                "rate": "100 MB/s",
                "delay_spread": 0.0,
                "rate_spread": 0.0,
            },
        }

    return Scenario.model_validate(
        {
            "name": "synthetic",
            "seed": seed,
            "model": {
                "name": "synthetic",
                "layers": sum(layers.values()),
                "hidden": hidden,
                "layer_bytes": f"{layer_bytes} B",
                "kv_bytes_per_token_per_layer": "4 kB",
                "layer_flops": 1e7,
            },
            "engine": {
                "name": "exo",
                "step_overhead": f"{TRUTH[STEP_OVERHEAD]} s",
                "hop_overhead": f"{TRUTH[HOP_OVERHEAD]} s",
                "overhead_spread": 0.0,
                "memory_overhead": "0 B",
            },
            "devices": {name: device(name) for name in layers},
            "placement": {"layers": layers},
            "common_noise": NOISE,
            "replications": 1,
            "workload": {
                "prompt_tokens": placement.get("prompt", 40),
                "output_tokens": 128,
                "runs": 3,
                "concurrency": placement.get("chats", 1),
            },
        }
    )


def synthetic(seed: int, placements: Sequence[dict[str, object]] = PLACEMENTS) -> tuple[Sample, ...]:
    """One session of every placement, simulated with noise."""
    samples = []
    for number, placement in enumerate(placements, 0 if placements is PLACEMENTS else len(PLACEMENTS)):
        # a seed of its own for each: sessions must not share their noise
        scenario = _scenario(placement, 1000 * seed + number)
        times_s = token_times_s(prepare(scenario).job, scenario.workload.runs)[0]
        context = scenario.workload.prompt_tokens + scenario.workload.output_tokens / 2
        runs = tuple(
            RunSample(
                np.diff(times_s[:, run]), float(times_s[0, run]), scenario.workload.prompt_tokens, context
            )
            for run in range(scenario.workload.runs)
        )
        samples.append(Sample(f"placement {number}", f"{seed}-{number}", scenario, runs, ()))
    return tuple(samples)


@dataclass(frozen=True, slots=True)
class Trial:
    """One fit: the value of each parameter as a share of the truth, and whether its 90 % interval held it."""

    ratio: dict[str, float]
    covered: dict[str, bool]
    predicted: tuple[float, ...]
    """Predicted over simulated median inter-token time of each held-out placement."""
    inside: tuple[bool, ...]
    """Whether its 90 % interval held."""


def trials(
    count: int, *, draws: int = 200, processes: int = 1, progress: Callable[[int], None] | None = None
) -> tuple[Trial, ...]:
    """`count` independent sessions, each fitted on its own; the same ones from any number of processes."""
    found = []
    with ProcessPoolExecutor(processes) as pool:
        # a seed makes a session, and `map` keeps their order
        for trial in pool.map(partial(_trial, draws=draws), range(count)):
            found.append(trial)
            if progress is not None:
                progress(len(found))
    return tuple(found)


def _trial(seed: int, draws: int) -> Trial:
    samples = synthetic(seed)
    calibration = calibrate_samples(samples, draws=draws, seed=seed)
    outcomes = []
    # from the same truth with noise of its own, so even a perfect fit misses by a session's spread
    for one in synthetic(seed, HELD_OUT):
        scenario = one.scenario.model_copy(update={"replications": REPLICATIONS, "seed": seed})
        outcomes.append(validate(predict_sessions(apply(calibration, scenario).scenario), one))
    parameters = {parameter.name: parameter for parameter in calibration.parameters}
    return Trial(
        ratio={name: parameters[name].value / truth for name, truth in TRUTH.items()},
        covered={
            name: parameters[name].p05 <= truth <= parameters[name].p95 for name, truth in TRUTH.items()
        },
        predicted=tuple(1 + row.median_error for row in outcomes),
        inside=tuple(row.in_90 for row in outcomes),
    )


def report(found: Sequence[Trial]) -> str:
    """Bias, spread and coverage of each parameter as Markdown."""
    lines = [
        "# Known truth, fitted again",
        "",
        f"{len(found)} synthetic sessions of {len(PLACEMENTS)} placements, made by "
        "`python scripts/study_truth.py`. Bias is that of the median over trials, ± its "
        "standard error.",
        "",
        "| parameter | truth | bias | spread (sd) | 90 % interval holds |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, truth in TRUTH.items():
        ratios: Floats = np.array([trial.ratio[name] for trial in found])
        held = np.mean([trial.covered[name] for trial in found])
        error = MEDIAN_ERROR * np.std(ratios) / len(found) ** 0.5
        lines.append(
            f"| {name} | {truth:g} | {np.median(ratios) - 1:+.1%} ± {error:.1%} | "
            f"{np.std(ratios):.1%} | {held:.0%} |"
        )
    errors = np.abs([ratio - 1 for trial in found for ratio in trial.predicted])
    inside = [flag for trial in found for flag in trial.inside]
    lines += [
        "",
        f"{len(inside)} predictions of placements that were left out: median inter-token time off by "
        f"{np.median(errors):.1%} at the median (their own sessions differ by "
        f"{NOISE['session_sigma']:.0%}), and the 90 % intervals held {np.mean(inside):.0%}.",
    ]
    return "\n".join(lines) + "\n"
