"""llama.cpp's types: bits per weight, and how a matrix is stored whose rows no block of theirs divides."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from simulator.catalog.tables import Row, table

__all__ = ["fits", "type_bits", "widened_bits"]

HALF = "F16"
"""What is left where no block divides a row, not even the fallback's."""


@cache
def _types() -> dict[str, Row]:
    return {row["name"]: row for row in table("ggml_types")}


@cache
def type_bits(name: str) -> float:
    """Bits per weight of a type, its scales included.

    >>> type_bits("Q4_K")
    4.5
    """
    row = _types()[name]
    return 8 * int(row["block_bytes"]) / int(row["block_values"])


def fits(name: str, columns: int) -> bool:
    """Whether blocks of this type divide a row of so many values."""
    return columns % int(_types()[name]["block_values"]) == 0


@cache
def _stored(name: str, columns: int) -> str:
    """The type that the quantiser takes for `name` in a matrix with rows of `columns` values."""
    if fits(name, columns):
        return name
    fallback = _types()[name]["fallback"]
    return fallback if fallback and fits(fallback, columns) else HALF


def widened_bits(names: Sequence[str], columns: int) -> float:
    """Bits per weight that rows of `columns` values take beyond those of their types, averaged over `names`.

    K-quants have blocks of 256 values; where these do not divide a row, llama.cpp takes the next wider
    type of 32 values instead. 0 without types, and for rows of an unknown length.

    >>> widened_bits(["Q4_K", "Q6_K"], 1408), widened_bits(["Q4_K"], 2048)
    (1.46875, 0.0)
    """
    if not names or not columns:
        return 0.0
    return sum(type_bits(_stored(name, columns)) - type_bits(name) for name in names) / len(names)
