"""Memory as people change it: limits that a setting raises, and sizes that no such device was sold with."""

from __future__ import annotations

from fnmatch import fnmatch

from simulator.catalog.hardware import DeviceFacts, device, kind_of
from simulator.catalog.tables import number, table
from simulator.units import GIB, format_bytes

__all__ = ["doubt_memory", "raise_memory", "thunderbolt_ports"]

MIB, PAGE = 2**20, 4096  # bytes; Linux counts what a GPU may borrow in pages


def raise_memory(facts: DeviceFacts, memory_bytes: float | None = None) -> tuple[float, str] | None:
    """What a model may take of a device (bytes) once a setting is changed, and that setting in words.

    `memory_bytes` as in `DeviceFacts.usable`, which is the default that it raises. By the platform's rule
    `max(share * memory, memory - reserve)`; of an app on an iPhone what was seen with the entitlement. None
    where no setting is known, or it would raise nothing: VRAM is what it is.
    """
    total = facts.snap(memory_bytes)
    raised = _with_entitlement(facts, total) or _by_rule(facts.platform, total)
    return raised if raised and raised[0] > facts.usable_bytes(memory_bytes) else None


def _with_entitlement(facts: DeviceFacts, total_bytes: float) -> tuple[float, str] | None:
    high, is_smallest = facts.usable_high_bytes, total_bytes == facts.memory_options_bytes[0]
    if facts.platform != "ios-metal" or high is None or not is_smallest:
        return None
    return high, "an app with the increased-memory-limit entitlement"


def _by_rule(platform: str, total_bytes: float) -> tuple[float, str] | None:
    kind = kind_of(platform)
    share, reserve = number(kind, "raised_share"), number(kind, "raised_reserve_gib", GIB)
    if share is None or reserve is None:
        return None
    mib = int(max(share * total_bytes, total_bytes - reserve) // MIB)
    return float(mib * MIB), kind["raised_how"].format(mib=mib, pages=mib * MIB // PAGE)


def doubt_memory(kind: str, memory_bytes: float) -> str | None:
    """Why a device of this kind can hardly have so much memory (bytes), in words; None where it can.

    Raises CatalogError for a kind that the catalogue does not know.
    """
    facts = device(kind, memory_bytes)
    # a desktop's modules are bought apart from its processor
    if facts.sold_with(memory_bytes) or facts.category == "CPU desktop":
        return None
    *first, last = (f"{option / GIB:g}" for option in sorted(facts.memory_options_bytes))
    sizes = f"{', '.join(first)} or {last} GB" if first else f"{last} GB"
    why = WHY.get(facts.category, "check its memory")
    return f"no {facts.name} with {format_bytes(memory_bytes)} was sold, only with {sizes}; {why}"


def thunderbolt_ports(kind: str) -> int | None:
    """Thunderbolt and USB4 ports of a kind of device, None where nobody said; raises CatalogError for an
    unknown kind.
    """
    name = device(kind).name
    row = next((row for row in table("cable_ports") if fnmatch(name, row["device"])), None)
    return int(row["thunderbolt"]) if row else None


WHY = {
    "GPU desktop": "what counts is the memory on the card, not that of the computer around it",
    "GPU laptop": "what counts is the memory of its graphics chip, not that of the laptop",
    "Mac": "a Mac's memory is soldered; check it, or name the variant",
    "phone/tablet": "memory is soldered, and storage is no memory",
}
