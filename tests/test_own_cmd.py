"""`--catalog` and `sim catalog add` on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from calibrate.calibration import calibrate, save_calibration
from calibrate.samples import sample
from sim.main import main
from simulator.files import dump, load
from simulator.own import UserCatalog, default_file
from simulator.result.measurement import read_measurement

DATA = Path(__file__).parent / "data" / "campaign"

SCENARIO = """\
name: mine
model: Llama-3.1-8B
devices:
  box: {memory: 64 GB, speed: {decode_bandwidth: 200 GB/s, prefill_flops: 20 TFLOPS, label: measured},
      link: {kind: ethernet_1g}}
  mini: {kind: Mac mini M4}
replications: 5
"""


@pytest.fixture
def sim(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Run the command line in a folder with a scenario, with settings of this test alone."""
    (tmp_path / "mine.yaml").write_text(SCENARIO)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sim", *args])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_a_device_of_a_scenario_becomes_an_entry_and_a_kind(sim: Any, tmp_path: Path) -> None:
    code, out, _ = sim("catalog", "add", "mine.yaml")
    assert (code, out.split(";")[0]) == (0, f"wrote box to {default_file()}")
    assert load(default_file(), UserCatalog).devices["box"].speed.decode_bandwidth == 200e9
    (tmp_path / "other.yaml").write_text(
        "name: other\nmodel: Llama-3.1-8B\ndevices: {x: {kind: box, link: {kind: wifi6}}}\nreplications: 5\n"
    )
    code, out, _ = sim("run", "other.yaml", "--json")
    assert (code, json.loads(out)["scenario"]) == (0, "other")
    code, out, _ = sim("catalog", "devices", "--search", "yours")
    assert (code, "box" in out, "yours" in out, "RTX" in out) == (0, True, True, False)
    code, out, _ = sim("catalog", "devices", "--json")
    assert json.loads(out)[0]["confidence"] == "yours"


def test_a_further_entry_leaves_the_file_as_it_is_otherwise(sim: Any, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        "# kept\nlinks: {l: {kind: wifi6}}\ndevices: # mine\n    old: {kind: Mac mini M4} # why\n"
    )
    assert sim("catalog", "add", "mine.yaml", "-o", "own.yaml")[0] == 0
    text = file.read_text()
    assert text.startswith("# kept\nlinks: {l: {kind: wifi6}}\ndevices: # mine\n    box:\n")
    assert text.endswith("    old: {kind: Mac mini M4} # why\n")
    assert set(load(file, UserCatalog).devices) == {"box", "old"}
    code, _, err = sim("catalog", "add", "mine.yaml", "-o", "own.yaml")
    assert (code, "has a device 'box' already" in " ".join(err.replace("│", "").split())) == (2, True)
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("args", "words"),
    [(("--device", "mini"), "mini: no device with a speed"), (("--device", "zzz"), "there are box")],
)
def test_a_device_without_a_speed_is_refused_with_the_way_out(sim: Any, args: Any, words: str) -> None:
    code, _, err = sim("catalog", "add", "mine.yaml", *args)
    assert (code, words in " ".join(err.replace("│", "").split())) == (2, True)
    assert not default_file().exists()


def test_a_calibration_becomes_an_entry(sim: Any, tmp_path: Path) -> None:
    """With its scenario, or alone where the scenario named kinds of the catalogue."""
    fitted = calibrate([DATA / f"{name}.jsonl" for name in ("A_a24", "B_a12b12")], draws=40)
    save_calibration(fitted, tmp_path / "fitted.yaml")
    kinds = dict.fromkeys(fitted.kinds, "Mac mini M4")
    save_calibration(fitted.model_copy(update={"kinds": kinds}), tmp_path / "of_kinds.yaml")
    dump(sample(read_measurement(DATA / "B_a12b12.jsonl")).scenario, tmp_path / "measured.yaml")
    for args in (("measured.yaml", "--calibration", "fitted.yaml"), ("--calibration", "of_kinds.yaml")):
        out = tmp_path / f"{len(args)}.yaml"
        assert sim("catalog", "add", *args, "-o", str(out))[0] == 0
        devices = load(out, UserCatalog).devices
        assert set(devices) == set(kinds)
        for name, spec in devices.items():
            per_layer_s = fitted.value(f"layer_s/{name}")
            assert spec.speed is not None
            assert per_layer_s is not None
            assert spec.speed.decode_bandwidth == pytest.approx(fitted.layer_bytes / per_layer_s)
            assert spec.speed.label == "calibrated"
            assert 0 < spec.speed.decode_spread < 0.5
    code, _, err = sim("catalog", "add", "--calibration", "fitted.yaml")
    assert (code, "give the scenario that was measured too" in " ".join(err.replace("│", "").split())) == (
        2,
        True,
    )


def test_a_catalogue_may_be_named_anywhere_in_the_line(sim: Any, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("devices: {first: {kind: Mac mini M4}}\n")
    (tmp_path / "b.yaml").write_text("devices: {second: {kind: Mac mini M4 Pro}}\n")
    for line in (
        ("--catalog", "a.yaml", "catalog", "devices", "--json", "-s", "yours", "--catalog=b.yaml"),
        ("catalog", "devices", "--catalog", "a.yaml", "--catalog", "b.yaml", "--json", "-s", "yours"),
    ):
        code, out, _ = sim(*line)
        assert (code, [entry["name"] for entry in json.loads(out)]) == (0, ["first", "second"])


def test_a_catalogue_that_is_not_there_is_one_message(sim: Any) -> None:
    code, out, err = sim("run", "mine.yaml", "--catalog", "nowhere.yaml")
    assert (code, out) == (2, "")
    assert err.startswith("error: nowhere.yaml: there is no such file")


def test_a_benchmark_becomes_an_entry(sim: Any) -> None:
    result = DATA.parent / "benchmarks" / "llama-bench.json"
    code, out, err = sim("catalog", "add", "--benchmark", str(result), "--device", "studio")
    assert code == 0
    assert "wrote studio to" in out
    entry = load(default_file(), UserCatalog).devices["studio"]
    assert (entry.kind, entry.speed and entry.speed.label) == ("Mac Studio M3 Ultra", "measured")
    assert "prefill_flops is the catalogue's" in err


def test_a_foreign_file_is_no_benchmark(sim: Any) -> None:
    code, _, err = sim("catalog", "add", "--benchmark", "mine.yaml", "--device", "studio")
    assert code == 2
    assert "mine.yaml: is nothing that can be read here" in err
