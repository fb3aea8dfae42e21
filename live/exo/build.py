"""Build an instance with layers and ring order of our choice, in the words of the cluster at hand.

EXO takes a posted instance as given and forbids unknown fields, so the form follows a template
that this very cluster made (`GET /instance/placement`) and the model card is handed back
untouched. EXO checks nothing: an address that a neighbour cannot reach, or a port in use, would
show as runners that connect for ever, so we check what can be checked. Where every node is given all layers,
each holds a part of every one of them (Tensor).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from live.errors import ApiChanged, NotReachedYet, PlacementRefused
from live.exo.casing import camel_case
from live.exo.state import ClusterState, StateInstance

__all__ = ["NodeLayers", "build_instance", "ring_address", "unlinked"]

NodeLayers = tuple[str, int, int]
"""Node id, first layer, layer after the last."""

# EXO's order of preference (exo-explore/exo, src/exo/master/placement_utils.py)
KINDS = ("thunderbolt", "maybe_ethernet", "ethernet", "wifi", "unknown")
# TEST-NET-2 (RFC 5737): EXO's filler for ranks that are no neighbour
NOBODY = {"ip": "198.51.100.1", "port": 0}
SHARDS = {"Pipeline": "PipelineShardMetadata", "Tensor": "TensorShardMetadata"}
PORTS = (49153, 65535)  # EXO's own range, its API port excepted (placement.py, random_ephemeral_port)
EXO_PORTS = range(52413, 52417)


def build_instance(
    template: StateInstance, state: ClusterState, layers: Sequence[NodeLayers]
) -> dict[str, Any]:
    """The instance that puts `layers` on these nodes, in this ring order, ready for `POST /instance`.

    All layers on each of several nodes make a Tensor instance. Raises PlacementRefused when layers do not
    tile the model, a node is unknown or appears twice, and NotReachedYet when two neighbours in the ring have
    no address for each other.
    """
    n_layers = template.shards[0].n_layers
    is_tensor = len(layers) > 1 and all((start, end) == (0, n_layers) for _, start, end in layers)
    if is_tensor:
        _check_split(layers, template.card, state)
    else:
        _check(layers, n_layers, state)
    nodes = [node for node, _, _ in layers]
    # fresh ids: those of the template may be in use, and EXO never forgets one
    runners = {node: str(uuid4()) for node in nodes}
    outer_tag, body = _sole(template.raw)
    assigned = body.get("shardAssignments", body.get("shard_assignments"))
    if outer_tag != "MlxRingInstance" or not isinstance(assigned, Mapping):
        raise ApiChanged(f"a ring instance was expected as a template, and came as {outer_tag}")
    camel = "shardAssignments" in body
    shard_tag, shard = _sole(next(iter(assigned[_key("runner_to_shard", camel)].values())))
    if shard_tag not in SHARDS.values():
        raise ApiChanged(f"a pipeline or tensor shard was expected in the template, and came as {shard_tag}")
    # both kinds have the same fields (recorded), so either may be the template of the other
    shard_tag = SHARDS["Tensor" if is_tensor else "Pipeline"]
    port = _free_port()
    new_assignments = {
        **assigned,
        _key("runner_to_shard", camel): {
            runners[node]: {shard_tag: {**shard, **_range(rank, len(layers), start, end, camel)}}
            for rank, (node, start, end) in enumerate(layers)
        },
        _key("node_to_runner", camel): runners,
    }
    new_body = {
        **body,
        _key("instance_id", camel): str(uuid4()),
        _key("shard_assignments", camel): new_assignments,
        **_hosts(body, nodes, state, port, camel),
    }
    return {outer_tag: new_body}


def _range(rank: int, world_size: int, start: int, end: int, camel: bool) -> dict[str, int]:
    values = {"device_rank": rank, "world_size": world_size, "start_layer": start, "end_layer": end}
    return {_key(key, camel): value for key, value in values.items()}


def _hosts(
    body: Mapping[str, Any], nodes: Sequence[str], state: ClusterState, port: int, camel: bool
) -> dict[str, Any]:
    """Who reaches whom where: per node since 1.0.61, one list for all before."""
    # the form of the template decides, not a version number
    if "hosts" in body:
        return {
            "hosts": [
                {"ip": ring_address(state, nodes[rank - 1], node), "port": _free_port()}
                if len(nodes) > 1
                else {"ip": "0.0.0.0", "port": port}  # EXO binds, not we
                for rank, node in enumerate(nodes)
            ]
        }
    table = {node: _row(rank, nodes, state, port) for rank, node in enumerate(nodes)}
    return {_key("hosts_by_node", camel): table, _key("ephemeral_port", camel): port}


def _row(rank: int, nodes: Sequence[str], state: ClusterState, port: int) -> list[dict[str, Any]]:
    """What one node knows of the ring: itself, its two neighbours, and nothing of the others."""
    size = len(nodes)
    row = [dict(NOBODY) for _ in nodes]
    for near in {(rank - 1) % size, (rank + 1) % size} - {rank}:
        row[near] = {"ip": ring_address(state, nodes[rank], nodes[near]), "port": port}
    row[rank] = {"ip": "0.0.0.0", "port": port}  # EXO binds, not we
    return row


def ring_address(state: ClusterState, source: str, sink: str) -> str:
    """The best address at which `source` reached `sink`, by EXO's preference of interfaces, IPv4 first.

    Raises NotReachedYet when there is none.
    """
    found = state.addresses(source, sink)
    if not found:
        raise NotReachedYet(
            f"{state.name_of(source)} has not reached {state.name_of(sink)} yet, so they cannot be "
            "neighbours in the "
            "ring; wait half a minute after a start, check the network between them, or choose another order"
        )

    def rank(entry: tuple[str, str]) -> tuple[bool, int]:
        ip, kind = entry
        # EXO listens on IPv4; an IPv6 address is better than none
        return ":" in ip, KINDS.index(kind) if kind in KINDS else len(KINDS)

    return min(found, key=rank)[0]


def unlinked(state: ClusterState) -> tuple[str, ...]:
    """`a has not reached b` for each pair of nodes without an edge."""
    linked = {(edge.source, edge.sink) for edge in state.edges}
    return tuple(
        f"{source.name} has not reached {sink.name}"
        for source in state.nodes
        for sink in state.nodes
        if source is not sink and (source.node_id, sink.node_id) not in linked
    )


def _check_split(layers: Sequence[NodeLayers], card: Mapping[str, Any], state: ClusterState) -> None:
    """Nodes live and appear once, and their number divides the model.

    Of a posted instance EXO checks nothing, and its runners would fail.
    """
    ranks = len(layers)
    for number, (node, _, _) in enumerate(layers):
        _check_node(node, {other for other, _, _ in layers[:number]}, state)
    if not card.get("supports_tensor"):
        raise PlacementRefused(
            "this model's card says that EXO cannot shard it by tensor (supports_tensor); shard by pipeline"
        )
    for what, key in (("hidden size", "hidden_size"), ("KV heads", "num_key_value_heads")):
        columns = card.get(key)
        if isinstance(columns, int) and columns % ranks:
            raise PlacementRefused(
                f"{ranks} nodes cannot split this model by tensor: its {what} ({columns}) are no multiple of "
                f"{ranks}; take another number of nodes, or shard by pipeline"
            )


def _check_node(node: str, seen: set[str], state: ClusterState) -> None:
    if state.node(node) is None:
        known = ", ".join(f"{other.name} ({other.node_id[:8]})" for other in state.nodes)
        raise PlacementRefused(f"no node {node!r} in the cluster; nodes are {known}")
    if node in seen:
        raise PlacementRefused(f"{state.name_of(node)} appears twice in the ring; give it one run of layers")


def _check(layers: Sequence[NodeLayers], n_layers: int, state: ClusterState) -> None:
    """Layers tile 0 .. n_layers in ring order, every node lives and appears once."""
    expected, seen = 0, set[str]()
    for node, start, end in layers:
        _check_node(node, seen, state)
        if start != expected or end <= start:
            raise PlacementRefused(
                f"{state.name_of(node)} holds layers {start} to {end}, but layer {expected} comes next; "
                f"the ranges must tile 0 to {n_layers} in ring order, each with at least one layer"
            )
        seen.add(node)
        expected = end
    if expected != n_layers:
        raise PlacementRefused(
            f"the ranges end at layer {expected}, the model has {n_layers}; tile all of it"
        )


def _free_port() -> int:
    """A random port of EXO's range: we cannot see which are in use on the nodes,
    and neither does EXO look.
    """
    generator = random.SystemRandom()
    return generator.choice([port for port in range(*PORTS) if port not in EXO_PORTS])


def _sole(raw: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    if len(raw) != 1:
        raise ApiChanged(f"a tagged object was expected in the template, and came as {str(raw)[:120]}")
    return next(iter(raw.items()))


def _key(name: str, camel: bool) -> str:
    """`name` in the casing of the template."""
    return camel_case(name) if camel else name
