"""What a second real EXO cluster sent: tokens in bursts, and placements that the scenario did not ask for."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from calibrate.calibration import calibrate, load_calibration
from calibrate.samples import sample
from calibrate.validation import predict_sessions, validate
from sim.main import app
from simulator.errors import CalibrationError
from simulator.prepare import prepare
from simulator.result.measurement import read_measurement
from simulator.scenario import PlacementSpec

LIVE2 = Path(__file__).parents[2] / "results" / "exo" / "live2"


def test_eight_genuine_files_calibrate_though_some_burst(tmp_path: Path) -> None:
    """It ended in a traceback, and before that took the files for EXO bench's, whose words they hold."""
    files = []
    for path in sorted((LIVE2 / "circle1").glob("*.gz")):  # as they were written: not packed
        files.append(tmp_path / path.stem)
        files[-1].write_bytes(gzip.decompress(path.read_bytes()))
    out = tmp_path / "calibration.yaml"
    run = CliRunner().invoke(app, ["calibrate", *map(str, files), "-o", str(out), "--draws", "20"])
    assert run.exit_code == 0, run.output
    assert "mine_06: 2 of 3 replies arrive in bursts (run 0, 1;" in run.output
    found = load_calibration(out)
    assert len(found.sources) == 8
    medians = {source.name: source.median_s for source in found.sources}
    assert medians["mine_06"] == pytest.approx(0.0485, rel=0.03)  # 257 us before; the engine says 47 to 54 ms
    assert 0 < found.noise.own_sigma + found.noise.common_sigma < 0.5


def test_a_bad_file_is_left_out_by_name_and_stops_no_other(tmp_path: Path) -> None:
    good = sorted((LIVE2 / "circle3").glob("*.gz"))
    text = gzip.decompress(good[0].read_bytes()).decode()
    broken, flat = tmp_path / "broken.jsonl", tmp_path / "flat.jsonl"
    broken.write_text(text.replace('"layers":24,', '"layers":"many",'))
    lines = [line for line in text.splitlines() if '"type":"token"' not in line]
    tokens = [f'{{"type":"token","run":0,"chat":0,"token":{i},"t_ns":5}}' for i in range(20)]
    flat.write_text("\n".join([*lines, *tokens]) + "\n")
    found = calibrate([broken, flat, *good], draws=20)
    assert [source.name for source in found.sources] == [path.name.split(".")[0] for path in good]
    assert any("left out" in doubt and "broken.jsonl" in doubt for doubt in found.warnings)
    assert any("left out" in doubt and "flat.jsonl" in doubt for doubt in found.warnings)


@pytest.mark.parametrize(
    ("file", "held"),
    [("own", {"node-c": 6, "node-b": 6, "node-a": 12}), ("foreign_instance", {"node-c": 8, "node-a": 16})],
)
def test_what_was_measured_is_what_counts(file: str, held: dict[str, int]) -> None:
    """The rule would have placed b6/a12/c6: what EXO, or somebody else's instance, had is in the header."""
    measurement = read_measurement(LIVE2 / "others" / f"{file}.jsonl.gz")
    found = sample(measurement)
    placed = prepare(found.scenario).job.placement.layer_counts
    assert list(placed.items()) == list(held.items())
    assert any("not as its scenario says" in doubt for doubt in found.warnings)


def test_another_ring_order_is_another_placement() -> None:
    found = sample(read_measurement(LIVE2 / "others" / "own.jsonl.gz"))
    turned = PlacementSpec(layers={"node-b": 6, "node-a": 12, "node-c": 6})
    asked = found.scenario.model_copy(update={"placement": turned, "replications": 20})
    with pytest.raises(CalibrationError, match="in that order"):
        validate(predict_sessions(asked), found)
    same = found.scenario.model_copy(update={"replications": 20})
    assert np.isfinite(validate(predict_sessions(same), found).ks_distance)


def test_bursts_can_be_validated() -> None:
    """Another traceback: the logarithm of a median gap of nothing."""
    found = sample(read_measurement(LIVE2 / "circle1" / "mine_06.jsonl.gz"))
    outcome = validate(predict_sessions(found.scenario.model_copy(update={"replications": 20})), found)
    assert outcome.median_gap_s == pytest.approx(0.0485, rel=0.03)
    assert np.isfinite(outcome.repeatability)
