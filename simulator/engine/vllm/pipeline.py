"""vLLM's pipeline: hidden state and residual from stage to stage, head on the last, its token to the first.

N D per token, as mlx-lm's: N - 1 states there and one token back. The scheduler, which sits beside the first
stage, starts the next step when it has the token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from simulator.engine.sharded import Sharded
from simulator.laws.law import Floats
from simulator.runtime.collective import Round
from simulator.runtime.lockstep import Op, Work

__all__ = ["TENSORS", "TOKEN_BYTES", "Pipeline"]

TENSORS = 2
"""Of a stage's output: hidden state and residual are added up in the next one's first norm
(vllm/model_executor/models/llama.py, `IntermediateTensors`).
"""
TOKEN_BYTES = 1000.0
"""Of a sampled token on its way to the scheduler: a pickled result object (an estimate; 8 us at 1 Gbit/s)."""


@dataclass(frozen=True)
class Pipeline(Sharded):
    """All durations of one job's rows; a rank computes its own layers, the last one the head.

    All chats go through as one batch, where vLLM has one for each stage on its way: `chats_note` says so.
    """

    def layers(self, work: Work, size_bytes: float) -> Iterator[Op]:
        """All stages in turn."""
        yield self.wires.chain(work, TENSORS * size_bytes)

    def _step(self, k: int, batch: int, layers_s: Floats, heads_s: Floats) -> Iterator[Op]:
        noise, ranks = self._noise[:, k], len(self.job.ring)
        yield from self.layers(Work("compute", noise * layers_s, k), batch * self.job.model.activation_bytes)
        is_last = np.arange(ranks)[:, None] == ranks - 1
        yield Work("head", np.where(is_last, noise * heads_s, 0.0), k)
        if ranks > 1:
            yield from self.wires.rounds((Round((1,), TOKEN_BYTES),), k, "chain")
