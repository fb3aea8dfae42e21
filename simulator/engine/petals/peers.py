"""What a Petals client remembers of servers: round trips, bans, and whom it pings next.

As read from and recorded with 2.2.0.post1 (`petals/utils/ping.py`, `client/config.py`, `sequence_manager.py`)
and hivemind 1.1.12 (`Blacklist`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from math import inf, isinf, nan
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from simulator.laws.law import Floats

__all__ = ["Bans", "Pings", "expires_s", "last_announced_s", "pinged_next"]

Peer = TypeVar("Peer", bound=Hashable)
NEWEST_WEIGHT, KEPT_S = 0.2, 300.0
BAN_S, BAN_GROWTH = 15.0, 2.0
MOST_PINGED = 3
LEAST_EXPIRY_S = 3.0
Ints = NDArray[np.int64]


class Pings:
    """Smoothed round trips (s) by server number: a new one counts a fifth; a failed one is inf until the next
    success.
    """

    def __init__(self, servers: int) -> None:
        self._rtt_s, self._until_s = np.full(servers, nan), np.full(servers, -inf)

    def add(self, peer: int, rtt_s: float, now_s: float) -> None:
        """A ping was answered after `rtt_s`, or never: inf."""
        before = float(self._rtt_s[peer])
        if now_s < self._until_s[peer] and not (isinf(rtt_s) or isinf(before)):
            rtt_s = NEWEST_WEIGHT * rtt_s + (1 - NEWEST_WEIGHT) * before
        self._rtt_s[peer], self._until_s[peer] = rtt_s, now_s + KEPT_S

    def of(self, peers: Ints, now_s: float) -> Floats:
        """Smoothed round trips of these; nan where there is none, or none of the last 300 s."""
        return np.where(now_s < self._until_s[peers], self._rtt_s[peers], nan)


@dataclass(slots=True)
class Bans(Generic[Peer]):
    """Servers that failed: left out for 15 s, then for twice as long each time; a success forgives all."""

    first_s: float = BAN_S
    _until_s: dict[Peer, float] = field(default_factory=dict)
    _count: dict[Peer, int] = field(default_factory=dict)

    def failed(self, peer: Peer, now_s: float) -> None:
        """A request failed; while a server is banned, a further failure does not prolong it."""
        if self.banned(peer, now_s):
            return
        count = self._count.get(peer, 0)
        self._until_s[peer] = now_s + self.first_s * BAN_GROWTH**count
        self._count[peer] = count + 1

    def succeeded(self, peer: Peer) -> None:
        """A request succeeded."""
        self._until_s.pop(peer, None)
        self._count.pop(peer, None)

    def banned(self, peer: Peer, now_s: float) -> bool:
        """Whether a server is banned at this moment."""
        return now_s < self._until_s.get(peer, -inf)

    def current(self, now_s: float) -> list[Peer]:
        """All that are banned at this moment."""
        return [peer for peer, until_s in self._until_s.items() if now_s < until_s]

    def kept(self, holders: Sequence[Peer], now_s: float) -> list[Peer]:
        """Who of a block's servers is left; all where all are banned: then the fault may be one's own."""
        return [peer for peer in holders if not self.banned(peer, now_s)] or list(holders)


def pinged_next(middle: Ints, last: Ints, rng: np.random.Generator, most: int = MOST_PINGED) -> list[int]:
    """Whom a refresh pings: up to three drawn from the servers of all middle blocks, and three of the last.

    A server stands in `middle` once for each block that it holds there, so long ones are drawn more often;
    those of the first block alone are drawn never, by a slip of the shipped code.
    """
    return sorted({*_some(middle, most, rng), *_some(last, most, rng)})


def _some(peers: Ints, most: int, rng: np.random.Generator) -> list[int]:
    at = rng.choice(len(peers), size=min(most, len(peers)), replace=False, shuffle=False)
    found: list[int] = peers[at].tolist()
    return found


def last_announced_s(online_s: float, now_s: float, period_s: float) -> float:
    """When a server that came online at `online_s` has announced itself last."""
    return online_s + (now_s - online_s) // period_s * period_s


def expires_s(announced_s: float, period_s: float) -> float:
    """Until when others believe an announcement: for two periods, 3 s at least."""
    return announced_s + max(2 * period_s, LEAST_EXPIRY_S)
