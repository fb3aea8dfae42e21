"""The public face: every promised name, where it comes from, and how a name of a scenario becomes a file."""

from __future__ import annotations

import ast
import doctest
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import live
import simulator
from sim.main import main
from simulator.errors import ScenarioError, SimulatorError
from simulator.library import find_folder, find_scenario

ROOT = Path(__file__).parents[1]
PACKAGED = ROOT / "scenarios"


@pytest.mark.parametrize("package", [simulator, live], ids=lambda package: package.__name__)
def test_every_promised_name_is_there_and_documented(package: ModuleType) -> None:
    """The list of names, where they live, and what type checkers read say the same."""
    assert sorted(name for names in package._HOMES.values() for name in names) == sorted(package.__all__)
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    imported = {
        node.module: {alias.name for alias in node.names}
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
    }
    assert imported == {home: set(names) for home, names in package._HOMES.items()}
    for name in package.__all__:
        found = getattr(package, name)
        assert name in dir(package)
        assert isinstance(found, str) or found.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018
    assert (Path(str(package.__file__)).parent / "py.typed").is_file()


def test_the_docstring_of_live_is_one_that_runs() -> None:
    """`simulator` is in pytest's testpaths; `live` is not."""
    assert doctest.testmod(live).failed == 0


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, simulator, live, calibrate\n"
        "assert not {'numpy', 'pydantic', 'httpx', 'altair'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_chart_is_refused_with_those_there_are() -> None:
    prediction: Any = None  # never looked at
    with pytest.raises(SimulatorError, match=r"no chart 'memoy', did you mean 'memory'\?; there are bench, "):
        simulator.chart(prediction, "memoy")


def test_a_file_wins_over_scenarios_here_and_those_over_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_scenario("five_devices") == PACKAGED / "five_devices.yaml"
    assert find_scenario("scenarios/five_devices.yaml") == PACKAGED / "five_devices.yaml"
    assert find_scenario("local/four_even") == PACKAGED / "local" / "four_even.yaml"
    (tmp_path / "scenarios").mkdir()
    mine = Path("scenarios", "five_devices.yaml")
    mine.write_text("name: mine")
    assert find_scenario("five_devices") == mine
    Path("five_devices").mkdir()  # a folder of that name hides nothing
    assert find_scenario("five_devices") == mine
    Path("five_devices").rmdir()
    Path("five_devices").write_text("name: nearest")
    assert find_scenario("five_devices") == Path("five_devices")
    assert find_folder(Path("scenarios/published")) == PACKAGED / "published"
    assert find_folder(Path("scenarios")) == Path("scenarios")
    assert find_folder(Path("absent")) == Path("absent")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("five_device", r"no scenario of this name; the nearest are five_devices, four_devices"),
        ("zzz", r"the nearest are churn_evening, .*wired_laptop"),
        ("five_device.yaml", "there is no such file"),
        ("absent/five_device", "nor the folder"),
        ("n" * 300, "too long"),
        ("", "this is a folder"),
    ],
)
def test_an_unknown_scenario_is_named_with_the_nearest(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ScenarioError, match=message):
        simulator.load(name)


@pytest.fixture
def sim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command line in an empty folder; the exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sim", *words])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return (code, *capsys.readouterr())

    return run


def test_every_command_takes_a_name_of_the_package(sim: Any) -> None:
    assert json.loads(sim("place", "thunderbolt_macs", "--json", "--replications", "5")[1])
    assert json.loads(sim("cost", "thunderbolt_macs", "--json", "--replications", "5")[1])
    code, _, error = sim("live", "run", "four_device", "--cluster", "local")
    assert (code, "four_devices" in error) == (2, True)


def test_init_copies_a_scenario_with_its_comments(sim: Any) -> None:
    original = (PACKAGED / "five_devices.yaml").read_text(encoding="utf-8")
    assert sim("init", "--from", "five_devices")[0] == 0
    assert Path("five_devices.yaml").read_text(encoding="utf-8") == original
    assert sim("init", "--from", "five_devices", "-o", "mine.yaml")[0] == 0
    renamed = original.replace("name: five_devices\n", "name: mine\n")
    assert Path("mine.yaml").read_text(encoding="utf-8") == renamed
    assert "five_devices.yaml exists" in sim("init", "--from", "five_devices")[2]
    assert "is given twice" in sim("init", "a.yaml", "-o", "b.yaml")[2]
    assert "the nearest are five_devices" in sim("init", "--from", "five_device")[2]
    Path("broken.yaml").write_text("name: [")
    assert sim("init", "--from", "broken.yaml", "-o", "copy.yaml")[0] == 2
    assert not Path("copy.yaml").exists()


def test_published_rows_are_found_in_the_package(sim: Any) -> None:
    code, out, error = sim("validate", "published", "--row", "V38-alone")
    assert (code, error) == (0, "1/1 V38-alone\n")
    assert out.startswith("# Published measurements")
    assert {path.name for path in Path("results/published").iterdir()} >= {"README.md"}
    assert "no case (*.yaml) there" in sim("validate", "published", "--scenarios", "absent")[2]
    assert "no such case" in sim("validate", "published", "--row", "V99")[2]
    assert "is only counted" in sim("validate", "published", "--row", "single-reports-17")[2]
