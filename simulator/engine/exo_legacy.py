"""Legacy EXO (0.0.x): a gRPC ring in which one token travels at a time.

As recorded from real clusters: rank 0 reads the prompt or the last token and runs its layers,
each rank sends the activation on, the last one computes the head, samples, broadcasts the token
to all peers (one of them serves the client) and sends it to rank 0. So a token costs W hops, one
of them with a few bytes only; the client sees it when the broadcast arrives. Requests share
nothing: each has its own round trip, and they meet only in a device's queue.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import simpy

from simulator.engine.base import Engine
from simulator.laws.law import Floats
from simulator.runtime.cost import crowding, head_s, paging_s, prefill_s
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.network import Network
from simulator.runtime.record import Recorder

__all__ = ["ENGINE", "LegacyRing"]

TENSOR_OVERHEAD_BYTES = 85  # protobuf around an activation (recorded: 83 to 85)
TOKEN_BYTES = 88  # the sampled token to rank 0, on the wire
RESULT_BYTES = 47  # the broadcast of the token, on the wire


@dataclass(frozen=True)
class LegacyRing:
    """All durations of one job's rows; chats are numbered from 0, their draws are independent."""

    job: Job
    draws: Draws

    @cached_property
    def names(self) -> list[str]:
        """Devices in ring order."""
        return [device.name for device in self.job.ring]

    @cached_property
    def size(self) -> int:
        """Ranks in the ring."""
        return len(self.job.ring)

    @property
    def tokens(self) -> int:
        """Tokens of each reply; the first one comes out of the prompt's own pass."""
        return self.job.workload.output_tokens

    def stage_s(self, chat: int) -> Floats:
        """Each rank's work for each token of one chat, shape (tokens, ranks, rows)."""
        model, overhead = self.job.model, self.job.engine.step_overhead_s * self.draws.overhead("step")
        context = self.job.workload.prompt_tokens + np.arange(self.tokens, dtype=float)
        columns = []
        for rank, (device, shard) in enumerate(zip(self.job.ring, self.job.shards, strict=True)):
            last = rank == self.size - 1
            head = head_s(device, model) if last else 0.0
            work = self.draws.decode_s(device, model, shard.layers, context, 1, self._paging_s(rank) + head)
            prompt = (
                prefill_s(device, model, shard.layers, self.job.workload.prompt_tokens)
                + self._paging_s(rank)
                + head
            )
            work[0] = prompt * self.draws.speed_factor(device, "prefill")
            host = (overhead + device.speed.stage_overhead) * crowding(device)
            columns.append((work + host) * self.draws.noise(device, f"decode{chat or ''}", self.tokens))
        return np.stack(columns, axis=1)

    def _paging_s(self, rank: int) -> float:
        model, workload, layers = self.job.model, self.job.workload, self.job.shards[rank].layers
        resident = layers * model.layer_bytes + self.job.engine.memory_overhead_bytes
        resident += model.embedding_bytes * (rank == 0) + model.head_bytes * (rank == self.size - 1)
        resident += model.kv_bytes(
            layers, workload.prompt_tokens + workload.output_tokens, workload.concurrency
        )
        return paging_s(self.job.ring[rank], resident)

    def ends(self, rank: int) -> tuple[str, str]:
        """Source and sink of the hop that rank `rank` sends over; the last rank closes the ring."""
        return self.names[rank], self.names[(rank + 1) % self.size]

    def delay_s(self, chat: int, rank: int) -> Floats:
        """Delays of the message after rank `rank`, shape (tokens, rows)."""
        return self.draws.delay_s(self.job.cluster.path(*self.ends(rank)), f"tensor{chat or ''}", self.tokens)

    def result_delay_s(self, chat: int) -> Floats:
        """Delays of the broadcast from the last rank to the one
        that serves the client (rank 0), shape (tokens, rows).
        """
        path = self.job.cluster.path(self.names[-1], self.names[0])
        return self.draws.delay_s(path, f"result{chat or ''}", self.tokens)

    def seconds_per_byte(self, rank: int) -> Floats:
        """Of the hop after rank `rank`, shape (rows,)."""
        return self.draws.seconds_per_byte(self.job.cluster.path(*self.ends(rank)))

    def message_bytes(self, rank: int, token: int) -> float:
        """What rank `rank` sends on: the prompt's activations, one activation, or the token."""
        if rank == self.size - 1:
            return TOKEN_BYTES
        length = self.job.workload.prompt_tokens if token == 0 else 1
        return length * self.job.model.activation_bytes + TENSOR_OVERHEAD_BYTES


