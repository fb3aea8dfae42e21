"""Mean cost of EXO's ring, for the searches."""

from __future__ import annotations

from dataclasses import replace

from simulator.engine.exo.ring import SINGLE_PASSES
from simulator.runtime.cost import decode_s, head_s, prefill_s
from simulator.runtime.mean_costs import MeanCosts
from simulator.runtime.ring_costs import RingCosts

__all__ = ["mean_costs"]

STEPS = 3
"""Decode steps until the first token is handed out."""


def mean_costs(costs: MeanCosts, *, prompt: bool) -> RingCosts:
    """Hidden states go right and come back left, hop by hop; all ranks compute the head at once.

    The slowest head is waited for by a notice, which is lighter than the hidden state:
    its hops cost a little less.
    """
    model, workload = costs.model, costs.workload
    if prompt:
        tokens = max(0, workload.prompt_tokens - 2)
        size = tokens * model.activation_bytes
        passes = costs.ring(
            layer_s=costs.per_device(lambda d: prefill_s(d, model.average(1), tokens), "prefill"),
            walk_s=costs.per_pair(lambda a, b: costs.hop_s(a, b, size) if tokens else 0.0),
        )
        # alone, whoever else decodes: EXO reads one prompt after the other
        return passes.plus(mean_costs(replace(costs, batch=1), prompt=False), float(SINGLE_PASSES + STEPS))
    hidden = costs.batch * model.activation_bytes
    head = costs.per_device(lambda d: head_s(d, model, costs.batch))
    return costs.ring(
        layer_s=costs.per_device(lambda d: float(decode_s(d, model.average(1), costs.context, costs.batch))),
        most_s=head + costs.per_device(costs.host_s, ""),
        # to the right with the hidden state, back to the left with the rounds of its all-gather
        walk_s=costs.per_pair(lambda a, b: costs.hop_s(a, b, hidden) + costs.hop_s(b, a, hidden)),
    )
