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


def token_times_s(job: Job, draws: Draws) -> Floats:
    """Token times of all rows, see `Engine.token_times_s`."""
    return _Recursion(ExoRing(job, draws)).token_times_s()


def is_recursion_exact(job: Job) -> bool:
    """Not where prompt chunks queue for the same air, nor
    where a radio dozes (that depends on who is waiting).
    """
    chunked = len(ExoRing(job, Draws(job, 0, 1)).chunks) > 1
    return not any(device.link.power_save or (chunked and device.link.shared) for device in job.ring)


def chats(job: Job) -> tuple[int, ...]:
    """The chats of each batch, see `Engine.chats`."""
    return ExoRing(job, Draws(job, 0, 1)).waves
