"""EXO's ring as arithmetic on arrays: all rows at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.engine.exo.ring import NOTICE_BYTES, SINGLE_PASSES, ExoRing
from simulator.laws.law import Floats
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job

__all__ = ["chats", "is_recursion_exact", "token_times_s"]


@dataclass
class _Recursion:
    """The ring as arithmetic on arrays: `t` is when each rank is ready, `port` when its
    port is, both (ranks, rows).
    """

    ring: ExoRing

    def __post_init__(self) -> None:
        shape = (self.ring.size, self.ring.draws.rows)
        self.t, self.port, self.arrive = np.zeros(shape), np.zeros(shape), np.empty(shape)
        # some sixty operations on small arrays make a step, so views are cut once and nothing is allocated
        self.all_but_last, self.last = self.t[:-1], self.t[-1]
        self.from_others, self.from_first = self.arrive[1:], self.arrive[0]
        self.ranks = list(zip(self.t[1:], self.t[:-1], self.port[:-1], strict=True))
        self.right = self.ring.seconds_per_byte("forward")
        self.left = self.ring.seconds_per_byte("gather")
        self.asks = iter(self.ring.all_rounds_s["ask"])
        self.sums = iter(self.ring.all_rounds_s["sum"])
        self.chunk_arrives = np.zeros(shape)
        at_once = self.ring.heads_at_once
        self.free = None if at_once is None else np.full((at_once, self.ring.draws.rows), -np.inf)

    def gather(self, delay_s: Floats, transmit_s: Floats) -> None:
        """Rounds in which rank r waits for what rank r + 1 had when the round began."""
        t, port, arrive = self.t, self.port, self.arrive
        for delay in delay_s:
            # all ranks send before any hears: arrivals are computed from the state in which the round began
            np.maximum(t, port, out=port)
            np.add(port, transmit_s, out=port)
            np.add(port, delay, out=arrive)
            np.maximum(self.all_but_last, self.from_others, out=self.all_but_last)
            np.maximum(self.last, self.from_first, out=self.last)

    def sum(self, delay_s: Floats, transmit_s: Floats) -> None:
        """Rounds in which rank r waits for what rank r - 1 had when the round began."""
        t, port, arrive = self.t, self.port, self.arrive
        for delay in delay_s:
            np.maximum(t, port, out=port)
            np.add(port, transmit_s, out=port)
            np.add(port, delay, out=arrive)
            np.maximum(t[1:], arrive[:-1], out=t[1:])
            np.maximum(t[0], arrive[-1], out=t[0])

    def look(self) -> None:
        """Whether a chat was cancelled or has come: a sum and two gathers."""
        self.sum(next(self.sums), NOTICE_BYTES * self.right)
        for _ in range(2):
            self.gather(next(self.asks), NOTICE_BYTES * self.left)

    def turn(self, request: int, turn: int) -> None:
        """One turn of overlapping chunks: each rank is at another one."""
        for rank, chunk in self.busy(turn):
            if rank:
                np.maximum(self.t[rank], self.chunk_arrives[rank], out=self.t[rank])
            self.t[rank] += self.ring.prefill_s[request, chunk, rank]

    def send(self, request: int, turn: int) -> None:
        """What the ranks made in a turn goes on to the right."""
        for rank, chunk in self.busy(turn):
            if rank < self.ring.size - 1:
                size = self.ring.chunks[chunk] * self.ring.job.model.activation_bytes
                np.maximum(self.t[rank], self.port[rank], out=self.port[rank])
                self.port[rank] += size * self.right[rank]
                self.chunk_arrives[rank + 1] = self.port[rank] + self.ring.prompt_s[request, chunk, rank]

    def busy(self, turn: int) -> list[tuple[int, int]]:
        """(rank, chunk) of who has one in a turn."""
        chunks = range(len(self.ring.chunks))
        return [(rank, turn - rank) for rank in range(self.ring.size) if turn - rank in chunks]

    def read_prompt(self, request: int) -> None:
        """A request's script."""
        ring, hidden = self.ring, self.ring.job.model.activation_bytes
        for op, at in ring.script:
            if op == "work":
                self.t += ring.request_s[request]
            elif op == "ask":
                self.gather(next(self.asks), NOTICE_BYTES * self.left)
            elif op == "sum":
                self.sum(next(self.sums), NOTICE_BYTES * self.right)
            elif op == "chunk":
                size = ring.chunks[at] * hidden
                self.forward(ring.prefill_s[request, at], ring.prompt_s[request, at], size * self.right)
            elif op == "turn":
                self.turn(request, at)
            elif op == "send":
                self.send(request, at)
            else:
                k = request * SINGLE_PASSES + at
                layers_s, head_s = ring.single_s
                self.forward(layers_s[k], ring.alone_s[k], hidden * self.right)
                self.t += head_s[k]

    def heads(self, head_s: Floats) -> None:
        """Each rank's head and host work; on one machine in turns, first come, first served."""
        if self.free is None:
            self.t += head_s
            return
        # a rank that comes at the same time as another has its turn by its number, which no delay ever is
        order, rows = np.argsort(self.t, axis=0, kind="stable"), np.arange(self.ring.draws.rows)
        came = np.take_along_axis(self.t, order, axis=0)
        for begin, takes in zip(came, np.take_along_axis(head_s, order, axis=0), strict=True):
            first_free = self.free.argmin(axis=0)
            np.maximum(begin, self.free[first_free, rows], out=begin)
            begin += takes
            self.free[first_free, rows] = begin
        np.put_along_axis(self.t, order, came, axis=0)

    def forward(self, stage_s: Floats, delay_s: Floats, transmit_s: Floats) -> None:
        """One pass through the stages; rank r sends to r + 1 and goes on at once."""
        # only room: the last gather has been taken in, so its arrivals are not needed any more
        arrive_s = self.from_first
        self.t[0] += stage_s[0]
        for (t, t_before, port), stage, delay, transmit in zip(
            self.ranks, stage_s[1:], delay_s, transmit_s, strict=False
        ):
            np.maximum(t_before, port, out=port)
            np.add(port, transmit, out=port)
            np.add(port, delay, out=arrive_s)
            np.maximum(t, arrive_s, out=t)
            np.add(t, stage, out=t)

    def token_times_s(self) -> Floats:
        """Time of each token after the request, shape (waves, output tokens, rows)."""
        ring, workload = self.ring, self.ring.job.workload
        forward, stage_s, head_s = ring.forward_s, ring.stage_s, ring.head_s
        notice, gathered = (ring.all_rounds_s[slot] for slot in ("notice", "gather"))
        out = np.empty((len(ring.waves), workload.output_tokens, ring.draws.rows))
        request = k = 0
        for wave, batch in enumerate(ring.waves):
            for _ in range(batch):
                self.read_prompt(request)
                request += 1
            small, hidden = NOTICE_BYTES * self.left, batch * ring.job.model.activation_bytes
            right, left = hidden * self.right, hidden * self.left
            for step in range(ring.steps):
                self.gather(notice[k], small)
                self.forward(stage_s[k], forward[k], right)
                self.gather(gathered[k], left)
                self.heads(head_s[k])
                token = step - ring.prompt_steps
                if token >= 0:
                    for _ in range(batch if ring.checks(token) else 0):
                        self.look()
                    out[wave, token] = self.t[0]
                k += 1
        return out


def token_times_s(job: Job, draws: Draws) -> Floats:
    """Token times of all rows, see `Engine.token_times_s`."""
    return _Recursion(ExoRing(job, draws)).token_times_s()


def is_recursion_exact(job: Job) -> bool:
    """Not where prompt chunks queue for the same air, nor where a radio dozes (that
    depends on who is waiting).
    """
    chunked = len(ExoRing(job, Draws(job, 0, 1)).chunks) > 1
    return not any(device.link.power_save or (chunked and device.link.shared) for device in job.ring)


def chats(job: Job) -> tuple[int, ...]:
    """The chats of each batch, see `Engine.chats`."""
    return ExoRing(job, Draws(job, 0, 1)).waves
