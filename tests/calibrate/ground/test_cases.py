"""Cases: each file is a scenario of a row; what a source left open is drawn over; nothing trains the catalogue."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from calibrate.ground.cases import Case, load_case, load_cases, readings
from calibrate.ground.predict import chosen, group_of, predict_cases, samples_s
from calibrate.ground.rows import excluded, parts, rows
from simulator.catalog.llm import model
from simulator.errors import CalibrationError, CatalogError
from simulator.prepare import prepare

ROOT = Path(__file__).parents[3]
sys.path.append(str(ROOT / "scripts"))

from fit_catalog_rows import clean, published_rows  # noqa: E402

FOLDER = ROOT / "scenarios" / "published"
CASES = load_cases(FOLDER)
ROWS = {row.row: row for row in rows()}
LEAST_PREDICTED = 120
TEXT = """
row: V38-alone
open:
  devices.*.link.kind: [ethernet_1g, ethernet_10g]
  workload.prompt_tokens: [16, 128, 1024]
scenario:
  name: V38-alone
  model: {name: Qwen2.5-72B, quantisation: Q4_K_M}
  engine: llama-rpc
  devices:
    ultra: {kind: Mac Studio M2 Ultra, memory: 192 GB, link: {kind: ethernet_10g}}
  workload: {prompt_tokens: 64, output_tokens: 8, runs: 1}
"""


def case(tmp_path: Path, old: str = "", new: str = "") -> Case:
    file = tmp_path / "V38-alone.yaml"
    file.write_text(TEXT.replace(old, new))
    return load_case(file)


def test_each_row_is_predicted_or_says_why_not() -> None:
    predicted, left_out = {case.row for case in CASES}, set(excluded())
    assert not predicted & left_out
    assert predicted | left_out == set(ROWS)
    assert len(predicted) >= LEAST_PREDICTED


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.row)
def test_each_case_fits_its_devices_and_says_its_source(case: Case) -> None:
    prepare(case.scenario)
    row, text = ROWS[case.row], (FOLDER / f"{case.row}.yaml").read_text(encoding="utf-8")
    assert f"# Source: {row.reference}" in text
    assert case.scenario.workload.concurrency == (row.batch or case.scenario.workload.concurrency)
    assert len(case.scenario.devices) >= row.nodes
    if row.prompt_tokens:
        assert case.scenario.workload.prompt_tokens == row.prompt_tokens
        assert "workload.prompt_tokens" not in case.open
    assert group_of(case, row)


def test_no_row_trains_the_catalogue() -> None:
    """The same chip, model and rate in the fit's samples would be the same measurement."""
    trained = {sample.row_id for sample in clean()[0]}
    values = {
        (model_of(line["model"]), float(line["value"]))
        for line in published_rows()
        if line["row_id"] in trained and line["value"].replace(".", "").isdigit()
    }
    # a rate of two digits is anybody's; one of three and more is this very measurement
    same = {
        case.row
        for case in CASES
        for rate in (ROWS[case.row].decode_tokens_per_s, ROWS[case.row].prefill_tokens_per_s)
        if rate is not None and rate != round(rate) and (model_of(ROWS[case.row].model), rate) in values
    }
    assert same == set()
    assert excluded()["beowulf6-1"] == "trains the catalogue"


@cache
def model_of(name: str) -> str:
    try:
        return model(name).name
    except CatalogError:
        return name


def test_readings_are_all_combinations_with_worlds_of_their_own(tmp_path: Path) -> None:
    found = readings(case(tmp_path))
    said = {(one.devices["ultra"].link.kind, one.workload.prompt_tokens) for one in found}
    assert said == {(kind, n) for kind in ("ethernet_1g", "ethernet_10g") for n in (16, 128, 1024)}
    assert len({one.seed for one in found}) == len(found)
    assert sum(one.replications for one in found) >= found[0].replications * 6 >= 200


def test_what_is_open_widens_the_prediction(tmp_path: Path) -> None:
    shut = case(tmp_path, "workload.prompt_tokens: [16, 128, 1024]", "workload.prompt_tokens: [16]")
    wide = case(tmp_path, "[16, 128, 1024]", "[16, 1024, 65536, 100000]")
    narrow, broad = (
        np.ptp(
            np.quantile(
                np.concatenate([samples_s(s, "decode")["decode"] for s in readings(one)]), [0.05, 0.95]
            )
        )
        for one in (shut, wide)
    )
    assert broad > 1.2 * narrow


def test_a_rate_of_the_whole_holds_the_prompt_too(tmp_path: Path) -> None:
    scenario = case(tmp_path).scenario
    decode, whole, either = (samples_s(scenario, rate)["decode"] for rate in ("decode", "whole", "unknown"))
    assert np.all(whole > 0)
    assert len(either) == len(decode) + len(whole)
    first = samples_s(scenario, "decode")["first token"]
    # eight tokens: the first after the prompt, seven at the decode rate
    assert whole == pytest.approx((first + 7 * decode) / 8)


def test_a_batch_is_counted_whole(tmp_path: Path) -> None:
    """llama.cpp decodes a batch as one stream: four replies give nearly four times the tokens of one."""
    alone = case(tmp_path).scenario
    four = alone.replace(workload=alone.workload.model_copy(update={"concurrency": 4}))
    rates = [np.median(samples_s(scenario, "decode")["decode"]) for scenario in (alone, four)]
    assert 3 < rates[0] / rates[1] < 4.2


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("row: V38-alone", "row: V39", "row is 'V39'; a case is in the file of its row's name"),
        ("[16, 128, 1024]", "[many]", "what is open does not fit"),
    ],
)
def test_bad_cases_are_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(CalibrationError, match=says):
        readings(case(tmp_path, old, new))


def test_a_case_without_a_row_or_a_figure_is_refused(tmp_path: Path) -> None:
    one = case(tmp_path)
    with pytest.raises(CalibrationError, match="no such row"):
        list(predict_cases([one], {}, parts()))
    bare = ROWS["V38-alone"].model_copy(update={"decode_tokens_per_s": None})
    with pytest.raises(CalibrationError, match="no figure that could be predicted"):
        list(predict_cases([one], {"V38-alone": bare}, parts()))


def test_single_rows_of_the_counted_part_cannot_be_asked_for() -> None:
    counted = next(case.row for case in CASES if parts()[ROWS[case.row].source] == "counted")
    with pytest.raises(CalibrationError, match="is only counted"):
        chosen(CASES, [counted], ROWS, parts())
    assert len(chosen(CASES, [], ROWS, parts())) == len(CASES)
