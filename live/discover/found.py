"""One row of the discovery table, and how sightings of one device by several sources become one row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

__all__ = ["AGENT", "LEGACY", "LIBP2P", "ZENOH", "FoundDevice", "clean", "merge"]

ZENOH = "exo-1.x zenoh"
LIBP2P = "exo-1.x libp2p"
LEGACY = "exo-legacy"
AGENT = "agent"

SPECIFIC = {"thunderbolt": 5, "ethernet": 4, "wifi": 3, "usb": 3, "vpn": 2, "unknown": 0}


@dataclass(frozen=True, slots=True)
class FoundDevice:
    """A device as far as it is known; bytes, bytes/s, flop/s, empty or None where nobody told."""

    name: str = ""
    node_id: str = ""
    generation: str = ""
    """which program was seen there: one of ZENOH, LIBP2P, LEGACY, AGENT, or empty"""
    version: str = ""
    """as narrow as the features tell"""
    chip: str = ""
    memory_total_bytes: float | None = None
    memory_free_bytes: float | None = None
    flop_per_s: float | None = None
    memory_bytes_per_s: float | None = None
    addresses: tuple[str, ...] = ()
    api: str = ""
    """host:port whose HTTP interface answered for this very device"""
    agent: str = ""
    """host:port of our agent there"""
    link_kind: str = "unknown"
    seen_by: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    silent_s: float | None = None
    """how long the cluster has heard nothing of a device that it still lists; None: it is there"""


def clean(text: object, limit: int = 60) -> str:
    """Text that came from the network, fit for a terminal: one line, no control characters, not endless."""
    shown = text if isinstance(text, str) else ""
    return "".join(character for character in shown[: 4 * limit] if character.isprintable())[:limit]


def merge(sightings: Iterable[FoundDevice]) -> tuple[FoundDevice, ...]:
    """One row per device: same node id, else an address that belongs to exactly one row so far.

    Addresses of bridges and loopback occur on many devices, so an address that two rows share decides
    nothing. Sightings that know a node id come first: they are the rows that the others join.
    """
    rows: list[FoundDevice] = []
    for sighting in sorted(sightings, key=lambda found: (not found.node_id, not found.name)):
        index = _row_of(sighting, rows)
        if index is None:
            rows.append(sighting)
        else:
            rows[index] = _join(rows[index], sighting)
    return tuple(rows)


def _row_of(sighting: FoundDevice, rows: list[FoundDevice]) -> int | None:
    if sighting.node_id:
        # an id decides alone: a device with two addresses is one, two devices behind one address are two
        same = [index for index, row in enumerate(rows) if row.node_id == sighting.node_id]
        return same[0] if same else None
    wanted = {_plain(address) for address in sighting.addresses}
    owners = [
        index for index, row in enumerate(rows) if wanted & {_plain(address) for address in row.addresses}
    ]
    return owners[0] if len(owners) == 1 else None


def _plain(address: str) -> str:
    return address.partition("%")[0].lower()


def _join(row: FoundDevice, more: FoundDevice) -> FoundDevice:
    """What `row` knows, completed by `more`."""
    better_link = SPECIFIC.get(more.link_kind, 1) > SPECIFIC.get(row.link_kind, 1)
    # our agent runs beside EXO, and EXO is what the table is about
    program = row.generation if row.generation not in ("", AGENT) else more.generation or row.generation
    return replace(
        row,
        name=row.name or more.name,
        node_id=row.node_id or more.node_id,
        generation=program,
        version=row.version or more.version,
        chip=row.chip or more.chip,
        memory_total_bytes=_first(row.memory_total_bytes, more.memory_total_bytes),
        memory_free_bytes=_first(row.memory_free_bytes, more.memory_free_bytes),
        flop_per_s=_first(row.flop_per_s, more.flop_per_s),
        memory_bytes_per_s=_first(row.memory_bytes_per_s, more.memory_bytes_per_s),
        addresses=tuple(dict.fromkeys((*row.addresses, *more.addresses))),
        api=row.api or more.api,
        agent=row.agent or more.agent,
        link_kind=more.link_kind if better_link else row.link_kind,
        seen_by=tuple(dict.fromkeys((*row.seen_by, *more.seen_by))),
        notes=tuple(dict.fromkeys((*row.notes, *more.notes))),
    )


def _first(one: float | None, other: float | None) -> float | None:
    return other if one is None else one
