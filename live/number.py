"""Numbers in answers: JSON has whole numbers of any length, which no float holds, and programs say NaN."""

from __future__ import annotations

__all__ = ["finite"]

MOST = 1e18  # more bytes, operations a second or anything else than a device of a LAN has


def finite(value: object) -> float | None:
    """A believable number as a float; None for anything else, true and false among it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -MOST <= value <= MOST:
        return None
    return float(value)
