"""Read a spec from a YAML file: either an instance, or one ScenarioError with every fault and its line."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from simulator.errors import Fault, ScenarioError, SimulatorError, did_you_mean
from simulator.files.explain import explain
from simulator.files.text import MAX_BYTES
from simulator.files.tree import Tree, parse

__all__ = ["load", "loads"]

MAX_FAULTS = 100  # nobody mends more in one go

SpecT = TypeVar("SpecT", bound=BaseModel)


def load(path: str | Path, cls: type[SpecT]) -> SpecT:
    """The `cls` that the YAML file at `path` describes.

    Raises ScenarioError with all faults if the file cannot be read, is no YAML, or describes no valid `cls`.
    """
    try:
        with Path(path).open("rb") as file:
            # One byte more than allowed tells a large file (or an endless device) without reading all of it.
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL or a lone surrogate
        raise ScenarioError(ascii(str(path))[1:-1], [Fault("", _why_unreadable(Path(path), error))]) from None
    return loads(raw, cls, str(path))


def loads(text: bytes | str, cls: type[SpecT], name: str = "<text>") -> SpecT:
    """The `cls` that YAML `text` describes; `name` stands for the file in messages. Raises ScenarioError."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    tree = parse(raw)
    faults = list(tree.faults)
    if tree.root is not None:
        instance, more = _validated(cls, tree)
        faults += [fault for fault in more if not _spoilt(fault, tree)]
        if instance is not None and not faults:
            return instance
    raise ScenarioError(name, _first(faults))


def _first(faults: list[Fault]) -> list[Fault]:
    """The first MAX_FAULTS of the file and, where there are more, a line that says so."""
    faults = sorted(faults, key=lambda fault: fault.line or 0)
    if len(faults) > MAX_FAULTS:
        last = faults[MAX_FAULTS - 1].line
        faults = [
            *faults[:MAX_FAULTS],
            Fault("", f"these are the first {MAX_FAULTS} faults; there are more", last),
        ]
    return faults


def _validated(cls: type[SpecT], tree: Tree) -> tuple[SpecT | None, list[Fault]]:
    """The instance, or why there is none."""
    root = tree.root
    if root is None or not isinstance(root.value, dict):
        keys = ", ".join(list(cls.model_fields)[:30])
        return None, [Fault("", f"the file must hold 'key: value' lines at its top; the keys are {keys}", 1)]
    try:
        return cls.model_validate(root.value), []
    except ValidationError as error:
        return None, explain(error, cls, tree)
    except ScenarioError as error:  # a validator that found several faults, with paths of its own
        return None, [
            Fault(fault.path, fault.reason, fault.line or tree.locate(fault.path)) for fault in error.faults
        ]
    except SimulatorError as error:
        return None, [Fault("", str(error))]


def _spoilt(fault: Fault, tree: Tree) -> bool:
    """True for a fault that only follows from a value which could not be read and
    has its own fault already.
    """
    return any(f"{fault.path}.".startswith(f"{path}.") for path in tree.spoilt)


def _why_unreadable(path: Path, error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no such file{_nearest_file(path)}"
    if isinstance(error, IsADirectoryError):
        return "this is a folder; name a file in it"
    if isinstance(error, PermissionError):
        return "permission denied; make the file readable"
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"


def _nearest_file(path: Path) -> str:
    try:
        others = [other.name for other in path.parent.iterdir() if other.suffix in (".yaml", ".yml")]
        return did_you_mean(path.name, others)
    except OSError:
        return f"; nor the folder {str(path.parent)!r}"
