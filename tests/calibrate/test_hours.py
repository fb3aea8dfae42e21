"""What another hour differs by: read from a reference beside the placements, judged by recorded circles."""

from __future__ import annotations

from dataclasses import replace
from math import hypot
from pathlib import Path

import numpy as np
import pytest

from calibrate.applied import apply
from calibrate.calibration import calibrate_samples
from calibrate.hours import Circle, circles, hour_log_sd, reference_log_sd
from calibrate.samples import Sample, sample
from calibrate.truth import synthetic
from simulator.result.measurement import read_measurement

ROOT = Path(__file__).parents[2]
RECORDED = {2: "local", 3: "local_mlx", 4: "local_petals"}
"""Rows of the table whose recordings are kept; those of other circles are in the history."""


@pytest.fixture(scope="module")
def samples() -> tuple[Sample, ...]:
    return synthetic(1)


def timed(samples: tuple[Sample, ...], log_sd: float) -> list[Sample]:
    """The samples with a reference before two visits each that scatters by so much."""
    times = 0.01 * np.exp(log_sd * np.array([-1.0, 1.0]))
    return [replace(one, reference_s=tuple(times)) for one in samples]


def of(folder: str) -> dict[str, Sample]:
    found = [
        sample(read_measurement(path)) for path in sorted((ROOT / "results" / folder).glob("*.jsonl.gz"))
    ]
    return {one.name: one for one in found}


@pytest.mark.parametrize("row", RECORDED)
def test_the_table_holds_what_was_recorded(row: int) -> None:
    training, held_out = of(f"{RECORDED[row]}/training"), of(f"{RECORDED[row]}/held_out")
    moved = [np.log(held_out[name].median_s / one.median_s) for name, one in training.items()]
    assert circles()[row].moved == pytest.approx(np.mean(moved), abs=1e-4)
    assert circles()[row].reference == pytest.approx(reference_log_sd(training.values()), abs=1e-4)


def test_an_hour_differs_by_a_share_of_what_the_reference_scatters_by(samples: tuple[Sample, ...]) -> None:
    """Half of it in both of two circles; Student's 90 % with two degrees of freedom is 2.92 where 1.645 is normal."""
    recorded = [Circle(0.02, 0.04), Circle(-0.01, 0.02)]
    assert hour_log_sd(timed(samples, 0.05), recorded) == pytest.approx(0.5 * 2.92 / 1.645 * 0.0512, rel=0.01)


def test_without_a_reference_nothing_is_said_of_hours(samples: tuple[Sample, ...]) -> None:
    few = [*timed(samples[:1], 0.05), *samples[1:]]
    assert hour_log_sd(samples) == hour_log_sd(few) == 0.0


def test_another_hour_makes_a_prediction_wider_and_the_fit_not(samples: tuple[Sample, ...]) -> None:
    """All placements share the hour that they were measured in, so parameters are as sure as before."""
    quiet, restless = (calibrate_samples(some, draws=20) for some in (samples, timed(samples, 0.1)))
    assert restless.draws == quiet.draws
    assert restless.prefill_draws == quiet.prefill_draws
    assert restless.noise.session_sigma == quiet.noise.session_sigma
    hour = restless.noise.hour_sigma
    assert quiet.noise.hour_sigma == 0.0
    assert hour == pytest.approx(hour_log_sd(timed(samples, 0.1)), rel=1e-3)
    drawn = apply(restless, samples[0].scenario).scenario.common_noise.session_sigma
    assert drawn == pytest.approx(hypot(quiet.noise.session_sigma, hour))


def test_a_damaged_reference_is_capped(samples: tuple[Sample, ...]) -> None:
    assert hour_log_sd(timed(samples, 20.0)) == 0.5
