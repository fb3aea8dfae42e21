"""What Petals' chain computes and sends: every duration of a job, for all rows.

The client is the device that the embedding is pinned to, else the first. It embeds, asks one server after the
other and computes the head. It may serve as well: then its own server is a hand-over inside the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from simulator.engine.petals.flow import FlowFacts, flow_facts, is_grouped
from simulator.laws.law import Floats
from simulator.runtime.cost import crowding, head_s, prefill_s
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.paging import paging_s

__all__ = ["Chain", "Exchange"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """All messages between two ends in one direction; one for each token, the first carries the prompt."""

    ends: tuple[str, str]
    sizes: tuple[float, float]
    """Bytes with the prompt and with one token."""
    delay_s: Floats
    """Shape (tokens, rows)."""
    seconds_per_byte: Floats
    """Shape (rows,)."""

    def size_bytes(self, token: int) -> float:
        """Bytes of a token's message."""
        return self.sizes[token > 0]


@dataclass(frozen=True)
class Chain:
    """All durations of one job's rows; chats are numbered from 0, their draws are independent."""

    job: Job
    draws: Draws

    def __post_init__(self) -> None:
        """Raises ScenarioError for a chat that Petals refuses for ever."""
        self.flow.refuse_longer(self.job.model, self.job.workload)

    @property
    def flow(self) -> FlowFacts:
        """What Petals sends and keeps."""
        return flow_facts()

    @cached_property
    def client(self) -> str:
        """The device that the chat runs on."""
        return self.job.placement.embedding or self.job.shards[0].device

    @cached_property
    def servers(self) -> tuple[int, ...]:
        """Ranks that serve blocks, in the order in which a token meets them."""
        return tuple(rank for rank, shard in enumerate(self.job.shards) if shard.layers)

    @cached_property
    def names(self) -> list[str]:
        """Devices of the servers."""
        return [self.job.shards[rank].device for rank in self.servers]

    @property
    def tokens(self) -> int:
        """Tokens of each reply; the first one comes out of the prompt's own pass."""
        return self.job.workload.output_tokens

    @property
    def pushes(self) -> bool:
        """Whether servers hand hidden states on by themselves."""
        return self.job.engine.push

    @cached_property
    def chats_that_fit(self) -> int:
        """Chats whose tokens each server has room for; it is taken whole at a chat's first step."""
        workload = self.job.workload
        room = self.flow.cache_tokens[is_grouped(self.job.model)]
        return room // (workload.prompt_tokens + workload.output_tokens)

    @cached_property
    def prompt_tasks(self) -> list[int]:
        """Tasks of each server's queue that read a prompt: one, or one for each block of a long prompt."""
        tokens, model = self.job.workload.prompt_tokens, self.job.model
        return [self.flow.tasks(model, self.job.shards[rank].layers, tokens) for rank in self.servers]

    def opening_s(self) -> Floats:
        """Looking up the swarm and opening streams before a chat's first step, shape (rows,)."""
        return self.job.engine.request_overhead_s * self.draws.overhead("request")

    def client_s(self, chat: int) -> Floats:
        """The client's own work for each token, shape (tokens, rows)."""
        device = self.job.cluster.device(self.client)
        head = head_s(device, self.job.model) * self.draws.speed_factor(device, "decode")
        own_s = self.flow.client_overhead_s * self.draws.overhead("step") * crowding(device)
        return np.asarray((head + own_s) * self.draws.noise(device, f"client{chat or ''}", self.tokens))

    def server_s(self, chat: int) -> Floats:
        """Each server's work for each token of a chat, in all its blocks, shape (tokens, servers, rows)."""
        return np.stack([self._server_s(chat, at) for at in range(len(self.servers))], axis=1)

    def _server_s(self, chat: int, at: int) -> Floats:
        rank, workload = self.servers[at], self.job.workload
        device, held = self.job.ring[rank], self.job.held(rank)
        context = workload.prompt_tokens + np.arange(self.tokens, dtype=float)
        paged_s = paging_s(self.job, rank)
        work = self.draws.decode_s(device, held, context, 1, paged_s)
        prompt = prefill_s(device, held, workload.prompt_tokens) + paged_s
        prompt += self.flow.unpacking_s(device, self.job.model, held.layers, workload.prompt_tokens)
        work[0] = prompt * self.draws.speed_factor(device, "prefill")
        # kernels are launched while earlier ones compute, so the longer of both counts
        launch_s = held.layers * self.flow.launching_s(device, self.job.model) * self.draws.overhead("step")
        work = np.maximum(work, launch_s * crowding(device))
        tasks = np.ones((self.tokens, 1))
        tasks[0] = self.prompt_tasks[at]
        step_s = tasks * self.job.engine.step_overhead_s + self.flow.card_s(device)
        host = step_s * self.draws.overhead("step")
        host = (host + device.speed.stage_overhead) * crowding(device)
        # the first chat draws what a single one would: who adds chats moves none of its numbers
        return np.asarray((work + host) * self.draws.noise(device, f"decode{chat or ''}", self.tokens))

    def request(self, chat: int, at: int) -> Exchange | None:
        """From the client to a server; None where both are one machine."""
        following = len(self.servers) - 1 - at
        named = self.flow.uid_bytes_per_block * self.job.shards[self.servers[at]].layers
        head = self.flow.framing_bytes + self.flow.metadata_bytes + named + self.flow.wire_bytes[0]
        # who follows is named in each step but the first, whether or not the server makes use of it
        return self._exchange(
            f"request{chat or ''}",
            (self.client, self.names[at]),
            (head, head + following * self.flow.metadata_bytes_per_next),
        )

    def reply(self, chat: int, at: int) -> Exchange | None:
        """From a server to the client; None where both are one machine."""
        head = self.flow.reply_bytes + self.flow.wire_bytes[1]
        return self._exchange(f"reply{chat or ''}", (self.names[at], self.client), (head, head))

    def pushed(self, chat: int, at: int) -> Exchange:
        """From a server to the next one, of which the prompt's is never sent."""
        head = self.flow.framing_bytes + self.flow.metadata_bytes + self.flow.wire_bytes[0]
        found = self._exchange(f"push{chat or ''}", (self.names[at], self.names[at + 1]), (head, head))
        assert found is not None, "a device holds one run of blocks"
        return found

    def _exchange(self, slot: str, ends: tuple[str, str], heads: tuple[float, float]) -> Exchange | None:
        if ends[0] == ends[1]:
            return None
        path, state = (
            self.job.cluster.path(*ends),
            self.flow.state_bytes(self.job.model, self.job.engine.compression),
        )
        delay_s = self.draws.delay_s(path, f"{slot}/{ends[0]}/{ends[1]}", self.tokens)
        sizes = heads[0] + self.job.workload.prompt_tokens * state, heads[1] + state
        return Exchange(ends, sizes, delay_s, self.draws.seconds_per_byte(path))

    def durations(self, chat: int) -> Durations:
        """All of a chat, made once: SimPy takes columns of it for each row."""
        if chat not in self._kept:
            count = len(self.servers)
            self._kept[chat] = Durations(
                self.client_s(chat),
                self.server_s(chat),
                [self.request(chat, at) for at in range(count)],
                [self.reply(chat, at) for at in range(count)],
                [self.pushed(chat, at) for at in range(count - 1)] if self.pushes else [],
            )
        return self._kept[chat]

    @cached_property
    def _kept(self) -> dict[int, Durations]:
        return {}


@dataclass(frozen=True, slots=True)
class Durations:
    """One chat's work and messages."""

    client_s: Floats
    server_s: Floats
    requests: list[Exchange | None]
    replies: list[Exchange | None]
    pushes: list[Exchange]
    """Empty where servers do not push."""
