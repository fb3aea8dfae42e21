"""Engines in lockstep, from their facts: what mlx-lm, vLLM and distributed-llama by tensor, and mlx-lm's
pipeline, have in common.

A token: all ranks hear what to compute (where somebody tells them), each computes its part of
every layer and meets the others after attention and after the MLP, then computes the head,
whole or its part of it. A prompt goes through in chunks, its last token as the first step.
EXO's own rounds between are its own (`simulator.engine.exo.tensor`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import simpy

from simulator.cluster.cluster import Device
from simulator.engine.base import Engine
from simulator.engine.facts import EngineFacts, read_facts
from simulator.errors import PlacementError
from simulator.laws.law import Floats
from simulator.model.stretch import Stretch
from simulator.placement.request import PlacementRequest
from simulator.placement.rules import Rule, refuse_pins
from simulator.placement.shard import Placement
from simulator.runtime.cost import crowding, head_s
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.lockstep import Op, Token, Wires, Work, never_dozes, start, token_times_s
from simulator.runtime.paging import paging_s
from simulator.runtime.portions import Divided
from simulator.runtime.record import Recorder

__all__ = ["Sharded", "lockstep_engine", "tensor_engine"]

LOGIT_BYTES = 4
"""float32, as distributed-llama sends them (`src/llm.cpp`);
vLLM gathers them in the model's type, half of it.
"""


@dataclass(frozen=True)
class Sharded:
    """All durations of one job's rows; arrays end in (ranks, rows)."""

    facts: EngineFacts
    job: Job
    draws: Draws

    @cached_property
    def waves(self) -> tuple[int, ...]:
        """Chats of each batch; further ones wait for these to end."""
        most = self.facts.chats_at_once or self.job.workload.concurrency
        full, rest = divmod(self.job.workload.concurrency, most)
        return (most,) * full + ((rest,) if rest else ())

    def program(self) -> Iterator[Op]:
        """What every rank does, in this order."""
        k = chat = 0
        for wave, batch in enumerate(self.waves):
            for _ in range(batch):
                yield from self._read_prompt(chat)
                chat += 1
            layers_s = np.array([self._decode_s(rank, batch) for rank in self._ranks])
            heads_s = np.array([self._head_s(device, batch) for device in self.job.ring])
            for token in range(self.job.workload.output_tokens):
                yield from self._step(k, batch, layers_s[:, token], heads_s)
                yield Token(wave, token)
                k += 1

    def _read_prompt(self, chat: int) -> Iterator[Op]:
        """The host's work for a request, then all of its prompt but the last token."""
        workload, activation = self.job.workload, self.job.model.activation_bytes
        yield Work("head", self._overhead_s("request", self.job.engine.request_overhead_s), -1)
        most = self.facts.prompt_chunk_tokens or workload.prompt_tokens
        starts = range(0, workload.prompt_tokens - 1, most)
        for at, begin in enumerate(starts):
            tokens = min(most, workload.prompt_tokens - 1 - begin)
            seconds = [self._prefill_s(rank, tokens, begin, f"prefill{chat}/{at}") for rank in self._ranks]
            yield from self.layers(Work("prefill", np.array(seconds), -1 - at), tokens * activation)

    def _step(self, k: int, batch: int, layers_s: Floats, heads_s: Floats) -> Iterator[Op]:
        """One token of each chat; times are those of each rank without noise, shape (ranks, rows)."""
        model, noise = self.job.model, self._noise[:, k]
        if self.facts.sends_inputs:
            yield from self.wires.collective("all_gather", model.hidden * LOGIT_BYTES * batch, k)
        yield from self.layers(Work("compute", noise * layers_s, k), batch * model.activation_bytes)
        yield Work("head", noise * heads_s, k)
        if self.facts.splits_head:
            logits = LOGIT_BYTES * model.head_flops / (2 * model.hidden) * batch / len(self.job.ring)
            yield from self.wires.collective("all_gather", logits, k)

    def layers(self, work: Work, size_bytes: float) -> Iterator[Op]:
        """All layers: between two collectives each rank computes an equal part of its time."""
        facts = self.facts
        yield self.wires.layers(work, size_bytes * facts.reduced_share, facts.collectives_per_layer)

    @cached_property
    def wires(self) -> Wires:
        """Who delays what."""
        return Wires(self.job, self.draws)

    @property
    def _ranks(self) -> range:
        return range(len(self.job.ring))

    @cached_property
    def _held(self) -> list[Stretch | Divided]:
        return [self.job.held(rank) for rank in self._ranks]

    @cached_property
    def _noise(self) -> Floats:
        """Shape (ranks, steps, rows)."""
        steps = len(self.waves) * self.job.workload.output_tokens
        return np.array([self.draws.noise(device, "decode", steps) for device in self.job.ring])

    def _decode_s(self, rank: int, batch: int) -> Floats:
        """Of a rank's part of all layers for each token of a reply, shape (tokens, rows)."""
        workload, paged_s = self.job.workload, paging_s(self.job, rank, batch)
        context = workload.prompt_tokens + np.arange(workload.output_tokens, dtype=float)
        return self.draws.decode_s(self.job.ring[rank], self._held[rank], context, batch, paged_s)

    def _prefill_s(self, rank: int, tokens: int, begin: int, slot: str) -> Floats:
        device, held = self.job.ring[rank], self._held[rank]
        fixed_s = paging_s(self.job, rank, 1)
        return np.asarray(
            self.draws.prefill_s(device, held, [(tokens, begin)], fixed_s)[0]
            * self.draws.noise(device, slot, 1)[0]
        )

    def _head_s(self, device: Device, batch: int) -> Floats:
        parts = len(self.job.ring) if self.facts.splits_head else 1
        compute_s = head_s(device, self.job.model, batch) / parts * self.draws.speed_factor(device, "decode")
        host_s = self.job.engine.step_overhead_s * self.draws.overhead("step") + device.speed.stage_overhead
        total: Floats = (compute_s + crowding(device, batch) * host_s) * self.draws.batch_factor(
            device, batch
        )
        return total

    def _overhead_s(self, part: Any, seconds: float) -> Floats:
        return np.tile(seconds * self.draws.overhead(part), (len(self.job.ring), 1))


