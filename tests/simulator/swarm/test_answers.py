"""`sim swarm` answers each question that a swarm raises: who suffices, what is scarce, what one more brings, LAN or public."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sim.main import app
from simulator.files import dumps
from simulator.swarm import study
from simulator.swarm.picture import swarm_charts
from simulator.swarm.study import rows_of, swarm_answer
from tests.simulator.swarm.worlds import POPULATION, STAYS, swarm

BRIEF = {**POPULATION["gpu"], "count": 4, "uptime": {"law": "exponential", "mean": "10 min"}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Four servers that come and go, beside one that serves the first half for ever; and the same four placed by hand."""
    path = tmp_path / "mine.yaml"
    spec = {
        "population": {"gpu": BRIEF},
        "stays": {"s1": {"span": [0, 9]}, **_idle()},
        "hours": 0.1,
        "users": 2,
    }
    path.write_text(dumps(swarm(**spec), "a swarm of tests"))
    return path


def _idle() -> dict[str, Any]:
    """The other devices hold one block of the first half each."""
    return {name: {"span": [0, 1]} for name in STAYS if name != "s1"}


def asked(*words: str) -> Any:
    done = CliRunner().invoke(app, ["swarm", *words])
    assert done.exception is None, done.output
    return done.output


def test_each_question_has_its_answer(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "lan.yaml"
    other.write_text(dumps(swarm(hours=0.1), "three servers and a spare that stay"))
    words = ["--whole", "90%", "--one-more", "--against", str(other), "--replications", "2", "--no-charts"]
    said = asked(str(file), *words, "--out", str(tmp_path / "out"))
    found = json.loads((tmp_path / "out" / "swarm.json").read_text())
    # how many servers of which kind keep the swarm whole: with fewer it is not
    enough = found["enough"]["gpu"]
    assert enough >= 1
    assert f"enough of gpu: {enough}" in said
    # which blocks are scarce: nobody stays for the second half
    scarce = [block for block, _ in found["scarce"]]
    assert set(scarce) <= set(range(9, 18))
    # what one server more brings, in the same luck
    (gain,) = found["one_more"]
    assert gain["kind"] == "gpu"
    assert gain["whole"] >= 0
    # the public swarm against those who stay
    assert found["against"]["whole"]["median"] == 1.0
    assert found["against"]["times_as_fast"] > 0
    assert "against rooms:" in said


def test_a_folder_that_cannot_be_made_is_refused_before_the_work(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "rows_of", lambda *_: pytest.fail("the swarm was simulated"))
    (tmp_path / "taken").write_text("a file")
    done = CliRunner().invoke(app, ["swarm", str(file), "--out", str(tmp_path / "taken")])
    assert "cannot be made" in str(done.exception)


def test_a_swarm_against_devices_that_somebody_places(file: Path) -> None:
    found = json.loads(asked(str(file), "--against", "petals_or_exo", "--json", "--replications", "1"))
    assert found["against"]["scenario"] == "petals_or_exo"
    assert found["against"]["whole"] is None
    assert 0.5 < found["against"]["tokens_per_s"]["median"] < 2


def test_charts_show_who_serves_what_when_and_where_time_went() -> None:
    loss = {"server": "s2", "at": "60 s"}
    scenario = swarm(hours=0.1, users=2, losses=[loss], patience="100 s")
    rows = rows_of(scenario, 1)
    charts = swarm_charts(swarm_answer(scenario, rows), rows)
    assert set(charts) == {"coverage", "rate", "lost_time"}
    served = values_of(charts["coverage"], "servers")
    # s4 alone holds the middle after s2 has gone
    assert {one["servers"] for one in served if one["block"] == 8 and one["from"] > 0.05} == {1}
    assert {one["servers"] for one in served if one["block"] == 8 and one["to"] < 0.01} == {2}
    assert max(one["median"] for one in values_of(charts["rate"], "median")) > 0
    assert {one["cause"] for one in values_of(charts["lost_time"], "cause")} >= {"attempts"}


def values_of(chart: Any, column: str) -> list[dict[str, Any]]:
    """The rows of a chart's data that have a column, wherever Vega-Lite keeps them."""
    if isinstance(chart, list):
        return chart if chart and isinstance(chart[0], dict) and column in chart[0] else []
    inside = chart.values() if isinstance(chart, dict) else ()
    return next((rows for rows in (values_of(one, column) for one in inside) if rows), [])


def test_swarms_at_once_are_those_one_after_the_other() -> None:
    scenario = swarm(hours=0.05, users=2)
    assert rows_of(scenario, 3, lambda: ThreadPoolExecutor(2)) == rows_of(scenario, 3)
