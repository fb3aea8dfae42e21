"""What EXO's ring computes and sends: every duration of a job, for all rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from simulator.engine.facts import read_facts
from simulator.laws.law import Floats
from simulator.model.stretch import Stretch
from simulator.runtime.cost import crowding, head_s, prefill_s
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.paging import paging_s
from simulator.runtime.portions import Divided

__all__ = ["CHUNKED_FROM_TOKENS", "FACTS", "MAX_BATCH", "NOTICE_BYTES", "SINGLE_STEPS", "ExoRing"]

FACTS = read_facts(Path(__file__).parent)
NOTICE_BYTES = 4
MAX_BATCH = FACTS.chats_at_once or 1
CHUNKED_FROM_TOKENS = FACTS.prompt_chunk_tokens or 1
# the last two prompt tokens go through as decode steps; the second one makes the first token
SINGLE_STEPS = 2
RIGHTWARD = ("forward", "prompt")  # prompt and hidden state go right, all-gathers go left


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
        # pieces so small that several ranks are busy at once; from four ranks on no smaller ones
        most = CHUNKED_FROM_TOKENS // min(4, self.size)
        return tuple(min(most, tokens - start) for start in range(0, tokens, most))

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
    def _held(self) -> list[Stretch | Divided]:
        return [self.job.held(rank) for rank in range(self.size)]

    @cached_property
    def _noise(self) -> list[Floats]:
        return [self.draws.noise(device, "decode", len(self.waves) * self.steps) for device in self.job.ring]

    @cached_property
    def all_rounds_s(self) -> dict[str, Floats]:
        """Delays of the all-gathers of each slot, see `rounds_s`; barriers by request, the others by step."""
        steps = len(self.waves) * self.steps
        counts = {"notice": steps, "gather": steps, "barrier": self.job.workload.concurrency}
        return {slot: self.rounds_s(slot, n) for slot, n in counts.items()}

    @cached_property
    def forward_s(self) -> Floats:
        """Delays of the hidden states, shape (waves * steps, ranks, rows)."""
        return self.delay_s("forward", len(self.waves) * self.steps)

    @cached_property
    def prompt_s(self) -> Floats:
        """Delays of the prompts' chunks, shape (requests, chunks, ranks, rows)."""
        shape = (self.job.workload.concurrency, len(self.chunks), self.size, self.draws.rows)
        return self.delay_s("prompt", shape[0] * shape[1]).reshape(shape)

    def delay_s(self, slot: str, n: int) -> Floats:
        """Delays of the messages of one slot, of each rank to its neighbour, shape (n, ranks, rows)."""
        out = np.zeros((n, self.size, self.draws.rows))
        # what goes right ends at the last rank, which sends nothing: its column is not drawn
        self._fill_delay_s(out[:, : self.size - 1] if slot in RIGHTWARD else out, slot)
        return out

    def _fill_delay_s(self, out: Floats, slot: str, stream: str | None = None) -> None:
        # messages of decode steps belong to the batch, those before a prompt and of it to one request
        batches = 1 if slot in ("barrier", "prompt") else np.repeat(self.waves, self.steps)[:, None]
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
        turn = 1 if slot in RIGHTWARD else -1
        names = [device.name for device in self.job.ring]
        return [(name, names[(rank + turn) % self.size]) for rank, name in enumerate(names)]
