"""validate: a Prediction against a Measurement that did not train it, number by number, misses kept."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise
from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import AfterValidator, Field, ValidationError

from calibrate.samples import Sample
from simulator.errors import CalibrationError, SimulatorError
from simulator.files import dumps
from simulator.files.explain import in_words
from simulator.laws.law import Floats
from simulator.prepare import prepare
from simulator.result.estimate import rounded
from simulator.run.evaluate import token_times_s
from simulator.scenario import Scenario
from simulator.spec import Spec
from simulator.version import VERSION

__all__ = [
    "ERRORS",
    "KINDS",
    "LEVELS",
    "MEDIAN",
    "LedgerPrediction",
    "Relative",
    "Validation",
    "predict_sessions",
    "validate",
]

LEVELS = (50, 80, 90)
"""Intervals (%) that a prediction states and a validation judges."""
QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
"""Ends of those intervals, outermost first, about the median."""
MEDIAN = len(LEVELS)
"""Its place among the quantiles."""
Kind = Literal[
    "repeat",
    "new split",
    "new order",
    "slower device",
    "new link",
    "new device",
    "new strategy",
    "other ranks",
    "long context",
    "several chats",
    "dropout",
    "unknown",
]
KINDS: tuple[str, ...] = get_args(Kind)
CURVE = 99
"""Points of the predicted gap distribution that a prediction keeps."""


Name = Annotated[str, Field(max_length=1000)]
Positive = Annotated[float, Field(ge=1e-12, le=1e12)]
"""Seconds, or tokens/s."""
Relative = Annotated[float, Field(gt=-1, le=1e12)]
"""`predicted / measured - 1` of two positive figures."""


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(after < before for before, after in pairwise(values)):
        raise ValueError("quantiles must not fall; the file was changed or is none of ours")
    return values


Ascending = AfterValidator(_ascending)
Quantiles = Annotated[
    tuple[Positive, ...], Field(min_length=len(QUANTILES), max_length=len(QUANTILES)), Ascending
]
Curve = Annotated[tuple[Positive, ...], Field(min_length=CURVE, max_length=CURVE), Ascending]


class LedgerPrediction(Spec):
    """What was predicted for one session of a scenario, written down before it was measured.

    Each quantity is a tuple of quantiles (`QUANTILES`) over sessions: what one session
    of all its runs would show.
    """

    name: Name
    created: Name
    version: Name
    scenario_sha256: Name
    calibration_sha256: Name
    trained_on: Annotated[tuple[Name, ...], Field(max_length=10_000)]
    """Hashes of the Measurements behind the calibration; none of them can validate this."""
    engine: Name
    kind: Kind
    model_layers: Annotated[int, Field(ge=1, le=100_000)]
    placement: Annotated[dict[Name, Annotated[int, Field(ge=0, le=100_000)]], Field(max_length=1000)]
    """Layers of each device, in ring order: what must have been measured."""
    median_gap_s: Quantiles
    p90_gap_s: Quantiles
    p99_gap_s: Quantiles
    tokens_per_s: Quantiles
    first_token_s: Quantiles
    gap_curve_s: Curve
    """Quantiles 1 to 99 % of the gaps of a typical session."""


class Validation(Spec):
    """One prediction and its outcome; errors are `predicted / measured - 1`."""

    name: Name
    kind: Kind
    engine: Name
    created: Name
    prediction_created: Name
    scenario_sha256: Name
    calibration_sha256: Name
    measurement: Name
    measurement_sha256: Name
    held_out: bool
    median_gap_s: Positive
    predicted_median_gap_s: Positive
    median_error: Relative
    tokens_per_s_error: Relative
    p90_error: Relative
    p99_error: Relative
    first_token_error: Relative
    ks_distance: Annotated[float, Field(ge=0, le=1)]
    wasserstein_s: Annotated[float, Field(ge=0)]
    in_50: bool
    in_80: bool
    in_90: bool
    predicted_90_s: tuple[Positive, Positive] | None = None
    """The 90 % interval of the median gap; None in older entries, whose predictions hold it."""
    first_token_in_90: bool | None = None
    """The same of the first token; None in older entries."""
    repeatability: Annotated[float, Field(ge=0, le=100)]
    """Standard deviation of the logarithm of this measurement's run medians: no model can beat that."""

    def holds(self, level: int) -> bool:
        """Whether the interval of that level held the measured median gap."""
        return bool(getattr(self, f"in_{level}"))


