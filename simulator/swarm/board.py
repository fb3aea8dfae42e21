"""The board: what servers announce, who believes it until when, and which blocks are really served.

A distributed hash table at its simplest: every announcement is seen by all at once, and believed until it
expires. Servers announce themselves again and again; nobody has to simulate that, as when a server has done
so last follows from when it came online.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import simpy
from numpy.typing import NDArray

from simulator.engine.petals.peers import expires_s, last_announced_s
from simulator.laws.law import Floats
from simulator.swarm.population import Server

__all__ = ["Board", "Coverage"]

Ints = NDArray[np.int64]


@dataclass
class Coverage:
    """How long each block was served by nobody, and how long all were served."""

    blocks: int
    counts: Ints = field(init=False)
    """Servers that are online, for each block."""
    missing_s: Floats = field(init=False)
    whole_s: float = 0.0
    since_s: float = 0.0

    def __post_init__(self) -> None:
        self.counts = np.zeros(self.blocks, dtype=np.int64)
        self.missing_s = np.zeros(self.blocks)

    def change(self, now_s: float, start: int, end: int, by: int) -> None:
        """A server begins or ends to serve [start, end)."""
        self.until(now_s)
        self.counts[start:end] += by

    def until(self, now_s: float) -> None:
        """Add up the time since the last change."""
        spent_s = now_s - self.since_s
        absent = self.counts == 0
        self.missing_s += spent_s * absent
        self.whole_s += 0.0 if absent.any() else spent_s
        self.since_s = now_s


class Board:
    """All announcements, one for each time that a server was online; arrays have one entry for each."""

    def __init__(self, env: simpy.Environment, servers: list[Server], blocks: int, period_s: float) -> None:
        self.env, self.servers, self.blocks, self.period_s = env, servers, blocks, period_s
        count = len(servers)
        # by server: what it announces now; `until` is past where it has expired, inf while it goes on
        self.start, self.end = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
        self.throughput, self.block_s = np.zeros(count), np.array([one.block_s for one in servers])
        self.online_s, self.until_s = np.full(count, np.inf), np.full(count, -np.inf)
        self.joining = np.zeros(count, dtype=bool)
        self.room, self.told_room = np.zeros(count), np.zeros(count)
        self.room_changed_s = np.zeros(count)
        self.version = 0
        self.changed = env.event()
        self.coverage = Coverage(blocks)

    def join(self, server: Server, start: int, end: int) -> None:
        """A server says that it will serve [start, end); others count it from now on."""
        at = server.number
        self.start[at], self.end[at] = start, end
        self.throughput[at], self.joining[at] = server.throughput, True
        self.online_s[at], self.until_s[at] = self.env.now, np.inf
        self.told()

    def online(self, server: Server) -> None:
        """It serves them."""
        at = server.number
        self.joining[at], self.online_s[at] = False, self.env.now
        self.room[at] = self.told_room[at] = server.room_tokens
        self.room_changed_s[at] = self.env.now
        self.coverage.change(self.env.now, server.start, server.end, 1)
        self.told()

    def leave(self, server: Server, *, announced: bool) -> None:
        """It serves no more; where it does not say so, others believe its last word until that expires."""
        at, now_s = server.number, self.env.now
        last_s = last_announced_s(float(self.online_s[at]), now_s, self.period_s)
        self.until_s[at] = now_s if announced else expires_s(last_s, self.period_s)
        if server.alive:
            self.coverage.change(now_s, server.start, server.end, -1)
        if announced:
            self.told()
        else:
            self.env.process(self._expire(at, float(self.until_s[at])))

    def _expire(self, at: int, until_s: float) -> simpy.events.ProcessGenerator:
        yield self.env.timeout(until_s - self.env.now)
        # unless it has come back meanwhile
        if self.until_s[at] == until_s:
            self.told()

    def told(self) -> None:
        """Something that others look at has changed."""
        self.version += 1
        self.changed.succeed()
        self.changed = self.env.event()

    def listed(self) -> Ints:
        """Servers whose announcement is believed, joining ones too."""
        return np.flatnonzero(self.until_s > self.env.now)

    def throughputs(self) -> Floats:
        """The sum of what is announced for each block, shape (blocks,)."""
        at = self.listed()
        steps = np.zeros(self.blocks + 1)
        np.add.at(steps, self.start[at], self.throughput[at])
        np.add.at(steps, self.end[at], -self.throughput[at])
        # rounded, as sums that go up and down leave a last digit where nothing is
        return np.maximum(0.0, np.round(np.cumsum(steps[:-1]), 6))

    def take_room(self, server: Server, tokens: float) -> None:
        """A chat takes room in a server's cache, or with fewer than 0 tokens gives it back."""
        at, now_s = server.number, self.env.now
        # what others know is what was so when the server announced itself last
        if self.room_changed_s[at] < last_announced_s(float(self.online_s[at]), now_s, self.period_s):
            self.told_room[at] = self.room[at]
        server.room_tokens -= tokens
        self.room[at], self.room_changed_s[at] = server.room_tokens, now_s

    def announced_room(self, at: Ints) -> Floats:
        """Tokens that these servers said they had room for."""
        last_s = self.online_s[at] + (self.env.now - self.online_s[at]) // self.period_s * self.period_s
        return np.where(self.room_changed_s[at] < last_s, self.room[at], self.told_room[at])
