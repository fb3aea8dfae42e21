"""EXO's ring as arithmetic on arrays: all rows at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.engine.exo.ring import NOTICE_BYTES, ExoRing
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
        steps, forward, prompt = ring.steps, ring.forward_s, ring.prompt_s
        notice, gathered, barrier = (ring.all_rounds_s[slot] for slot in ("notice", "gather", "barrier"))
        stage_s, head_s, prefill_s = ring.stage_s, ring.head_s, ring.prefill_s
        out = np.empty((len(ring.waves), workload.output_tokens, ring.draws.rows))
        request = k = 0
        for wave, batch in enumerate(ring.waves):
            for _ in range(batch):
                self.gather(barrier[request], NOTICE_BYTES * self.left)
                for c, tokens in enumerate(ring.chunks):
                    size = tokens * ring.job.model.activation_bytes
                    self.forward(prefill_s[request, c], prompt[request, c], size * self.right)
                request += 1
            small, hidden = NOTICE_BYTES * self.left, batch * ring.job.model.activation_bytes
            right, left = hidden * self.right, hidden * self.left
            for step in range(steps):
                self.gather(notice[k], small)
                self.forward(stage_s[k], forward[k], right)
                self.gather(gathered[k], left)
                self.t += head_s[k]
                if step >= ring.prompt_steps:
                    out[wave, step - ring.prompt_steps] = self.t[0]
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