ERRORS = tuple(name for name in Validation.model_fields if name.endswith("_error"))
"""The fields that are relative errors: what summaries are made of."""


def predict_sessions(
    scenario: Scenario,
    *,
    kind: Kind = "unknown",
    calibration_sha256: str = "",
    trained_on: tuple[str, ...] = (),
) -> LedgerPrediction:
    """The prediction for one session of `scenario.workload.runs` runs; sessions differ from
    replication to replication.
    """
    job = prepare(scenario).job
    replications, runs = scenario.replications, scenario.workload.runs
    times_s = token_times_s(job, replications * runs)
    gaps = _by_session(np.diff(times_s, axis=1), replications, runs)
    spans = times_s[:, -1] - times_s[:, 0]
    # rows are replications times runs, a session being all runs of one replication
    rate = ((times_s.shape[1] - 1) / spans).mean(axis=0).reshape(replications, runs).mean(axis=1)
    first = times_s[:, 0].mean(axis=0).reshape(replications, runs).mean(axis=1)
    # of a session's pooled gaps, as `samples` pools what was measured
    medians, p90, p99 = np.quantile(gaps, [0.5, 0.9, 0.99], axis=1)
    return LedgerPrediction(
        name=scenario.name,
        created=now(),
        version=VERSION,
        scenario_sha256=scenario_hash(scenario),
        calibration_sha256=calibration_sha256,
        trained_on=trained_on,
        engine=scenario.engine.name,
        kind=kind,
        model_layers=job.model.layers,
        placement=job.placement.layer_counts,
        median_gap_s=_quantiles(medians),
        p90_gap_s=_quantiles(p90),
        p99_gap_s=_quantiles(p99),
        tokens_per_s=_quantiles(rate),
        first_token_s=_quantiles(first),
        gap_curve_s=tuple(
            rounded(float(np.median(q))) for q in np.quantile(gaps, np.arange(1, CURVE + 1) / 100, axis=1)
        ),
    )


