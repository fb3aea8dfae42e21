"""EXO with Tensor sharding: every rank has a part of each layer, and all meet twice in each.

The rounds before a prompt, the looks and the notices are those of the pipeline (`ExoRing.script`); where that
sends hidden states through the stages and gathers the last one, here each layer ends in collectives, the same
in a prompt. Every rank computes head and sample itself, so nothing else is sent. Chunks of a prompt do not
overlap: all ranks are at the same layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import simpy

from simulator.engine.exo.ring import CHUNKED_FROM_TOKENS, NOTICE_BYTES, SINGLE_PASSES, ExoRing
from simulator.engine.facts import read_facts
from simulator.laws.law import Floats
from simulator.runtime.collective import Operation
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.lockstep import Op, Token, Wires, Work
from simulator.runtime.lockstep import start as start_ranks
from simulator.runtime.lockstep import token_times_s as ranks_token_times_s
from simulator.runtime.record import Recorder

__all__ = ["TENSOR_FACTS", "ExoTensor", "chats", "start", "token_times_s"]

TENSOR_FACTS = read_facts(Path(__file__).parent, "tensor.yaml")


@dataclass(frozen=True)
class ExoTensor(ExoRing):
    """All durations of one job's rows; what a rank computes is its part of every layer."""

    @cached_property
    def chunks(self) -> tuple[int, ...]:
        """Tokens of each prompt chunk that goes through before the single steps."""
        tokens = max(0, self.job.workload.prompt_tokens - 2)
        starts = range(0, tokens, CHUNKED_FROM_TOKENS)
        return tuple(min(CHUNKED_FROM_TOKENS, tokens - start) for start in starts)

    @property
    def overlaps(self) -> bool:
        """Never: all ranks are at the same layer."""
        return False

    def program(self) -> Iterator[Op]:
        """What every rank does, in this order."""
        request = k = 0
        for wave, batch in enumerate(self.waves):
            for _ in range(batch):
                yield from self._read_prompt(request)
                request += 1
            size = batch * self.job.model.activation_bytes
            for step in range(self.steps):
                yield from self._small("all_gather", k)
                yield self._layers("compute", self.stage_s[k], size, k)
                yield Work("head", self.head_s[k], k)
                token = step - self.prompt_steps
                if token >= 0:
                    for _ in range(batch if self.checks(token) else 0):
                        yield from self._look(k)
                    yield Token(wave, token)
                k += 1

    def _read_prompt(self, request: int) -> Iterator[Op]:
        """A request's script, see `ExoRing.script`."""
        one, step = self.job.model.activation_bytes, -1
        for op, at in self.script:
            # a place of its own in the pool of delays for each part of the script
            step -= 1
            if op == "work":
                yield Work("head", self.request_s[request], step)
            elif op == "chunk":
                yield self._layers("prefill", self.prefill_s[request, at], self.chunks[at] * one, step)
            elif op == "single":
                k = request * SINGLE_PASSES + at
                layers_s, head_s = self.single_s
                yield self._layers("prefill", layers_s[k], one, step)
                yield Work("head", head_s[k], step)
            else:
                yield from self._small("all_gather" if op == "ask" else "all_reduce", step)

    def _look(self, step: int) -> Iterator[Op]:
        """Whether a chat was cancelled or has come: a sum and two gathers."""
        for operation in ("all_reduce", "all_gather", "all_gather"):
            yield from self._small(operation, step)

    def _small(self, operation: Operation, step: int) -> Sequence[Op]:
        """A collective of a few bytes."""
        return self.wires.collective(operation, NOTICE_BYTES, step)

    def _layers(self, kind: str, seconds: Floats, size_bytes: float, step: int) -> Op:
        return self.wires.layers(Work(kind, seconds, step), size_bytes, TENSOR_FACTS.collectives_per_layer)

    @cached_property
    def wires(self) -> Wires:
        """Who delays what."""
        return Wires(self.job, self.draws)


def _program(job: Job, draws: Draws) -> Iterator[Op]:
    return ExoTensor(job, draws).program()


def token_times_s(job: Job, draws: Draws) -> Floats:
    """Token times, see `Engine.token_times_s`."""
    return ranks_token_times_s(job, draws, _program, len(ExoTensor(job, draws).waves))


def start(env: simpy.Environment, job: Job, draws: Draws, recorder: Recorder) -> Any:
    """Start a process for each rank, for row 0 of the draws."""
    return start_ranks(env, job, draws, recorder, _program)


def chats(job: Job) -> tuple[int, ...]:
    """The chats of each batch, see `Engine.chats`."""
    return ExoTensor(job, Draws(job, 0, 1)).waves
