"""EXO's ring for chats that come one by one: continuous batching, as recorded.

Before each decode step the all-gather of the notice tells every rank what has come since. A new
chat's prompt is read then, and no other chat's token is made meanwhile; after the next notice it
decodes in the batch, which holds up to `workload.concurrency` chats and never more than 8. What
nobody has recorded is assumed: that rank 0's knowledge when it enters the notice decides, that all
who fit are let in together, and that a chat leaves with its last token.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import simpy

from simulator.engine.exo.processes import RingProcesses
from simulator.engine.exo.ring import MAX_BATCH, NOTICE_BYTES, ExoRing
from simulator.laws.law import Floats
from simulator.runtime.cost import crowding, decode_s, head_s
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.network import Network
from simulator.runtime.paging import paging_s
from simulator.runtime.record import Recorder

__all__ = ["Serving", "serve"]


@dataclass(frozen=True, slots=True)
class _NextStep:
    """What follows a notice: the prompts of `admitted`, or else a step of `batch` chats."""

    admitted: tuple[int, ...]
    batch: int
    context: float
    """Mean over the batch."""
    looks: int = 0
    """Chats of the batch at whose token the ranks look for cancelled ones."""


class Serving(RingProcesses):
    """The ring's processes for row 0, with a batch that changes from step to step."""

    def __init__(
        self, env: simpy.Environment, job: Job, draws: Draws, recorder: Recorder, arrivals_s: Sequence[float]
    ) -> None:
        self.at_once = min(job.workload.concurrency, MAX_BATCH)
        self.coming = deque(enumerate(arrivals_s))
        self.done: dict[int, int] = {}
        """Steps that each chat of the batch has behind it."""
        self.plans: list[_NextStep] = []
        # the ring lays out its draws by request, so it must know of all of them
        every = job.workload.model_copy(update={"concurrency": len(arrivals_s)})
        draws = Draws(replace(job, workload=every), draws.first, 1, draws.certain, draws.stretched)
        super().__init__(env, ExoRing(draws.job, draws), draws, recorder)

    def __post_init__(self) -> None:
        """Draw as many steps as there would be if no two chats ever met."""
        ring, chats = self.ring, len(self.coming)
        rounds = chats * (ring.steps + 1)  # each chat's steps, and one notice that lets it in
        network = Network(self.env, ring.draws, self.recorder, flows=max(1, len(ring.chunks)))
        self.names = [device.name for device in ring.job.ring]
        self.right = [network.hop(*ends) for ends in ring.neighbours("forward")]
        self.left = [network.hop(*ends) for ends in ring.neighbours("gather")]
        # after the last step the others enter one more notice, which rank 0 no longer answers
        counts = {"notice": rounds + 1, "gather": rounds}
        self.delay_s = {slot: self._rounds_s(slot, n).tolist() for slot, n in counts.items()}
        # what belongs to one request does not depend on who decodes meanwhile, so the ring's own is taken
        self.delay_s |= {slot: self.of_row(ring.all_rounds_s[slot]) for slot in ("ask", "sum")}
        self.forward_s = self._delays_s("forward", "forward", rounds).tolist()
        self.noise = [ring.draws.noise(device, "decode", rounds)[:, 0] for device in ring.job.ring]
        self.lay_out_prompts()
        self.base_s = cache(self._base_s)
        for rank in range(ring.size):
            self.env.process(self.rank(rank))

    def _delays_s(self, slot: str, stream: str, n: int) -> Floats:
        """Of each rank's message to its neighbour, for a batch of one, shape (n, ranks)."""
        paths = [self.ring.job.cluster.path(*ends) for ends in self.ring.neighbours(slot)]
        return np.stack([self.ring.draws.delay_s(path, stream, n)[:, 0] for path in paths], axis=1)

    def _rounds_s(self, slot: str, n: int) -> Floats:
        rounds = [self._delays_s(slot, f"{slot}{j}", n) for j in range(self.ring.size - 1)]
        return np.stack(rounds, axis=1) if rounds else np.empty((n, 0, 1))

    def _base_s(self, rank: int, batch: int) -> tuple[list[float], float]:
        """A rank's layers by tokens in the cache, and its head, without noise."""
        ring, device = self.ring, self.ring.job.ring[rank]
        workload, draws = ring.job.workload, ring.draws
        speed = float(draws.speed_factor(device, "decode")[0])
        contexts = np.arange(workload.prompt_tokens + workload.output_tokens + 1, dtype=float)
        stage = decode_s(device, ring.job.held(rank), contexts, batch) + paging_s(ring.job, rank, batch)
        overhead = (
            ring.job.engine.step_overhead_s * float(draws.overhead("step")[0]) + device.speed.stage_overhead
        )
        return (stage * speed).tolist(), head_s(device, ring.job.model, batch) * speed + crowding(
            device, batch
        ) * overhead

    def rank(self, rank: int) -> Generator[simpy.Event, Any, None]:
        """A rank's life: hear what is new, then read new prompts or make one token
        for each chat of the batch.
        """
        cause, k = -1, 0
        while True:
            if rank == 0:
                if not (self.done or self.coming):
                    return  # the others hear nothing any more
                if not self.done and self.coming[0][1] > self.env.now:
                    yield self.env.timeout(self.coming[0][1] - self.env.now)
                self.plans.append(self.plan(k))
            cause = yield from self.gather(rank, "notice", k, NOTICE_BYTES, k, cause)
            plan = self.plans[k]
            for chat in plan.admitted:
                cause = yield from self.read_prompt(rank, chat, cause)
            if not plan.admitted:
                cause = yield from self.step(rank, k, plan, cause)
            k += 1

    def step(self, rank: int, k: int, plan: _NextStep, cause: int) -> Generator[simpy.Event, Any, int]:
        """Make one token for each chat of the batch."""
        size = plan.batch * self.ring.job.model.activation_bytes
        stages_s, head_s = self.base_s(rank, plan.batch)
        noise = float(self.noise[rank][k])
        # `stage` picks its rank's own; the mean context stands for all, as caches are read in proportion
        own_s = [stages_s[round(plan.context)] * noise] * self.ring.size
        cause = yield from self.stage(rank, own_s, self.forward_s[k], size, k, cause)
        cause = yield from self.gather(rank, "gather", k, size, k, cause)
        cause = yield from self.head(rank, head_s * noise, k, cause)
        for _ in range(plan.looks):
            cause = yield from self.look(rank, k, cause)
        if rank == 0:
            self.record(cause)
        return cause

    def plan(self, k: int) -> _NextStep:
        """Let in who has come and fits; said by rank 0 as it enters the notice of step k."""
        admitted = []
        # rank 0 has waited for the first one, whom a rounding of the clock must not turn away
        while (
            self.coming
            and len(self.done) < self.at_once
            and (not self.done or self.coming[0][1] <= self.env.now)
        ):
            chat, _ = self.coming.popleft()
            self.done[chat] = 0
            admitted.append(chat)
        if admitted:
            return _NextStep(tuple(admitted), 0, 0.0)
        batch, first = len(self.done), self.ring.job.workload.prompt_tokens - self.ring.prompt_steps
        self._load(k, batch)
        tokens = [steps - self.ring.prompt_steps for steps in self.done.values()]
        looks = sum(token >= 0 and self.ring.checks(token) for token in tokens)
        return _NextStep((), batch, first + sum(self.done.values()) / batch, looks)

    def _load(self, k: int, batch: int) -> None:
        """The engine's own work for a message grows with the batch."""
        work_s = self.ring.job.engine.hop_overhead_s * float(self.ring.draws.overhead("hop")[0])
        for rank, device in enumerate(self.ring.job.ring):
            # drawn for a batch of one, and used once: so each step's delays may be changed in place
            extra_s = device.speed.batch_cost * (batch - 1) * work_s
            self.forward_s[k][rank] += extra_s
            for round_s in self.delay_s["gather"][k]:
                round_s[rank] += extra_s

    def record(self, cause: int) -> None:
        """The step's tokens; who has all of them leaves."""
        for chat, steps in list(self.done.items()):
            if steps >= self.ring.prompt_steps:
                self.recorder.token(chat, steps - self.ring.prompt_steps, self.env.now, cause)
            self.done[chat] += 1
            if self.done[chat] == self.ring.steps:
                del self.done[chat]


def serve(
    env: simpy.Environment, job: Job, draws: Draws, recorder: Recorder, arrivals_s: Sequence[float]
) -> Serving:
    """Start the ring for chats that come one by one."""
    return Serving(env, job, draws, recorder, arrivals_s)
