"""EXO's ring as SimPy processes, one per rank."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import simpy

from simulator.engine.exo.ring import NOTICE_BYTES, SINGLE_PASSES, ExoRing
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
        self.forward_s = self.of_row(ring.forward_s)
        self.stage_s, self.head_s = self.of_row(ring.stage_s), self.of_row(ring.head_s)
        self.lay_out_prompts()
        for rank in range(ring.size):
            self.env.process(self.rank(rank))

    def lay_out_prompts(self) -> None:
        """Take from the ring what the reading of prompts needs."""
        ring = self.ring
        self.request_s, self.prefill_s = self.of_row(ring.request_s), self.of_row(ring.prefill_s)
        self.prompt_s, self.alone_s = self.of_row(ring.prompt_s), self.of_row(ring.alone_s)
        self.single_s, self.single_head_s = map(self.of_row, ring.single_s)
        at_once = ring.heads_at_once
        self.turns = None if at_once is None else simpy.Resource(self.env, at_once)
        self.last_turn = -1
        # each rank goes through the same collectives, at its own time
        self.taken = [{"ask": 0, "sum": 0} for _ in self.names]

    def of_row(self, durations_s: Floats) -> Any:
        """The row's own, as nested lists of floats: SimPy takes them one by one, where arrays are slow."""
        return durations_s[..., self.row].tolist()

    def rank(self, rank: int) -> Generator[simpy.Event, Any, None]:
        """A rank's life: admit requests, read their prompts, then step by step make tokens."""
        ring, cause, request, k = self.ring, -1, 0, 0
        for wave, batch in enumerate(ring.waves):
            for _ in range(batch):
                cause = yield from self.read_prompt(rank, request, cause)
                request += 1
            size = batch * ring.job.model.activation_bytes
            for step in range(ring.steps):
                cause = yield from self.gather(rank, "notice", k, NOTICE_BYTES, k, cause)
                cause = yield from self.stage(rank, self.stage_s[k], self.forward_s[k], size, k, cause)
                cause = yield from self.gather(rank, "gather", k, size, k, cause)
                cause = yield from self.head(rank, self.head_s[k][rank], k, cause)
                token = step - ring.prompt_steps
                if token >= 0:
                    for _ in range(batch if ring.checks(token) else 0):
                        cause = yield from self.look(rank, k, cause)
                    if rank == 0:
                        self.recorder.token(wave, token, self.env.now, cause)
                k += 1

    def read_prompt(self, rank: int, request: int, cause: int) -> Steps:
        """A request's script."""
        for op, at in self.ring.script:
            if op == "work":
                cause = yield from self.work("head", rank, self.request_s[request][rank], -1, cause)
            elif op in ("ask", "sum"):
                cause = yield from self.collective(rank, op, -1, cause)
            elif op == "send":
                self.send_chunk(rank, request, at - rank, cause)
            elif op == "single":
                cause = yield from self.single(rank, request * SINGLE_PASSES + at, cause)
            else:
                chunk = at if op == "chunk" else at - rank
                cause = yield from self.chunk(rank, request, chunk, cause)
                if op == "chunk":
                    self.send_chunk(rank, request, chunk, cause)
        return cause

    def chunk(self, rank: int, request: int, chunk: int, cause: int) -> Steps:
        """Wait for a chunk and run the layers; nothing where the rank has none in this turn."""
        if not 0 <= chunk < len(self.ring.chunks):
            return cause
        cause = yield from self.come_from_left(rank, cause)
        return (yield from self.work("prefill", rank, self.prefill_s[request][chunk][rank], -1, cause))

    def send_chunk(self, rank: int, request: int, chunk: int, cause: int) -> None:
        """Hand on what a rank made of a chunk."""
        if rank < self.ring.size - 1 and 0 <= chunk < len(self.ring.chunks):
            size = self.ring.chunks[chunk] * self.ring.job.model.activation_bytes
            self.right[rank].send(size, self.prompt_s[request][chunk][rank], cause, -1)

    def single(self, rank: int, k: int, cause: int) -> Steps:
        """One token through the stages, and the head that nobody needs."""
        size = self.ring.job.model.activation_bytes
        cause = yield from self.stage(rank, self.single_s[k], self.alone_s[k], size, -1, cause)
        # never in turns: the ranks are at different stages of the passes, so that they hardly meet
        return (yield from self.work("head", rank, self.single_head_s[k][rank], -1, cause))

    def look(self, rank: int, step: int, cause: int) -> Steps:
        """Whether a chat was cancelled or has come: a sum and two gathers."""
        for slot in ("sum", "ask", "ask"):
            cause = yield from self.collective(rank, slot, step, cause)
        return cause

    def collective(self, rank: int, slot: str, step: int, cause: int) -> Steps:
        """The next gather or sum of a few bytes."""
        index = self.taken[rank][slot]
        self.taken[rank][slot] += 1
        return (yield from self.gather(rank, slot, index, NOTICE_BYTES, step, cause))

    def come_from_left(self, rank: int, cause: int) -> Steps:
        """Wait for what the left neighbour sends; rank 0 has no one to wait for."""
        # a hidden state that lay there before was not waited for, so it is no cause of what follows
        if rank > 0:
            arrival = self.right[rank - 1].receive()
            if not arrival.processed:
                cause = yield arrival
        return cause

    def stage(
        self, rank: int, stage_s: list[float], delay_s: list[float], size: float, step: int, cause: int
    ) -> Steps:
        """Wait for the hidden state, run the layers, send it on."""
        cause = yield from self.come_from_left(rank, cause)
        cause = yield from self.work("compute", rank, stage_s[rank], step, cause)
        if rank < self.ring.size - 1:
            self.right[rank].send(size, delay_s[rank], cause, step)
        return cause

    def gather(self, rank: int, slot: str, index: int, size: float, step: int, cause: int) -> Steps:
        """Rounds: send to the left and wait for the right, or the other way for a sum; what came early is no
        cause of what follows.
        """
        # what the right neighbour sends to its left comes here
        turn, hops = (-1, self.right) if slot == "sum" else (1, self.left)
        send, receive = hops[rank].send, hops[(rank + turn) % self.ring.size].receive
        for delay_s in self.delay_s[slot][index]:
            send(size, delay_s[rank], cause, step)
            arrival = receive()
            if not arrival.processed:
                cause = yield arrival
        return cause

    def head(self, rank: int, duration_s: float, step: int, cause: int) -> Steps:
        """Head and host work, when it is this rank's turn."""
        if self.turns is None:
            return (yield from self.work("head", rank, duration_s, step, cause))
        with self.turns.request() as turn:
            if not turn.triggered:
                yield turn
                cause = self.last_turn
            self.last_turn = yield from self.work("head", rank, duration_s, step, cause)
            return self.last_turn

    def work(self, kind: str, rank: int, duration_s: float, step: int, cause: int) -> Steps:
        """Keep the rank busy."""
        start_s = self.env.now
        yield self.env.timeout(duration_s)
        return self.recorder.span(kind, self.names[rank], step, start_s, self.env.now, cause)


def start(env: simpy.Environment, job: Job, draws: Draws, recorder: Recorder) -> RingProcesses:
    """Start the ring for the row of the draws."""
    ring, row = draws.shared(ExoRing)
    return RingProcesses(env, ring, draws, recorder, row)
