"""The scenarios that come with the package, and how a name becomes a file.

`scenarios/` at the top of the repository is the one source; the wheel carries a copy inside this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from simulator.errors import Fault, ScenarioError
from simulator.files import load as load_file
from simulator.scenario import Scenario

__all__ = ["find_folder", "find_scenario", "load", "scenario_names"]

FOLDER = Path("scenarios")
SUFFIXES = (".yaml", ".yml")
NEAREST = 5  # names that a message about an unknown one suggests at most


def load(scenario: str | Path) -> Scenario:
    """The scenario of a file, or of a name such as `five_devices`; see `find_scenario`.

    Raises ScenarioError with every fault of the file, or with the nearest names where there is none.

    >>> load("five_devices").model.name
    'Llama-3.3-70B'
    """
    return load_file(find_scenario(scenario), Scenario)


def find_scenario(scenario: str | Path) -> Path:
    """The file that `scenario` means.

    That file; else, of a name, `scenarios/NAME.yaml` here, `NAME.yaml` here, the package's. A path
    `scenarios/...` is the package's where it is not here. Any other path is returned as it is: reading it
    says best what is wrong. Raises ScenarioError with the nearest names for a name that nothing bears.

    >>> find_scenario("five_devices").name
    'five_devices.yaml'
    """
    path = Path(scenario)
    try:
        found = next((file for file in _candidates(path) if file.exists() and not file.is_dir()), None)
        is_name = len(path.parts) == 1 and path.suffix not in SUFFIXES and not path.exists()
    except OSError:  # a name too long, a folder that may not be read
        return path
    if found is None and is_name:
        raise ScenarioError(str(path), [Fault("", _unknown(str(path)))])
    return found or path


def _candidates(path: Path) -> Iterator[Path]:
    """Where a scenario may lie, the nearest first; a folder of its name hides none."""
    yield path
    yield _in_package(path)
    if path.name and path.suffix not in SUFFIXES:
        file = path.with_name(f"{path.name}.yaml")
        yield from (FOLDER / file, file, _packaged() / file, _in_package(file))


def find_folder(folder: Path) -> Path:
    """`folder`, or the package's own where `scenarios/...` is asked for and is not here."""
    return folder if folder.exists() else _in_package(folder)


def scenario_names() -> tuple[str, ...]:
    """Names of the scenarios in `scenarios/` of the working directory and of the package, sorted.

    >>> "five_devices" in scenario_names()
    True
    """
    folders = (FOLDER, _packaged())
    return tuple(sorted({file.stem for folder in folders for file in folder.glob("*.yaml")}))


def _packaged() -> Path:
    """Where the package's scenarios lie: inside it when installed, beside it in a checkout."""
    here = Path(__file__).parent
    inside = here / FOLDER
    return inside if inside.is_dir() else here.parent / FOLDER


def _in_package(path: Path) -> Path:
    """The package's file or folder for a path `scenarios/...` that is not here; else the path itself."""
    if path.exists() or path.parts[:1] != FOLDER.parts:
        return path
    packaged = _packaged().joinpath(*path.parts[1:])
    return packaged if packaged.exists() else path


def _unknown(name: str) -> str:
    names = scenario_names()
    near = get_close_matches(name, names, n=NEAREST, cutoff=0.4) or names
    return f"there is no such file, and no scenario of this name; the nearest are {', '.join(near)}"
