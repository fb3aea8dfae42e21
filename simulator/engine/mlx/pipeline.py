"""mlx-lm's pipeline: hidden states from stage to stage, then all states gathered by all, head on every rank.

Its first layers are on the last rank and its last ones on rank 0, so that the ring's gather, which goes from
each rank to the one before it, brings the last stage's state to the first one in one hop: a delay D costs
N D per token where EXO's ring, numbered the other way, pays 2 (N - 1) D. Devices here are in the order of
their layers, so both go to the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from simulator.engine.sharded import Sharded
from simulator.runtime.collective import Round
from simulator.runtime.lockstep import Op, Work

__all__ = ["Pipeline"]


@dataclass(frozen=True)
class Pipeline(Sharded):
    """All durations of one job's rows; what a rank computes is its own layers."""

    def layers(self, work: Work, size_bytes: float) -> Iterator[Op]:
        """All stages in turn; of a prompt nothing but the caches is wanted, so nothing is gathered."""
        yield self.wires.chain(work, size_bytes)
        if work.kind == "compute":
            yield from self.wires.rounds((Round((1,), size_bytes),) * (len(self.job.ring) - 1), work.step)
