"""Petals as SimPy processes: one for each chat's client, one for each server's stream of it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import simpy

from simulator.engine.petals.chain import Chain, Exchange
from simulator.engine.petals.flow import backoff_s
from simulator.runtime.chats import FirstCome, admit
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.network import Hop, Network
from simulator.runtime.record import Recorder

__all__ = ["SwarmProcesses", "start"]

Steps = Generator[simpy.Event, Any, int]


@dataclass
class Wire:
    """An exchange and its hop; a hand-over inside one machine takes no time."""

    env: simpy.Environment
    exchange: Exchange | None
    hop: Hop | None
    delay_s: list[float]
    local: simpy.Store = field(init=False)

    def __post_init__(self) -> None:
        self.local = simpy.Store(self.env)

    def send(self, token: int, cause: int) -> None:
        """A token's message on its way."""
        if self.exchange is None or self.hop is None:
            self.local.put(cause)
        else:
            self.hop.send(self.exchange.size_bytes(token), self.delay_s[token], cause, token)

    def receive(self) -> simpy.Event:
        """The arrival of the next message; its value is the span that ends with it."""
        return self.local.get() if self.hop is None else self.hop.receive()


@dataclass
class SwarmProcesses:
    """All chats of the row of the draws; servers, air and caches are shared."""

    env: simpy.Environment
    chain: Chain
    """Of this row, or of a block of rows."""
    draws: Draws
    recorder: Recorder
    row: int
    """The row's place in the chain's arrays."""
    arrivals_s: Sequence[float] | None = None
    """When each chat comes; None: as many as the workload's concurrency, all at once."""

    def __post_init__(self) -> None:
        at_once = self.chain.job.workload.concurrency
        arrivals_s = [0.0] * at_once if self.arrivals_s is None else self.arrivals_s
        self.admitted = simpy.Resource(self.env, at_once)
        self.servers = [FirstCome(self.env, self.recorder, name) for name in self.chain.names]
        # a server keeps room for a chat until its stream ends; who finds none is refused and not queued
        self.room = [self.chain.chats_that_fit] * len(self.chain.servers)
        flows = len(arrivals_s) * (2 if self.chain.pushes else 1)
        self.network = Network(self.env, self.draws, self.recorder, flows=flows)
        for chat, arrival_s in enumerate(arrivals_s):
            self.env.process(admit(self.env, self.admitted, arrival_s, self.chat(chat)))

    def chat(self, chat: int) -> Generator[simpy.Event, Any, None]:
        """A chat's story: each token goes to every server in turn; the last reply is made a word."""
        told, servers = self.chain.durations(chat), range(len(self.chain.servers))
        forth, back = ([self.wire(one) for one in side] for side in (told.requests, told.replies))
        pushes = [self.wire(one) for one in told.pushes]
        for at in servers:
            # servers know of each other only where they push: then what arrives first counts
            inward = [forth[at], *pushes[at - 1 : at]] if at else [forth[at]]
            self.env.process(self.stream(chat, at, inward, [*pushes[at : at + 1]], back[at]))
        yield self.env.timeout(float(self.chain.opening_s()[self.row]))
        cause, client_s = -1, told.client_s[:, self.row].tolist()
        for token in range(self.chain.tokens):
            for at in servers:
                if token == 0:
                    cause = yield from self.reserve(at, forth[at], back[at], cause)
                forth[at].send(token, cause)
                cause = yield back[at].receive()
            cause = yield from self.busy("head", self.chain.client, client_s[token], token, cause)
            self.recorder.token(chat, token, self.env.now, cause)
        self.room = [room + 1 for room in self.room]

    def reserve(self, at: int, forth: Wire, back: Wire, cause: int) -> Steps:
        """Try a server until it has room for the chat; a refusal costs the way there and back, and a wait."""
        waits_s = backoff_s(*self.chain.flow.backoff_s)
        while self.room[at] == 0:
            there_s = 0.0 if forth.hop is None else forth.delay_s[0] + back.delay_s[0]
            start_s = self.env.now
            yield self.env.timeout(there_s + next(waits_s))
            cause = self.recorder.span("queue", self.chain.names[at], -1, start_s, self.env.now, cause)
        self.room[at] -= 1
        return cause

    def stream(
        self, chat: int, at: int, inward: list[Wire], onward: list[Wire], back: Wire
    ) -> Generator[simpy.Event, Any, None]:
        """A server's stream of one chat: take what comes first, compute, hand on where it pushes, reply."""
        duration_s = self.chain.durations(chat).server_s[:, at, self.row].tolist()
        for token in range(self.chain.tokens):
            # of two copies of a step the later one is dropped; a prompt is never pushed
            arrivals = [wire.receive() for wire in (inward if token else inward[:1])]
            if len(arrivals) == 1:
                cause = yield arrivals[0]
            else:
                cause = next(iter((yield simpy.AnyOf(self.env, arrivals)).values()))
            tasks = self.chain.prompt_tasks[at] if token == 0 else 1
            for _ in range(tasks):
                cause = yield from self.servers[at].work(duration_s[token] / tasks, token, cause)
            for wire in onward if token else ():
                wire.send(token, cause)
            back.send(token, cause)

    def busy(self, kind: str, where: str, duration_s: float, token: int, cause: int) -> Steps:
        """The client at work."""
        start_s = self.env.now
        yield self.env.timeout(duration_s)
        return self.recorder.span(kind, where, token, start_s, self.env.now, cause)

    def wire(self, exchange: Exchange | None) -> Wire:
        """The connection that an exchange goes over, of one chat alone."""
        if exchange is None:
            return Wire(self.env, None, None, [])
        delay_s = exchange.delay_s[:, self.row].tolist()
        return Wire(self.env, exchange, self.network.hop(*exchange.ends), delay_s)


def start(
    env: simpy.Environment,
    job: Job,
    draws: Draws,
    recorder: Recorder,
    arrivals_s: Sequence[float] | None = None,
) -> SwarmProcesses:
    """Start the chats of the row of the draws: as they arrive, or all at once."""
    chain, row = draws.shared(Chain)
    return SwarmProcesses(env, chain, draws, recorder, row, arrivals_s)
