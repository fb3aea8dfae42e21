"""EXO's ring as SimPy processes, one per rank."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import simpy

from simulator.engine.exo.ring import NOTICE_BYTES, ExoRing
from simulator.laws.law import Floats
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.network import Network
from simulator.runtime.record import Recorder

__all__ = ["RingProcesses", "start"]

Steps = Generator[simpy.Event, Any, int]


@dataclass
class RingProcesses:
    """The ring as SimPy processes, one per rank, for the row of the draws."""

    env: simpy.Environment
    ring: ExoRing
    """Of this row, or of a block of rows."""
    draws: Draws
    recorder: Recorder
    row: int = 0
    """The row's place in the ring's arrays."""

    def __post_init__(self) -> None:
        ring = self.ring
        # the chunks of a long prompt follow each other through the ring, so their messages
        # may want the air together
        network = Network(self.env, self.draws, self.recorder, flows=max(1, len(ring.chunks)))
        self.names = [device.name for device in ring.job.ring]
        self.right = [network.hop(*ends) for ends in ring.neighbours("forward")]
        self.left = [network.hop(*ends) for ends in ring.neighbours("gather")]
        self.delay_s = {slot: self.of_row(rounds_s) for slot, rounds_s in ring.all_rounds_s.items()}
        self.forward_s, self.prompt_s = self.of_row(ring.forward_s), self.of_row(ring.prompt_s)
        self.stage_s, self.head_s = self.of_row(ring.stage_s), self.of_row(ring.head_s)
        self.prefill_s = self.of_row(ring.prefill_s)
        for rank in range(ring.size):
            self.env.process(self.rank(rank))

    def of_row(self, durations_s: Floats) -> Any:
        """The row's own, as nested lists of floats: SimPy takes them one by one, where arrays are slow."""
        return durations_s[..., self.row].tolist()

    def rank(self, rank: int) -> Generator[simpy.Event, Any, None]:
        """A rank's life: admit requests, read their prompts, then step by step make tokens."""
        ring, cause, request, k = self.ring, -1, 0, 0
        for wave, batch in enumerate(ring.waves):
            for _ in range(batch):
                cause = yield from self.gather(rank, "barrier", request, NOTICE_BYTES, -1, cause)
                for c, tokens in enumerate(ring.chunks):
                    size, delay = (tokens * ring.job.model.activation_bytes, self.prompt_s[request][c])
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
        # a hidden state that lay there before was not waited for, so it is no cause of what follows
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
        # what the right neighbour sends to its left comes here
        send, receive = self.left[rank].send, self.left[(rank + 1) % self.ring.size].receive
        for delay_s in self.delay_s[slot][index]:
            send(size, delay_s[rank], cause, step)
            arrival = receive()
            if not arrival.processed:
                cause = yield arrival
        return cause

    def work(self, kind: str, rank: int, duration_s: float, step: int, cause: int) -> Steps:
        """Keep the rank busy."""
        start_s = self.env.now
        yield self.env.timeout(duration_s)
        return self.recorder.span(kind, self.names[rank], step, start_s, self.env.now, cause)


def start(env: simpy.Environment, job: Job, draws: Draws, recorder: Recorder) -> RingProcesses:
    """Start the ring for the row of the draws."""
    ring, row = draws.shared(ExoRing)
    return RingProcesses(env, ring, draws, recorder, row)