def now() -> str:
    """The time in UTC to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def scenario_hash(scenario: Scenario) -> str:
    """SHA-256 of the scenario as a file holds it."""
    return sha256(dumps(scenario).encode()).hexdigest()


def _by_session(gaps: Floats, replications: int, runs: int) -> Floats:
    """Gaps of shape (streams, tokens, rows) as (replications, all gaps of a session)."""
    streams, tokens, _ = gaps.shape
    split = gaps.reshape(streams, tokens, replications, runs)
    return split.transpose(2, 0, 1, 3).reshape(replications, -1)


def _quantiles(values: Floats) -> tuple[float, ...]:
    return tuple(rounded(float(q)) for q in np.quantile(values, QUANTILES))


def validate(prediction: LedgerPrediction, sample: Sample) -> Validation:
    """Hold a prediction against a Measurement.

    Raises CalibrationError where the Measurement trained the prediction's calibration,
    or measured something else.
    """
    # by content: a copy under another name is no new measurement
    if sample.sha256 in prediction.trained_on:
        raise CalibrationError(
            f"{sample.name} trained the calibration behind prediction {prediction.name}; it cannot "
            "validate it: measure again, or leave it out of the calibration"
        )
    _check_same(prediction, sample)
    gaps = sample.gaps_s
    measured, predicted = sample.median_s, prediction.median_gap_s[MEDIAN]
    p90, p99 = np.quantile(gaps, [0.9, 0.99])
    # the mean gap over a run is what tokens/s is the inverse of
    rate = float(np.mean([1 / np.mean(run.gaps_s) for run in sample.runs]))
    first = float(np.median([run.first_token_s for run in sample.runs]))
    curve = np.asarray(prediction.gap_curve_s)
    # logarithms, as all of the noise law: a share of the gap, whatever its size
    logs = np.log([run.median_s for run in sample.runs])
    told = {
        "name": prediction.name,
        "kind": prediction.kind,
        "engine": prediction.engine,
        "created": now(),
        "prediction_created": prediction.created,
        "scenario_sha256": prediction.scenario_sha256,
        "calibration_sha256": prediction.calibration_sha256,
        "measurement": sample.name,
        "measurement_sha256": sample.sha256,
        "held_out": True,
        "median_gap_s": rounded(measured),
        "predicted_median_gap_s": predicted,
        "predicted_90_s": (prediction.median_gap_s[0], prediction.median_gap_s[-1]),
        "median_error": rounded(predicted / measured - 1),
        "tokens_per_s_error": rounded(prediction.tokens_per_s[MEDIAN] / rate - 1),
        "p90_error": rounded(prediction.p90_gap_s[MEDIAN] / float(p90) - 1),
        "p99_error": rounded(prediction.p99_gap_s[MEDIAN] / float(p99) - 1),
        "first_token_error": rounded(prediction.first_token_s[MEDIAN] / first - 1),
        "ks_distance": rounded(_ks(gaps, curve)),
        "wasserstein_s": rounded(_wasserstein_s(gaps, curve)),
        "in_50": _inside(prediction.median_gap_s, measured, 50),
        "in_80": _inside(prediction.median_gap_s, measured, 80),
        "in_90": _inside(prediction.median_gap_s, measured, 90),
        "first_token_in_90": _inside(prediction.first_token_s, first, 90),
        "repeatability": rounded(float(np.std(logs, ddof=1)) if len(logs) > 1 else 0.0),
    }
    try:
        return Validation.model_validate(told)
    except ValidationError as error:
        raise CalibrationError(
            f"{prediction.name} and {sample.name} are too far apart to be compared: {in_words(error)}"
        ) from None


def _check_same(prediction: LedgerPrediction, sample: Sample) -> None:
    """The measurement must be of the predicted engine, model and placement, ranks in the same order."""
    try:
        job = prepare(sample.scenario).job
    except SimulatorError as error:
        raise CalibrationError(
            f"what {sample.name} measured cannot be predicted, so it is held against nothing: {error}"
        ) from None
    asked = (prediction.engine, prediction.model_layers, list(prediction.placement.items()))
    found = (job.engine.name, job.model.layers, list(job.placement.layer_counts.items()))
    if asked != found:
        raise CalibrationError(
            f"prediction {prediction.name} is of {asked[0]} with {asked[1]} layers as "
            f"{prediction.placement}, but {sample.name} measured {found[0]} with {found[1]} layers as "
            f"{dict(found[2])}; predict what was measured: write its layers into the scenario, in that order"
        )


def _inside(quantiles: tuple[float, ...], value: float, level: int) -> bool:
    outside = MEDIAN - 1 - LEVELS.index(level)
    return quantiles[outside] <= value <= quantiles[-1 - outside]


def _ks(gaps: Floats, curve: Floats) -> float:
    """Largest distance of the two distribution functions, the predicted one
    linear between its percentiles.
    """
    x = np.sort(gaps)
    predicted = np.interp(x, curve, np.arange(1, CURVE + 1) / 100, left=0.0, right=1.0)
    n = len(x)
    return float(
        # both sides of each step of the measured distribution function
        np.max(np.maximum(np.abs(predicted - np.arange(n) / n), np.abs(predicted - np.arange(1, n + 1) / n)))
    )


def _wasserstein_s(gaps: Floats, curve: Floats) -> float:
    """Mean distance of the percentiles (s)."""
    return float(np.mean(np.abs(np.quantile(gaps, np.arange(1, CURVE + 1) / 100) - curve)))
