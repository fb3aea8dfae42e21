"""A device that was not measured, beside calibrated ones: recorded on two machines, the second 3.7 times as fast as
all its scenarios say.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from calibrate.applied import apply
from calibrate.calibration import calibrate_samples
from calibrate.samples import Sample, sample
from calibrate.study import StudySplit, run_split
from simulator.result.measurement import read_measurement

RESULTS = Path(__file__).parents[2] / "results"


def read(folder: str, pattern: str = "*") -> list[Sample]:
    return [sample(read_measurement(path)) for path in sorted((RESULTS / folder).glob(f"{pattern}.jsonl.gz"))]


def study(training: str, held_out: str) -> StudySplit:
    trained = [replace(one, name=f"trained {one.name}") for one in read(training)]
    new = read(held_out, "five_*")
    return run_split("new device", [*trained, *new], [one.name for one in trained], draws=200)


@pytest.mark.parametrize(
    ("training", "held_out"), [("local2/training", "local2/new_device"), ("local/training", "local/held_out")]
)
def test_it_is_predicted_within_eight_percent(training: str, held_out: str):
    rows = study(training, held_out).validations
    assert len(rows) == 2
    for row in rows:
        assert row.kind == "new device"
        # no closer than its own runs agree: those of the restless fourth circle differ by 11 %
        assert abs(row.median_error) < max(0.08, row.repeatability or 0), row.name
        # the throttle of that recording slowed all other devices down by 6 % too, which nothing tells a prediction
        assert row.in_90 or (held_out, row.name) == ("local2/new_device", "five_slow_phone")


def test_it_says_what_others_taught_and_how_sure_that_is():
    calibration = calibrate_samples(read("local2/training"), draws=50)
    applied = apply(calibration, read("local2/new_device", "five_even")[0].scenario)
    assert any("tablet" in line and "times faster" in line for line in applied.warnings)
    posterior = applied.scenario.posterior
    assert posterior is not None
    assert "world/tablet/decode" in posterior.names
    speed = {name: device.speed for name, device in applied.scenario.devices.items()}
    tablet, phone = speed["tablet"], speed["phone"]
    assert tablet is not None
    assert phone is not None
    assert tablet.decode_bandwidth == pytest.approx(phone.decode_bandwidth, rel=0.01)
    # taught is not measured
    assert (tablet.label, phone.label) == ("assumed", "calibrated")
