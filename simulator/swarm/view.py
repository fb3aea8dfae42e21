"""What one client knows of the swarm: who was there at its last look, round trips, bans; and its routes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from math import inf

import numpy as np

from simulator.engine.petals.peers import Bans, Pings, pinged_next
from simulator.engine.petals.routes import Candidates, Online, Route, shortest_route
from simulator.laws.law import Floats
from simulator.swarm.board import Board, Ints
from simulator.swarm.population import Server, Setting

__all__ = ["Network", "View"]

SHARED_LOOKS = 16
ASKED_OF_20 = 0.95
"""Who cannot be dialled is looked for elsewhere: libp2p asks the 20 closest peers of its table for other
addresses (go-libp2p, p2p/host/routed). The slowest of so many answers is about this quantile of all.
"""
MOST_NEXT = 5
"""Servers of the block after its own that a server pings."""


class Network:
    """Round trips between servers, clients and each other, in arrays by server."""

    def __init__(self, given: Setting, servers: list[Server], board: Board, rng: np.random.Generator) -> None:
        self.given, self.board, self.rng = given, board, rng
        names = sorted({one.kind.stay.region for one in servers} | {given.spec.client_region})
        self.hubs_s = np.array([[given.rtt_s(a, b) for b in names] for a in names])
        self.region = np.array([names.index(one.kind.stay.region) for one in servers], dtype=np.int64)
        self.client_region = names.index(given.spec.client_region)
        self.delay_s = np.array([one.delay_s for one in servers])
        self.drawn_s, self.next_to = -inf, np.zeros((len(servers), MOST_NEXT), dtype=np.int64)
        nobody = np.zeros(0, dtype=np.int64)
        self.pairs: tuple[Ints, Ints, Floats] = nobody, nobody, np.zeros(0)
        self._shared: dict[Hashable, Online] = {}

    def from_client_s(self, client_delay_s: float) -> Floats:
        """Round trips between a client and each server, shape (servers,)."""
        return np.asarray(2 * (client_delay_s + self.delay_s) + self.hubs_s[self.client_region, self.region])

    def between_s(self, a: Ints, b: Ints) -> Floats:
        """Round trips between pairs of servers."""
        return np.asarray(
            2 * (self.delay_s[a] + self.delay_s[b]) + self.hubs_s[self.region[a], self.region[b]]
        )

    def next_pings(self) -> tuple[Ints, Ints, Floats]:
        """What servers announce of the ones that may follow them: who, whom, and the round trip.

        Drawn anew for all at once in each period; servers do so at moments of their own, which nobody sees.
        """
        if self.board.env.now >= self.drawn_s + self.board.period_s:
            self._draw()
        return self.pairs

    def shared(self, key: Hashable, make: Callable[[], Online]) -> Online:
        """What clients that saw the same have in common, made once."""
        if key not in self._shared:
            # older looks are asked for no more
            self._shared = dict(list(self._shared.items())[-SHARED_LOOKS:])
            self._shared[key] = make()
        return self._shared[key]

    def _draw(self) -> None:
        board, self.drawn_s = self.board, self.board.env.now
        listed = board.listed()
        self.next_to[:] = -1
        for block in np.unique(board.end[listed]).tolist():
            holding = listed[(board.start[listed] <= block) & (block < board.end[listed])]
            ending = listed[board.end[listed] == block]
            if len(holding):
                self.next_to[ending] = holding[self.rng.integers(len(holding), size=(len(ending), MOST_NEXT))]
        sources, targets = np.repeat(listed, MOST_NEXT), self.next_to[listed].ravel()
        known = targets >= 0
        # the same one may have been drawn twice
        pairs = np.unique(sources[known] * len(self.next_to) + targets[known])
        sources, targets = np.divmod(pairs, len(self.next_to))
        self.pairs, self._shared = (sources, targets, self.between_s(sources, targets)), {}


@dataclass
class View:
    """One client's knowledge."""

    board: Board
    network: Network
    rtt_s: Floats
    """True round trips to each server."""
    rng: np.random.Generator
    bans: Bans[int] = field(default_factory=Bans)
    seen: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Servers at the last look."""
    starts: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    ends: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """The blocks that they served then."""
    place: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Where each server stands among those seen, -1 for the others."""
    looked: tuple[int, bytes] = (-1, b"")
    """The board's version at the last look, and who was left out."""
    removed: set[int] = field(default_factory=set)
    """Those that failed since: they stay candidates, but count no more for whether blocks are served."""

    def __post_init__(self) -> None:
        self._online: Online | None = None
        self._drawn: object = None
        self.pings = Pings(len(self.board.servers))

    def refresh(self) -> None:
        """Look who is there, leave out who is banned, and ping a few."""
        board, now_s = self.board, self.board.env.now
        listed = board.listed()
        # a hanging or dead server is listed until its announcement expires
        online = listed[~board.joining[listed]]
        self.seen = self._without_banned(online)
        self.starts, self.ends = board.start[self.seen], board.end[self.seen]
        self.place = np.full(len(board.servers), -1, dtype=np.int64)
        self.place[self.seen] = np.arange(len(self.seen))
        left_out = np.setdiff1d(online, self.seen) if len(online) > len(self.seen) else online[:0]
        self.looked, self._online = (board.version, left_out.tobytes()), None
        self.removed.clear()
        held = np.minimum(self.ends, board.blocks - 1) - np.maximum(self.starts, 1)
        middle = np.repeat(self.seen, np.maximum(0, held))
        last = self.seen[self.ends == board.blocks]
        for peer in pinged_next(middle, last, self.rng):
            answers = board.servers[peer].alive
            self.pings.add(peer, float(self.rtt_s[peer]) if answers else inf, now_s)

    def searched_s(self) -> float:
        """Seconds of asking others for another address of a server; of up to 20 the last answer counts."""
        known_s = self.rtt_s[self.seen]
        return float(np.quantile(known_s, ASKED_OF_20, method="higher")) if len(known_s) else 0.0

    def _without_banned(self, online: Ints) -> Ints:
        """Banned servers are left out, but for those without whom some block would have nobody."""
        board, now_s = self.board, self.board.env.now
        banned = np.isin(online, self.bans.current(now_s))
        if not banned.any():
            return online
        counts = np.zeros(board.blocks + 1, dtype=np.int64)
        np.add.at(counts, board.start[online[~banned]], 1)
        np.add.at(counts, board.end[online[~banned]], -1)
        held = np.cumsum(counts)[:-1] > 0
        needed = [not held[board.start[one] : board.end[one]].all() for one in online[banned].tolist()]
        banned[banned] = ~np.array(needed, dtype=bool)
        return online[~banned]

    def failed(self, peer: int) -> bool:
        """A request failed: ban that server; whether some block has nobody left, so that it looks again."""
        self.bans.failed(peer, self.board.env.now)
        self.removed.add(peer)
        left = np.array([one not in self.removed for one in self.seen.tolist()], dtype=bool)
        counts = np.zeros(self.board.blocks + 1, dtype=np.int64)
        np.add.at(counts, self.starts[left], 1)
        np.add.at(counts, self.ends[left], -1)
        return bool((np.cumsum(counts)[:-1] == 0).any())

    def route(self, start: int, end: int, cache_tokens: int) -> Route:
        """The cheapest way through [start, end), by server number; raises MissingBlocks."""
        servers = Candidates(
            self.online(), self.pings.of(self.seen, self.board.env.now), self.board.announced_room(self.seen)
        )
        found = shortest_route(servers, start, end, cache_tokens)
        return Route(
            tuple(hop._replace(server=int(self.seen[hop.server])) for hop in found.hops), found.cost_s
        )

    def online(self) -> Online:
        """The servers of the last look; clients that looked since the last change share them."""
        drawn = self.network.next_pings()
        if self._online is None or self._drawn is not drawn:
            self._drawn, self._online = drawn, self.network.shared(self.looked, self._made)
        return self._online

    def _made(self) -> Online:
        sources, targets, between_s = self.network.next_pings()
        here = (self.place[sources] >= 0) & (self.place[targets] >= 0)
        return Online(
            start=self.starts,
            end=self.ends,
            block_s=self.board.block_s[self.seen],
            pinged_from=self.place[sources[here]],
            pinged_to=self.place[targets[here]],
            pinged_s=between_s[here],
        )
