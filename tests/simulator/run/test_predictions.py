"""From a scenario to an answer: the prediction, its what-ifs, and comparisons under common random numbers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simulator.errors import CatalogError, PlacementError, ScenarioError
from simulator.files import load
from simulator.prepare import prepare
from simulator.result.summary import rates
from simulator.run.compare import compare
from simulator.run.evaluate import token_times_s
from simulator.run.predict import Prediction, predict
from simulator.scenario import Scenario

ROOT = Path(__file__).parents[3]


def scenario(name: str, replications: int = 20) -> Scenario:
    return load(ROOT / "scenarios" / f"{name}.yaml", Scenario).model_copy(
        update={"replications": replications}
    )


@pytest.fixture(scope="module")
def four() -> Prediction:
    return predict(scenario("four_devices"))


def test_the_headline_is_the_median_of_the_rows(four: Prediction) -> None:
    rows = rates(four.times_s)
    assert rows.shape == (100,)
    assert four.summary.tokens_per_s.median == pytest.approx(float(np.median(rows)), rel=1e-5)
    assert four.summary.tokens_per_s.p05 < four.summary.tokens_per_s.median < four.summary.tokens_per_s.p95


def test_the_completed_scenario_runs_again_to_the_same_numbers(four: Prediction) -> None:
    again = prepare(four.scenario).job
    np.testing.assert_array_equal(token_times_s(again, 3), four.times_s[:, :, :3])


def test_a_prediction_that_stands_on_the_catalogue_says_so(four: Prediction) -> None:
    assert four.summary.tokens_per_s.label == "assumed"
    assert any(warning.startswith("iphone, pixel: ") and "llama-rpc" in warning for warning in four.warnings)
    assert any("20 replications" in warning for warning in four.warnings)


def test_layers_tile_the_model_and_memory_is_counted_for_every_device(four: Prediction) -> None:
    rows = [row for row in four.document()["placement"] if row["layers"]]
    assert [row["first_layer"] for row in rows] == [0, *(row["last_layer"] + 1 for row in rows[:-1])]
    assert rows[-1]["last_layer"] == 79
    assert all(0 < row["memory_bytes"] <= row["cap_bytes"] for row in rows)


def test_what_ifs_are_simulated_and_ranked(four: Prediction) -> None:
    medians = [what_if.tokens_per_s.median for what_if in four.what_ifs]
    assert medians == sorted(medians, reverse=True)
    wired = next(what_if for what_if in four.what_ifs if what_if.change.startswith("wire every device"))
    assert wired.difference.p05 > 0
    assert wired.probability_better == 1


def test_progress_is_told_rows_done_and_rows_in_all() -> None:
    told: list[tuple[int, int]] = []
    predict(scenario("thunderbolt_macs", 5), with_what_ifs=False, progress=lambda *rows: told.append(rows))
    assert told[-1] == (25, 25)


def test_evaluators_agree_on_a_whole_prediction() -> None:
    fast, slow = (
        predict(scenario("legacy_phones", 3), evaluator=name, with_what_ifs=False)
        for name in ("recursion", "simpy")
    )
    np.testing.assert_allclose(fast.times_s, slow.times_s, rtol=1e-9)


def test_another_process_predicts_the_same_bytes() -> None:
    code = (
        "import json; from simulator.files import load; from simulator.scenario import Scenario; "
        "from simulator.run.predict import predict; from pathlib import Path; "
        "s = load(Path('scenarios/legacy_phones.yaml'), Scenario); s = s.model_copy(update={'replications': 4}); "
        "print(json.dumps(predict(s).document()))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert json.loads(outputs.pop()) == predict(scenario("legacy_phones", 4)).document()


def test_what_does_not_fit_is_refused_with_both_figures() -> None:
    with pytest.raises(PlacementError, match=r"model needs \d+ GB.*have [\d.]+ GB"):
        predict(scenario("oversize"))


def test_an_unknown_engine_is_refused_with_those_that_are_known() -> None:
    known = scenario("four_devices")
    engine = known.engine.model_copy(update={"name": "exo-legasy"})
    with pytest.raises(CatalogError, match="exo-legacy"):
        predict(known.model_copy(update={"engine": engine}))


# --- compare ------------------------------------------------------------------------------------------------------


def test_a_scenario_equals_itself_and_beats_its_slower_self() -> None:
    """Common random numbers: the difference to an equal scenario is exactly 0, and to a slower one never positive."""
    base = scenario("thunderbolt_macs")
    slower = {
        name: device.model_copy(update={"background_load": 0.2}) for name, device in base.devices.items()
    }
    twin = base.model_copy(update={"name": "twin", "seed": 99})
    slow = base.model_copy(update={"name": "slow", "devices": slower})
    by_name = {row.scenario: row for row in compare([base, slow, twin]).ranking}
    assert (by_name["twin"].difference.p05, by_name["twin"].difference.p95) == (0, 0)
    assert by_name["slow"].difference.p95 < 0
    assert by_name["slow"].probability_better == 0


def test_the_fifth_phone_gets_its_verdict_and_its_break_even() -> None:
    found = compare([scenario("four_devices", 10), scenario("five_devices", 15)])
    assert found.reference == "four_devices"
    assert {row.tokens_per_s.n for row in found.ranking} == {50}
    medians = [row.tokens_per_s.median for row in found.ranking]
    assert medians == sorted(medians, reverse=True)
    assert re.match(r"five_devices is (faster|slower) than four_devices", found.verdicts[0])
    assert "break-even of old_phone" in found.verdicts[1]


def test_the_break_even_is_where_the_added_device_pays() -> None:
    """At the speed that the verdict names, the medians with and without the device are equal to within 2 %."""
    base = scenario("four_devices", 10)
    more = scenario("five_devices", 10)
    found = compare([base, more])
    line = next(line for line in found.verdicts if "by speed alone" in line)
    gb_per_s = float(re.search(r"([\d.]+) GB/s", line)[1])  # type: ignore[index]
    full = prepare(more).scenario
    phone = full.devices["old_phone"]
    factor = gb_per_s * 1e9 / phone.speed.decode_bandwidth
    speed = phone.speed.model_copy(
        update={
            "decode_bandwidth": gb_per_s * 1e9,
            "prefill_flops": phone.speed.prefill_flops * factor,
            "layer_overhead": phone.speed.layer_overhead / factor,
        }
    )
    devices = {**full.devices, "old_phone": phone.model_copy(update={"speed": speed})}
    changed = full.model_copy(update={"devices": devices})
    # the search uses one run of 32 tokens
    short = [
        s.model_copy(update={"workload": s.workload.model_copy(update={"runs": 1, "output_tokens": 32})})
        for s in (base, changed)
    ]
    without, with_it = (float(np.median(rates(token_times_s(prepare(s).job, 10)))) for s in short)
    assert with_it == pytest.approx(without, rel=0.02)


def test_two_scenarios_of_one_name_are_refused() -> None:
    with pytest.raises(ScenarioError, match="five_devices: more than one scenario has this name"):
        compare([scenario("five_devices"), scenario("five_devices")])
