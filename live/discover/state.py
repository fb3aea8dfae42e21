"""EXO's `/state` (1.0.60 to HEAD) and legacy `/topology` as rows of the table.

Three shapes of `/state` are known. Since 1.0.62 or so facts stand in one table per kind (`nodeIdentities`,
`nodeMemory`, `nodeNetwork`); before, all in `nodeProfiles`. `topology.nodes` holds ids, or objects with an
id, and `connections` is a nested table by source and sink, or a list. Names come in camelCase or snake_case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from live.discover.found import LEGACY, Found, clean
from live.discover.legacy_udp import capabilities

__all__ = ["Edge", "departed", "edges", "field_of", "nodes_of_state", "nodes_of_topology", "one_way"]

UNKNOWN = ("unknown", "unknown chip", "unknown model")
KINDS = {"wifi": "wifi", "ethernet": "ethernet", "maybe_ethernet": "ethernet", "thunderbolt": "thunderbolt"}
PREFERENCE = ("thunderbolt", "ethernet", "wifi")
MAX_NODES = 256

Edge = tuple[str, str, str]


def field_of(table: object, name: str) -> Any:
    """The value of camelCase `name` in a JSON object, also
    when it is written in snake_case; None without one.
    """
    if not isinstance(table, dict):
        return None
    if name in table:
        return table[name]
    return table.get(re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower())


def _bytes(memory: object, name: str) -> float | None:
    value = field_of(field_of(memory, name), "inBytes")
    plain = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e16
    return float(value) if plain else None


def _known(text: object) -> str:
    shown = clean(text)
    return "" if shown.lower() in UNKNOWN else shown


def _topology_ids(state: object) -> list[str]:
    nodes = field_of(field_of(state, "topology"), "nodes")
    listed = nodes if isinstance(nodes, list) else []
    ids = [node if isinstance(node, str) else field_of(node, "nodeId") for node in listed[:MAX_NODES]]
    return [clean(node_id, 100) for node_id in ids if isinstance(node_id, str)]


def edges(state: object) -> tuple[Edge, ...]:
    """(source, sink, address of the sink) of every connection by sockets that EXO has probed."""
    connections = field_of(field_of(state, "topology"), "connections")
    return tuple(_listed(connections) if isinstance(connections, list) else _nested(connections))


def _listed(connections: list[Any]) -> Iterator[Edge]:
    for connection in connections:
        source, sink = field_of(connection, "localNodeId"), field_of(connection, "sendBackNodeId")
        if isinstance(source, str) and isinstance(sink, str):
            yield source, sink, _address(field_of(connection, "sendBackMultiaddr"))


def _nested(connections: object) -> Iterator[Edge]:
    for source, sinks in connections.items() if isinstance(connections, dict) else ():
        for sink, links in sinks.items() if isinstance(sinks, dict) else ():
            for link in links if isinstance(links, list) else ():
                target = field_of(link, "sinkMultiaddr")
                if target is not None:  # RDMA edges name interfaces, no addresses
                    yield source, sink, _address(target)


def _address(multiaddr: object) -> str:
    """'10.0.0.2' of {"address": "/ip4/10.0.0.2/tcp/52415", ...}."""
    parts = str(field_of(multiaddr, "address") or "").split("/")
    return clean(parts[2]) if len(parts) > 2 else ""


def one_way(state: object) -> tuple[tuple[str, str], ...]:
    """Pairs (source, sink) of living nodes where the source cannot reach the sink, as EXO probed it."""
    ids = _topology_ids(state)
    reached = {(source, sink) for source, sink, _ in edges(state)}
    return tuple((a, b) for a in ids for b in ids if a != b and (a, b) not in reached)


def departed(state: object) -> tuple[str, ...]:
    """Names of nodes that the cluster remembers but that no
    longer live, unless they are back with a new id.
    """
    living = set(_topology_ids(state))
    identities = field_of(state, "nodeIdentities") or field_of(state, "nodeProfiles")
    listed = list(identities.items())[:MAX_NODES] if isinstance(identities, dict) else []
    names = {node_id: _known(field_of(identity, "friendlyName")) for node_id, identity in listed}
    present = {name for node_id, name in names.items() if node_id in living}
    return tuple(
        dict.fromkeys(n for node_id, n in names.items() if node_id not in living and n and n not in present)
    )


def nodes_of_state(state: object, generation: str, version: str) -> tuple[Found, ...]:
    """One row per living node of an EXO 1.x cluster."""
    reached = edges(state)
    return tuple(_node(state, node_id, reached, generation, version) for node_id in _topology_ids(state))


def _node(state: object, node_id: str, reached: tuple[Edge, ...], generation: str, version: str) -> Found:
    profile = field_of(field_of(state, "nodeProfiles"), node_id)
    identity = field_of(field_of(state, "nodeIdentities"), node_id) or profile
    memory = field_of(field_of(state, "nodeMemory"), node_id) or field_of(profile, "memory")
    network = field_of(field_of(state, "nodeNetwork"), node_id)
    interfaces = field_of(network, "interfaces") or field_of(profile, "networkInterfaces") or []
    kinds = {
        clean(field_of(interface, "ipAddress")): KINDS.get(
            str(field_of(interface, "interfaceType")), "unknown"
        )
        for interface in (interfaces if isinstance(interfaces, list) else [])[:64]
    }
    used = [address for _, sink, address in reached if sink == node_id and address]
    known = {kinds.get(address, "unknown") for address in used}
    return Found(
        name=_known(field_of(identity, "friendlyName")) or node_id[:12],
        node_id=node_id,
        generation=generation,
        version=version,
        chip=_known(field_of(identity, "chipId")),
        memory_total_bytes=_bytes(memory, "ramTotal"),
        memory_free_bytes=_bytes(memory, "ramAvailable"),
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


def nodes_of_topology(topology: object, version: str) -> tuple[Found, ...]:
    """One row per node of a legacy cluster; the kind of link
    stands in the description that peers give of it.
    """
    nodes, peers = field_of(topology, "nodes"), field_of(topology, "peer_graph")
    listed = list(nodes.items())[:MAX_NODES] if isinstance(nodes, dict) else []
    return tuple(
        Found(
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
    rows = (
        [row for rows in peers.values() if isinstance(rows, list) for row in rows]
        if isinstance(peers, dict)
        else []
    )
    for row in rows:
        words = re.findall(r"[a-z]+", str(field_of(row, "description")).lower()[:80])
        if field_of(row, "to_id") == node_id and words:
            return {"ts": "vpn"}.get(words[0], KINDS.get(words[0], "unknown"))
    return "unknown"
