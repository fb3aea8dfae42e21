"""One replication of a swarm: from its servers' first moment to the end of its hours."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import simpy
from simpy.events import ProcessGenerator

from simulator.engine.petals.peers import Bans
from simulator.laws.law import Floats, median_s
from simulator.swarm.board import Board, Coverage
from simulator.swarm.chats import Client, Reply, lost
from simulator.swarm.population import Server, Setting, draw_s, servers_of
from simulator.swarm.servers import Balance, Lives
from simulator.swarm.sharing import Sharing
from simulator.swarm.view import Network, View

__all__ = ["Swarm", "Tale", "replicate"]

HOUR_S = 3600.0
SAMPLES = 96
"""Looks at how many servers hold each block, for the chart."""


@dataclass(frozen=True)
class Tale:
    """What one replication leaves behind."""

    replies: tuple[Reply, ...]
    coverage: Coverage
    counts: Floats
    """Servers online for each block, shape (samples, blocks)."""
    sampled_s: Floats
    span_s: float
    servers: int
    moves: int


class Swarm:
    """Servers, board and clients of one replication."""

    def __init__(self, given: Setting, replication: int) -> None:
        self.given, self.replication, self.env = given, replication, simpy.Environment()
        spec = given.spec
        luck = {kind.name: self.rng(f"kind/{kind.name}") for kind in given.kinds}
        self.servers: list[Server] = servers_of(given, luck)
        self.board = Board(self.env, self.servers, given.model.layers, spec.announce_period)
        self.lives = Lives(self.env, self.board, spec, self.rng, self.lost)
        self.sharing = Sharing(lambda chat: given.client_s)
        self.network = Network(given, self.servers, self.board, self.rng("network"))
        self.balance = Balance(self.env, self.board, spec, self.rng("balance"), self.move)
        self.replies: list[Reply] = []
        self.moves = 0

    def rng(self, name: str) -> np.random.Generator:
        """Random numbers of their own for each name, so that one server more moves no other one's."""
        key = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")
        seed = np.random.SeedSequence((self.given.scenario.seed, self.replication, key))
        return np.random.Generator(np.random.PCG64(seed))

    def lost(self, server: Server, how: str) -> None:
        """A server is gone: its chats learn of it in their own time."""
        self.moves += how == "move"
        lost(server, how)

    def move(self, peer: int) -> None:
        """A server leaves its blocks for others."""
        moved = self.lives.moves[peer]
        if not moved.triggered:
            moved.succeed()

    def tale(self) -> Tale:
        """Live through the scenario's hours."""
        span_s, spec = self.given.spec.hours * HOUR_S, self.given.spec
        samples: list[Floats] = []
        self.lives.begin(self.servers)
        self.env.process(self.balance.run())
        self.env.process(self.sample(samples, span_s / SAMPLES))
        self.env.process(self.arrivals() if spec.arrivals else self.users())
        self.env.run(until=span_s)
        self.board.coverage.until(span_s)
        sampled_s = np.arange(len(samples)) * span_s / SAMPLES
        return Tale(
            tuple(self.replies),
            self.board.coverage,
            np.array(samples),
            sampled_s,
            span_s,
            len(self.servers),
            self.moves,
        )

    def sample(self, samples: list[Floats], every_s: float) -> ProcessGenerator:
        """How many servers hold each block, now and then."""
        while True:
            # after the first moment's servers have found their places
            yield self.env.timeout(0.0 if samples else 1e-3)
            samples.append(self.board.coverage.counts.astype(float))
            yield self.env.timeout(every_s)

    def users(self) -> ProcessGenerator:
        """Users who ask again and again; each has a client that goes on learning."""
        yield self.env.timeout(1.0)
        for number in range(self.given.spec.users):
            self.env.process(self.user(number))

    def user(self, number: int) -> ProcessGenerator:
        """One chat after the other."""
        client, rng = self.client(number), self.rng(f"user/{number}")
        client.view.refresh()
        self.env.process(client.look())
        asked = 0
        while True:
            yield self.env.process(client.chat(number + asked * self.given.spec.users))
            asked += 1
            if self.given.spec.think is not None:
                yield self.env.timeout(draw_s(self.given.spec.think, rng))

    def arrivals(self) -> ProcessGenerator:
        """Clients who come at random, ask once and go."""
        rng, number = self.rng("arrivals"), 0
        while True:
            yield self.env.timeout(float(rng.exponential(HOUR_S / (self.given.spec.arrivals or 1.0))))
            self.env.process(self.visit(number))
            number += 1

    def visit(self, number: int) -> ProcessGenerator:
        """One chat."""
        client = self.client(number)
        client.view.refresh()
        self.env.process(client.look())
        yield self.env.process(client.chat(number))
        client.gone = True

    def client(self, number: int) -> Client:
        """A client as it starts."""
        link, rng = self.given.client.link, self.rng(f"client/{number}")
        rtt_s = self.network.from_client_s(median_s(link.delay) + link.vpn_delay_s)
        own = [one.number for one in self.servers if one.name == self.given.client.name]
        rtt_s[own] = 0.0
        view = View(self.board, self.network, rtt_s, rng, Bans(self.given.spec.ban))
        return Client(
            self.env,
            self.given,
            self.board,
            self.servers,
            self.sharing,
            view,
            rng,
            self.replies,
            link.rate_bytes_per_s,
        )


def replicate(given: Setting, replication: int) -> Tale:
    """One replication of a swarm."""
    return Swarm(given, replication).tale()
