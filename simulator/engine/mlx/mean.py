"""Mean cost of mlx-lm's pipeline, for the searches."""

from __future__ import annotations

from dataclasses import replace

from simulator.runtime.cost import decode_s, head_s, prefill_s
from simulator.runtime.mean_costs import MeanCosts
from simulator.runtime.ring_costs import RingCosts

__all__ = ["mean_costs"]


def mean_costs(costs: MeanCosts, *, prompt: bool) -> RingCosts:
    """Hidden states go from stage to stage, and one hop on from the last to the first; all do the head."""
    model, workload = costs.model, costs.workload
    if prompt:
        tokens = max(0, workload.prompt_tokens - 1)
        size = tokens * model.activation_bytes
        passes = costs.ring(
            layer_s=costs.per_device(lambda d: prefill_s(d, model.average(1), tokens), "prefill"),
            walk_s=costs.per_pair(lambda a, b: costs.hop_s(a, b, size) if tokens else 0.0),
        )
        return passes.plus(mean_costs(replace(costs, batch=1), prompt=False), 1.0)
    hidden = costs.batch * model.activation_bytes
    head = costs.per_device(lambda d: head_s(d, model, costs.batch))
    return costs.ring(
        layer_s=costs.per_device(lambda d: float(decode_s(d, model.average(1), costs.context, costs.batch))),
        most_s=head + costs.per_device(costs.host_s, ""),
        walk_s=costs.per_pair(lambda a, b: costs.hop_s(a, b, hidden)),
        close_s=costs.per_pair(lambda last, first: costs.hop_s(last, first, hidden)),
    )
