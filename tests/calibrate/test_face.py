"""The public face of `calibrate`: the whole way in a few lines, and nothing heavy loaded before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import calibrate
import simulator

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data" / "campaign"


def test_a_notebook_goes_the_whole_way(tmp_path: Path) -> None:
    fitted = calibrate.calibrate([DATA / "A_a24.jsonl", DATA / "B_a12b12.jsonl"], draws=20)
    measured = calibrate.sample(simulator.read_measurement(DATA / "B_a4b20.jsonl"))
    scenario = measured.scenario.model_copy(update={"replications": 20})
    said = calibrate.predict_sessions(calibrate.apply(fitted, scenario).scenario)
    outcome = calibrate.validate(said, measured)
    calibrate.append(tmp_path / "ledger.jsonl", said, outcome)
    assert calibrate.read_ledger(tmp_path / "ledger.jsonl").entries == (said, outcome)
    assert calibrate.summary([outcome])["n"] == 1


def test_every_name_is_there_and_once() -> None:
    listed = [name for names in calibrate._HOMES.values() for name in names]
    assert sorted(listed) == calibrate.__all__
    assert set(calibrate.__all__) <= set(dir(calibrate))
    typed = {
        alias.name
        for node in ast.walk(ast.parse(Path(calibrate.__file__).read_text()))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("calibrate.")
        for alias in node.names
    }
    assert typed == set(calibrate.__all__)
    # no module of the same name, which an import of it would put in a function's place
    assert not {path.stem for path in (ROOT / "calibrate").iterdir()} & set(calibrate.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'recalibrate'"):
        _ = calibrate.recalibrate


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, calibrate; print(sorted({'scipy', 'numpy', 'simpy', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
