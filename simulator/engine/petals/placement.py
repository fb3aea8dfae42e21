"""The placement that a Petals swarm finds by itself, and the route that its client then takes.

Servers join in the order of the scenario. Each takes as many blocks as fit, where those announced before it
are fewest; nobody hands out layers, so several may hold a block, and the client asks the cheapest chain.
"""

from __future__ import annotations

import numpy as np

from simulator.engine.petals.blocks import (
    Span,
    announced_throughput,
    best_start,
    block_throughputs,
    blocks_that_fit,
)
from simulator.engine.petals.flow import flow_facts
from simulator.engine.petals.routes import Candidates, MissingBlocks, Online, shortest_route
from simulator.errors import PlacementError
from simulator.laws.law import Floats
from simulator.placement.request import DeviceCapacity, PlacementRequest
from simulator.placement.rules import Rule
from simulator.placement.shard import Placement, Shard

__all__ = ["RULE", "join"]


def join(request: PlacementRequest) -> dict[str, Span]:
    """What each server takes, by device in the order of joining; who has no room for a block takes none."""
    found: dict[str, Span] = {}
    for device in request.ring():
        blocks = min(request.n_layers, _room(request, device))
        if blocks:
            start = best_start(block_throughputs(found, request.n_layers), blocks)
            found[device.name] = Span(start, start + blocks, _throughput(request, device, blocks))
    return found


def _room(request: PlacementRequest, device: DeviceCapacity) -> int:
    """Blocks that fit beside what the client holds, where the device is that, and the engine itself."""
    client = _client(request)
    held = (request.embedding_bytes + request.head_bytes) * (device.name == client) + request.overhead_bytes
    flow = flow_facts()
    cache_bytes = flow.cache_tokens[request.grouped_query] * request.kv_bytes_per_token_per_layer
    return blocks_that_fit(device.usable_bytes - held, request.layer_bytes, cache_bytes, request.hidden)


def _throughput(request: PlacementRequest, device: DeviceCapacity, blocks: int) -> float:
    # speeds and links that nobody told are as good as any: then memory alone decides
    forward = device.prompt_tokens_per_s or 1.0
    network = device.link_bytes_per_s / (2 * request.hidden) if device.link_bytes_per_s else np.inf
    return announced_throughput(forward, network, blocks)


def _client(request: PlacementRequest) -> str:
    """The device that the chat runs on."""
    return request.pinned("embedding") or request.devices[0].name


def _candidates(request: PlacementRequest, spans: dict[str, Span]) -> Candidates:
    """The servers as a client sees them that has pinged them all, and they each other."""
    devices = [request.device(name) for name in spans]
    pairs = [(i, j) for i in range(len(devices)) for j in range(len(devices)) if i != j]
    client = request.device(_client(request))
    online = Online(
        start=np.array([span.start for span in spans.values()], dtype=np.int64),
        end=np.array([span.end for span in spans.values()], dtype=np.int64),
        block_s=np.array([1 / (one.layers_per_s or 1.0) for one in devices]),
        pinged_from=np.array([i for i, _ in pairs], dtype=np.int64),
        pinged_to=np.array([j for _, j in pairs], dtype=np.int64),
        pinged_s=_rtts_s(devices, pairs),
    )
    rtt_s = np.array([_rtt_s(client, one) for one in devices])
    return Candidates(online, rtt_s, cache_left=np.full(len(devices), np.inf))


def _rtts_s(devices: list[DeviceCapacity], pairs: list[tuple[int, int]]) -> Floats:
    return np.array([_rtt_s(devices[i], devices[j]) for i, j in pairs])


def _rtt_s(a: DeviceCapacity, b: DeviceCapacity) -> float:
    """A round trip between two devices; none inside one machine."""
    return 0.0 if a.name == b.name else 2 * (a.delay_s + b.delay_s)


def _place(request: PlacementRequest) -> Placement:
    """The chain that the client would take of what the servers chose."""
    if request.pinned("head") is not None:
        raise PlacementError("a Petals client holds embedding and head; pin a device to the embedding alone")
    spans = join(request)
    try:
        route = shortest_route(_candidates(request, spans), 0, request.n_layers)
    except MissingBlocks as error:
        taken = ", ".join(f"{name} {span.start} to {span.end - 1}" for name, span in spans.items()) or "none"
        raise PlacementError(
            f"{error.fault} after each server took what fits beside its cache ({taken})",
            "; take a smaller quantisation, or add a server",
        ) from None
    names, client = list(spans), _client(request)
    shards = [Shard(device=names[hop.server], start_layer=hop.start, end_layer=hop.end) for hop in route.hops]
    if client not in {shard.device for shard in shards}:
        shards.insert(0, Shard(device=client, start_layer=0, end_layer=0))
    used = {shard.device for shard in shards}
    left_out = tuple(device.name for device in request.devices if device.name not in used)
    return Placement(shards=tuple(shards), embedding=client, rule="petals", left_out=left_out)


RULE = Rule(_place)
