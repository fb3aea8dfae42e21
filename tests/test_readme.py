"""README: its commands are those that CI runs, what it names is there, and its figures are the computed ones."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import readme_figures

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ENVIRONMENT = "python3 -m venv .venv && . .venv/bin/activate && pip install -c constraints.txt "


def test_its_two_commands_make_the_environment_themselves() -> None:
    """Debian's and Homebrew's pip install nowhere else (PEP 668)."""
    commands = [line for line in README.splitlines() if "pip install" in line and line.startswith("python3")]
    assert [command.startswith(ENVIRONMENT) for command in commands] == [True, True]
    first, second = (command.removeprefix(ENVIRONMENT) for command in commands)
    assert first == ". && sim run five_devices"
    assert second == "-e '.[test]' && scripts/check"
    assert ".venv/" in (ROOT / ".gitignore").read_text().splitlines()


def test_ci_takes_the_second_command_out_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (search,) = re.findall(r"command=\$\((grep .*)\)", script)
    done = subprocess.run(["sh", "-c", search], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"{ENVIRONMENT}-e '.[test]' && scripts/check\n"


def test_every_file_and_scenario_it_names_is_there() -> None:
    files = re.findall(r"`((?:docs|scripts|simulator|scenarios|results)/[\w./]+)`", README)
    tracked = [name for name in files if not name.startswith("results/<")]
    assert [name for name in tracked if not (ROOT / name).exists()] == []
    rows = re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)
    assert len(rows) >= 8
    assert [name for name in rows if not (ROOT / "scenarios" / f"{name}.yaml").is_file()] == []


def test_the_notebook_lines_run(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert "tokens/s" in capsys.readouterr().out


def test_its_figures_are_those_that_were_computed() -> None:
    """If this fails: `python scripts/readme_figures.py`, then read the sentences around what it changed."""
    assert readme_figures.check() == []


def test_a_stale_figure_and_a_reworded_sentence_are_named_and_mended() -> None:
    known = {name: "7" for phrase in readme_figures.PHRASES for name in re.findall(r"\{([\w.]+)\}", phrase)}
    complaints = readme_figures.stale(README, known)
    assert any(line.startswith("plan.mixes: README says ") for line in complaints)
    assert not any("no longer says" in line for line in complaints)
    assert readme_figures.stale(readme_figures.renewed(README, known), known) == []
    reworded = README.replace("The best of", "The very best of")
    assert any("no longer says" in line for line in readme_figures.stale(reworded, known))


def test_the_check_is_quick_and_ends_in_words() -> None:
    script = [sys.executable, "scripts/readme_figures.py", "--check"]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("sentences of README hold\n")
