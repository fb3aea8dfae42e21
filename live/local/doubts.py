"""Doubts: what a reader of a local Measurement should know before believing it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from live.local.cluster import Run
from live.local.plan import ClusterPlan
from simulator.laws.law import Floats
from simulator.units import format_seconds

__all__ = ["doubts", "repeatability"]

FEW_TOKENS = 64
# between the first and the last third of a run, or of the reference workload from visit to visit
DRIFT = 0.05
OTHERS_CORES = 0.1
LATE_MEDIAN_S, LATE_TAIL_S = 100e-6, 1e-3
THROTTLE_MISS = 0.1  # of the share that was asked for


def gaps_s(run: Run) -> Floats:
    """Times between successive tokens (s)."""
    return np.diff(np.asarray(run.token_ns)) / 1e9


def repeatability(visits: Sequence[Sequence[Run]]) -> dict[str, object]:
    """Median inter-token time (s) of each visit and each run, and the range of the
    visits over their median.
    """
    per_visit = [float(np.median(np.concatenate([gaps_s(run) for run in runs]))) for runs in visits if runs]
    per_run = [float(np.median(gaps_s(run))) for runs in visits for run in runs]
    # visits lie further apart than the runs of one visit, so they show more of the drift
    spread = per_visit if len(per_visit) > 1 else per_run
    return {
        "visit_median_s": per_visit,
        "run_median_s": per_run,
        "relative_range": (max(spread) - min(spread)) / float(np.median(spread)),
    }


def doubts(
    plan: ClusterPlan,
    visits: Sequence[Sequence[Run]],
    achieved: dict[str, float],
    others_cores: Sequence[float],
    reference_s: Sequence[float],
) -> list[str]:
    """One sentence per doubt, each with its figure and what to do about it."""
    runs = [run for visit in visits for run in visit]
    found = [*_about_load(others_cores, reference_s), *_about_relays(runs)]
    tokens = plan.scenario.workload.output_tokens
    if tokens < FEW_TOKENS:
        found.append(f"only {tokens} tokens per run: tails mean nothing; measure at least {FEW_TOKENS}")
    drift = _drift(runs)
    if abs(drift) > DRIFT:
        found.append(
            f"the last third of all tokens took {drift:+.0%} against the first third, beyond what their "
            "place in a run explains; let the machine cool down and measure again"
        )
    for device in plan.devices:
        got = achieved.get(device.name)
        if got is not None and abs(got - device.share) > THROTTLE_MISS * device.share:
            found.append(
                f"{device.name} was to run at {device.share:.0%} of full speed and ran at {got:.0%}; "
                "predict with the share that was achieved"
            )
    return found


def _about_load(others_cores: Sequence[float], reference_s: Sequence[float]) -> list[str]:
    found = []
    if others_cores and max(others_cores) > OTHERS_CORES:
        found.append(
            f"other programs kept up to {max(others_cores):.2f} cores busy; close them and measure again"
        )
    if len(reference_s) > 1:
        drift = (max(reference_s) - min(reference_s)) / float(np.median(reference_s))
        if drift > DRIFT:
            times = ", ".join(format_seconds(value) for value in reference_s)
            found.append(
                f"the reference workload drifted by {drift:.0%} between visits ({times}); compare "
                "configurations through it"
            )
    return found


def _about_relays(runs: Sequence[Run]) -> list[str]:
    late_s = np.array([flight["late_ns"] / 1e9 for run in runs for flight in run.flights])
    if not len(late_s):
        return []
    median, tail = float(np.median(late_s)), float(np.quantile(late_s, 0.99))
    if median <= LATE_MEDIAN_S and tail <= LATE_TAIL_S:
        return []
    return [
        f"the relay delivered late: {format_seconds(median)} at the median, {format_seconds(tail)} at the "
        "99th percentile; use fewer threads per device, or a machine with more cores"
    ]


def _drift(runs: Sequence[Run]) -> float:
    """Relative change from the first third of all tokens to the last, each compared with
    its own place in other runs.

    A growing context makes later tokens slower in every run alike, which is no drift; so
    one run alone shows none.
    """
    length = min(len(run.token_ns) for run in runs) - 1
    if len(runs) < 2 or length < 1:
        return 0.0
    gaps = np.stack([gaps_s(run)[:length] for run in runs])
    # each token against the same place in the other runs
    relative = (gaps / np.median(gaps, axis=0)).ravel()
    third = len(relative) // 3
    return float(np.median(relative[-third:]) / np.median(relative[:third]) - 1)
