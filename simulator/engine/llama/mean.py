"""Mean cost of llama.cpp's star, for the searches."""

from __future__ import annotations

import numpy as np

from simulator.cluster.cluster import Device
from simulator.engine.llama.star import LlamaStar
from simulator.placement.shard import Placement
from simulator.runtime.cost import decode_s, head_s, prefill_s
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.mean_costs import MeanCosts
from simulator.runtime.ring_costs import RingCosts

__all__ = ["mean_costs"]


def mean_costs(costs: MeanCosts, *, prompt: bool) -> RingCosts:
    """The client asks each server in turn; the last reply is the logits, unless the client keeps the head."""
    model, workload, part = (costs.model, costs.workload, "prefill" if prompt else "decode")
    middle, end = _star_bytes(costs, prompt=prompt)
    heads_s = costs.per_device(lambda d: head_s(d, model, costs.batch), part)

    def ask_s(client: int, server: int, sizes: tuple[float, float, int]) -> float:
        waits_s = sizes[2] * (costs.hop_s(client, server, 0) + costs.hop_s(server, client, 0))
        return (
            costs.hop_s(client, server, sizes[0])
            + costs.hop_s(server, client, sizes[1])
            + waits_s
            + costs.served_s(server)
        )

    def close_s(last: int, first: int) -> float:
        if costs.keeps_head(first):
            return float(heads_s[first] - heads_s[last])
        # the last server is priced like the others in the star; here is what its logits cost more
        return ask_s(first, last, end) - ask_s(first, last, middle)

    def layer_s(device: Device) -> float:
        if prompt:
            return prefill_s(device, model.average(1), workload.prompt_tokens * costs.batch)
        return float(decode_s(device, model.average(1), costs.context, costs.batch))

    return costs.ring(
        layer_s=costs.per_device(layer_s, part),
        each_s=costs.per_device(lambda d: costs.host_s(d, step=False), ""),
        first_s=costs.per_device(lambda d: costs.host_s(d) - costs.host_s(d, step=False), ""),
        last_s=heads_s,
        star_s=costs.per_pair(lambda a, b: ask_s(a, b, middle)),
        close_s=costs.per_pair(close_s),
    )


def _star_bytes(
    costs: MeanCosts, *, prompt: bool
) -> tuple[tuple[float, float, int], tuple[float, float, int]]:
    """Mean bytes of request and reply, and further round trips, of a server between others and of a last one
    with the head, with layers evenly spread.
    """
    names = [device.name for device in costs.devices]
    if len(names) == 1:
        return (0.0, 0.0, 0), (0.0, 0.0, 0)
    whole, rest = divmod(costs.model.layers, len(names))
    # a graph's bytes grow with its layers, which nobody knows before the search: evenly spread will do
    even = [(name, whole + (at < rest)) for at, name in enumerate(names)]
    placement = Placement.from_layers(even, "even", head=names[-1])
    job = Job(costs.cluster, costs.model, placement, costs.engine, costs.workload, 0)
    star = LlamaStar(job, Draws(job, 0, 1))

    def sizes(server: int) -> tuple[float, float, int]:
        if prompt:
            chunks = range(len(star.chunks))
            back = sum(star.reply_bytes(server, star.chunks[c]) for c in chunks)
            waits = sum(star.round_trips(server, star.chunks[c]) for c in chunks)
            return sum(star.prompt_request_bytes(server, c) for c in chunks), back, waits
        request = float(np.mean(star.decode_request_bytes(server)))
        return request, star.answers_bytes(server), star.round_trips(server, star.batch)

    return sizes(max(1, star.servers - 1)), sizes(star.servers)
