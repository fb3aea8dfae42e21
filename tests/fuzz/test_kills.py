"""Writers that are killed, and disks that are full; `python -m tests.fuzz.kills` takes more of both."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from simulator.errors import MeasurementError
from simulator.files import Appender, json_lines
from simulator.files.swap import replace_in
from tests.fuzz.kills import FULL, KILLED, OURS, killed, killed_at

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills children of its own")


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork beside threads of other tests
@pytest.mark.parametrize("name", KILLED)
def test_what_was_promised_outlives_a_kill_and_a_full_disk(name: str, tmp_path: Path) -> None:
    rng = random.Random(1)
    for part in ("killed", "full"):
        (tmp_path / part).mkdir()
    assert list(killed(name, tmp_path / "killed", rng, 6)) == []
    assert FULL(name, tmp_path / "full", rng) == ""


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("exchanging", [True, False])
@pytest.mark.parametrize("before", [True, False])
def test_a_kill_at_any_rename_leaves_all_old_or_all_new(
    tmp_path: Path, before: bool, exchanging: bool
) -> None:
    for step in range(2 if exchanging else 11):
        folder = tmp_path / str(step)
        folder.mkdir()
        assert killed_at(folder, step, before=before, exchanging=exchanging) == ""


def test_a_line_that_was_cut_off_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with Appender(path) as file:
        file.append({"a": 1}, {"a": 2})
    path.write_bytes(path.read_bytes()[:-9])
    with Appender(path) as file:
        file.append({"a": 3})
    first, second, third = json_lines(path)
    assert (first, third) == ((1, {"a": 1}), (3, {"a": 3}))
    assert str(second[1]).endswith("left out")


def test_what_json_cannot_say_is_written_as_what_it_can(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with Appender(path) as file:
        file.append(
            {"n": float("nan"), "deep": [{"i": float("inf")}], "half": "a\ud83d", "whole": "\U0001f600"}
        )
    assert list(json_lines(path)) == [
        (1, {"n": None, "deep": [{"i": None}], "half": "a\ufffd", "whole": "\U0001f600"})
    ]
    # an older reader finds one key more
    assert "crc32" in json.loads(path.read_bytes())


def test_a_failed_append_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "l.jsonl"
    with Appender(path) as file:
        file.append({"a": 1})
        before, write, room = path.read_bytes(), os.write, iter((5, 0))

        def full(opened: int, data: memoryview) -> int:
            if (most := next(room)) == 0:
                raise OSError(28, "No space left on device")
            return write(opened, data[:most])

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(
                MeasurementError, match=r"l\.jsonl: cannot be written \(No space left on device\)"
            ):
                file.append({"a": 2})
        assert path.read_bytes() == before
        file.append({"a": 3})
    assert [found for _, found in json_lines(path)] == [{"a": 1}, {"a": 3}]


def test_what_is_not_ours_goes_along(tmp_path: Path) -> None:
    run = tmp_path / "run"
    replace_in(run, OURS, dict.fromkeys(OURS, b"1"))
    (run / "mine").mkdir()
    (run / "mine" / "empty").mkdir()
    (run / "charts" / "mine.svg").write_text("mine")
    (run / "link").symlink_to("charts/mine.svg")
    inode = (run / "charts" / "mine.svg").stat().st_ino
    replace_in(run, OURS, dict.fromkeys(OURS[:3], b"2"))
    assert sorted(str(path.relative_to(run)) for path in run.rglob("*")) == sorted(
        [*OURS[:3], "charts", "charts/mine.svg", "link", "mine", "mine/empty"]
    )
    assert (run / "charts" / "mine.svg").stat().st_ino == inode
    assert (run / "link").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
