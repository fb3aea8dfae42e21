"""What llama.cpp RPC sends and computes: sizes on the wire and durations of every part of a job.

Sizes are those of protocol 7 as observed (docs/llama-rpc-flow.md) for the Llama architecture: decode requests
and replies to the byte, prompt requests to 0.01%. What older protocols wait for stands in `engine.yaml`. The
flow itself is told in the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from simulator.engine.facts import ProtocolFacts, read_facts
from simulator.laws.law import Floats
from simulator.runtime.cost import crowding, head_s
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.paging import paging_s
from simulator.runtime.portions import Divided

__all__ = [
    "ACK_BYTES",
    "CHUNK_TOKENS",
    "FACTS",
    "READ_BYTES",
    "SET_TENSOR_BYTES",
    "STATUS_BYTES",
    "LlamaStar",
]

FACTS = read_facts(Path(__file__).parent)
CHUNK_TOKENS = FACTS.prompt_chunk_tokens or 1  # n_ubatch, llama.cpp's default
CACHE_STEP_TOKENS = 256  # the cache is attended to in multiples of this
TWO_TENSORS_FROM = 32  # tokens; observed: 31 carry one tensor over a boundary, 32 carry two
SET_TENSOR_BYTES = 314  # header 9, tensor 296, flag 1, offset 8
READ_BYTES = 321  # a get_tensor request: header 9, tensor 296, range 16
RECOMPUTE_BYTES = 13
REPLY_HEADER_BYTES = 8
ACK_BYTES = REPLY_HEADER_BYTES  # an empty answer, of protocols that answer a set_tensor
STATUS_BYTES = REPLY_HEADER_BYTES + 1  # of those that answer a graph_compute
GRAPH_LAYER_BYTES, GRAPH_FIXED_BYTES, GRAPH_ADD_BYTES, GRAPH_HEAD_BYTES = 12_680, 1_501, 600, 2_408
# a graph on the wire (observed, Llama architecture): per layer; always; where the
# residual is added; with the head

# names of the messages whose delays are drawn as streams of their own
PROMPT_SLOTS = ("prompt", "prompt-read", "prompt-rest", "reply-prompt", "reply-rest")
DECODE_SLOTS = ("request", "reply")
# what older protocols add: the answer that a graph has been computed, and the read that waits for it
PROMPT_WAITS, DECODE_WAITS = ("reply-prompt-status", "prompt-fetch"), ("reply-status", "fetch")


@dataclass(frozen=True)
class LlamaStar:
    """All durations and sizes of one job's rows; arrays end in (rows,)."""

    job: Job
    draws: Draws

    @cached_property
    def servers(self) -> int:
        """Devices beside the client."""
        return len(self.job.ring) - 1

    @property
    def batch(self) -> int:
        """Chats that are decoded in step."""
        return self.job.workload.concurrency

    @cached_property
    def chunks(self) -> tuple[int, ...]:
        """Tokens of each prompt chunk."""
        total = self.job.workload.prompt_tokens * self.batch
        return tuple(min(CHUNK_TOKENS, total - start) for start in range(0, total, CHUNK_TOKENS))

    @property
    def steps(self) -> int:
        """Decode steps; the first token comes out of the prompt."""
        return self.job.workload.output_tokens - 1

    @property
    def cached(self) -> Floats:
        """Tokens of one chat in the cache before each decode step, shape (steps,)."""
        return self.job.workload.prompt_tokens + np.arange(self.steps, dtype=float)

    @cached_property
    def protocol(self) -> ProtocolFacts:
        """The version that client and servers speak."""
        return FACTS.protocol(self.job.engine.protocol)

    @property
    def waits_for_compute(self) -> bool:
        """Whether the client reads the result only when the server has answered that it is there."""
        return "graph_compute" in self.protocol.answered

    def puts(self, server: int, tokens: int) -> int:
        """Tensors of a request that the client waits for an answer to, one after the other."""
        return self._tensors(server, tokens) if "set_tensor" in self.protocol.answered else 0

    def round_trips(self, server: int, tokens: int) -> int:
        """Of a request, beside that of its read."""
        return self.puts(server, tokens) + self.waits_for_compute

    def _tensors(self, server: int, tokens: int) -> int:
        return self.protocol.inputs + self._states(server, tokens) + (server == self._head_rank)

    def _states(self, server: int, tokens: int) -> int:
        """Hidden states in a request: with the residual one where the sum of both is left to the server."""
        return 2 if (server == 1 and self._client_begins) or self.carries_two(server, tokens) else 1

    def carries_two(self, server: int, tokens: int) -> bool:
        """Whether the boundary before this server (from 1) takes two tensors and a second round trip."""
        return server > 1 and self._client_begins and tokens >= TWO_TENSORS_FROM

    @cached_property
    def _head_rank(self) -> int:
        return self.job.head_rank

    @property
    def client_is_last(self) -> bool:
        """Whether the client's own layers come behind all servers', and the head with them."""
        return self.servers > 0 and self._head_rank == 0

    @cached_property
    def _client_begins(self) -> bool:
        return self.job.shards[0].layers > 0 and not self.client_is_last

    def hands_on(self, server: int) -> bool:
        """Whether somebody computes on with what this server gives, so that it is fetched for each chunk."""
        return server < self.servers or self.client_is_last

    @cached_property
    def decode_s(self) -> Floats:
        """Each device's work for each decode step, shape (steps, devices, rows); sampling is the client's."""
        return np.stack(
            [
                self._stage_s(
                    "decode",
                    rank,
                    self.draws.decode_s(
                        device, self.job.held(rank), self.cached, self.batch, self._fixed_s(rank)
                    ),
                    self.steps,
                )
                for rank, device in enumerate(self.job.ring)
            ],
            axis=1,
        )

    @cached_property
    def prefill_s(self) -> Floats:
        """Each device's work for each chunk, shape (chunks, devices, rows); the head
        is computed for one token.
        """
        # the prompts of a batch lie one behind the other, and each begins with an empty cache
        starts = np.cumsum((0, *self.chunks[:-1])) % self.job.workload.prompt_tokens
        chunks = list(zip(self.chunks, starts.tolist(), strict=True))
        return np.stack(
            [
                self._stage_s(
                    "prefill",
                    rank,
                    self.draws.prefill_s(device, self.job.held(rank), chunks, self._fixed_s(rank)),
                    len(chunks),
                )
                for rank, device in enumerate(self.job.ring)
            ],
            axis=1,
        )

    def _fixed_s(self, rank: int) -> float:
        """Paging, and the head where it is."""
        device, held = self.job.ring[rank], self.job.held(rank)
        if isinstance(held, Divided):
            device = held.used[-1].processor.device
        head = head_s(device, self.job.model, self.batch) if rank == self._head_rank else 0.0
        return paging_s(self.job, rank) + head

    def _stage_s(self, part: str, rank: int, work: Floats, n: int) -> Floats:
        """One device's work with host work and noise, shape (n, rows)."""
        device = self.job.ring[rank]
        # the engine's own work per token is the client's: it samples and drives the others
        overhead = self.job.engine.step_overhead_s * self.draws.overhead("step") if rank == 0 else 0.0
        asked = device.speed.serving_overhead * self.draws.overhead("hop") if rank else 0.0
        host = (device.speed.stage_overhead + overhead + asked) * crowding(device, self.batch)
        return np.asarray((work + host) * self.draws.noise(device, part, n))

    def request_bytes(self, server: int, tokens: int, cached: ArrayLike, has_new_graph: ArrayLike) -> Floats:
        """Requests on the wire, shape of `cached`: inputs, their headers, the
        graph or the word to reuse it, and the read at the end.
        """
        states_bytes = self._states(server, tokens) * self.job.model.activation_bytes
        attended = CACHE_STEP_TOKENS * np.ceil(np.asarray(cached) / CACHE_STEP_TOKENS)
        # position 4 bytes, a row of the mask in half precision, places in the key and value caches 8 each
        places_bytes = 8 * (self.protocol.inputs - 2)
        inputs = tokens * (states_bytes + 4 + places_bytes + 2 * attended) + 4 * self.batch * (
            server == self._head_rank
        )
        size = inputs + self._tensors(server, tokens) * SET_TENSOR_BYTES + READ_BYTES
        has_graph = has_new_graph if self.protocol.keeps_graph else True
        return np.asarray(size + np.where(has_graph, self._graph_bytes(server), RECOMPUTE_BYTES))

    def early_bytes(self, tokens: int) -> float:
        """The normed state, which goes to the next server while the residual one is still being fetched."""
        return tokens * self.job.model.activation_bytes

    def _graph_bytes(self, server: int) -> float:
        adds = server == 1 and self._client_begins
        return (
            GRAPH_FIXED_BYTES
            + GRAPH_LAYER_BYTES * self.job.shards[server].layers
            + GRAPH_ADD_BYTES * adds
            + GRAPH_HEAD_BYTES * (server == self._head_rank)
        )

    def reply_bytes(self, server: int, tokens: int) -> float:
        """A reply: hidden states of `tokens` tokens, or the logits of each chat from who has the head."""
        if server != self._head_rank:
            return tokens * self.job.model.activation_bytes + REPLY_HEADER_BYTES
        # two operations for each of hidden times vocabulary weights
        vocabulary = self.job.model.head_flops / (2 * self.job.model.hidden)
        return 4 * vocabulary * self.batch + REPLY_HEADER_BYTES

    def prompt_request_bytes(self, server: int, chunk: int) -> float:
        """The request of one prompt chunk; every chunk brings its graph."""
        done = sum(self.chunks[: chunk + 1])
        return float(self.request_bytes(server, self.chunks[chunk], done, has_new_graph=True))

    def decode_request_bytes(self, server: int) -> Floats:
        """The request of each decode step, shape (steps,)."""
        cached = (self.cached + 1) * self.batch
        buckets = np.ceil(cached / CACHE_STEP_TOKENS)
        is_new = np.concatenate([[True], buckets[1:] > buckets[:-1]])[: self.steps]
        return self.request_bytes(server, self.batch, cached, is_new)

    @cached_property
    def decode_sizes_bytes(self) -> dict[int, list[float]]:
        """`decode_request_bytes` of each server."""
        return {server: self.decode_request_bytes(server).tolist() for server in range(1, self.servers + 1)}

    @cached_property
    def all_delays_s(self) -> dict[tuple[int, str], Floats]:
        """Delays of all messages by server and slot, each of shape (messages, rows)."""
        return {
            (server, slot): self.delay_s(server, slot, n)
            for server in range(1, self.servers + 1)
            for slots, n in (
                (self._prompt_slots(server), len(self.chunks)),
                (self.decode_slots(server), self.steps),
            )
            for slot in slots
        }

    def _prompt_slots(self, server: int) -> tuple[str, ...]:
        puts = self.puts(server, max(self.chunks))
        return PROMPT_SLOTS + PROMPT_WAITS * self.waits_for_compute + _put_slots("prompt-", puts)

    def decode_slots(self, server: int) -> tuple[str, ...]:
        """Names of all messages to and from a server in one decode step; replies begin with "reply"."""
        puts = self.puts(server, self.batch)
        return DECODE_SLOTS + DECODE_WAITS * self.waits_for_compute + _put_slots("", puts)

    def answers_bytes(self, server: int) -> float:
        """All that a server sends in one decode step."""
        acks = ACK_BYTES * self.puts(server, self.batch) + STATUS_BYTES * self.waits_for_compute
        return self.reply_bytes(server, self.batch) + acks

    def ends(self, server: int, is_reply: bool) -> tuple[str, str]:
        """Source and sink of a message between the client and a server."""
        client, other = self.job.ring[0].name, self.job.ring[server].name
        return (other, client) if is_reply else (client, other)

    def delay_s(self, server: int, slot: str, n: int) -> Floats:
        """Delays of `n` messages of a slot, shape (n, rows);
        slots that begin with 'reply' come from the server.
        """
        path = self.job.cluster.path(*self.ends(server, slot.startswith("reply")))
        return self.draws.delay_s(path, f"{slot}/{self.job.ring[server].name}", n)

    def seconds_per_byte(self, server: int, is_reply: bool) -> Floats:
        """Of one direction of a server's link, shape (rows,)."""
        return self.draws.seconds_per_byte(self.job.cluster.path(*self.ends(server, is_reply)))

    @cached_property
    def overlaps(self) -> bool:
        """Whether several messages can be under way at once:
        chunks that follow each other, or split requests.
        """
        splits = any(self.carries_two(server, max(self.chunks)) for server in range(2, self.servers + 1))
        return (len(self.chunks) > 1 and not self.client_is_last) or splits


def _put_slots(part: str, puts: int) -> tuple[str, ...]:
    return tuple(slot for i in range(puts) for slot in (f"{part}put{i}", f"reply-{part}put{i}"))
