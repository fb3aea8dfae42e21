"""One result of one check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["DoctorFinding", "Level", "problem", "unknown", "warning"]

Level = Literal["ok", "unknown", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """What was found, the value that shows it, the rule that it breaks, and the way out.

    `problem` keeps the cluster from working or falsifies what is measured, `warning` makes it slow or
    doubtful, `unknown` could not be looked at.
    """

    level: Level
    what: str
    value: str = ""
    rule: str = ""
    way_out: str = ""


def problem(what: str, value: str, rule: str, way_out: str) -> DoctorFinding:
    """A finding that must be mended."""
    return DoctorFinding("problem", what, value, rule, way_out)


def warning(what: str, value: str, rule: str, way_out: str) -> DoctorFinding:
    """A finding that costs speed or certainty."""
    return DoctorFinding("warning", what, value, rule, way_out)


def unknown(what: str, way_out: str) -> DoctorFinding:
    """Something that could not be looked at."""
    return DoctorFinding("unknown", what, way_out=way_out)
