"""A server's life: come, choose blocks, load them, serve, perhaps move, go, and come again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import simpy
from simpy.events import ProcessGenerator

from simulator.engine.petals.blocks import MARGIN, Span, best_start, should_move
from simulator.laws.law import Floats
from simulator.swarm.board import Board, Ints
from simulator.swarm.population import START_S, Server, draw_s
from simulator.swarm_spec import LossSpec, SwarmSpec

__all__ = ["Balance", "Lives"]

CHOICE_WAIT_S = 10.0
"""A server waits for up to so long before it chooses, so that servers started together see each other."""


@dataclass
class Lives:
    """All servers' lives, and what has to be told when one of them ends."""

    env: simpy.Environment
    board: Board
    spec: SwarmSpec
    rng: Callable[[str], np.random.Generator]
    lost: Callable[[Server, str], None]
    """Told of each server that stops serving, and how: kill, hang, leave or move."""
    moves: dict[int, simpy.Event] = field(default_factory=dict)

    def begin(self, servers: list[Server]) -> None:
        """At the start those who are up have found their places already, one after the other."""
        order = self.rng("order").permutation(len(servers)).tolist()
        for server in (servers[at] for at in order):
            rng = self.rng(f"life/{server.name}")
            self.env.process(self.life(server, rng, settled=bool(rng.random() < _share_up(server))))
        for loss in self.spec.losses:
            named = next(one for one in servers if one.name == loss.server)
            self.env.process(self.scripted(named, loss))

    def life(self, server: Server, rng: np.random.Generator, *, settled: bool) -> ProcessGenerator:
        """Up and away in turns; who is away as the swarm begins comes in the middle of that."""
        stay = server.kind.stay
        if not settled:
            yield self.env.timeout(draw_s(stay.away, rng) * rng.random())
        while True:
            leaves_s = np.inf if stay.uptime is None else self.env.now + draw_s(stay.uptime, rng)
            yield from self.serve(server, rng, leaves_s, settled=settled)
            settled = False
            yield self.env.timeout(draw_s(stay.away, rng))

    def serve(
        self, server: Server, rng: np.random.Generator, leaves_s: float, *, settled: bool
    ) -> ProcessGenerator:
        """From choosing blocks to leaving; each move on the way begins with choosing again."""
        while True:
            start_s = 0.0 if settled else rng.uniform(*START_S) + rng.uniform(0.0, CHOICE_WAIT_S)
            yield self.env.timeout(start_s)
            # a scripted loss may have brought it back meanwhile
            if not server.alive:
                self.choose(server)
            load_s = 0.0 if settled else server.kind.blocks * server.kind.load_s
            yield self.env.timeout(load_s)
            if not server.alive:
                self.start(server)
            settled = False
            self.moves[server.number] = moved = self.env.event()
            leaving = self.env.timeout(max(0.0, leaves_s - self.env.now)) if np.isfinite(leaves_s) else None
            yield moved if leaving is None else leaving | moved
            if moved.triggered:
                if server.alive:
                    self.stop(server, "move")
                continue
            self.stop(server, "leave" if rng.random() < server.kind.stay.good_bye else "kill")
            return

    def choose(self, server: Server) -> None:
        """Announce the blocks where least is announced so far, or those that it was told to serve."""
        span, blocks = server.kind.stay.span, server.kind.blocks
        start = span[0] if span else best_start(self.board.throughputs(), blocks)
        server.start, server.end = start, start + blocks
        self.board.join(server, server.start, server.end)

    def start(self, server: Server) -> None:
        """Be online."""
        server.alive, server.silent, server.life = True, False, server.life + 1
        # streams of the time before are gone, whether or not their clients know that yet
        server.chats = {}
        server.room_tokens = server.kind.cache_tokens
        self.board.online(server)

    def stop(self, server: Server, how: str) -> None:
        """Serve no more, and let go of all chats."""
        if not server.alive:
            return
        self.board.leave(server, announced=how in ("leave", "move"))
        server.alive, server.silent = False, how == "hang"
        self.lost(server, how)

    def scripted(self, server: Server, loss: LossSpec) -> ProcessGenerator:
        """A loss that the scenario tells; who comes back serves the same blocks."""
        yield self.env.timeout(loss.at)
        if not server.alive:
            return
        self.stop(server, loss.how)
        if loss.back_after is None:
            return
        life = server.life
        yield self.env.timeout(loss.back_after)
        if server.alive or server.life != life:
            return  # it has been away and come again by itself
        if loss.how == "hang":
            # nothing of it was lost: its announcements were late, its chats go on
            self.board.join(server, server.start, server.end)
            server.alive, server.silent = True, False
            self.board.online(server)
            self.lost(server, "wake")
        else:
            self.board.join(server, server.start, server.end)
            self.start(server)


