"""Figures of the published ground: coverage, its band of chance, baselines, causes, and a report that hides a part."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from calibrate.ground.baselines import SHARE, calculator_s, peak_s, with_baselines
from calibrate.ground.cases import Case, load_case
from calibrate.ground.causes import cause, known_causes
from calibrate.ground.predict import Outcome, predict_cases
from calibrate.ground.report import HIDDEN, headline, report, write_ground
from calibrate.ground.rows import parts, rows
from calibrate.ground.score import binomial_band, score
from calibrate.validation import QUANTILES
from simulator.errors import CalibrationError

FOLDER = Path(__file__).parents[3] / "scenarios" / "published"
ROWS = {row.row: row for row in rows()}


def outcome(measured_s: float, **changes: object) -> Outcome:
    """A prediction of a median of 1 s whose quantiles are 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3 s."""
    quantiles = tuple(1 + 0.1 * (at - 3) for at in range(len(QUANTILES)))
    plain = Outcome(
        row="V38",
        source="kjaiswal",
        part="looked-at",
        group="single",
        quantity="decode",
        is_apart=False,
        devices="x",
        model="y",
        readings=1,
        measured_s=measured_s,
        predicted_s=quantiles,
    )
    return plain.model_copy(update=changes)


@given(st.integers(1, 200), st.floats(0.02, 0.98))
def test_the_band_is_that_of_the_binomial(n: int, share: float) -> None:
    low, high = binomial_band(n, share)
    assert (round(low * n), round(high * n)) == (binom.ppf(0.05, n, share), binom.ppf(0.95, n, share))


@pytest.mark.parametrize(("n", "share"), [(0, 0.9), (10, 1.0), (10, 0.0)])
def test_a_band_of_nothing_is_refused(n: int, share: float) -> None:
    with pytest.raises(CalibrationError, match="a band of"):
        binomial_band(n, share)


def test_coverage_errors_and_width() -> None:
    figures = score([outcome(1.05), outcome(1.15), outcome(1.25), outcome(1.35)])
    assert [one.held for one in figures.coverage] == [0.25, 0.5, 0.75]
    assert figures.width == pytest.approx(0.6)
    assert figures.median_error == pytest.approx((0.15 / 1.15 + 0.25 / 1.25) / 2, rel=1e-5)
    assert figures.bias == -figures.median_error
    with pytest.raises(CalibrationError, match="no outcome"):
        score([])


def test_the_headline_leaves_out_what_is_apart() -> None:
    ones = [outcome(1.0), outcome(2.0, is_apart=True), outcome(1.0, group="batch")]
    assert {key: figures.n for key, figures in headline(ones).items()} == {("single devices", "looked-at"): 1}


def loaded(name: str) -> Case:
    return load_case(FOLDER / f"{name}.yaml")


def test_peak_bandwidth_is_bytes_over_bandwidth() -> None:
    """41.1 GB of a 70B at 800 GB/s and more: the weights alone take 50 ms and more."""
    case = loaded("V48")
    assert 0.048 < peak_s(case) < 0.053
    assert peak_s(case, SHARE) == pytest.approx(peak_s(case) / SHARE)
    # two devices in turn read each its part: the sum lies between that of either alone
    assert peak_s(loaded("V38-alone")) < peak_s(loaded("V38")) < 3 * peak_s(loaded("V38-alone"))


def test_the_baselines_are_of_the_same_rows() -> None:
    case = loaded("V48")
    outcomes = list(predict_cases([case], ROWS, parts()))
    errors = with_baselines([case], outcomes)
    assert list(errors)[:2] == ["peak bandwidth", "70% of it"]
    assert errors["peak bandwidth"]["V48"] == pytest.approx(
        peak_s(case) / outcomes[0].measured_s - 1, rel=1e-4
    )
    name, told = calculator_s()
    assert name == "servcalc 0.1.0"
    assert set(told) <= set(ROWS)


def test_a_cause_is_the_input_that_must_move_least() -> None:
    case = loaded("field-26-3b")
    (one,) = predict_cases([case], ROWS, parts())
    found = cause(case, one)
    assert (found.term, found.what) == (
        "device efficiency",
        "decode time on every apple-metal device with llama.cpp",
    )
    assert -3 < found.sd < -0.5
    assert found.would_have_told
    far = one.model_copy(update={"measured_s": 100 * one.measured_s})
    assert cause(case, far).term == "unknown"


def test_causes_by_hand_are_of_rows_that_may_be_looked_at() -> None:
    for row in known_causes():
        assert parts()[ROWS[row].source] == "looked-at"


def test_single_rows_of_the_counted_part_are_not_told(tmp_path: Path) -> None:
    case = loaded("V48")
    seen = next(iter(predict_cases([case], ROWS, parts())))
    counted = seen.model_copy(update={"part": "counted", "model": "closed", "measured_s": 0.06543})
    for is_open in (False, True):
        text = report([case], [seen, counted], rows(), (), open_counted=is_open)
        lines = [line for line in text.splitlines() if "closed" in line]
        assert len(lines) == 1
        assert (HIDDEN in lines[0], "65.4 ms" in lines[0]) == (not is_open, is_open)
    write_ground([case], [seen, counted], rows(), tmp_path)
    written = "".join(
        path.read_text() for path in tmp_path.iterdir() if path.suffix in (".md", ".csv", ".svg")
    )
    assert "0.06543" not in written
    assert "65.4" not in written
    assert {path.name for path in tmp_path.iterdir()} >= {"predictions.csv", "reliability.png"}
