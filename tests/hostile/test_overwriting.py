"""Whatever is written: a file that we did not write, or that was edited since, is kept unless `--force` is said."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sim.main import main
from simulator.files.ours import MARKS, keeping_others, mark, refuse_others
from tests.test_cli import SMALL

Run = Callable[..., tuple[int, str]]
KEPT = "sim did not write it, or it was edited since; it is kept"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in an empty folder with a small scenario; exit code and standard error."""
    (tmp_path / "small.yaml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["sim", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), capsys.readouterr().err

    return command


FILES = {
    "place": (("place", "small.yaml", "--replications", "2", "--out", "made"), "made"),
    "predict": (("predict", "small.yaml", "--replications", "2", "-o", "made"), "made"),
    "run": (
        ("run", "small.yaml", "--replications", "2", "--no-charts", "--out", "made"),
        "made/scenario.yaml",
    ),
    "run, a binary file": (
        ("run", "small.yaml", "--replications", "2", "--no-charts", "--out", "made"),
        "made/trace.parquet",
    ),
    "sensitivity": (
        ("sensitivity", "small.yaml", "--points", "2", "--no-charts", "--out", "made"),
        "made/sensitivity.json",
    ),
    "design": (("live", "design", "small.yaml", "--runs", "1", "-o", "made"), "made/small_01.yaml"),
}


@pytest.mark.parametrize(("words", "name"), FILES.values(), ids=FILES)
def test_what_was_edited_is_kept_and_what_was_not_is_replaced(
    run: Run, words: tuple[str, ...], name: str
) -> None:
    file = Path(name)
    assert run(*words)[0] == 0
    assert run(*words)[0] == 0
    edited = file.read_bytes() + b"\n# mine\n"
    file.write_bytes(edited)
    code, err = run(*words)
    assert (code, KEPT in err, "--force" in err) == (2, True, True)
    assert file.read_bytes() == edited
    assert run(*words, "--force")[0] == 0
    assert file.read_bytes() != edited
    assert run(*words)[0] == 0


def test_a_file_of_somebody_else_is_kept_before_anything_is_computed(run: Run) -> None:
    """Calibrations too: their measurements are not even read."""
    for words in (("place", "absent"), ("place", "small.yaml", "--out"), ("calibrate", "absent.jsonl", "-o")):
        code, err = run(*words, *(["small.yaml"] if words[-1].startswith("-") else []))
        assert code == 2
        assert (KEPT in err) == (words[-1] != "absent")
    assert Path("small.yaml").read_text() == SMALL


def test_a_scenario_of_a_running_cluster_goes_the_same_way() -> None:
    from sim import live_exo_cmd
    from simulator.files import dump, write

    assert live_exo_cmd.dump is dump
    assert "write_ours" in dump.__code__.co_names
    assert write.write_ours is not None


def test_only_the_command_line_keeps(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"theirs")
    refuse_others(tmp_path, {"a": b"ours"})
    mark(tmp_path, {"a": b"theirs"})
    assert not (tmp_path / MARKS).exists()
    with keeping_others():
        refuse_others(tmp_path, {"a": b"theirs", "absent": None, "a/b": None})
        with pytest.raises(Exception, match=KEPT):
            refuse_others(tmp_path, {"a": b"ours"})
        mark(tmp_path, {"a": b"theirs"})
        mark(tmp_path, {"a": b"theirs"})
        refuse_others(tmp_path, {"a": b"ours"})
    digest, name = (tmp_path / MARKS).read_text().split()
    assert (len(digest), name) == (64, "a")