def token_times_s(ring: LegacyRing) -> Floats:
    """One chat: a token's time is the sum of what happens to it, shape (1, tokens, rows)."""
    stage = ring.stage_s(0)
    if ring.size == 1:
        return np.cumsum(stage[:, 0], axis=0)[None]
    hop = np.empty_like(stage)
    for rank in range(ring.size):
        sizes = np.array([ring.message_bytes(rank, token) for token in range(ring.tokens)])
        hop[:, rank] = ring.delay_s(0, rank) + sizes[:, None] * ring.seconds_per_byte(rank)
    sampled = np.cumsum(np.sum(stage, axis=1) + np.sum(hop[:, :-1], axis=1), axis=0)
    closing = np.concatenate([np.zeros((1, ring.draws.rows)), np.cumsum(hop[:-1, -1], axis=0)])
    per_byte = ring.seconds_per_byte(ring.size - 1)
    # the broadcast leaves before the token does, so only its own transmission stands before it
    arrived = sampled + closing + RESULT_BYTES * per_byte + ring.result_delay_s(0)
    # one connection: what is sent first arrives first
    in_order: Floats = np.maximum.accumulate(arrived, axis=0)
    return in_order[None]


@dataclass
class _Processes:
    """One SimPy process per chat, for row 0 of the draws; devices and air are queues."""

    env: simpy.Environment
    ring: LegacyRing
    recorder: Recorder
    arrivals_s: Sequence[float] | None = None
    """When each chat comes; None: as many as the workload's concurrency, all at once."""

    def __post_init__(self) -> None:
        ring, at_once = self.ring, self.ring.job.workload.concurrency
        self.arrivals_s = [0.0] * at_once if self.arrivals_s is None else self.arrivals_s
        self.admitted, chats = simpy.Resource(self.env, at_once), len(self.arrivals_s)
        self.stages = [simpy.Resource(self.env) for _ in ring.names]
        self.network = Network(self.env, ring.draws, self.recorder, flows=chats)
        self.result_per_byte = float(ring.seconds_per_byte(ring.size - 1)[0])
        self.heard_s = [0.0] * chats
        for chat, arrival_s in enumerate(self.arrivals_s):
            self.env.process(self.admit(chat, arrival_s))

    def admit(self, chat: int, arrival_s: float) -> Generator[simpy.Event, Any, None]:
        """Come, wait to be let in, and be answered."""
        if arrival_s > 0:
            yield self.env.timeout(arrival_s)
        with self.admitted.request() as place:
            yield place
            yield from self.chat(chat)

    def chat(self, chat: int) -> Generator[simpy.Event, Any, None]:
        """A chat's story: each token goes once round the ring."""
        ring, cause = self.ring, -1
        stage_s = ring.stage_s(chat)[..., 0].tolist()
        delay_s = [ring.delay_s(chat, rank)[:, 0].tolist() for rank in range(ring.size)]
        result_s = ring.result_delay_s(chat)[:, 0].tolist()
        hops = [self.network.hop(*ring.ends(rank)) for rank in range(ring.size)]
        for token in range(ring.tokens):
            for rank in range(ring.size):
                cause = yield from self.work(rank, stage_s[token][rank], token, cause)
                if rank == ring.size - 1:
                    self.broadcast(chat, token, result_s[token], cause)
                if ring.size > 1:
                    hops[rank].send(ring.message_bytes(rank, token), delay_s[rank][token], cause, token)
                    cause = yield hops[rank].receive()

    def work(self, rank: int, duration_s: float, token: int, cause: int) -> Generator[simpy.Event, Any, int]:
        """Wait for the device, then keep it busy."""
        name, asked_s = self.ring.names[rank], self.env.now
        with self.stages[rank].request() as turn:
            yield turn
            cause = self.recorder.span("queue", name, token, asked_s, self.env.now, cause)
            start_s = self.env.now
            yield self.env.timeout(duration_s)
        return self.recorder.span(
            "compute" if token else "prefill", name, token, start_s, self.env.now, cause
        )

    def broadcast(self, chat: int, token: int, delay_s: float, cause: int) -> None:
        """The sampled token on its way to the client; nothing waits for it."""
        if self.ring.size == 1:
            self.recorder.token(chat, token, self.env.now, cause)
            return
        source, sink = self.ring.ends(self.ring.size - 1)
        arrive_s = max(self.heard_s[chat], self.env.now + RESULT_BYTES * self.result_per_byte + delay_s)
        self.heard_s[chat] = arrive_s
        span = self.recorder.span("hop", f"{source} -> {sink}", token, self.env.now, arrive_s, cause)
        self.recorder.token(chat, token, arrive_s, span)


ENGINE = Engine(
    name="exo-legacy",
    default_rule="exo-legacy",
    head_on="last",
    token_times_s=lambda job, draws: token_times_s(LegacyRing(job, draws)),
    is_recursion_exact=lambda job: (
        job.workload.concurrency == 1 and not any(d.link.power_save for d in job.ring)
    ),
    start=lambda env, job, draws, recorder: _Processes(env, LegacyRing(job, draws), recorder),
    chats=lambda job: (1,) * job.workload.concurrency,
    serve=lambda env, job, draws, recorder, arrivals_s: _Processes(
        env, LegacyRing(job, draws), recorder, arrivals_s
    ),
)
