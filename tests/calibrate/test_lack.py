"""Lack of fit: what placements miss the model by, against what measuring one again differs by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from calibrate.fit import fit
from calibrate.lack import lack_of_fit
from calibrate.samples import sample
from calibrate.truth import synthetic
from sim.main import app
from simulator.files import dump
from simulator.result.measurement import read_measurement

LIVE2 = Path(__file__).parents[2] / "results" / "exo" / "live2"
TWICE = np.repeat(np.arange(8), 2)
"""Eight placements, each in two sessions."""


def sessions(placement_sd: float, session_sd: float, seed: int = 1) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.normal(0, placement_sd, 8)[TWICE] + generator.normal(0, session_sd, 16)


def test_placements_that_scatter_as_repeats_do_are_no_lack() -> None:
    """In 5 % of such cases it is found by chance."""
    found = [lack_of_fit(sessions(0.0, 0.05, seed), TWICE, 0.0, 0.05, 1) for seed in range(200)]
    assert np.mean([one.is_lacking for one in found]) == pytest.approx(0.05, abs=0.04)


def test_what_the_model_lacks_is_found_and_its_worst_placement_named() -> None:
    errors = sessions(0.2, 0.05)
    found = lack_of_fit(errors, TWICE, 0.0, 0.05, 1)
    assert found.is_lacking
    assert found.worst == int(np.abs(errors.reshape(8, 2).mean(axis=1)).argmax())
    # of a session, as repeats are: a placement errs by 0.2 in both
    assert found.missed_sd > 0.2
    text = found.text("a 12/b 12")
    assert text.startswith("lack of fit: placements miss the model by")
    assert "most of all a 12/b 12; intervals are as wide" in text


def test_parameters_that_explain_everything_leave_nothing_to_test() -> None:
    found = lack_of_fit(np.zeros(3), np.arange(3), 3.0, 0.1, 1)
    assert not found.is_lacking
    assert found.text("a").startswith("lack of fit cannot be told")


def test_a_placement_that_nothing_checks_is_named() -> None:
    """Circle 2: 1/3/20 took 75 ms in a busy minute, all hops were taken for slow, and nothing else was there to ask."""
    second, third = (
        fit([sample(read_measurement(path)) for path in sorted((LIVE2 / circle).glob("*.gz"))], draws=1)
        for circle in ("circle2", "circle3")
    )
    assert second.believed.startswith("no other placement checks node-c 1/node-a 3/node-b 20: measure one")
    assert third.believed == ""
    assert third.verdict.startswith("no lack of fit seen: placements miss the model by 7%")


def test_a_lack_widens_what_is_drawn() -> None:
    """One placement of the synthetic ones takes twice as long as the truth says."""
    samples = [replace(one, visits_s=(0.1, 0.105)) for one in synthetic(3)[:9]]
    plain = fit(samples, draws=20)
    odd = samples[6]
    samples[6] = replace(odd, runs=tuple(replace(run, gaps_s=2 * run.gaps_s) for run in odd.runs))
    lacking = fit(samples, draws=20)
    assert not plain.lack.is_lacking
    assert lacking.lack.is_lacking
    assert lacking.lack.worst == list(dict.fromkeys(lacking.placements)).index(lacking.placements[6])
    column = plain.names.index("layer_s/a")
    assert np.std(lacking.draws[:, column]) > 1.5 * np.std(plain.draws[:, column])


def test_design_tells_the_verdict_and_what_to_measure_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calibrate.design.CANDIDATES", 6)
    files = [word for path in sorted((LIVE2 / "circle2").glob("*.gz")) for word in ("--measured", str(path))]
    asked = sample(read_measurement(LIVE2 / "circle3" / "t5.jsonl.gz")).scenario
    dump(asked.model_copy(update={"name": "mine"}), tmp_path / "mine.yaml")
    words = [
        "live",
        "design",
        str(tmp_path / "mine.yaml"),
        "--runs",
        "1",
        "--out",
        str(tmp_path / "plan"),
        *files,
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "no lack of fit seen" in done.output
    assert "no other placement checks node-c 1/node-a 3/node-b 20" in done.output
    assert "measure next: mine_01, which tells most" in done.output
