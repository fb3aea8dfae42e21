"""Read the catalogue's data files once and look names up the way people type them.

Every data file is a CSV or YAML beside this module; each row carries its
`source` and `confidence` ('exact-from-table', 'read-from-text',
'from-memory', 'assumed'). An empty cell means that the source did not say.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict

from simulator.errors import CatalogError, did_you_mean
from simulator.spec import Spec

__all__ = ["DATA", "Facts", "names_of", "normalise", "number", "pick", "split", "table", "tree", "yaml_tree"]

DATA = Path(__file__).parent / "data"

Row = Mapping[str, str]


class Facts(Spec):
    """A frozen entry of the catalogue; its validator is built at first use, which keeps the import cheap."""

    model_config = ConfigDict(defer_build=True)


Entry = TypeVar("Entry")


@cache
def table(name: str) -> tuple[dict[str, str], ...]:
    """All rows of `data/<name>.csv`."""
    with (DATA / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


@cache
def tree(name: str) -> dict[str, Any]:
    """The content of `data/<name>.yaml`."""
    return yaml_tree(DATA / f"{name}.yaml")


def yaml_tree(path: Path) -> dict[str, Any]:
    """The content of one of our own YAML files."""
    import yaml  # only the network and engine look-ups need it

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return dict(yaml.load(path.read_text(encoding="utf-8"), Loader=loader))


def normalise(name: str) -> str:
    """A name without case, spaces and punctuation, so that 'macbook-air m4' finds 'MacBook Air M4'.

    >>> normalise("MacBook Air (M4)")
    'macbookairm4'
    """
    return re.sub(r"[^a-z0-9]", "", name.lower())


def number(row: Row, column: str, factor: float = 1.0) -> float | None:
    """The cell as a number times `factor`, or None where it is empty."""
    text = row.get(column) or ""
    return float(text) * factor if text else None


def split(text: str) -> tuple[str, ...]:
    """The parts of a cell that holds several values between semicolons."""
    return tuple(part.strip() for part in text.split(";") if part.strip())


def names_of(row: Row, column: str) -> tuple[str, ...]:
    """The name of a row followed by its aliases."""
    return (row[column], *split(row.get("aliases", "")))


def pick(
    kind: str, name: str, entries: Sequence[Entry], names: Callable[[Entry], Sequence[str]]
) -> list[Entry]:
    """All entries one of whose names is `name`, regardless of case, spaces and punctuation.

    Raises CatalogError with the nearest known name when there is none.
    """
    wanted = normalise(name)
    found = [entry for entry in entries if wanted in {normalise(known) for known in names(entry)}]
    if found:
        return found
    known = [known for entry in entries for known in names(entry)]
    hint = did_you_mean(name, known) or ", no name comes near"
    raise CatalogError(
        f"{name[:80]!r} is no known {kind}{hint}; `sim catalog {kind}s` lists all {len(entries)}"
    )
