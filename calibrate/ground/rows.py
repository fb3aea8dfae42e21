"""Published rows and their sources: what was measured, by whom, and which part of the ground it belongs to.

A row of `data/published_rows.csv` is one published measurement with every input that its source gave; an
empty cell means that the source did not say it. `data/published_sources.csv` has a line for each source.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Literal, get_args

from pydantic import Field, ValidationError

from calibrate.tables import lines
from simulator.errors import CalibrationError
from simulator.spec import Spec

__all__ = [
    "PARTS",
    "Part",
    "Row",
    "Strategy",
    "excluded",
    "part_by_hash",
    "parts",
    "read_parts",
    "read_rows",
    "rows",
]

Part = Literal["looked-at", "counted"]
Strategy = Literal["single", "pipeline", "tensor"]
PARTS: tuple[Part, ...] = get_args(Part)
BY_HASH = "hash"
"""What stands as `why` beside a source whose part nobody chose."""


class Row(Spec):
    """One published measurement with its inputs; None is what the source left open."""

    row: str
    source: str
    """Who measured: the key of the split, so that no source is on both sides."""
    reference: str
    """Where it stands in the source."""
    engine: str
    """As the source calls it, whether or not it is one of ours."""
    strategy: Strategy
    model: str
    quantisation: str
    devices: str
    nodes: int = Field(ge=1)
    link: str
    rtt_us: float | None = Field(default=None, gt=0)
    prompt_tokens: int | None = Field(default=None, ge=0)
    output_tokens: int | None = Field(default=None, gt=0)
    batch: int | None = Field(default=None, ge=1)
    """Replies at a time; None where the source says 'several' only."""
    decode_tokens_per_s: float | None = Field(default=None, gt=0)
    """Of all replies together."""
    prefill_tokens_per_s: float | None = Field(default=None, gt=0)
    confidence: str
    note: str


def part_by_hash(source: str) -> Part:
    """The part of a source of which nothing had been looked at: odd hashes are only counted.

    >>> part_by_hash("kubis.ai"), part_by_hash("avlp12")
    ('counted', 'looked-at')
    """
    # a hash and not a draw: a source found later gets its part without anybody's choice, on every machine
    return "counted" if int(sha256(source.encode()).hexdigest()[:8], 16) % 2 else "looked-at"


def rows() -> tuple[Row, ...]:
    """Every published row that comes along, in the order of the table."""
    return read_rows(lines("published_rows.csv"))


def parts() -> dict[str, Part]:
    """The part of each source, by the source's name."""
    return read_parts(lines("published_sources.csv"))


def excluded() -> dict[str, str]:
    """Why a row is not predicted, by the row's name."""
    return {line["row"]: line["reason"] for line in lines("published_excluded.csv")}


def read_rows(records: Iterable[dict[str, str]]) -> tuple[Row, ...]:
    """Rows of the table's columns; raises CalibrationError with line, column and rule for what is no row."""
    found: dict[str, Row] = {}
    for number, record in enumerate(records, start=2):
        try:
            row = Row.model_validate(
                {name: value for name, value in record.items() if value} | _texts(record)
            )
        except ValidationError as error:
            fault = error.errors()[0]
            raise CalibrationError(
                f"published rows, line {number}: {'.'.join(map(str, fault['loc']))} is "
                f"{fault['input']!r}: {fault['msg']}; leave the cell empty where the source does not say it"
            ) from error
        if row.row in found:
            raise CalibrationError(
                f"published rows, line {number}: {row.row} is there twice; name each row once"
            )
        found[row.row] = row
    return tuple(found.values())


def read_parts(records: Iterable[dict[str, str]]) -> dict[str, Part]:
    """The part of each source; raises CalibrationError where a part that nobody chose is not the hash's."""
    found: dict[str, Part] = {}
    for number, record in enumerate(records, start=2):
        source, why = record["source"], record["why"]
        where = f"published sources, line {number} ({source})"
        part = _part(record["part"], where)
        # a source may only be moved out of the counted part, by having been looked at; never into it
        if (why == BY_HASH or part == "counted") and part != part_by_hash(source):
            raise CalibrationError(
                f"{where}: part is {part}, the hash of its name says {part_by_hash(source)}; take that, or "
                "say why the source had been looked at before"
            )
        found[source] = part
    return found


def _part(text: str, where: str) -> Part:
    """A text as a part; raises CalibrationError for anything else."""
    for part in PARTS:
        if text == part:
            return part
    raise CalibrationError(f"{where}: part is {text!r}; give one of {', '.join(PARTS)}")


def _texts(record: dict[str, str]) -> dict[str, str]:
    """The columns that are text, empty ones included: an empty text is no missing number."""
    return {
        name: record.get(name, "") or ""
        for name, field in Row.model_fields.items()
        if field.annotation is str
    }
