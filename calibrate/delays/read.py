"""The delays in a Measurement: what relays imposed on messages, and round trips that agents measured."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from simulator.laws.law import Floats
from simulator.result.measurement import Measurement

__all__ = ["Route", "hop_delays_s", "link_rtts_s"]


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """Messages of one size from `source` to `sink`; `loaded` while something else used the link."""

    source: str
    sink: str
    size_bytes: int
    loaded: bool = False

    def __str__(self) -> str:
        return f"{self.source} -> {self.sink}, {self.size_bytes} bytes{', loaded' if self.loaded else ''}"


def hop_delays_s(measurement: Measurement) -> dict[Route, Floats]:
    """One-way delays (s) that a relay imposed, in the order of the file.

    Sizes stay apart: a short message right behind a long one waits for it, so its delay is not a draw of its
    own.
    """
    return _collect(measurement, "hop", "imposed_ns")


def link_rtts_s(measurement: Measurement) -> dict[Route, Floats]:
    """Round-trip times (s) that agents measured directly, in the order of the file."""
    return _collect(measurement, "link", "rtt_ns")


def _collect(measurement: Measurement, kind: str, field: str) -> dict[Route, Floats]:
    """The field of all events of one kind, by route."""
    found: dict[Route, list[float]] = defaultdict(list)
    for event in measurement.of(kind):
        route = Route(event["source"], event["sink"], event["size_bytes"], event.get("loaded", False))
        found[route].append(event[field] / 1e9)
    return {route: np.asarray(values) for route, values in sorted(found.items())}
