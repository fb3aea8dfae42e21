"""Who may knock how often: a bucket of attempts per source, in bounded memory, and beyond it one for all."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from live.agent.addresses import networks_of, source_of
from live.agent.facts import own_addresses

__all__ = ["Guard"]

# enough for a person who starts commands; a link matrix is given its knocks back
BURST = 20.0
PER_S = 2.0
# A right asker behind the address of a stranger (same machine, same router) lives on these.
COMMON_PER_S = 50.0
SOURCES = 1024
LOOK_EVERY_S = 60.0  # a phone that roams gets other addresses


class Guard:
    """Each source starts with `burst` attempts and gets `per_s` back per second; right knocks are given back.

    Beyond that all sources together have `common_per_s`. So one address guesses 52 times a second at most,
    which finds no token of 128 bits, an agent that measures for hours never waits, and a stranger who
    knocks more often than that locks out nobody but its own address.
    """

    def __init__(
        self,
        burst: float = BURST,
        per_s: float = PER_S,
        sources: int = SOURCES,
        clock: Callable[[], float] = time.monotonic,
        own: Callable[[], tuple[tuple[str, str, int], ...]] = own_addresses,
        common_per_s: float = COMMON_PER_S,
    ) -> None:
        self._burst, self._per_s, self._sources, self._clock = burst, per_s, sources, clock
        self._common_per_s, self._common, self._common_at_s = common_per_s, common_per_s, clock()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._own, self._networks, self._looked_s = own, networks_of(own()), clock()
        self._lock = threading.Lock()

    def admit(self, address: str) -> bool:
        """Take one attempt of this source; False when neither it nor all together have one left."""
        with self._lock:
            key = self._source(address)
            left = self._refilled(key)
            self._store(key, left - 1 if left >= 1 else left)
            return left >= 1 or self._take_common()

    def forgive(self, address: str) -> None:
        """Give one attempt back: the knock was right."""
        with self._lock:
            key = self._source(address)
            self._store(key, min(self._refilled(key) + 1, self._burst))

    def _source(self, address: str) -> str:
        if self._clock() - self._looked_s >= LOOK_EVERY_S:
            self._networks, self._looked_s = networks_of(self._own()), self._clock()
        return source_of(address, self._networks)

    def _take_common(self) -> bool:
        now_s = self._clock()
        refilled = self._common + (now_s - self._common_at_s) * self._common_per_s
        self._common, self._common_at_s = min(refilled, self._common_per_s), now_s
        enough = self._common >= 1
        self._common -= enough
        return enough

    def _refilled(self, key: str) -> float:
        left, at_s = self._left.get(key, (self._burst, self._clock()))
        return min(self._burst, left + (self._clock() - at_s) * self._per_s)

    def _store(self, key: str, left: float) -> None:
        self._left[key] = (left, self._clock())
        # the source that was quiet for longest is forgotten first
        self._left.move_to_end(key)
        if len(self._left) > self._sources:
            self._left.popitem(last=False)
