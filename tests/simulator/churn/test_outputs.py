"""What people see: the estimates, the options, the picture and the two commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sim import dropout_cmd
from simulator.churn.estimate import predict_dropout
from simulator.churn.evening import predict_evening
from simulator.churn.options import LossRate, long_run, options
from simulator.churn.picture import draw, rate_at, recovery_table, save
from simulator.churn.study import Evening, Study
from simulator.files import dump, dumps, loads
from simulator.scenario import ModelSpec, Scenario
from tests.simulator.churn.scripts import scenario

DROP = {"event": "drop", "device": "beta", "at_token": 10}
HALF = {"name": "tiny", "layers": 4, "hidden": 512, "layer_bytes": "50 MB"}
SCENARIOS = Path(__file__).parents[3] / "scenarios"


def predicted(**changes: Any) -> Any:
    return predict_dropout(scenario(events=[DROP], **changes), 20)


def test_the_document_holds_everything_and_repeats_itself() -> None:
    document = predicted().document()
    assert json.dumps(document) == json.dumps(predicted().document())
    phases = [document["phases_s"][name]["median"] for name in document["phases_s"]]
    assert document["recovery_s"]["median"] == pytest.approx(sum(phases), rel=0.1)
    assert document["replies"] == {"interrupted": 1.0, "completed": 1.0}
    assert len(document["placements"]) == 2
    assert "beta" not in document["placements"][1]


def test_a_quick_recovery_estimate() -> None:
    """200 replications take well under 5 s; three times that is the bound on a busy machine."""
    import time

    began = time.perf_counter()
    predict_dropout(
        scenario(events=[DROP], workload={"prompt_tokens": 64, "output_tokens": 256, "runs": 1}), 200
    )
    assert time.perf_counter() - began < 15


@given(st.floats(0.1, 10), st.floats(0, 10), st.floats(1, 1e3), st.floats(0.01, 100), st.floats(0, 1e5))
def test_the_long_run_stays_within_its_bounds(
    before: float, after: float, recovery_s: float, rate: float, away: float
) -> None:
    losses = LossRate(failures_per_hour=rate, away_s=away)
    per_hour, serving = long_run(np.array([before]), np.array([after]), np.array([recovery_s]), losses)
    assert 0 < serving[0] <= 1
    assert 0 <= per_hour[0] <= 3600 * max(before, after) * (1 + 1e-9)


def test_rare_losses_cost_nothing() -> None:
    never = LossRate(failures_per_hour=1e-9)
    assert long_run(np.array([2.0]), np.array([1.0]), np.array([60.0]), never)[0] == pytest.approx([7200])


def test_options_are_ranked_and_named() -> None:
    found = options(predicted(), LossRate(), ModelSpec.model_validate(HALF))
    assert {option.name for option in found} == {"as it is", "a spare beta", "two times tiny"}
    assert [option.tokens_per_hour.median for option in found] == sorted(
        (option.tokens_per_hour.median for option in found), reverse=True
    )
    as_it_is, spare = (next(o for o in found if o.name == name) for name in ("as it is", "a spare beta"))
    assert spare.serving.median > as_it_is.serving.median


def test_rates_are_tokens_over_time_and_nothing_during_a_recovery() -> None:
    times = [*np.arange(0, 10, 0.5), *np.arange(100, 110, 1.0)]
    at = np.array([-1.0, 2.0, 9.4, 50.0, 99.9, 105.0, 200.0])
    assert rate_at(times, [20], at) == pytest.approx([2, 2, 2, 0, 0, 1, 1])


def test_the_picture_shows_band_phases_and_measurement(tmp_path: Path) -> None:
    table = recovery_table(predicted(), measured=[(0.0, 30.0), (5.0, 0.0), (9.0, 25.0)])
    low, median, high = (
        np.array([row[name] for row in table.rows["band"]]) for name in ("low", "median", "high")
    )
    assert (low <= median).all()
    assert (median <= high).all()
    assert median.min() == 0
    starts = [row["start"] for row in table.rows["phases"]]
    assert starts == sorted(starts)
    assert len(draw(table).to_dict()["layer"]) == 4
    for path in save(table, tmp_path, "recovery"):
        assert path.stat().st_size > 5000


def test_a_reply_without_a_loss_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        recovery_table(predict_dropout(scenario(), 3))


def test_the_hot_phone_slows_its_ten_minute_reply_down() -> None:
    """Before the battery saver: the last minute of eight is clearly slower than the first."""
    from simulator.files import load

    hot = load(SCENARIOS / "hot_phone.yaml", Scenario)
    minutes = np.linspace(0, 9, 181)
    replies = [trace.replies[0] for trace in Study(hot, 8).traces()]
    rates = np.nanmedian([rate_at(reply.times_s, [], 60 * minutes) for reply in replies], axis=0)
    cold, warm, saving = (
        rates[(minutes > a) & (minutes < b)].mean() for a, b in ((0, 0.3), (7, 8), (8.2, 9))
    )
    assert warm < 0.9 * cold
    assert saving < 0.85 * warm


def test_an_evening_of_four_hours() -> None:
    from simulator.files import load

    outcome = predict_evening(load(SCENARIOS / "churn_evening.yaml", Scenario), Evening(4, 12), 1)
    assert outcome.requests.median > 20
    assert outcome.completed.median > 0.8
    assert outcome.recovery_s is not None


def test_events_survive_a_file() -> None:
    written = scenario(
        events=[
            DROP,
            {"event": "throttle", "device": "beta", "rate": "2 /h", "speed": 0.5, "lasting": "5 s"},
        ],
        recovery={"files": "client"},
    )
    assert loads(dumps(written), Scenario) == written


# --- the commands -------------------------------------------------------------------------------------------------

APP = typer.Typer()
APP.command("dropout")(dropout_cmd.dropout)
APP.command("evening")(dropout_cmd.evening)


def run(*args: str) -> str:
    done = CliRunner().invoke(APP, list(args))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_sim_dropout_writes_and_prints(tmp_path: Path) -> None:
    dump(scenario(), tmp_path / "calm.yaml")
    told = run(
        "dropout",
        str(tmp_path / "calm.yaml"),
        "--device",
        "beta",
        "--replications",
        "10",
        "--out",
        str(tmp_path / "o"),
    )
    assert "recovery " in told
    assert {path.name for path in (tmp_path / "o").iterdir()} == {
        "scenario.yaml",
        "dropout.json",
        "recovery.svg",
        "recovery.png",
    }
    plain = run("dropout", str(tmp_path / "o" / "scenario.yaml"), "--json", "--replications", "10")
    written = json.loads((tmp_path / "o" / "dropout.json").read_text())
    assert json.loads(plain) == written, "the written scenario gives the same bytes"


def test_sim_dropout_without_a_loss_says_what_to_do(tmp_path: Path) -> None:
    devices = {name: spec.model_copy(update={"heat": None}) for name, spec in scenario().devices.items()}
    dump(scenario().model_copy(update={"devices": devices}), tmp_path / "calm.yaml")
    with pytest.raises(Exception, match="add `events:` to the file, or name a --device"):
        run("dropout", str(tmp_path / "calm.yaml"))
    with pytest.raises(Exception, match="'betta' is no device of churn.*did you mean 'beta'"):
        run("dropout", str(tmp_path / "calm.yaml"), "--device", "betta")


def test_sim_evening_prints(tmp_path: Path) -> None:
    dump(scenario(events=[DROP]), tmp_path / "calm.yaml")
    assert "interrupted" in run(
        "evening", str(tmp_path / "calm.yaml"), "--hours", "0.1", "--replications", "2"
    )
