"""Who may knock how often: a bucket of attempts per source address, in bounded memory."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["Guard"]

# enough for a person who starts commands; a link matrix is given its knocks back
BURST = 20.0
PER_S = 2.0
SOURCES = 1024


class Guard:
    """Each source starts with `burst` attempts and gets `per_s` back per second; right knocks are given back.

    So a stranger may try twice a second for ever, which finds no token of 128 bits, and an agent that
    measures for hours never waits.
    """

    def __init__(
        self,
        burst: float = BURST,
        per_s: float = PER_S,
        sources: int = SOURCES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst, self._per_s, self._sources, self._clock = burst, per_s, sources, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, address: str) -> bool:
        """Take one attempt of this source; False when it has none left."""
        with self._lock:
            left = self._refilled(address)
            self._store(address, left - 1 if left >= 1 else left)
            return left >= 1

    def forgive(self, address: str) -> None:
        """Give one attempt back: the knock was right."""
        with self._lock:
            self._store(address, min(self._refilled(address) + 1, self._burst))

    def _refilled(self, address: str) -> float:
        left, at_s = self._left.get(_source(address), (self._burst, self._clock()))
        return min(self._burst, left + (self._clock() - at_s) * self._per_s)

    def _store(self, address: str, left: float) -> None:
        key = _source(address)
        self._left[key] = (left, self._clock())
        # the source that was quiet for longest is forgotten first
        self._left.move_to_end(key)
        if len(self._left) > self._sources:
            self._left.popitem(last=False)


def _source(address: str) -> str:
    """The address, or its /64 for IPv6, where a single host has 2**64 of them."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address
