"""Child processes are ours, whatever lies in the folder where the command was given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import live
from live.local.children import Child, module_command, module_environment

FOREIGN = "raise SystemExit('a folder of the user was run in place of the package')\n"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with packages that are called as ours are."""
    for name in ("live", "live/local", "simulator", "numpy"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text(FOREIGN)
    for name in ("guard", "relay", "weights"):
        (tmp_path / f"live/local/{name}.py").write_text(FOREIGN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_child_is_the_package_whatever_the_working_directory_holds(elsewhere: Path) -> None:
    child = Child("guard", "live.local.guard")
    try:
        assert child.ask("keep", "noted", timeout_s=60.0, pids=[], folders=[]) == {"event": "noted"}
    finally:
        child.end()


def test_a_child_imports_what_its_parent_imports(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing is installed, and the parent found the package in the folder of the clone."""
    others = [entry for entry in sys.path if entry and not (Path(entry) / "live").exists()]
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sys, "path", ["", *others])
    command = [*module_command("timeit")[:2], "-c", "import live; print(live.__file__)"]
    done = subprocess.run(command, env=module_environment(), capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == Path(live.__file__)
