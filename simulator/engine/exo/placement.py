"""EXO's own placement (versions 1.x): smallest ring whose free memory holds the model, layers by free memory.

The rule as recorded at EXO b5375f8ce (2026-06-22), step by step:

1. candidates: every simple ring of the graph, then every device
   alone; at least `min_nodes`, all `required` nodes in it
2. all report memory, and sum of free bytes >= model bytes (no KV cache, no overhead, no head room)
3. Tensor: hidden size and KV heads divisible by the length; Pipeline: Gemma 4 on one device only
4. the shortest of these
5. every device has a backend that both model and engine
   know: after 4, so there is no way back to a longer ring
6. Jaccl: RDMA between all wired pairs, and enabled on all
7. rings with a leaf (a node with at most one sink in the whole graph), if there is one
8. most of the model downloaded, then most free memory, then the first in order (see `cycles`)

Every step but the order depends on the set of nodes alone: sets are judged, and only the first ring of each
is sought. Image models that run two pipelines at once ("uses_cfg") are not covered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations

from simulator.engine.exo.cycles import Ring, Wiring
from simulator.engine.exo.request import (
    ENGINE_BACKENDS,
    NO_PIPELINE,
    RING_RANK,
    Edge,
    ExoInstance,
    ExoModel,
    ExoRefusal,
    ExoRequest,
)
from simulator.placement.request import PlacementRequest
from simulator.placement.rules import Rule, refuse_pins
from simulator.placement.shard import Placement
from simulator.units import GIB, format_bytes

__all__ = ["RULE", "TENSOR_RULE", "allocate_layers", "choose", "place_full_mesh"]


def choose(request: ExoRequest) -> ExoInstance:
    """The instance that EXO would create; raises ExoRefusal where it would refuse."""
    rings = _with_backends(request, _shortest(request))
    if request.instance_type == "MlxJaccl":
        rings = _with_rdma(request, rings)
    ring = _best(request, _prefer_leaves(request, rings)).devices
    alone = len(ring) == 1
    sharding = "Pipeline" if alone else request.sharding
    instance_type = "MlxRing" if alone else request.instance_type
    n_layers = request.model.n_layers
    layers = _split(request, ring) if sharding == "Pipeline" else (n_layers,) * len(ring)
    links = _ring_links(request, ring) if instance_type == "MlxRing" else _rdma_links(request, ring)
    return ExoInstance(
        ring=ring,
        layers=layers,
        n_layers=n_layers,
        sharding=sharding,
        instance_type=instance_type,
        links=links,
        coordinators=_coordinators(request, ring) if instance_type == "MlxJaccl" else (),
    )


def _shortest(request: ExoRequest) -> list[Ring]:
    """Steps 1 to 4: the shortest rings that fit and that the sharding admits."""
    wiring = request.wiring()
    reporting = [node for node in request.nodes if node in request.free_bytes]
    some_fit = False
    for size in range(max(1, request.min_nodes), len(reporting) + 1):
        # once a set fits, memory is not to blame; larger rings are looked at only where sharding admits them
        if some_fit and not _admits(request, size):
            continue
        rings = _fitting(request, wiring, combinations(reporting, size))
        some_fit = some_fit or bool(rings)
        if rings and _admits(request, size):
            return rings
    raise _sharding_refusal(request.model, request.sharding) if some_fit else _memory_refusal(request)


def _fitting(request: ExoRequest, wiring: Wiring, sets: Iterable[tuple[str, ...]]) -> list[Ring]:
    big_enough = (
        nodes
        for nodes in sets
        if request.required.issubset(nodes) and request.free_in(nodes) >= request.model.storage_bytes
    )
    return [ring for ring in map(wiring.first_ring, big_enough) if ring]


def _admits(request: ExoRequest, size: int) -> bool:
    """Step 3: whether `size` devices may share this model."""
    model = request.model
    if request.sharding == "Pipeline":
        return model.model_id != NO_PIPELINE and (size == 1 or not model.base_model.startswith("Gemma 4"))
    # DeepSeek V4 has one KV head and splits attention heads instead.
    by_heads = (
        model.n_kv_heads is None or model.base_model.startswith("DeepSeek V4") or model.n_kv_heads % size == 0
    )
    return model.supports_tensor and model.hidden_size % size == 0 and by_heads


def _memory_refusal(request: ExoRequest) -> ExoRefusal:
    needed, free = request.model.storage_bytes, request.free_in(request.nodes)
    figures = (
        f"{request.model.model_id} needs {format_bytes(needed)}, all {len(request.nodes)} devices have "
        f"{format_bytes(free)} free"
    )
    text = "No cycles found with sufficient memory"
    if free < needed:
        missing = f"{figures}; {format_bytes(needed - free)} are missing"
        return ExoRefusal(text, missing, "; take a smaller quantisation or add a device")
    return ExoRefusal(
        text, f"{figures}; but no ring of at least {request.min_nodes} of them, wired to and fro, has enough"
    )


def _sharding_refusal(model: ExoModel, sharding: str) -> ExoRefusal:
    if sharding == "Pipeline" and model.model_id == NO_PIPELINE:
        return ExoRefusal(
            "Pipeline parallelism is not supported for DeepSeek V3.1 (8-bit)", "use Tensor sharding"
        )
    if sharding == "Pipeline":
        text = "Pipeline parallelism is not supported for Gemma 4; use tensor parallelism instead."
        return ExoRefusal(text, f"{model.base_model} runs on one device or by Tensor sharding")
    if not model.supports_tensor:
        text = (
            f"Requested Tensor sharding but this model does not support tensor parallelism: {model.model_id}"
        )
        return ExoRefusal(text, "use Pipeline sharding")
    heads = "" if model.n_kv_heads is None else f", num_key_value_heads={model.n_kv_heads}"
    text = (
        f"No tensor sharding found for model with hidden_size={model.hidden_size}{heads} across "
        "candidate cycles"
    )
    return ExoRefusal(
        text, "the number of devices must divide hidden size and KV heads; use Pipeline sharding"
    )


def _with_backends(request: ExoRequest, rings: list[Ring]) -> list[Ring]:
    """Step 5."""
    model, engine = request.model, ENGINE_BACKENDS[request.instance_type]
    usable = sorted(set(model.backends).intersection(engine))
    if not usable:
        text = (
            f"Model {model.model_id} backends {sorted(model.backends)} cannot satisfy engine "
            f"{request.instance_type} which requires {sorted(engine)}"
        )
        raise ExoRefusal(text, "choose another engine or another build of the model")
    kept = [
        ring
        for ring in rings
        if all(set(request.backends.get(node, ())) & set(usable) for node in ring.devices)
    ]
    if not kept:
        text = f"No cycle where every node supports a backend in {usable} for {model.model_id}"
        size = len(rings[0].devices)
        raise ExoRefusal(
            text,
            f"the smallest rings that fit have {size} device(s) and EXO tries no longer one; "
            f"set min_nodes above {size} or leave out the devices without such a backend",
        )
    return kept


def _with_rdma(request: ExoRequest, rings: list[Ring]) -> list[Ring]:
    """Step 6: every wired pair within the ring has RDMA, and every device has it enabled."""
    by_rdma = {(edge.source, edge.sink) for edge in request.edges if edge.rdma_interface is not None}
    wired = {(edge.source, edge.sink) for edge in request.edges}

    def complete(ring: Ring) -> bool:
        inside = {pair for pair in wired if set(pair) <= set(ring.devices)}
        return inside <= by_rdma and request.rdma_enabled.issuperset(ring.devices)

    kept = [ring for ring in rings if complete(ring)]
    if not kept:
        text = "Requested RDMA (MlxJaccl) but no RDMA-connected cycles available"
        raise ExoRefusal(
            text, "use MlxRing, or enable RDMA on every device and wire each pair by Thunderbolt 5"
        )
    return kept


def _prefer_leaves(request: ExoRequest, rings: list[Ring]) -> list[Ring]:
    """Step 7."""
    sinks = {node: {edge.sink for edge in request.edges if edge.source == node} for node in request.nodes}
    with_leaf = [ring for ring in rings if any(len(sinks[node]) <= 1 for node in ring.devices)]
    return with_leaf or rings


def _best(request: ExoRequest, rings: Sequence[Ring]) -> Ring:
    """Step 8."""

    def rank(ring: Ring) -> tuple[float, int, tuple[int, ...]]:
        share = sum(request.downloaded.get(node, 0.0) for node in ring.devices)
        return -share, -request.free_in(ring.devices), ring.rank_key

    return min(rings, key=rank)


def allocate_layers(n_layers: int, fractions: Sequence[float]) -> tuple[int, ...]:
    """Layers by largest remainder of n_layers * fraction, at least one each, as EXO does.

    The floor goes to each, the rest one by one to the largest fractional parts, then each empty device takes
    one from the fullest; ties go to the lower rank. Raises ExoRefusal for more devices than layers.
    """
    if n_layers < len(fractions):
        text = (
            f"Cannot distribute {n_layers} layers across {len(fractions)} nodes "
            "(need at least 1 layer per node)"
        )
        raise ExoRefusal(text, f"use at most {n_layers} devices")
    quotas = [fraction * n_layers for fraction in fractions]
    layers = [int(quota) for quota in quotas]
    # a stable sort: of equal remainders the lower rank is served first
    by_remainder = sorted(range(len(quotas)), key=lambda rank: layers[rank] - quotas[rank])
    for rank in by_remainder[: n_layers - sum(layers)]:
        layers[rank] += 1
    for rank, held in enumerate(layers):
        if held == 0:
            layers[layers.index(max(layers))] -= 1
            layers[rank] = 1
    return tuple(layers)


def _split(request: ExoRequest, ring: tuple[str, ...]) -> tuple[int, ...]:
    """Step 9: layers in proportion to free memory; a device they overfill is an
    error, no other ring is tried.
    """
    total, model = request.free_in(ring), request.model
    if total == 0:
        text = "Cannot create shard assignments: total available memory is 0"
        raise ExoRefusal(text, f"{', '.join(ring)} report 0 bytes free")
    layers = allocate_layers(model.n_layers, [request.free_bytes[node] / total for node in ring])
    for rank, (node, held) in enumerate(zip(ring, layers, strict=True)):
        needed, free = model.storage_bytes * held // model.n_layers, request.free_bytes[node]
        if needed > free:
            text = (
                f"Node {rank} ({node}) has insufficient memory: requires {needed / GIB:.2f} GB for {held} "
                f"layers, but only has {free / GIB:.2f} GB available"
            )
            raise ExoRefusal(
                text,
                f"{node} would hold {held} layers, {format_bytes(needed)}, with only "
                f"{format_bytes(free)} free, and EXO tries no other split; free "
                f"{format_bytes(needed - free)} there or give a split of your own",
            )
    return layers


def _ring_links(request: ExoRequest, ring: tuple[str, ...]) -> tuple[tuple[str | None, ...], ...]:
    """Step 10: the best address from each rank to its two neighbours."""
    size = len(ring)

    def address(rank: int, other: int) -> str | None:
        neighbours = other != rank and (other - rank) % size in (1, size - 1)
        return _best_address(request, ring[rank], ring[other]) if neighbours else None

    return _table(size, address)


def _coordinators(request: ExoRequest, ring: tuple[str, ...]) -> tuple[str | None, ...]:
    """The best address from each rank to rank 0."""
    text = "Current jaccl backend requires all participating devices to be able to communicate"
    return (None, *(_best_address(request, node, ring[0], text) for node in ring[1:]))


def _best_address(
    request: ExoRequest,
    source: str,
    sink: str,
    text: str = "MLX ring backend requires connectivity between neighbouring nodes",
) -> str:
    """The best address by which `source` reaches `sink`; `text` is what EXO says where there is none."""
    found = [
        edge.address
        for edge in reversed(request.edges)
        if (edge.source, edge.sink) == (source, sink) and edge.address is not None
    ]
    if not found:
        raise ExoRefusal(
            text, f"{source} cannot reach {sink}; both ways are needed, check the firewall of {sink}"
        )
    # EXO gives a type that it does not know the rank of ethernet.
    return min(found, key=lambda address: RING_RANK.get(request.interface_types.get(address, "unknown"), 2))


def _rdma_links(request: ExoRequest, ring: tuple[str, ...]) -> tuple[tuple[str | None, ...], ...]:
    """The RDMA interface from each rank to every other one."""

    def interface(rank: int, other: int) -> str | None:
        if rank == other:
            return None
        for edge in reversed(request.edges):
            if (edge.source, edge.sink) == (ring[rank], ring[other]) and edge.rdma_interface is not None:
                return edge.rdma_interface
        text = "Current jaccl backend requires all-to-all RDMA connections"
        raise ExoRefusal(text, f"wire {ring[rank]} to {ring[other]} by Thunderbolt 5, or use MlxRing")

    return _table(len(ring), interface)


def _table(size: int, cell: Callable[[int, int], str | None]) -> tuple[tuple[str | None, ...], ...]:
    return tuple(tuple(cell(row, column) for column in range(size)) for row in range(size))


def place_full_mesh(
    devices_in_join_order: Sequence[str],
    usable_bytes: Mapping[str, float],
    model_bytes: float,
    n_layers: int,
    min_nodes: int = 1,
) -> Placement:
    """EXO's placement where each device reaches each other and joined in this order (memory in bytes).

    A real cluster hears of its edges in any order, so its ring may be turned or mirrored: read it from EXO's
    state. Raises ExoRefusal where EXO would refuse.
    """
    nodes = tuple(devices_in_join_order)
    edges = tuple(
        Edge(source=source, sink=sink, address=sink) for source in nodes for sink in nodes if source != sink
    )
    model = ExoModel(n_layers=n_layers, storage_bytes=int(model_bytes))
    return choose(_mesh_request(nodes, edges, usable_bytes, model, min_nodes)).placement(nodes)


def _mesh_request(
    nodes: tuple[str, ...],
    edges: tuple[Edge, ...],
    usable_bytes: Mapping[str, float],
    model: ExoModel,
    min_nodes: int,
) -> ExoRequest:
    return ExoRequest(
        nodes=nodes,
        edges=edges,
        free_bytes={node: int(usable_bytes[node]) for node in nodes},
        model=model,
        min_nodes=min_nodes,
        backends=dict.fromkeys(nodes, ENGINE_BACKENDS["MlxRing"]),
    )


def _place(request: PlacementRequest) -> Placement:
    """EXO 1.x on a full mesh, the devices having joined in `order`; it allows for weights only."""
    refuse_pins("exo", request)
    ring = request.ring()
    return place_full_mesh(
        [device.name for device in ring],
        {device.name: device.usable_bytes for device in ring},
        request.total_bytes,
        request.n_layers,
        request.min_devices or 1,
    )


def _place_tensor(request: PlacementRequest) -> Placement:
    """EXO 1.x with Tensor sharding on a full mesh: it
    compares the sum of free memory with the file, no more.
    """
    refuse_pins("exo-tensor", request)
    names = tuple(device.name for device in request.ring())
    edges = tuple(
        Edge(source=source, sink=sink, address=sink, rdma_interface=interface)
        for source in names
        for sink in names
        if source != sink
        for interface in ((None, "rdma") if request.backend == "jaccl" else (None,))
    )
    model = ExoModel(
        n_layers=request.n_layers,
        storage_bytes=int(request.total_bytes),
        hidden_size=request.hidden,
        n_kv_heads=request.kv_heads,
        supports_tensor=True,
    )
    usable_bytes = {device.name: device.usable_bytes for device in request.ring()}
    plain = _mesh_request(names, edges, usable_bytes, model, request.min_devices or 1)
    rdma = (
        {"instance_type": "MlxJaccl", "rdma_enabled": frozenset(names)} if request.backend == "jaccl" else {}
    )
    chosen = choose(plain.model_copy(update={"sharding": "Tensor"} | rdma))
    return Placement.split(chosen.ring, request.n_layers, "exo-tensor", names)


RULE = Rule(_place, takes_fewest=True, counts_weights_alone=True)
TENSOR_RULE = Rule(_place_tensor, takes_fewest=True, counts_weights_alone=True)
