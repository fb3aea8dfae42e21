"""What EXO's ring computes and sends: every duration of a job, for all rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from simulator.cluster.cluster import Device
from simulator.engine.facts import read_facts
from simulator.laws.law import Floats
from simulator.model.stretch import Stretch
from simulator.runtime.cost import crowding, head_s, prefill_s
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.paging import paging_s
from simulator.runtime.portions import Divided
from simulator.runtime.tcp import slow_start_s

__all__ = [
    "CHUNKED_FROM_TOKENS",
    "FACTS",
    "LOOK_AHEAD",
    "MAX_BATCH",
    "NOTICE_BYTES",
    "SINGLE_PASSES",
    "ExoRing",
    "Op",
]

FACTS = read_facts(Path(__file__).parent)
NOTICE_BYTES = 4
MAX_BATCH = FACTS.chats_at_once or 1
CHUNKED_FROM_TOKENS = FACTS.prompt_chunk_tokens or 1
SINGLE_PASSES = 2
"""Passes of one token that end a prompt's reading; what they leave in the caches is thrown away."""
LOOK_AHEAD = 1
"""Steps that are done of what follows a token when it is handed out."""
CHECK_EVERY = 100
"""Tokens between two looks for cancelled chats while they decode; the first is at the first token."""
RIGHTWARD = ("forward", "prompt", "single")  # prompt and hidden state go right, all-gathers go left
BY_STEP = ("notice", "forward", "gather")
Op = tuple[str, int]
"""What all ranks do next while they read a prompt, and which of its kind it is: see `ExoRing.script`."""


