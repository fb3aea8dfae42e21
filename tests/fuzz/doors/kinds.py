"""All kinds of files by name."""

from __future__ import annotations

from tests.fuzz.doors import calibrated, clusters, measured, outcomes, swept, tools, written
from tests.fuzz.doors.door import Kind

__all__ = ["KINDS"]

KINDS: dict[str, Kind] = {
    name: kind
    for module in (measured, outcomes, calibrated, swept, written, clusters, tools)
    for name, kind in module.KINDS.items()
}
