"""Legacy EXO as SimPy processes: one per chat; devices and air are queues."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import simpy

from simulator.engine.legacy.ring import RESULT_BYTES, LegacyRing
from simulator.runtime.chats import FirstCome, admit
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.network import Network
from simulator.runtime.record import Recorder

__all__ = ["ChatProcesses", "start"]


@dataclass
class ChatProcesses:
    """One SimPy process per chat, for the row of the draws; devices and air are queues."""

    env: simpy.Environment
    ring: LegacyRing
    """Of this row, or of a block of rows."""
    draws: Draws
    recorder: Recorder
    row: int
    """The row's place in the ring's arrays."""
    arrivals_s: Sequence[float] | None = None
    """When each chat comes; None: as many as the workload's concurrency, all at once."""

    def __post_init__(self) -> None:
        ring, at_once = self.ring, self.ring.job.workload.concurrency
        self.arrivals_s = [0.0] * at_once if self.arrivals_s is None else self.arrivals_s
        self.admitted, chats = simpy.Resource(self.env, at_once), len(self.arrivals_s)
        self.devices = [FirstCome(self.env, self.recorder, name) for name in ring.names]
        self.network = Network(self.env, self.draws, self.recorder, flows=chats)
        self.result_per_byte = float(ring.seconds_per_byte(ring.size - 1)[self.row])
        self.heard_s = [0.0] * chats
        for chat, arrival_s in enumerate(self.arrivals_s):
            self.env.process(admit(self.env, self.admitted, arrival_s, self.chat(chat)))

    def chat(self, chat: int) -> Generator[simpy.Event, Any, None]:
        """A chat's story: each token goes once round the ring."""
        ring, cause = self.ring, -1
        stage_s, delay_s, result_s = (times_s[..., self.row].tolist() for times_s in ring.durations_s(chat))
        hops = [self.network.hop(*ring.ends(rank)) for rank in range(ring.size)]
        # only the first token's messages are of another size: they carry the prompt
        sizes = [[ring.message_bytes(rank, token) for token in (0, 1)] for rank in range(ring.size)]
        for token in range(ring.tokens):
            for rank in range(ring.size):
                cause = yield from self.devices[rank].work(stage_s[token][rank], token, cause)
                if rank == ring.size - 1:
                    self.broadcast(chat, token, result_s[token], cause)
                if ring.size > 1:
                    hops[rank].send(sizes[rank][token > 0], delay_s[rank][token], cause, token)
                    cause = yield hops[rank].receive()

    def broadcast(self, chat: int, token: int, delay_s: float, cause: int) -> None:
        """The sampled token on its way to the client; nothing waits for it."""
        if self.ring.size == 1:
            self.recorder.token(chat, token, self.env.now, cause)
            return
        source, sink = self.ring.ends(self.ring.size - 1)
        # one connection: no token overtakes the one before it
        arrive_s = max(self.heard_s[chat], self.env.now + RESULT_BYTES * self.result_per_byte + delay_s)
        self.heard_s[chat] = arrive_s
        span = self.recorder.span("hop", f"{source} -> {sink}", token, self.env.now, arrive_s, cause)
        self.recorder.token(chat, token, arrive_s, span)


def start(
    env: simpy.Environment,
    job: Job,
    draws: Draws,
    recorder: Recorder,
    arrivals_s: Sequence[float] | None = None,
) -> ChatProcesses:
    """Start the chats of the row of the draws: as they arrive, or all at once."""
    ring, row = draws.shared(LegacyRing)
    return ChatProcesses(env, ring, draws, recorder, row, arrivals_s)
