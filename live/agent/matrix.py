"""The link matrix as tables for people and as one JSON document."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from live.agent.links import SPEEDS, Links
from simulator.units import format_bytes, format_rate, format_seconds

__all__ = ["Row", "as_json", "render", "rows", "slowest"]

FEW = 100  # below this many samples a 99th percentile is the maximum of a handful


@dataclass(frozen=True, slots=True)
class Row:
    """One directed link with one message size, idle or loaded: round trips in seconds, rate in bytes/s."""

    source: str
    sink: str
    size_bytes: int
    loaded: bool
    samples: int
    median_s: float
    p95_s: float
    p99_s: float
    bytes_per_s: float | None


def rows(links: Links) -> tuple[Row, ...]:
    """All links that have samples, in the order in which they were measured."""
    found = []
    for (source, sink, size, loaded), samples in links.rtt_ns.items():
        if samples:
            median, p95, p99 = (
                float(value) for value in np.quantile(np.asarray(samples) / 1e9, [0.5, 0.95, 0.99])
            )
            rate = links.bytes_per_s.get((source, sink))
            found.append(Row(source, sink, size, loaded, len(samples), median, p95, p99, rate))
    return tuple(found)


def slowest(measured: Iterable[Row]) -> Row | None:
    """The idle link with the highest median for the largest message: the hop that a token waits for most."""
    idle = (row for row in measured if not row.loaded)
    return max(idle, key=lambda row: (row.size_bytes, row.median_s), default=None)


def render(links: Links) -> RenderableType:
    """One matrix per message size and load, the slowest link by name, and the doubts."""
    measured = rows(links)
    parts: list[RenderableType] = [_devices(links)]
    for size, loaded in dict.fromkeys((row.size_bytes, row.loaded) for row in measured):
        chosen = {
            (row.source, row.sink): row for row in measured if (row.size_bytes, row.loaded) == (size, loaded)
        }
        parts.append(_matrix([peer.name for peer in links.peers], chosen, size, loaded=loaded))
    worst = slowest(measured)
    if worst:
        time = f"{format_seconds(worst.median_s)} median round trip of {format_bytes(worst.size_bytes)}"
        parts.append(
            Text(f"slowest link: {worst.source} -> {worst.sink}, {time} (measured, {worst.samples} samples)")
        )
    parts.extend(Text(f"warning: {text}") for text in (*links.warnings, *_doubts(measured)))
    return Group(*parts)


def _devices(links: Links) -> Table:
    """What the agents say of their devices, and the speeds if they were measured."""
    heads = ("device", "chip", "memory free", "link", "power", "heat", "memory copy", "disk read")
    table = Table(*heads, title="devices (measured)", title_justify="left", box=None, pad_edge=False)
    for peer in links.peers:
        facts, speeds = peer.facts, links.speeds.get(peer.name, {})
        signal = f" {facts.wifi.signal_dbm:g} dBm" if facts.wifi and facts.wifi.signal_dbm is not None else ""
        power = {True: "battery", False: "mains", None: "?"}[facts.power.on_battery]
        cells = (
            peer.name,
            facts.chip or "?",
            _or_unknown(facts.memory_free_bytes, format_bytes),
            f"{facts.link_kind}{signal}",
            power if facts.power.percent is None else f"{power} {facts.power.percent:g} %",
            _or_unknown(facts.temperature_c, lambda value: f"{value:g} C"),
            *(_or_unknown(speeds.get(key), lambda value: f"{format_bytes(value)}/s") for _, _, key in SPEEDS),
        )
        table.add_row(*map(Text, cells))
    return table


def _or_unknown(value: float | None, show: Callable[[float], str]) -> str:
    return "?" if value is None else show(value)


def _matrix(names: list[str], chosen: dict[tuple[str, str], Row], size: int, *, loaded: bool) -> Table:
    title = (
        f"round trip of {format_bytes(size)}, {'link full' if loaded else 'idle'}: median / p95 / p99, rate"
    )
    table = Table(title=title, title_justify="left")
    # Text and not markup: a device may be called "[red]"
    for head in ("from", *(f"to {name}" for name in names)):
        table.add_column(Text(head))
    for source in names:
        cells = [_cell(chosen.get((source, sink))) if source != sink else "-" for sink in names]
        table.add_row(Text(source), *cells)
    return table


def _cell(row: Row | None) -> str:
    if row is None:
        return "not measured"
    times = " / ".join(format_seconds(value) for value in (row.median_s, row.p95_s, row.p99_s))
    return times if row.bytes_per_s is None else f"{times}\n{format_rate(row.bytes_per_s)}"


def _doubts(measured: tuple[Row, ...]) -> list[str]:
    few = [row for row in measured if row.samples < FEW]
    if not few:
        return []
    return [
        f"{len(few)} of {len(measured)} figures rest on fewer than {FEW} round trips, so their p99 is a "
        "guess; measure longer with --seconds"
    ]


def as_json(links: Links) -> dict[str, Any]:
    """The same figures for programs; seconds and bytes/s."""
    measured = rows(links)
    worst = slowest(measured)
    return {
        "agents": [
            {
                "name": peer.name,
                "address": f"{peer.address[0]}:{peer.address[1]}",
                **_facts(peer.facts.as_dict()),
                **links.speeds.get(peer.name, {}),
            }
            for peer in links.peers
        ],
        "links": [{name: getattr(row, name) for name in Row.__slots__} for row in measured],
        "slowest": {"source": worst.source, "sink": worst.sink, "median_s": worst.median_s}
        if worst
        else None,
        "warnings": [*links.warnings, *_doubts(measured)],
    }


def _facts(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if key not in ("name", "clock_s")}
