"""Mean cost of Petals' chain, for the searches."""

from __future__ import annotations

from simulator.cluster.cluster import Device
from simulator.engine.petals.flow import flow_facts
from simulator.runtime.cost import crowding, decode_s, head_s, prefill_s
from simulator.runtime.mean_costs import MeanCosts
from simulator.runtime.ring_costs import RingCosts

__all__ = ["mean_costs"]


def mean_costs(costs: MeanCosts, *, prompt: bool) -> RingCosts:
    """The client asks each server in turn, or servers push along the chain; the client computes the head.

    Several chats are not batched: each step here is one chat's alone, as if it met no other.
    """
    model, flow, part = costs.model, flow_facts(), "prefill" if prompt else "decode"
    tokens = costs.workload.prompt_tokens if prompt else 1
    size = tokens * flow.state_bytes(model, costs.engine.compression)
    out_bytes, back_bytes = size + flow.framing_bytes + flow.metadata_bytes, size + flow.reply_bytes

    def layer_s(device: Device) -> float:
        if prompt:
            return prefill_s(device, model.average(1), tokens) + flow.unpacking_s(device, model, 1, tokens)
        work_s = float(decode_s(device, model.average(1), costs.context))
        return max(work_s, flow.launching_s(device, model) * crowding(device))

    def ask_s(client: int, server: int) -> float:
        return costs.hop_s(client, server, out_bytes) + costs.hop_s(server, client, back_bytes)

    # a prompt is never pushed
    push = costs.engine.push and not prompt
    hops = {
        "walk_s": costs.per_pair(lambda a, b: costs.hop_s(a, b, out_bytes)),
        "close_s": costs.per_pair(lambda last, first: costs.hop_s(last, first, back_bytes)),
    }
    return costs.ring(
        layer_s=costs.per_device(layer_s, part),
        each_s=costs.per_device(lambda d: costs.host_s(d) + flow.card_s(d) * crowding(d), ""),
        first_s=costs.per_device(lambda d: head_s(d, model) + flow.client_overhead_s * crowding(d), "decode"),
        **(hops if push else {"star_s": costs.per_pair(ask_s)}),
    )