def _place(facts: EngineFacts, request: PlacementRequest) -> Placement:
    """An equal part of every layer on each device, in the order given."""
    refuse_pins(facts.placement, request)
    names = [device.name for device in request.ring()]
    ranks, heads = len(names), request.kv_heads
    fits = [n for n in range(1, ranks + 1) if facts.can_split(n, request.hidden, heads)]
    if ranks not in fits:
        of = f"hidden size {request.hidden}" + (f" and {heads} KV heads" if heads else "")
        powers = ", a power of two" if facts.ranks == "powers of two" else ""
        raise PlacementError(
            f"{facts.name} cannot split this model among {ranks} devices: their number must divide "
            f"{of}{powers}; "
            f"take {' or '.join(map(str, fits))}"
        )
    return Placement.split(names, request.n_layers, facts.placement, names)


def tensor_engine(folder: Path, variant: str | None = None) -> Engine:
    """The engine whose facts are in that folder, with what the file `variant` says otherwise."""
    facts = read_facts(folder, variant)
    return replace(
        lockstep_engine(facts, Sharded),
        own_rules={facts.placement: Rule(partial(_place, facts))},
        splits_layers=True,
    )


def lockstep_engine(facts: EngineFacts, flow: type[Sharded]) -> Engine:
    """An engine whose ranks all go through the program of `flow`."""

    def program(job: Job, draws: Draws) -> Iterator[Op]:
        return flow(facts, job, draws).program()

    def waves(job: Job) -> tuple[int, ...]:
        return flow(facts, job, Draws(job, 0, 1)).waves

    def times_s(job: Job, draws: Draws) -> Floats:
        return token_times_s(job, draws, program, len(waves(job)))

    def processes(env: simpy.Environment, job: Job, draws: Draws, recorder: Recorder) -> Any:
        return start(env, job, draws, recorder, program)

    return Engine(
        facts=facts,
        token_times_s=times_s,
        is_recursion_exact=never_dozes,
        start=processes,
        chats=waves,
        embedding_on="all",
        head_on="all",
        takes_one_processor=True,
    )
