"""Mean cost of vLLM's pipeline, for the searches."""

from __future__ import annotations

from dataclasses import replace

from simulator.engine.vllm.pipeline import TENSORS, TOKEN_BYTES
from simulator.runtime.cost import decode_s, head_s, prefill_s
from simulator.runtime.mean_costs import MeanCosts
from simulator.runtime.ring_costs import RingCosts

__all__ = ["mean_costs"]


def mean_costs(costs: MeanCosts, *, prompt: bool) -> RingCosts:
    """States go from stage to stage; the last one does the head and sends its token to the first."""
    model = costs.model
    if prompt:
        tokens = max(0, costs.workload.prompt_tokens - 1)
        size = TENSORS * tokens * model.activation_bytes
        passes = costs.ring(
            layer_s=costs.per_device(lambda d: prefill_s(d, model.average(1), tokens), "prefill"),
            walk_s=costs.per_pair(lambda a, b: costs.hop_s(a, b, size) if tokens else 0.0),
        )
        return passes.plus(mean_costs(replace(costs, batch=1), prompt=False), 1.0)
    hidden = TENSORS * costs.batch * model.activation_bytes
    return costs.ring(
        layer_s=costs.per_device(lambda d: float(decode_s(d, model.average(1), costs.context, costs.batch))),
        last_s=costs.per_device(lambda d: head_s(d, model, costs.batch)) + costs.per_device(costs.host_s, ""),
        walk_s=costs.per_pair(lambda a, b: costs.hop_s(a, b, hidden)),
        close_s=costs.per_pair(lambda last, first: costs.hop_s(last, first, TOKEN_BYTES)),
    )
