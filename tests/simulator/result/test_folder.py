"""A results folder is whole, repeatable, self-sufficient, and never half of two runs."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from simulator.errors import SimulatorError
from simulator.files import load
from simulator.result.folder import ALWAYS, OUR_FILES, folder_files, replace_files, write_folder
from simulator.result.trace import COLUMNS, trace_bytes
from simulator.run.predict import predict
from simulator.runtime.record import Recorder, Span
from simulator.scenario import Scenario


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def files(prediction):
    return folder_files(prediction, with_charts=True, with_perfetto=True)


@pytest.fixture(scope="module")
def trace(files):
    return parquet.read_table(io.BytesIO(files["trace.parquet"]))


def test_all_that_is_asked_for_is_written_and_nothing_else(prediction, files, tmp_path):
    write_folder(prediction, tmp_path / "new" / "small", with_charts=True, with_perfetto=True)
    assert content(tmp_path / "new" / "small") == files
    assert set(files) == set(OUR_FILES)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["small"]


def test_same_prediction_same_bytes(prediction, files):
    assert folder_files(prediction, with_charts=True, with_perfetto=True) == files


def test_the_scenario_in_the_folder_gives_the_same_folder(files, tmp_path):
    (tmp_path / "scenario.yaml").write_bytes(files["scenario.yaml"])
    again = predict(load(tmp_path / "scenario.yaml", Scenario), with_what_ifs=False)
    assert folder_files(again, with_charts=False, with_perfetto=False) == {
        name: files[name] for name in ALWAYS
    }


def test_the_scenario_opens_with_its_question(files):
    assert files["scenario.yaml"].decode().splitlines()[0] == "# Which of <three> is slow?"


def test_the_summary_is_the_document(prediction, files):
    assert json.loads(files["summary.json"]) == prediction.document()


def test_the_trace_holds_every_token_of_every_run(prediction, trace):
    tokens = trace.filter(np.array(trace["kind"]) == "token")
    assert trace.schema.names == list(COLUMNS)
    times = np.array(tokens["time_s"]).reshape(12, 3, 24)
    for row in (0, 4, 35):
        np.testing.assert_allclose(times[row // 3, row % 3], prediction.times_s[0, :, row], atol=1e-9)
    np.testing.assert_array_equal(np.array(tokens["replication"]).reshape(12, -1)[:, 0], range(12))
    np.testing.assert_array_equal(np.array(tokens["run"]).reshape(12, 3, 24)[5, :, 0], range(3))
    np.testing.assert_array_equal(np.array(tokens["token"])[:24], range(24))


def test_causes_in_the_trace_lead_from_a_token_back_to_the_request(prediction, trace):
    rows = trace.to_pylist()
    spans = [row for row in rows if row["kind"] != "token"]
    last = rows[24 * prediction.replayed_row + 23]
    index, end_s, length_s = last["cause"], last["time_s"], 0.0
    while index >= 0:
        assert spans[index]["time_s"] == pytest.approx(end_s, abs=1e-8)
        end_s = spans[index]["start_s"]
        length_s += spans[index]["time_s"] - end_s
        index = spans[index]["cause"]
    assert length_s == pytest.approx(prediction.times_s[0, 23, prediction.replayed_row], abs=1e-6)
    with_causes = [number // 24 for number, row in enumerate(rows[: 12 * 3 * 24]) if row["cause"] is not None]
    assert with_causes == [prediction.replayed_row] * 24


def test_a_trace_of_several_chats_by_hand():
    times = np.arange(2 * 2 * 2, dtype=float).reshape(2, 2, 2)
    recorder = Recorder(True, [Span("compute", "a", 0, 0.0, 4.0, -1)], [(1, 0, 4.0, 0)])
    rows = parquet.read_table(io.BytesIO(trace_bytes(times, 2, recorder, {"seed": "1"}))).to_pylist()
    assert [(row["run"], row["chat"], row["token"], row["time_s"], row["cause"]) for row in rows[:4]] == [
        (0, 0, 0, 0.0, None),
        (0, 0, 1, 2.0, None),
        (0, 1, 0, 4.0, 0),
        (0, 1, 1, 6.0, None),
    ]
    assert rows[8] == {
        "kind": "compute",
        "replication": 0,
        "run": 0,
        "chat": None,
        "token": None,
        "time_s": 4.0,
        "start_s": 0.0,
        "where": "a",
        "step": 0,
        "cause": -1,
    }


def test_a_second_run_replaces_our_files_and_no_other(prediction, tmp_path):
    folder = tmp_path / "small"
    write_folder(prediction, folder, with_charts=True, with_perfetto=True)
    (folder / "notes.md").write_text("mine")
    (folder / "charts" / "my.png").write_bytes(b"mine")
    write_folder(replace(prediction, warnings=("new",)), folder, with_charts=False, with_perfetto=False)
    assert set(content(folder)) == {*ALWAYS, "notes.md", "charts/my.png"}
    assert json.loads((folder / "summary.json").read_text())["warnings"] == ["new"]


def test_charts_leave_no_empty_folder_behind(prediction, tmp_path):
    for with_charts in (True, False):
        write_folder(prediction, tmp_path / "small", with_charts=with_charts, with_perfetto=False)
    assert {path.name for path in (tmp_path / "small").iterdir()} == set(ALWAYS)


OLD = {name: b"old " + name.encode() for name in (*ALWAYS, "charts.html", "charts/bench.svg")}
NEW = {name: b"new " + name.encode() for name in (*ALWAYS, "perfetto.json", "charts.html")}


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("step", range(10))
def test_an_interrupted_run_leaves_the_old_folder(tmp_path, monkeypatch, step, before):
    """Ctrl-C at each rename, before or after it took effect, where the system cannot exchange folders."""
    monkeypatch.setattr("simulator.files.swap.exchanged", lambda *_: False)
    folder, steps, rename = tmp_path / "small", count(), Path.rename
    replace_files(folder, OLD)
    (folder / "notes.md").write_text("mine")

    def interrupted(source: Path, target: Path) -> Path:
        is_now = next(steps) == step
        if is_now and before:
            raise KeyboardInterrupt
        moved = rename(source, target)
        if is_now:
            raise KeyboardInterrupt
        return moved

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace_files(folder, NEW)
    assert content(folder) == OLD | {"notes.md": b"mine"}
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_full_disk_leaves_the_old_folder_and_says_so(tmp_path, monkeypatch):
    folder = tmp_path / "small"
    replace_files(folder, OLD)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SimulatorError, match=r"No space left on device\); name a folder"):
        replace_files(folder, NEW)
    assert content(folder) == OLD
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_persons_own_scenario_is_never_replaced(tmp_path):
    (tmp_path / "scenario.yaml").write_text("# mine")
    with pytest.raises(SimulatorError, match=r"its scenario.yaml would be replaced"):
        replace_files(tmp_path, NEW)
    assert content(tmp_path) == {"scenario.yaml": b"# mine"}


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "small").write_text("mine")
    with pytest.raises(SimulatorError, match="cannot be written"):
        replace_files(tmp_path / "small", NEW)
    assert content(tmp_path) == {"small": b"mine"}


def test_what_is_not_drawn_is_not_imported():
    """Altair alone costs a third of a second, which `sim run --json` must not pay."""
    code = (
        "import sys; import simulator.run.predict, simulator.result.folder; "
        "print([name for name in ('altair', 'vl_convert', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
