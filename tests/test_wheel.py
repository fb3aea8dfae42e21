"""The wheel alone, in an empty folder: it answers, and it takes nothing from the folder that it is called in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DECOYS = ("calibrate", "live", "sim", "simulator")

pytestmark = pytest.mark.skipif(
    find_spec("hatchling") is None or find_spec("pip") is None,
    reason="hatchling (extra `test`) and pip build the wheel",
)


def done(*command: str, cwd: Path, site: Path | None = None) -> str:
    """Standard output of a command that must succeed, with `site` before all other packages."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if site is not None:
        env["PYTHONPATH"] = str(site)
    ended = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed beside nothing else; what it depends on is this environment's."""
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")
    # without isolation hatchling is that of the extra `test`, so that nothing is fetched
    build = ("wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(wheels), str(ROOT))
    done(*pip, *build, cwd=wheels)
    (wheel,) = wheels.glob("*.whl")
    done(*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel), cwd=wheels)
    return target


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with packages of our names that fail when they are imported."""
    for name in DECOYS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the decoy was imported')\n")
    return tmp_path


WRITTEN = {".sim-written", "scenario.yaml", "summary.json", "trace.parquet"}


def sim(site: Path, folder: Path, *words: str) -> str:
    """Standard output of the installed `sim`, called in `folder`."""
    return done(str(site / "bin" / "sim"), *words, cwd=folder, site=site)


def test_a_scenario_of_the_wheel_answers_by_its_name_and_writes_here(site: Path, folder: Path) -> None:
    sim(site, folder, "run", "five_devices", "--no-charts")
    results = folder / "results" / "five_devices"
    assert {path.name for path in results.iterdir()} == WRITTEN
    printed = json.loads(sim(site, folder, "run", "five_devices", "--json"))
    assert printed == json.loads((results / "summary.json").read_text())
    assert {path.name for path in folder.iterdir()} == {*DECOYS, "results"}


def test_everything_comes_from_the_wheel(site: Path, folder: Path) -> None:
    code = (
        "import simulator, simulator.library as library, live, calibrate, sim\n"
        "for found in (simulator, live, calibrate, sim): print(found.__file__)\n"
        "print(library.find_scenario('five_devices'))"
    )
    # -P: `python -c` alone would look into the folder first; the installed `sim` does not
    files = done(sys.executable, "-P", "-c", code, cwd=folder, site=site).split()
    assert len(files) == 5
    assert [file for file in files if not file.startswith(str(site))] == []
    packaged = {path.relative_to(site / "simulator") for path in (site / "simulator/scenarios").rglob("*.*")}
    assert packaged == {path.relative_to(ROOT) for path in (ROOT / "scenarios").rglob("*.*")}
    assert all((site / name / "py.typed").is_file() for name in DECOYS)
    assert {path.name for path in (site / "sim/explore/static").iterdir()} == {
        path.name for path in (ROOT / "sim/explore/static").iterdir()
    }


def test_commands_that_read_the_repository_read_the_wheel(site: Path, folder: Path) -> None:
    sim(site, folder, "init", "--from", "five_devices", "-o", "mine.yaml")
    original = (ROOT / "scenarios/five_devices.yaml").read_text()
    renamed = original.replace("name: five_devices\n", "name: mine\n")
    assert (folder / "mine.yaml").read_text() == renamed
    assert "# Published" in sim(site, folder, "validate", "published", "--row", "V38-alone")
    assert "MacBook Air M4" in sim(site, folder, "catalog", "devices", "--search", "macbook air")


def test_worker_processes_take_nothing_from_the_folder_either(site: Path, folder: Path) -> None:
    over = ("--over", "devices.pixel.link.rtt=1ms,60ms", "--replications", "5", "--no-charts")
    sim(site, folder, "sweep", "four_devices", *over)
    assert (folder / "results" / "four_devices-sweep").is_dir()
