"""Hops: what the relay imposed on messages, as events of a Measurement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from live.local.children import Event

__all__ = ["hop_events"]


def hop_events(flights: Sequence[Event], summed: bool) -> Iterator[dict[str, Any]]:
    """One event per flight, or `summed`: one for each way, with the totals of all messages.

    A ring by tensor sends hundreds of messages a token, all alike: one by one they would be a thousand times
    the tokens that they carry.
    """
    if not summed:
        yield from (_event([flight]) for flight in flights)
        return
    for way in dict.fromkeys((flight["source"], flight["sink"]) for flight in flights):
        yield _event([flight for flight in flights if (flight["source"], flight["sink"]) == way])


def _event(flights: Sequence[Event]) -> dict[str, Any]:
    def total(key: str) -> int:
        return sum(flight[key] for flight in flights)

    first = flights[0]
    return {
        "source": first["source"],
        "sink": first["sink"],
        "size_bytes": total("size_bytes"),
        "sent_ns": first["last_ns"],
        "imposed_ns": total("imposed_ns"),
        "late_ns": total("late_ns"),
        "messages": sum(len(flight["messages"]) for flight in flights),
    }
