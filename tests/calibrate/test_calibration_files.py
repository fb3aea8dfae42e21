"""From recorded runs of a real cluster to a calibration, to a scenario, to a ledger."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import simulator
from calibrate.applied import apply
from calibrate.calibration import Calibration, calibrate, load_calibration, save_calibration
from calibrate.ledger import append, read_ledger, summary
from calibrate.report import markdown, validation_table, write_report
from calibrate.samples import sample
from calibrate.study import circle, kind_of, run_split, stratified
from calibrate.validation import predict_sessions, validate
from simulator.errors import CalibrationError, MeasurementError
from simulator.prepare import prepare
from simulator.result.measured import measured_summary
from simulator.result.measurement import MeasurementWriter, read_measurement
from simulator.run.predict import predict
from simulator.scenario import EngineSpec, Scenario

DATA = Path(__file__).parents[1] / "data" / "campaign"
TRAINING = ("A_a24", "B_a12b12", "C_a8b8c8", "E_a20b4_b50")


def files(*names: str) -> list[Path]:
    return [DATA / f"{name}.jsonl" for name in names]


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate(files(*TRAINING), draws=60)


def test_a_calibration_names_its_sources_and_survives_a_file(
    calibration: Calibration, tmp_path: Path
) -> None:
    save_calibration(calibration, tmp_path / "c.yaml")
    assert load_calibration(tmp_path / "c.yaml") == calibration
    hashes = {read_measurement(path).sha256 for path in files(*TRAINING)}
    assert {source.sha256 for source in calibration.sources} == hashes
    assert all(calibration.trained_on(one) for one in hashes)
    for parameter in calibration.parameters:
        assert 0 <= parameter.p05 <= parameter.p95
    assert len(calibration.draws) == 60


def test_the_same_files_and_seed_give_the_same_calibration(calibration: Calibration) -> None:
    assert calibrate(files(*TRAINING), draws=60) == calibration


def test_a_layer_costs_what_the_recordings_say(calibration: Calibration) -> None:
    # 24 layers and a head in 54 to 64 ms on one node: 2.2 to 2.7 ms a layer
    assert calibration.value("layer_s/a") == pytest.approx(2.45e-3, rel=0.15)


def test_held_out_recordings_are_inside_their_intervals(calibration: Calibration) -> None:
    for name, worst in (("B_a4b20", 0.15), ("F_a12b12_20ms", 0.15), ("A_b24", 0.3)):
        held_out = sample(read_measurement(DATA / f"{name}.jsonl"))
        scenario = apply(calibration, held_out.scenario.model_copy(update={"replications": 60})).scenario
        outcome = validate(predict_sessions(scenario), held_out)
        assert abs(outcome.median_error) < worst, name


def test_an_imposed_delay_of_20_ms_costs_two_of_them_and_not_one(calibration: Calibration) -> None:
    """The physics, not the fit: no recording with a delay trained."""
    far = sample(read_measurement(DATA / "F_a12b12_20ms.jsonl"))
    near = sample(read_measurement(DATA / "B_a12b12.jsonl"))
    medians = [
        predict_sessions(
            apply(calibration, one.scenario.model_copy(update={"replications": 600})).scenario
        ).median_gap_s[3]
        for one in (far, near)
    ]
    assert medians[0] - medians[1] == pytest.approx(0.0405, abs=0.004)


def test_a_calibrated_scenario_runs_by_itself_and_is_labelled(calibration: Calibration) -> None:
    scenario = sample(read_measurement(DATA / "B_a4b20.jsonl")).scenario.model_copy(
        update={"replications": 20}
    )
    applied = apply(calibration, scenario).scenario
    assert {device.speed.label for device in prepare(applied).job.ring} == {"calibrated"}
    again = Scenario.model_validate(applied.model_dump(mode="json"))
    assert predict(again, with_what_ifs=False).document() == predict(applied, with_what_ifs=False).document()


def test_a_device_that_was_not_calibrated_is_scaled_and_said(calibration: Calibration) -> None:
    asked = sample(read_measurement(DATA / "B_a12b12.jsonl")).scenario
    known = calibration.model_copy(
        update={"catalogue_layer_s": {"a": 0.5 * (calibration.value("layer_s/a") or 1)}}
    )
    devices = {
        **asked.devices,
        "b": asked.devices["b"].model_copy(update={"kind": "Raspberry Pi 5", "speed": None, "memory": 8e9}),
    }
    renamed = {("new" if name == "b" else name): device for name, device in devices.items()}
    placement = asked.placement.model_copy(update={"layers": {"a": 12, "new": 12}})
    scenario = asked.model_copy(update={"devices": renamed, "placement": placement, "wires": ()})
    bare, scaled = (
        apply(calibration.model_copy(update={"catalogue_layer_s": {}}), scenario),
        apply(known, scenario),
    )
    speed, plain = scaled.scenario.devices["new"].speed, bare.scenario.devices["new"].speed
    assert speed is not None
    assert plain is not None
    assert speed.decode_bandwidth == pytest.approx(
        plain.decode_bandwidth / 2
    )  # the engine took twice the catalogue's time
    # the catalogue's doubt about the chip stays, and how evenly the engine meets it is in the draws
    assert speed.decode_spread == plain.decode_spread
    posterior = scaled.scenario.posterior
    assert posterior is not None
    column = posterior.names.index("world/new/decode")
    assert np.std(np.log([draw[column] for draw in posterior.draws])) > 0.3
    assert any("new: not calibrated" in text for text in scaled.warnings)


def test_another_engine_is_refused(calibration: Calibration) -> None:
    scenario = sample(read_measurement(DATA / "A_a24.jsonl")).scenario
    other = scenario.model_copy(update={"engine": scenario.engine.model_copy(update={"name": "exo-legacy"})})
    with pytest.raises(CalibrationError, match="engine exo, the scenario runs exo-legacy"):
        apply(calibration, other)


def test_extrapolation_is_said(calibration: Calibration) -> None:
    many = sample(read_measurement(DATA / "H_a24_c4.jsonl")).scenario
    assert any("several chats" in text for text in apply(calibration, many).warnings)
    longer = many.model_copy(
        update={"workload": many.workload.model_copy(update={"prompt_tokens": 3000, "concurrency": 1})}
    )
    assert any("contexts up to" in text for text in apply(calibration, longer).warnings)


def test_a_measurement_that_trained_cannot_validate(calibration: Calibration) -> None:
    trained = sample(read_measurement(DATA / "A_a24.jsonl"))
    prediction = predict_sessions(
        apply(calibration, trained.scenario.model_copy(update={"replications": 20})).scenario,
        trained_on=tuple(source.sha256 for source in calibration.sources),
    )
    with pytest.raises(CalibrationError, match="cannot validate it"):
        validate(prediction, trained)


def test_the_ledger_keeps_everything_and_refuses_tampering(tmp_path: Path) -> None:
    split = run_split(
        "half", [sample(read_measurement(path)) for path in sorted(DATA.glob("*.jsonl"))], TRAINING, draws=40
    )
    ledger = tmp_path / "ledger.jsonl"
    held_out = sample(read_measurement(DATA / "A_b24.jsonl"))
    prediction = predict_sessions(held_out.scenario.model_copy(update={"replications": 20}))
    append(ledger, prediction, *split.validations)
    found = read_ledger(ledger)
    assert (found.validations, found.predictions, found.faults) == (split.validations, (prediction,), ())
    figures = summary(split.validations)
    assert figures["n"] == 4
    assert figures["worst"] >= figures["median_error_p90"] >= figures["median_error"] > 0
    assert all(
        row.measurement in markdown("t", [], split.validations, [row.measurement])
        for row in split.validations
    )
    # one line made better than it was, and the last one cut off: both are told, the others stand
    text = (
        ledger.read_text()
        .replace('"in_90":false', '"in_90":true', 1)
        .replace('"held_out":true', '"held_out":false', 1)
    )
    ledger.write_text(text[:-40])
    found = read_ledger(ledger)
    assert len(found.entries) == 3
    assert [fault.partition(" ")[0].rpartition("/")[2] for fault in found.faults] == [
        "ledger.jsonl:2:",
        "ledger.jsonl:5:",
    ]
    assert "checksum" in found.faults[0]
    assert "cut off" in found.faults[1]
    append(ledger, split.validations[-1])
    assert len(read_ledger(ledger).entries) == 4


def test_a_report_is_written_whole_with_its_pictures(tmp_path: Path) -> None:
    split = run_split(
        "half", [sample(read_measurement(path)) for path in sorted(DATA.glob("*.jsonl"))], TRAINING, draws=40
    )
    write_report(tmp_path, "Title", ["Introduction."], split.validations)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"report.md", "report.html", "coverage.svg", "coverage.png", "predicted_measured.svg"} <= names
    assert "<svg" in (tmp_path / "report.html").read_text()


def test_a_report_shows_html_in_names_as_text(tmp_path: Path) -> None:
    """Names of measurements come from files that others wrote; the page may run and fetch nothing of theirs."""
    split = run_split(
        "half", [sample(read_measurement(path)) for path in sorted(DATA.glob("*.jsonl"))], TRAINING, draws=40
    )
    evil = "<script>alert(1)</script>"
    named = [row.model_copy(update={"measurement": evil}) for row in split.validations]
    write_report(tmp_path, evil, [], named, validation_table(named))
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "default-src 'none'" in page
    assert page.count("<svg") == 3


def test_kinds_say_what_is_new() -> None:
    scenarios = {path.stem: sample(read_measurement(path)).scenario for path in DATA.glob("*.jsonl")}
    trained = [scenarios[name] for name in ("A_a24", "B_a12b12")]
    assert kind_of(scenarios["A_a24"], trained) == "repeat"
    assert kind_of(scenarios["B_a4b20"], trained) == "new split"
    assert kind_of(scenarios["C_a8b8c8"], trained) == "new device"
    assert kind_of(scenarios["F_a12b12_20ms"], trained) == "new link"
    assert kind_of(scenarios["E_a20b4_b50"], trained) == "slower device"
    assert kind_of(scenarios["H_a24_c4"], trained) == "several chats"


def test_a_strategy_that_was_not_trained_is_what_is_new() -> None:
    """Tensor on the devices, links and layers that a pipeline trained: neither a new link nor a new split."""
    pipeline = simulator.load("uneven_pair").model_copy(update={"engine": EngineSpec(name="exo")})
    tensor = simulator.load("uneven_pair")
    assert kind_of(tensor, [pipeline]) == "new strategy"
    assert kind_of(tensor, [pipeline, tensor]) == "repeat"


def test_strata_take_half_and_the_same_half_again() -> None:
    samples = [sample(read_measurement(path)) for path in sorted(DATA.glob("*.jsonl"))]
    groups = [one.name[0] for one in samples]
    assert stratified(samples, groups, 3) == stratified(samples, groups, 3)
    assert len(stratified(samples, groups, 3)) <= len(samples) // 2


def test_a_circle_writes_predictions_before_it_measures(tmp_path: Path) -> None:
    """The measuring is replayed: the recorded files stand in for a cluster."""
    scenarios = {path.stem: sample(read_measurement(path)).scenario for path in DATA.glob("*.jsonl")}
    in_ledger: list[int] = []

    def measure(asked: list[Scenario], folder: Path) -> list[Path]:
        ledger = tmp_path / "ledger.jsonl"
        in_ledger.append(len(ledger.read_text().splitlines()) if ledger.exists() else 0)
        folder.mkdir(parents=True, exist_ok=True)
        made = []
        for scenario in asked:  # a repeat is another file than its training run, as a real repeat would be
            text = (
                (DATA / f"{scenario.name}.jsonl").read_text()
                + json.dumps({"type": "warning", "text": folder.name})
                + "\n"
            )
            made.append(folder / f"{scenario.name}.jsonl")
            made[-1].write_text(text)
        return made

    made = circle(
        [scenarios["A_a24"], scenarios["B_a12b12"]], [scenarios["B_a4b20"]], measure, tmp_path, draws=40
    )
    assert in_ledger == [0, 3]
    assert [row.kind for row in made.validations] == ["new split"]
    assert [row.kind for row in made.repeats] == ["repeat", "repeat"]
    assert [row.measurement for row in made.interleaved.validations] == ["B_a4b20"]
    kept = read_ledger(tmp_path / "ledger.jsonl")
    assert len(kept.predictions) == len(kept.validations) == 3
    kept = sorted(path.name for path in (tmp_path / "held_out").iterdir())
    assert kept == ["A_a24.jsonl.gz", "B_a12b12.jsonl.gz", "B_a4b20.jsonl.gz"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], None),
        (lambda text: text.replace('"type":"header"', '"type":"other"', 1), "no header"),
        (lambda text: text.replace('"format":1', '"format":99', 1), "header: format"),
        (lambda text: "{}\n" + text, "no header"),
        (lambda text: text.replace('"device":"a"', '"device":"z"', 1), "z held layers and is no device"),
        (lambda text: text.replace('"layers":24,', '"layers":"many",', 1), "cannot be used"),
        (lambda text: "", "no header"),
        (
            lambda text: "\n".join(line for line in text.splitlines() if '"type":"token"' not in line) + "\n",
            "no run with",
        ),
    ],
)
def test_broken_measurements_are_refused_or_used_as_far_as_they_go(tmp_path: Path, change, message) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(change((DATA / "A_a24.jsonl").read_text()))
    if message is None:  # cut off in the middle: what is there counts, and it is said
        assert any("interrupted" in text for text in sample(read_measurement(path)).warnings)
        return
    with pytest.raises(MeasurementError, match=message):
        sample(read_measurement(path))
    with pytest.raises(MeasurementError, match="no usable measurement"):
        calibrate([path])


@pytest.mark.parametrize(("by_s", "said"), [(-1, "backward"), (3600, "did the client sleep")])
def test_a_clock_that_jumps_costs_its_chat_only(tmp_path: Path, by_s: int, said: str) -> None:
    events = [json.loads(line) for line in (DATA / "A_a24.jsonl").read_text().splitlines()]
    for event in events:
        # back: one stamp between others; on: all that follow
        later = event.get("token", 0) >= 50 if by_s > 0 else event.get("token") == 50
        if event["type"] == "token" and event["run"] == 1 and later:
            event["t_ns"] += by_s * 10**9
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    spoilt = sample(read_measurement(path))
    assert len(spoilt.runs) == 2
    assert any(said in text for text in spoilt.warnings)
    assert measured_summary(read_measurement(path)).runs == 2


def test_an_interrupted_writer_leaves_what_it_had(tmp_path: Path) -> None:
    provenance = read_measurement(DATA / "A_a24.jsonl").provenance
    path = tmp_path / "m.jsonl"

    def write() -> None:
        with MeasurementWriter(path, provenance) as out:
            out.write("token", run=0, chat=0, token=0, t_ns=5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    found = read_measurement(path)
    assert not found.complete
    assert found.token_times_s()[0, 0].tolist() == [5e-9]
    with pytest.raises(MeasurementError, match="never overwritten"):
        MeasurementWriter(path, provenance)


def test_a_run_that_lost_a_device_calibrates_nothing(tmp_path: Path) -> None:
    lines = (DATA / "A_a24.jsonl").read_text().splitlines()
    runs = {json.loads(line).get("run") for line in lines} - {None}
    phase = {"type": "phase", "phase": "detect", "device": "b", "start_ns": 1, "end_ns": 2}
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join([*lines, json.dumps(phase | {"run": 0})]) + "\n")
    found, whole = sample(read_measurement(path)), sample(read_measurement(DATA / "A_a24.jsonl"))
    assert len(found.runs) == len(whole.runs) - 1
    assert any("run 0: a device was lost" in text for text in found.warnings)
    path.write_text("\n".join([*lines, *(json.dumps(phase | {"run": run}) for run in runs)]) + "\n")
    with pytest.raises(MeasurementError, match="every run lost a device"):
        sample(read_measurement(path))
