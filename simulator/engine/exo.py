"""Modern EXO (1.x): a pipeline ring over MLX, everything gathered by everybody.

One decode step, as recorded from real clusters (EXO HEAD of 2026-06-22) and read from MLX's ring backend:

1. *notice*: an all-gather of 4 bytes ("have you got new tasks?"); every rank waits for all others.
2. Rank 0 runs its layers and sends the hidden state to rank 1, and so on to the last rank.
3. An all-gather of the hidden state: in W - 1 rounds each rank passes to its
   left neighbour what it got from its right one in the round before (first
   its own), so the last rank's part needs W - 1 hops to reach rank 0.
4. Every rank computes final norm, output head and sample; nobody sends the token.

So a one-way delay D on each hop costs 2 (W - 1) D per token, and rounds that no one waits
for cost nothing: both come out of the messages below, neither is put in. Up to 8 requests
decode in one batch; prompts are read one after the other, in chunks of 4096 / min(4, W)
tokens that follow each other through the ring when there are 4096 or more.

`ExoRing` holds every duration; `recursion` adds them up for
all rows at once, `processes` lets SimPy do it for one row.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import simpy

from simulator.cluster.cluster import Device
from simulator.engine.base import Engine
from simulator.laws.law import Floats
from simulator.runtime.cost import crowding, head_s, paging_s, prefill_s
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.network import Network
from simulator.runtime.record import Recorder

__all__ = ["ENGINE", "MAX_BATCH", "NOTICE_BYTES", "ExoRing", "RingProcesses", "serve"]

Steps = Generator[simpy.Event, Any, int]
NOTICE_BYTES = 4
MAX_BATCH = 8  # EXO_MAX_CONCURRENT_REQUESTS
CHUNKED_FROM_TOKENS = 4096
# the last two prompt tokens go through as decode steps; the second one makes the first token
SINGLE_STEPS = 2


@dataclass(frozen=True)
class ExoRing:
    """All durations of one job's rows; arrays end in (ranks, rows)."""

    job: Job
    draws: Draws

    @cached_property
    def size(self) -> int:
        """Ranks in the ring."""
        return len(self.job.ring)

    @cached_property
    def waves(self) -> tuple[int, ...]:
        """Requests of each batch; the ninth request waits for the first eight to end."""
        full, rest = divmod(self.job.workload.concurrency, MAX_BATCH)
        return (MAX_BATCH,) * full + ((rest,) if rest else ())

    @cached_property
    def prompt_steps(self) -> int:
        """Decode steps of a wave before its first token comes out."""
        return min(SINGLE_STEPS, self.job.workload.prompt_tokens) - 1

    @cached_property
    def steps(self) -> int:
        """Decode steps of one wave."""
        return self.prompt_steps + self.job.workload.output_tokens

    @cached_property
    def chunks(self) -> tuple[int, ...]:
        """Tokens of each prompt chunk that goes through before the single steps."""
        tokens = max(0, self.job.workload.prompt_tokens - SINGLE_STEPS)
        if tokens < CHUNKED_FROM_TOKENS:
            return (tokens,) if tokens else ()
        most = CHUNKED_FROM_TOKENS // min(4, self.size)
        return tuple(min(most, tokens - start) for start in range(0, tokens, most))

    @cached_property
    def stage_s(self) -> Floats:
        """Each rank's layers, shape (waves * steps, ranks, rows)."""
        context = self.job.workload.prompt_tokens - self.prompt_steps + np.arange(self.steps, dtype=float)
        columns = []
        for device, layers, noise in zip(self.job.ring, self._layers, self._noise, strict=True):
            base = [
                self.draws.decode_s(
                    device, self.job.model, layers, context, batch, self.paging_s(device, layers, batch)
                )
                for batch in self.waves
            ]
            columns.append(np.concatenate(base) * noise)
        return np.stack(columns, axis=1)

    @cached_property
    def head_s(self) -> Floats:
        """Each rank's norm, head, sampling and host work, shape (waves * steps, ranks, rows)."""
        overhead_s = self.job.engine.step_overhead_s * self.draws.overhead("step")
        columns = []
        for device, noise in zip(self.job.ring, self._noise, strict=True):
            host_s = overhead_s + device.speed.stage_overhead
            speed = self.draws.speed_factor(device, "decode")
            waves = [
                (head_s(device, self.job.model, batch) * speed + crowding(device, batch) * host_s)
                * self.draws.batch_factor(device, batch)
                for batch in self.waves
            ]
            columns.append(np.repeat(waves, self.steps, axis=0) * noise)
        return np.stack(columns, axis=1)

    @cached_property
    def prefill_s(self) -> Floats:
        """Each rank's layers for each chunk of each request, shape (requests, chunks, ranks, rows)."""
        requests, ranks, count = self.job.workload.concurrency, range(self.size), len(self.chunks)
        starts = np.cumsum((0, *self.chunks)).tolist()
        base = np.array(
            [
                [prefill_s(self.job.ring[r], self.job.model, self._layers[r], tokens, start) for r in ranks]
                for tokens, start in zip(self.chunks, starts, strict=False)
            ]
        ).reshape(count, self.size, 1)
        factors = [
            self.draws.noise(device, "prefill", requests * count) * self.draws.speed_factor(device, "prefill")
            for device in self.job.ring
        ]
        return base * np.stack(factors, axis=1).reshape(requests, count, self.size, self.draws.rows)

    @cached_property
    def _layers(self) -> list[int]:
        return [shard.layers for shard in self.job.shards]

    @cached_property
    def _noise(self) -> list[Floats]:
        return [self.draws.noise(device, "decode", len(self.waves) * self.steps) for device in self.job.ring]

    def paging_s(self, device: Device, layers: int, batch: int) -> float:
        """Seconds per step to re-read what exceeds a device's memory."""
        model, workload = self.job.model, self.job.workload
        resident = layers * model.layer_bytes + model.embedding_bytes + model.head_bytes
        resident += model.kv_bytes(layers, workload.prompt_tokens + workload.output_tokens, batch)
        return paging_s(device, resident + self.job.engine.memory_overhead_bytes)

    def delay_s(self, slot: str, n: int) -> Floats:
        """Delays of the messages of one slot, of each rank to its neighbour, shape (n, ranks, rows)."""
        out = np.empty((n, self.size, self.draws.rows))
        self._fill_delay_s(out, slot)
        return out

    def _fill_delay_s(self, out: Floats, slot: str, stream: str | None = None) -> None:
        # messages of decode steps belong to the batch, those before a prompt and of it to one request
        batches = 1 if slot in ("barrier", "prompt") else np.repeat(self.waves, self.steps)[:, None]
        for rank, ends in enumerate(self.neighbours(slot)):
            cost = self.job.ring[rank].speed.batch_cost
            crowd = 1 + cost * (batches - 1) if cost else 1.0
            out[:, rank] = self.draws.delay_s(self.job.cluster.path(*ends), stream or slot, len(out), crowd)

    def seconds_per_byte(self, slot: str) -> Floats:
        """Of the connection that carries a slot's messages, shape (ranks, rows)."""
        return np.stack(
            [self.draws.seconds_per_byte(self.job.cluster.path(*e)) for e in self.neighbours(slot)]
        )

    def rounds_s(self, slot: str, n: int) -> Floats:
        """Delays of the W - 1 rounds of `n` all-gathers, shape (n, rounds, ranks, rows)."""
        out = np.empty((n, self.size - 1, self.size, self.draws.rows))
        for j in range(self.size - 1):
            self._fill_delay_s(out[:, j], slot, f"{slot}{j}")
        return out

    def neighbours(self, slot: str) -> list[tuple[str, str]]:
        """Source and sink for each rank: prompt and hidden state go right, all-gathers go left."""
        turn = 1 if slot in ("forward", "prompt") else -1
        names = [device.name for device in self.job.ring]
        return [(name, names[(rank + turn) % self.size]) for rank, name in enumerate(names)]


