"""The scenarios that come with the package, and how a name becomes a file.

`scenarios/` at the top of the repository is the one source; the wheel carries a copy inside this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from simulator.errors import Fault, ScenarioError
from simulator.files import load as load_file
from simulator.files.tree import parse
from simulator.own import spelt_out
from simulator.scenario import Scenario

__all__ = ["find_folder", "find_scenario", "load", "must_be_scenario", "scenario_names", "with_paths"]

FOLDER = Path("scenarios")
SUFFIXES = (".yaml", ".yml")
PATHS = ("gguf", "hf_config")  # keys of a scenario's model that name files
NEAREST = 5  # names that a message about an unknown one suggests at most


def load(scenario: str | Path) -> Scenario:
    """The scenario of a file, or of a name such as `five_devices`; see `find_scenario`.

    Relative paths in it are taken from its own folder first, then from the working directory; names of the
    user's own catalogue are spelt out. Raises ScenarioError with every fault of the file, or with the nearest
    names where there is none.

    >>> load("five_devices").model.name
    'Llama-3.3-70B'
    """
    file = find_scenario(scenario)
    return spelt_out(with_paths(load_file(file, Scenario), file))


def with_paths(scenario: Scenario, file: Path) -> Scenario:
    """`scenario` with the paths of its model as they lead from here."""
    model, found = scenario.model, {}
    for key in PATHS:
        path = getattr(model, key)
        if path is None:
            continue
        found[key] = next((place for place in (str(file.parent / path), path) if _is_there(place)), path)
        # a complete scenario, as in a results folder, keeps its numbers where the file is gone
        if not _is_there(found[key]) and (model.layers is None or model.layer_bytes is None):
            raise ScenarioError(str(file), [Fault(f"model.{key}", _nowhere(path, file), _line(file, key))])
    return scenario.model_copy(update={"model": model.model_copy(update=found)}) if found else scenario


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # a name too long, a folder that may not be read
        return False


def _nowhere(path: str, file: Path) -> str:
    here, folder = Path().resolve(), file.parent.resolve()
    places = f"not in {here}" if here == folder else f"neither in {folder} nor in {here}"
    return (
        f"{path[:200]!r} is {places}: looked in the scenario's folder and in the working directory; mend the "
        "path, or put the file there"
    )


def _line(file: Path, key: str) -> int | None:
    """The line of a key of the model, for a message."""
    return parse(file.read_bytes()).locate(f"model.{key}")


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


def must_be_scenario(caller: str, given: object) -> None:
    """Refuse what a notebook hands over instead of a Scenario, most often its name."""
    if not isinstance(given, Scenario):
        load = f"simulator.load({given!r:.60})" if isinstance(given, str) else "simulator.load(NAME)"
        got = f"takes a Scenario and got a {type(given).__name__}"
        reason = f"{caller} {got}; {load} makes one of a name or a file"
        raise ScenarioError(caller, [Fault("", reason)])
