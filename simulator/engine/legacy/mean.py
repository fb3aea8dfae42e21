"""Mean cost of legacy EXO's ring, for the searches."""

from __future__ import annotations

from simulator.cluster.cluster import Device
from simulator.engine.legacy.ring import TENSOR_OVERHEAD_BYTES, TOKEN_BYTES
from simulator.runtime.cost import decode_s, head_s, prefill_s
from simulator.runtime.mean_costs import MeanCosts
from simulator.runtime.ring_costs import RingCosts

__all__ = ["mean_costs"]


def mean_costs(costs: MeanCosts, *, prompt: bool) -> RingCosts:
    """Each rank sends the activation on, the last one computes the head and sends the token to the first."""
    model, tokens = costs.model, costs.workload.prompt_tokens if prompt else 1
    size = tokens * model.activation_bytes + TENSOR_OVERHEAD_BYTES
    part = "prefill" if prompt else "decode"

    def layer_s(device: Device) -> float:
        return (
            prefill_s(device, model.average(1), tokens)
            if prompt
            else float(decode_s(device, model.average(1), costs.context))
        )

    return costs.ring(
        layer_s=costs.per_device(layer_s, part),
        each_s=costs.per_device(costs.host_s, ""),
        last_s=costs.per_device(lambda d: head_s(d, model), part),
        walk_s=costs.per_pair(lambda a, b: costs.hop_s(a, b, size)),
        close_s=costs.per_pair(lambda a, b: costs.hop_s(a, b, TOKEN_BYTES)),
    )
