"""The ledger of all grounds: a measurement counts once, however often it was predicted, and twice is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from calibrate.ledger import read_ledger, summary
from calibrate.report import summary_line
from calibrate.trials import Trial, standing, trials, worst
from calibrate.trials_report import text, write_ledger
from simulator.errors import CalibrationError

RESULTS = Path(__file__).parents[2] / "results"
FOUND = trials(RESULTS)


def trial(measurement: str, error: float, held: bool = True, **changes: Any) -> Trial:
    plain = Trial(
        ground="here",
        kind="new split",
        name=measurement,
        measurement=measurement,
        error=error,
        held={50: held, 80: held, 90: held},
    )
    return plain.model_copy(update=changes)


def test_every_ground_is_read() -> None:
    grounds = {one.ground.partition("/")[0] for one in FOUND}
    assert grounds == {"catalog", "dropout", "exo", "local", "local_mlx", "local_petals", "published"}


def test_the_exo_rows_are_as_many_as_their_recordings() -> None:
    """121 rows of 30 recordings, 30 of them repeats of what trained: 91 predictions of 24 recordings."""
    exo = [one for one in FOUND if one.ground == "exo"]
    stands = standing("exo", exo)
    assert (stands.trials, stands.measurements) == (91, len({one.measurement for one in exo}))
    assert stands.measurements < 30
    # the band is that of 24 chances, not of 91
    assert stands.coverage[-1].low == pytest.approx(19 / 24, abs=1e-5)


def test_repeats_of_a_measurement_share_its_weight() -> None:
    """Nine good predictions of one measurement do not outweigh a bad one of another."""
    found = [*(trial("a", 0.01) for _ in range(9)), trial("b", 0.5, held=False)]
    stands = standing("here", found)
    assert [cover.held for cover in stands.coverage] == [0.5, 0.5, 0.5]
    assert (stands.trials, stands.measurements) == (10, 2)
    assert stands.median_error == pytest.approx((0.01 + 0.5) / 2)
    with pytest.raises(CalibrationError, match="no trial"):
        standing("here", [])


def test_one_ledger_counts_its_measurements_too() -> None:
    rows = read_ledger(RESULTS / "exo/ledger.jsonl").validations
    assert (summary(rows)["n"], summary(rows)["measurements"]) == (121, 30)
    assert summary_line(rows).startswith("121 predictions of 30 measurements: ")
    once = list({row.measurement_sha256: row for row in rows}.values())
    assert summary(once * 3) == pytest.approx(summary(once) | {"n": 90}, rel=1e-5)
    assert summary_line(once).startswith("30 predictions: ")


def test_worst_misses_are_of_different_measurements_and_as_bad_either_way() -> None:
    found = [
        trial("a", 0.5, held=False),
        trial("a", 0.6, held=False),
        trial("b", -0.5, held=False),
        trial("c", 9),
    ]
    assert [(one.name, one.error) for one in worst(found)] == [("b", -0.5), ("a", 0.6)]
    assert len(worst(found, 1)) == 1


def test_one_measurement_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("mine", "yours"):
        (tmp_path / name).mkdir()
        shutil.copy(RESULTS / "local/ledger.jsonl", tmp_path / name / "ledger.jsonl")
    with pytest.raises(CalibrationError, match="would count twice"):
        trials(tmp_path)


def test_a_folder_without_outcomes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="no outcome of a prediction"):
        trials(tmp_path)


def test_the_page_holds_its_pictures_and_a_cause_for_each_miss(tmp_path: Path) -> None:
    write_ledger(FOUND, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2
    assert "<img" not in page
    misses = text(FOUND).partition("## Worst misses")[2]
    lines = [line for line in misses.splitlines() if line.startswith("| ")][1:]
    assert len(lines) > 10
    assert all(line.split(" | ")[-1].strip(" |") for line in lines)