def _share_up(server: Server) -> float:
    """The share of time that a server is up."""
    stay = server.kind.stay
    if stay.uptime is None or not stay.away.mean_s:
        return 1.0
    return stay.uptime.mean_s / (stay.uptime.mean_s + stay.away.mean_s)


@dataclass
class Balance:
    """All servers' looks at the balance, as one process: only who might move needs a look.

    A server looks every uniform(0, 2 m) s. What it sees changes with the board alone, so after a change each
    server that might gain looks once, the rest of its current wait later; the others would see nothing.
    """

    env: simpy.Environment
    board: Board
    spec: SwarmSpec
    rng: np.random.Generator
    move: Callable[[int], None]

    def run(self) -> ProcessGenerator:
        """Wait for a change, then for the looks of those whom it might move."""
        while True:
            changed = self.board.changed
            looks = self.looks()
            if not looks:
                yield changed
            for wait_s, peer in looks:
                yield self.env.timeout(wait_s) | changed
                if changed.triggered:
                    break
                if self.wants(peer):
                    self.move(peer)
                    break

    def looks(self) -> list[tuple[float, int]]:
        """Who might move, in the order of their next looks, each with the time after the one before."""
        peers = self.might_gain()
        # the wait that is under way is longer than most, and how much of it is left is uniform
        whole_s = 2 * self.spec.balance_period * np.sqrt(self.rng.random(len(peers)))
        left_s = whole_s * self.rng.random(len(peers))
        order = np.argsort(left_s)
        gaps_s = np.diff(left_s[order], prepend=0.0)
        return list(zip(gaps_s.tolist(), peers[order].tolist(), strict=True))

    def might_gain(self) -> Ints:
        """Servers for which some other place may be better and the swarm may gain enough; few others can."""
        total, board, quality = self.board.throughputs(), self.board, self.spec.balance_quality
        # nobody can do better than spread everything evenly
        if quality <= 1 and total.min() >= (quality - MARGIN) * max(total.mean(), MARGIN):
            return np.zeros(0, dtype=np.int64)
        at = np.array([i for i in board.listed().tolist() if self._may_move(i)], dtype=np.int64)
        if not len(at) or quality > 1:
            return at
        least, most = _least_outside(total, board.start[at], board.end[at]), _most_inside(total, board, at)
        # a window that swaps one of its blocks for another is no better if that one has more already
        return at[least <= most - board.throughput[at] * (1 + MARGIN)]

    def _may_move(self, peer: int) -> bool:
        server = self.board.servers[peer]
        return server.alive and server.kind.stay.span is None

    def wants(self, peer: int) -> bool:
        """The server's own decision, by Petals' rule."""
        if not self._may_move(peer):
            return False
        board = self.board
        spans = {
            f"{at:06d}": Span(int(board.start[at]), int(board.end[at]), float(board.throughput[at]))
            for at in board.listed().tolist()
        }
        return should_move(f"{peer:06d}", spans, board.blocks, self.rng, self.spec.balance_quality)


def _least_outside(total: Floats, start: Ints, end: Ints) -> Floats:
    before = np.concatenate([[np.inf], np.minimum.accumulate(total)])
    behind = np.concatenate([np.minimum.accumulate(total[::-1])[::-1], [np.inf]])
    return np.asarray(np.minimum(before[start], behind[end]))


def _most_inside(total: Floats, board: Board, at: Ints) -> Floats:
    return np.array([total[board.start[i] : board.end[i]].max() for i in at.tolist()])
