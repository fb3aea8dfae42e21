"""The package's own tables: CSV files in `calibrate/data`."""

from __future__ import annotations

import csv
from importlib.resources import files

__all__ = ["lines"]


def lines(name: str) -> list[dict[str, str]]:
    """The lines of `data/<name>`, each by its column's name."""
    text = files("calibrate").joinpath("data", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