@dataclass
class _Recursion:
    """The ring as arithmetic on arrays: `t` is when each rank
    is ready, `port` when its port is, both (ranks, rows).
    """

    ring: ExoRing

    def __post_init__(self) -> None:
        shape = (self.ring.size, self.ring.draws.rows)
        self.t, self.port, self._depart = np.zeros(shape), np.zeros(shape), np.empty(shape)
        self.right = self.ring.seconds_per_byte("forward")
        self.left = self.ring.seconds_per_byte("gather")

    def gather(self, delay_s: Floats, transmit_s: Floats) -> None:
        """Rounds in which rank r waits for what rank r + 1 had when the round began."""
        for delay in delay_s:
            np.maximum(self.t, self.port, out=self.port)
            self.port += transmit_s
            arrive = np.add(self.port, delay, out=self._depart)
            np.maximum(self.t[:-1], arrive[1:], out=self.t[:-1])
            np.maximum(self.t[-1], arrive[0], out=self.t[-1])

    def forward(self, stage_s: Floats, delay_s: Floats, transmit_s: Floats) -> None:
        """One pass through the stages; rank r sends to r + 1 and goes on at once."""
        t, port = self.t, self.port
        t[0] += stage_s[0]
        for r in range(1, self.ring.size):
            np.maximum(t[r - 1], port[r - 1], out=port[r - 1])
            port[r - 1] += transmit_s[r - 1]
            np.maximum(t[r], port[r - 1] + delay_s[r - 1], out=t[r])
            t[r] += stage_s[r]

    def token_times_s(self) -> Floats:
        """Time of each token after the request, shape (waves, output tokens, rows)."""
        ring, workload = self.ring, self.ring.job.workload
        steps, count, requests = ring.steps, len(ring.chunks), workload.concurrency
        notice, gathered = (
            ring.rounds_s("notice", len(ring.waves) * steps),
            ring.rounds_s("gather", len(ring.waves) * steps),
        )
        forward, barrier = (
            ring.delay_s("forward", len(ring.waves) * steps),
            ring.rounds_s("barrier", requests),
        )
        prompt = ring.delay_s("prompt", requests * count).reshape(requests, count, ring.size, ring.draws.rows)
        out = np.empty((len(ring.waves), workload.output_tokens, ring.draws.rows))
        request = k = 0
        for wave, batch in enumerate(ring.waves):
            for _ in range(batch):
                self.gather(barrier[request], NOTICE_BYTES * self.left)
                for c, tokens in enumerate(ring.chunks):
                    size = tokens * ring.job.model.activation_bytes
                    self.forward(ring.prefill_s[request, c], prompt[request, c], size * self.right)
                request += 1
            small, hidden = NOTICE_BYTES * self.left, batch * ring.job.model.activation_bytes
            right, left = hidden * self.right, hidden * self.left
            for step in range(steps):
                self.gather(notice[k], small)
                self.forward(ring.stage_s[k], forward[k], right)
                self.gather(gathered[k], left)
                self.t += ring.head_s[k]
                if step >= ring.prompt_steps:
                    out[wave, step - ring.prompt_steps] = self.t[0]
                k += 1
        return out


