"""The lines of files with trials, each checked: what can be used is used, and what cannot is said."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, ValidationError

from calibrate.validation import Relative
from simulator.errors import Fault, in_lines
from simulator.files import json_lines, read_lines
from simulator.files.explain import in_words
from simulator.spec import Spec

__all__ = ["Cause", "Chip", "Interval", "Outcome", "Published", "Said", "Say", "checked"]

Say = Callable[[str], None]
Row = TypeVar("Row", bound=Spec)
Text = Annotated[str, Field(max_length=2000)]
Name = Annotated[str, Field(min_length=1, max_length=300)]
Positive = Annotated[float, Field(ge=1e-12, le=1e12)]


class _Line(Spec):
    """Columns that are not read may hold anything."""

    model_config = ConfigDict(extra="ignore")


class Published(_Line):
    """A published row that was predicted."""

    row: Name
    group: Name
    quantity: Name
    error: Relative
    in_50: bool
    in_80: bool
    in_90: bool


class Cause(_Line):
    """What is known of a published row's miss."""

    row: Name
    quantity: Name
    known: Text = ""
    what: Text = ""


class Chip(_Line):
    """A chip left out of the catalogue's fit."""

    chip: Name
    model: Name
    runtime: Name
    phase: Name
    measured_s_per_token: Positive
    predicted_s_per_token: Positive
    log_sd: Annotated[float, Field(gt=0, le=100)]


class Interval(_Line):
    """A predicted figure."""

    median: Positive
    p05: Positive
    p95: Positive


class Said(_Line):
    """A dropout as it was predicted."""

    class Rates(_Line):
        """Tokens/s."""

        after: Interval | None = None

    case: Name
    recovery_s: Interval | None
    tokens_per_s: Rates


class Outcome(_Line):
    """A dropout as it was measured."""

    class Rates(_Line):
        """Tokens/s."""

        after: Positive | None = None

    case: Name
    recovery_s: Positive | None
    tokens_per_s: Rates


def checked(path: Path, row: type[Row], say: Say) -> Iterator[Row]:
    """The lines of a table (`.csv`) or of JSON Lines that are a `row`; of the others `say` is told each.

    Raises MeasurementError for a file that cannot be read.
    """
    for number, found in _table(path) if path.suffix == ".csv" else json_lines(path):
        try:
            if isinstance(found, dict):
                yield row.model_validate(found)
                continue
            fault = found
        except ValidationError as error:
            fault = Fault("", f"{in_words(error)}; left out", number)
        say(*in_lines(str(path), [fault]))


def _table(path: Path) -> Iterator[tuple[int, dict[str, Any] | Fault]]:
    """The rows of a table by the names in its first line, with their line numbers."""
    # one cell goes over no line in what we write, so a line is a row
    lines = (line.decode("utf-8", "replace") for line in read_lines(path, csv.field_size_limit()))
    head: list[str] = []
    for number, line in enumerate(lines, 1):
        try:
            cells = next(csv.reader([line], strict=True), [])
        except csv.Error as error:
            yield number, Fault("", f"no row of a table ({error}); left out", number)
            continue
        if number > 1 and len(cells) != len(head) and cells:
            yield number, Fault("", f"{len(cells)} cells under {len(head)} names; left out", number)
        elif number > 1 and cells:
            yield number, dict(zip(head, cells, strict=True))
        else:
            head = head or cells
