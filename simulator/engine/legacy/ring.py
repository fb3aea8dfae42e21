"""What legacy EXO's ring computes and sends: every duration of a job, for all rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from simulator.laws.law import Floats
from simulator.runtime.cost import crowding, head_s, prefill_s
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.paging import paging_s

__all__ = ["RESULT_BYTES", "TENSOR_OVERHEAD_BYTES", "TOKEN_BYTES", "LegacyRing"]

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
        for rank, device in enumerate(self.job.ring):
            last, held = rank == self.size - 1, self.job.held(rank)
            head = head_s(device, model) if last else 0.0
            work = self.draws.decode_s(device, held, context, 1, paging_s(self.job, rank) + head)
            prompt = (
                prefill_s(device, held, self.job.workload.prompt_tokens) + paging_s(self.job, rank) + head
            )
            # the first token comes out of the pass that reads the prompt
            work[0] = prompt * self.draws.speed_factor(device, "prefill")
            host = (overhead + device.speed.stage_overhead) * crowding(device)
            # the first chat draws what a single one would: who adds chats moves none of its numbers
            columns.append((work + host) * self.draws.noise(device, f"decode{chat or ''}", self.tokens))
        return np.stack(columns, axis=1)

    def durations_s(self, chat: int) -> tuple[Floats, Floats, Floats]:
        """`stage_s`, `delay_s` of all ranks, (ranks, tokens, rows), and `result_delay_s`; kept, for SimPy."""
        if chat not in self._kept:
            delays_s = np.stack([self.delay_s(chat, rank) for rank in range(self.size)])
            self._kept[chat] = self.stage_s(chat), delays_s, self.result_delay_s(chat)
        return self._kept[chat]

    @cached_property
    def _kept(self) -> dict[int, tuple[Floats, Floats, Floats]]:
        return {}

    def ends(self, rank: int) -> tuple[str, str]:
        """Source and sink of the hop that rank `rank` sends over; the last rank closes the ring."""
        return self.names[rank], self.names[(rank + 1) % self.size]

    def delay_s(self, chat: int, rank: int) -> Floats:
        """Delays of the message after rank `rank`, shape (tokens, rows)."""
        return self.draws.delay_s(self.job.cluster.path(*self.ends(rank)), f"tensor{chat or ''}", self.tokens)

    def result_delay_s(self, chat: int) -> Floats:
        """Delays of the broadcast from the last rank to the one that serves the client (rank
        0), shape (tokens, rows).
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
