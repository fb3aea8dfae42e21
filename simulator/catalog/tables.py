"""Read the catalogue's data files once and look names up the way people type them.

Every data file is a CSV or YAML beside this module; each row carries its
`source` and `confidence` ('exact-from-table', 'read-from-text',
'from-memory', 'assumed'). An empty cell means that the source did not say.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict

from simulator.errors import CatalogError
from simulator.spec import Spec

__all__ = [
    "DATA",
    "Facts",
    "names_of",
    "nearest",
    "normalise",
    "number",
    "pick",
    "split",
    "table",
    "tree",
    "yaml_tree",
]

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


@lru_cache(maxsize=8192)
def normalise(name: str) -> str:
    """A name without case, spaces and punctuation, so that 'macbook-air m4' finds 'MacBook Air M4'.

    What stands between two digits stays, as a point, and a plus stays as a word.

    >>> normalise("MacBook Air (M4)")
    'macbookairm4'
    >>> normalise("2.5 GbE") == normalise("ethernet 2_5").replace("ethernet", "") + "gbe"
    True
    """
    joined = ""
    for part in re.findall(r"[^\W_]+", name.lower().replace("+", " plus ")):
        # '2.5GbE' is not 25GbE, 'Qwen2-57B' is not Qwen2.5-7B: two numbers never become one
        between = "." if joined[-1:].isdigit() and part[0].isdigit() else ""
        joined += between + part
    return joined


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

    Raises CatalogError with the nearest known names when there is none.
    """
    wanted = normalise(name)
    found = [entry for entry in entries if wanted in {normalise(known) for known in names(entry)}]
    if found:
        return found
    hint = nearest(name[:80], tuple(tuple(names(entry)) for entry in entries))
    raise CatalogError(
        f"{name[:80]!r} is no known {kind}{hint}; `sim catalog {kind}s` lists all {len(entries)}"
    )


# a search asks for one unknown model hundreds of times, and each answer compares it with every known name
@lru_cache(maxsize=256)
def nearest(name: str, entries: tuple[tuple[str, ...], ...]) -> str:
    """The phrase ", did you mean 'x', 'y' or 'z'?" with the names that come nearest, one of each entry.

    >>> nearest("A6000", (("RTX A6000",), ("RTX 6000 Ada",), ("Pixel 6",)))
    ", did you mean 'RTX A6000'?"
    """
    wanted, matcher = normalise(name), SequenceMatcher(b=name.lower())
    scores: dict[str, float] = {}
    for known in entries:
        score, best = max((_likeness(matcher, wanted, other), other) for other in known)
        if score >= NEAR:
            scores[best] = score
    near = sorted(scores, key=lambda best: -scores[best])[:MOST_NEAREST]
    if not near:
        return ", no name comes near"
    *first, last = map(repr, near)
    return f", did you mean {', '.join(first)} or {last}?" if first else f", did you mean {last}?"


def _likeness(matcher: SequenceMatcher[str], wanted: str, other: str) -> float:
    """How near a name is, 0 to 1; one that holds all that was typed ('A6000': 'RTX A6000') is very near."""
    matcher.set_seq1(other.lower())
    plain = normalise(other)
    part = 0.5 + 0.5 * len(wanted) / len(plain) if wanted and wanted in plain else 0.0
    if max(part, matcher.real_quick_ratio(), matcher.quick_ratio()) < NEAR:
        return 0.0
    return max(part, matcher.ratio())


NEAR, MOST_NEAREST = 0.6, 3
