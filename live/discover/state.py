"""What a cluster says of itself (`live.exo.state`, or legacy `/topology`) as rows of the table."""

from __future__ import annotations

import re
from typing import Any

from live.discover.found import LEGACY, FoundDevice, clean
from live.discover.legacy_udp import capabilities
from live.exo.state import StateNetwork, StateNode

__all__ = ["departed", "nodes_of_network", "nodes_of_topology", "one_way"]

UNKNOWN = ("unknown", "unknown chip", "unknown model")
KINDS = {"wifi": "wifi", "ethernet": "ethernet", "maybe_ethernet": "ethernet", "thunderbolt": "thunderbolt"}
PREFERENCE = ("thunderbolt", "ethernet", "wifi")
MAX_NODES = 256


def _known(text: object) -> str:
    shown = clean(text)
    return "" if shown.lower() in UNKNOWN else shown


def one_way(network: StateNetwork) -> tuple[tuple[str, str], ...]:
    """Pairs (source, sink) of living nodes where the source cannot reach the sink, as EXO probed it."""
    ids = [node.node_id for node in network.nodes]
    reached = {(edge.source, edge.sink) for edge in network.edges if not edge.rdma}
    return tuple((clean(a, 100), clean(b, 100)) for a in ids for b in ids if a != b and (a, b) not in reached)


def departed(network: StateNetwork) -> tuple[str, ...]:
    """Names of nodes that the cluster remembers but that no longer live, unless
    they are back with a new id.
    """
    living = {node.node_id for node in network.nodes}
    names = {node_id: _known(name) for node_id, name in network.names.items()}
    present = {name for node_id, name in names.items() if node_id in living}
    return tuple(
        dict.fromkeys(n for node_id, n in names.items() if node_id not in living and n and n not in present)
    )


def nodes_of_network(network: StateNetwork, generation: str) -> tuple[FoundDevice, ...]:
    """One row per node in the topology of an EXO 1.x cluster."""
    return tuple(_row(node, network, generation) for node in network.nodes)


def _row(node: StateNode, network: StateNetwork, generation: str) -> FoundDevice:
    kinds = {clean(interface.ip): KINDS.get(interface.kind, "unknown") for interface in node.interfaces}
    used = [clean(edge.ip) for edge in network.edges if edge.sink == node.node_id and edge.ip]
    known = {kinds.get(address, "unknown") for address in used}
    return FoundDevice(
        name=_known(node.name) or clean(node.node_id, 12),
        node_id=clean(node.node_id, 100),
        generation=generation,
        chip=_known(node.chip),
        memory_total_bytes=node.memory_bytes,
        memory_free_bytes=node.free_bytes,
        addresses=_addresses(used, kinds),
        link_kind=next((kind for kind in PREFERENCE if kind in known), "unknown"),
        seen_by=("EXO state",),
    )


def _addresses(used: list[str], kinds: dict[str, str]) -> tuple[str, ...]:
    """Addresses that peers use come first; loopback ones say nothing and are left out."""
    every = dict.fromkeys((*used, *kinds))
    return tuple(
        address for address in every if address and not address.startswith("127.") and address != "::1"
    )


def nodes_of_topology(topology: dict[str, Any], version: str) -> tuple[FoundDevice, ...]:
    """One row per node of a legacy cluster; the kind of link stands in the
    description that peers give of it.
    """
    nodes, peers = topology.get("nodes"), topology.get("peer_graph")
    listed = list(nodes.items())[:MAX_NODES] if isinstance(nodes, dict) else []
    return tuple(
        FoundDevice(
            node_id=clean(node_id, 100),
            generation=LEGACY,
            version=version,
            link_kind=_legacy_kind(node_id, peers),
            seen_by=("legacy topology",),
            **capabilities(clean(node_id, 100), device),
        )
        for node_id, device in listed
        if isinstance(device, dict)
    )


def _legacy_kind(node_id: str, peers: object) -> str:
    # peers describe their way to a node in words, such as "Ethernet (eth0)" or "TS ..." for Tailscale
    listed = peers.values() if isinstance(peers, dict) else ()
    rows = [row for rows in listed if isinstance(rows, list) for row in rows if isinstance(row, dict)]
    for row in rows:
        words = re.findall(r"[a-z]+", str(row.get("description")).lower()[:80])
        if row.get("to_id") == node_id and words:
            return {"ts": "vpn"}.get(words[0], KINDS.get(words[0], "unknown"))
    return "unknown"
