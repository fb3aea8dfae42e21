"""Estimated speed of a found device, from the catalogue and by its chip."""

from __future__ import annotations

import re
from dataclasses import replace

from live.discover.found import FoundDevice
from simulator.catalog import DeviceFacts, device
from simulator.errors import CatalogError

__all__ = ["known_device", "with_speed"]

# What vendors put around the name of a chip; the catalogue names the chip alone.
NOISE = re.compile(r"\b(nvidia|geforce|amd|intel|radeon graphics|laptop gpu|\(r\)|\(tm\))\b", re.IGNORECASE)


def known_device(chip: str, memory_bytes: float | None) -> DeviceFacts | None:
    """The device of the catalogue with this chip, of several the one sold with so much
    memory; None without one.
    """
    for name in dict.fromkeys((chip, " ".join(NOISE.sub(" ", chip).split()))):
        try:
            return device(name, memory_bytes) if name else None
        except CatalogError:
            continue
    return None


def with_speed(found: FoundDevice) -> FoundDevice:
    """The row with flop/s and memory bytes/s where the catalogue knows the chip; what a
    node reported itself stays.
    """
    facts = known_device(found.chip, found.memory_total_bytes)
    if facts is None:
        return found
    return replace(
        found,
        flop_per_s=found.flop_per_s or facts.flop_per_s,
        memory_bytes_per_s=found.memory_bytes_per_s or facts.memory_bytes_per_s,
    )