@dataclass(frozen=True)
class ExoRing:
    """All durations of one job's rows; arrays end in (ranks, rows)."""

    job: Job
    draws: Draws

    @cached_property
    def size(self) -> int:
        """Ranks in the ring."""
        return len(self.job.ring)

    @property
    def heads_at_once(self) -> int | None:
        """How many ranks can compute their heads at once; None where all can."""
        at_once = self.job.heads_at_once
        return None if at_once is None or at_once >= self.size else at_once

    @cached_property
    def waves(self) -> tuple[int, ...]:
        """Requests of each batch; the ninth request waits for the first eight to end."""
        full, rest = divmod(self.job.workload.concurrency, MAX_BATCH)
        return (MAX_BATCH,) * full + ((rest,) if rest else ())

    @cached_property
    def prompt_steps(self) -> int:
        """Decode steps of a wave before that at whose end its first token comes out.

        The last two prompt tokens go through as decode steps (the reading has thrown away what it made of
        them), and a token is handed out when the step after its own is done.
        """
        return min(2, self.job.workload.prompt_tokens) - 1 + LOOK_AHEAD

    @cached_property
    def steps(self) -> int:
        """Decode steps of one wave."""
        return self.prompt_steps + self.job.workload.output_tokens

    @cached_property
    def chunks(self) -> tuple[int, ...]:
        """Tokens of each prompt chunk that goes through before the single steps."""
        # the last token goes through alone, and the one before it ends the reading
        tokens = max(0, self.job.workload.prompt_tokens - 2)
        if not self.overlaps:
            return (tokens,) if tokens else ()
        # pieces so small that several ranks are busy at once; from four ranks on no smaller ones
        most = CHUNKED_FROM_TOKENS // min(4, self.size)
        return tuple(min(most, tokens - start) for start in range(0, tokens, most))

    @property
    def overlaps(self) -> bool:
        """Whether the prompt is so long that its chunks keep several ranks busy at once."""
        return self.job.workload.prompt_tokens > CHUNKED_FROM_TOKENS

    @cached_property
    def script(self) -> tuple[Op, ...]:
        """What all ranks do, in this order, from a request's arrival until its chat may decode.

        =========== ======================================================================================
        work        what the host does for a request
        ask, sum    a gather of 4 bytes to the left; a sum of as much to the right, twice round the ring
        chunk       a chunk through the stages, the next rank's as soon as it has come
        turn, send  one turn of overlapping chunks, rank r at chunk `turn - r`; what it made goes on after
                    the ranks have looked
        single      one token through the stages, without the gather that ends a decode step
        =========== ======================================================================================

        Two gathers agree on the request (the first one is the notice that every step begins with), a sum is
        the barrier before the prompt, and at each mark of progress the ranks *look*: a sum whether all is
        cancelled, a gather for cancelled chats, one for new ones.
        """
        ops = ["work", "ask"]
        look = ["sum", "ask", "ask"]
        if self.job.workload.prompt_tokens > 1:
            ops.append("sum")
            if self.overlaps:
                for _ in range(len(self.chunks) + self.size - 1):
                    ops += ["turn", *look, "send"]
                ops += ["single"] * SINGLE_PASSES
            else:
                ops += look + ["chunk", *look] * len(self.chunks) + ["single"] * SINGLE_PASSES + look
        return tuple((op, ops[:at].count(op)) for at, op in enumerate(ops))

    def per_request(self, op: str) -> int:
        """How often a request's script has an operation."""
        return sum(name == op for name, _ in self.script)

    def checks(self, token: int) -> bool:
        """Whether the ranks look for cancelled chats at this token of a reply."""
        return token % CHECK_EVERY == 0

    @cached_property
    def looks(self) -> int:
        """Looks while decoding: each chat of a batch has its own."""
        return self.job.workload.concurrency * -(-self.job.workload.output_tokens // CHECK_EVERY)

    @cached_property
    def stage_s(self) -> Floats:
        """Each rank's layers, shape (waves * steps, ranks, rows)."""
        # the first steps of a wave are the prompt's own last tokens
        context = self.job.workload.prompt_tokens - self.prompt_steps + np.arange(self.steps, dtype=float)
        stage_s = np.empty((len(self.waves) * self.steps, self.size, self.draws.rows))
        for rank, device in enumerate(self.job.ring):
            base = [
                self.draws.decode_s(device, self._held[rank], context, batch, paging_s(self.job, rank, batch))
                for batch in self.waves
            ]
            np.multiply(np.concatenate(base), self._noise[rank], out=stage_s[:, rank])
        return stage_s

    @cached_property
    def head_s(self) -> Floats:
        """Each rank's norm, head, sampling and host work, shape (waves * steps, ranks, rows)."""
        columns = []
        for device, noise in zip(self.job.ring, self._noise, strict=True):
            waves = [self._head_s(device, batch) for batch in self.waves]
            columns.append(np.repeat(waves, self.steps, axis=0) * noise)
        return np.stack(columns, axis=1)

    def _head_s(self, device: Device, batch: int) -> Floats:
        host_s = self.job.engine.step_overhead_s * self.draws.overhead("step") + device.speed.stage_overhead
        compute_s = head_s(device, self.job.model, batch) * self.draws.speed_factor(device, "decode")
        total: Floats = compute_s + crowding(device, batch) * host_s
        return total * self.draws.batch_factor(device, batch)

    @cached_property
    def prefill_s(self) -> Floats:
        """Each rank's layers for each chunk of each request, shape (requests, chunks, ranks, rows)."""
        requests, ranks, count = self.job.workload.concurrency, range(self.size), len(self.chunks)
        starts = np.cumsum((0, *self.chunks)).tolist()
        base = np.array(
            [
                [prefill_s(self.job.ring[r], self._held[r], tokens, start) for r in ranks]
                for tokens, start in zip(self.chunks, starts, strict=False)
            ]
        ).reshape(count, self.size, 1)
        factors = [
            self.draws.noise(device, "prefill", requests * count) * self.draws.speed_factor(device, "prefill")
            for device in self.job.ring
        ]
        # one base for all requests: their prompts are alike, their noise is not
        return base * np.stack(factors, axis=1).reshape(requests, count, self.size, self.draws.rows)

    @cached_property
    def request_s(self) -> Floats:
        """Each rank's host work for each request, shape (requests, ranks, rows)."""
        requests = self.job.workload.concurrency
        overhead_s = self.job.engine.request_overhead_s * self.draws.overhead("request")
        # not times `crowding`: most of it is the way through other processes, so that a rank at 30 % of its
        # speed was recorded to begin 50 ms later and not 200
        columns = [overhead_s * self.draws.noise(device, "request", requests) for device in self.job.ring]
        return np.stack(columns, axis=1)

    @cached_property
    def single_s(self) -> tuple[Floats, Floats]:
        """Each rank's layers, and its head, in the single passes, shape (passes, ranks, rows)."""
        passes = SINGLE_PASSES * self.job.workload.concurrency
        context = np.array([float(self.job.workload.prompt_tokens)])
        layers, heads = [], []
        for rank, device in enumerate(self.job.ring):
            noise = self.draws.noise(device, "single", passes)
            fixed_s = paging_s(self.job, rank, 1)
            layers.append(noise * self.draws.decode_s(device, self._held[rank], context, 1, fixed_s))
            heads.append(noise * self._head_s(device, 1))
        return np.stack(layers, axis=1), np.stack(heads, axis=1)

    @cached_property
    def _held(self) -> list[Stretch | Divided]:
        return [self.job.held(rank) for rank in range(self.size)]

    @cached_property
    def _noise(self) -> list[Floats]:
        return [self.draws.noise(device, "decode", len(self.waves) * self.steps) for device in self.job.ring]

    @cached_property
    def all_rounds_s(self) -> dict[str, Floats]:
        """Delays of the collectives of each slot, see `rounds_s`; gathers and notices by step, the others
        in their order: those of the requests' scripts, then those of the looks while decoding.
        """
        steps, requests = len(self.waves) * self.steps, self.job.workload.concurrency
        asks = requests * self.per_request("ask") + 2 * self.looks
        sums = requests * self.per_request("sum") + self.looks
        return {
            "notice": self.rounds_s("notice", steps),
            "gather": self.rounds_s("gather", steps),
            "ask": self._rounds_in_one_s("ask", asks, self.size - 1),
            "sum": self._rounds_in_one_s("sum", sums, 2 * (self.size - 1)),
        }

    def _rounds_in_one_s(self, slot: str, n: int, rounds: int) -> Floats:
        # few messages in many rounds: a stream for each round would take longer to set up than to draw from
        shape = (n, rounds, self.size, self.draws.rows)
        return self.delay_s(slot, n * rounds).reshape(shape) if rounds else np.empty(shape)

    @cached_property
    def forward_s(self) -> Floats:
        """Delays of the hidden states, shape (waves * steps, ranks, rows)."""
        return self.delay_s("forward", len(self.waves) * self.steps)

    @cached_property
    def prompt_s(self) -> Floats:
        """Delays of the prompts' chunks, shape (requests, chunks, ranks, rows)."""
        shape = (self.job.workload.concurrency, len(self.chunks), self.size, self.draws.rows)
        delay_s = self.delay_s("prompt", shape[0] * shape[1]).reshape(shape)
        for rank, (source, sink) in enumerate(self.neighbours("prompt")[:-1]):
            there, back = self.job.cluster.path(source, sink), self.job.cluster.path(sink, source)
            round_trip_s = self.draws.usual_delay_s(there) + self.draws.usual_delay_s(back)
            for c, tokens in enumerate(self.chunks):
                # while a chunk is computed its connection is silent for long enough to begin anew
                size_bytes = tokens * self.job.model.activation_bytes
                delay_s[:, c, rank] += slow_start_s(
                    size_bytes, round_trip_s, self.draws.seconds_per_byte(there)
                )
        return delay_s

    @cached_property
    def alone_s(self) -> Floats:
        """Delays of the single passes' hidden states, shape (passes, ranks, rows)."""
        return self.delay_s("single", SINGLE_PASSES * self.job.workload.concurrency)

    def delay_s(self, slot: str, n: int) -> Floats:
        """Delays of the messages of one slot, of each rank to its neighbour, shape (n, ranks, rows)."""
        out = np.zeros((n, self.size, self.draws.rows))
        # what goes right ends at the last rank, which sends nothing: its column is not drawn
        self._fill_delay_s(out[:, : self.size - 1] if slot in RIGHTWARD else out, slot)
        return out

    def _fill_delay_s(self, out: Floats, slot: str, stream: str | None = None) -> None:
        # messages of decode steps belong to the batch, those before a prompt and of it to one request
        batches = np.repeat(self.waves, self.steps)[:, None] if slot in BY_STEP else 1
        for rank, ends in enumerate(self.neighbours(slot)[: out.shape[1]]):
            cost = self.job.ring[rank].speed.batch_cost
            crowd = 1 + cost * (batches - 1) if cost else 1.0
            path = self.job.cluster.path(*ends)
            self.draws.delay_s(path, stream or slot, len(out), crowd, out=out[:, rank])

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
        """Source and sink of a slot's messages, for each rank."""
        turn = 1 if slot in (*RIGHTWARD, "sum") else -1
        names = [device.name for device in self.job.ring]
        return [(name, names[(rank + turn) % self.size]) for rank, name in enumerate(names)]