@dataclass
class RingProcesses:
    """The ring as SimPy processes, one per rank, for row 0 of the draws."""

    env: simpy.Environment
    ring: ExoRing
    recorder: Recorder

    def __post_init__(self) -> None:
        ring = self.ring
        workload, steps = ring.job.workload, len(ring.waves) * ring.steps
        # the chunks of a long prompt follow each other through
        # the ring, so their messages may want the air together
        network = Network(self.env, ring.draws, self.recorder, flows=max(1, len(ring.chunks)))
        self.names = [device.name for device in ring.job.ring]
        self.right = [network.hop(*ends) for ends in ring.neighbours("forward")]
        self.left = [network.hop(*ends) for ends in ring.neighbours("gather")]
        self.delay_s = {slot: ring.rounds_s(slot, steps)[..., 0].tolist() for slot in ("notice", "gather")}
        self.delay_s["barrier"] = ring.rounds_s("barrier", workload.concurrency)[..., 0].tolist()
        self.forward_s = ring.delay_s("forward", steps)[..., 0].tolist()
        self.prompt_s = ring.delay_s("prompt", workload.concurrency * len(ring.chunks))[..., 0].tolist()
        self.stage_s, self.head_s = ring.stage_s[..., 0].tolist(), ring.head_s[..., 0].tolist()
        self.prefill_s = ring.prefill_s[..., 0].tolist()
        for rank in range(ring.size):
            self.env.process(self.rank(rank))

    def rank(self, rank: int) -> Generator[simpy.Event, Any, None]:
        """A rank's life: admit requests, read their prompts, then step by step make tokens."""
        ring, cause, request, k = self.ring, -1, 0, 0
        for wave, batch in enumerate(ring.waves):
            for _ in range(batch):
                cause = yield from self.gather(rank, "barrier", request, NOTICE_BYTES, -1, cause)
                for c, tokens in enumerate(ring.chunks):
                    size, delay = (
                        tokens * ring.job.model.activation_bytes,
                        self.prompt_s[request * len(ring.chunks) + c],
                    )
                    cause = yield from self.stage(rank, self.prefill_s[request][c], delay, size, -1, cause)
                request += 1
            size = batch * ring.job.model.activation_bytes
            for step in range(ring.steps):
                cause = yield from self.gather(rank, "notice", k, NOTICE_BYTES, k, cause)
                cause = yield from self.stage(rank, self.stage_s[k], self.forward_s[k], size, k, cause)
                cause = yield from self.gather(rank, "gather", k, size, k, cause)
                cause = yield from self.work("head", rank, self.head_s[k][rank], k, cause)
                if rank == 0 and step >= ring.prompt_steps:
                    self.recorder.token(wave, step - ring.prompt_steps, self.env.now, cause)
                k += 1

    def stage(
        self, rank: int, stage_s: list[float], delay_s: list[float], size: float, step: int, cause: int
    ) -> Steps:
        """Wait for the hidden state, run the layers, send it on."""
        if rank > 0:
            arrival = self.right[rank - 1].receive()
            if not arrival.processed:
                cause = yield arrival
        cause = yield from self.work("compute" if step >= 0 else "prefill", rank, stage_s[rank], step, cause)
        if rank < self.ring.size - 1:
            self.right[rank].send(size, delay_s[rank], cause, step)
        return cause

    def gather(self, rank: int, slot: str, index: int, size: float, step: int, cause: int) -> Steps:
        """W - 1 rounds: send to the left, wait for the right; what came early is no cause of what follows."""
        left, right = self.left[rank], self.left[(rank + 1) % self.ring.size]
        for delay_s in self.delay_s[slot][index]:
            left.send(size, delay_s[rank], cause, step)
            arrival = right.receive()
            if not arrival.processed:
                cause = yield arrival
        return cause

    def work(self, kind: str, rank: int, duration_s: float, step: int, cause: int) -> Steps:
        """Keep the rank busy."""
        start_s = self.env.now
        yield self.env.timeout(duration_s)
        return self.recorder.span(kind, self.names[rank], step, start_s, self.env.now, cause)


def is_recursion_exact(job: Job) -> bool:
    """Not where prompt chunks queue for the same air, nor
    where a radio dozes (that depends on who is waiting).
    """
    chunked = len(ExoRing(job, Draws(job, 0, 1)).chunks) > 1
    return not any(device.link.power_save or (chunked and device.link.shared) for device in job.ring)


def serve(
    env: simpy.Environment, job: Job, draws: Draws, recorder: Recorder, arrivals_s: Sequence[float]
) -> Any:
    """Start the ring for chats that come one by one."""
    from simulator.engine.exo_serving import Serving  # it builds on this module

    return Serving(env, job, draws, recorder, arrivals_s)


ENGINE = Engine(
    name="exo",
    default_rule="exo",
    head_on="all",
    token_times_s=lambda job, draws: _Recursion(ExoRing(job, draws)).token_times_s(),
    is_recursion_exact=is_recursion_exact,
    start=lambda env, job, draws, recorder: RingProcesses(env, ExoRing(job, draws), recorder),
    chats=lambda job: ExoRing(job, Draws(job, 0, 1)).waves,
    serve=serve,
    waits_by_polling=True,  # MLX polls its sockets
    chats_at_once=MAX_BATCH,
)
