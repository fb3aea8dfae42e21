"""Which way the ring of an instance really takes: the addresses that it was given, and what they are."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass

from live.agent.facts import link_kind_of
from live.exo.casing import either
from live.exo.state import ClusterState, Interface, StateInstance, StateNode

__all__ = ["RingHop", "best_way", "interface_kind", "ring_hops", "ways"]

# Bridges between a machine and its own containers and virtual machines: nobody else is behind them.
CONTAINERS = re.compile(
    r"docker|br-[0-9a-f]{6,}|virbr|veth|cni|podman|lxc|lxdbr|vmnet|vnic|bridge1\d\d|vEthernet"
)
# EXO's order (exo-explore/exo, src/exo/master/placement_utils.py), then what it calls unknown all alike
ORDER = (
    "thunderbolt",
    "maybe_ethernet",
    "ethernet",
    "wifi",
    "unknown",
    "usb",
    "cellular",
    "vpn",
    "container",
)
CABLES = ("thunderbolt", "maybe_ethernet", "ethernet")
NOBODY = ("0.0.0.0", "198.51.100.1")  # itself, and EXO's filler for ranks that are no neighbour


@dataclass(frozen=True, slots=True)
class RingHop:
    """`source` sends to its neighbour `sink` at `ip`, which is `interface` of `sink`."""

    source: str
    sink: str
    ip: str
    kind: str
    interface: str = ""


def interface_kind(interface: Interface) -> str:
    """EXO's word for an interface, or ours where EXO has none (it looks at names on macOS only).

    >>> interface_kind(Interface("docker0", "172.17.0.1"))
    'container'
    """
    if CONTAINERS.match(interface.name):
        return "container"
    by_name = link_kind_of(interface.name)
    # a tunnel stays one, whatever the machine says lies below it
    return by_name if by_name == "vpn" or interface.kind == "unknown" else interface.kind


def ways(state: ClusterState, source: str, sink: str) -> tuple[RingHop, ...]:
    """All addresses at which `source` reached `sink`, best first."""
    hops = [_hop(state, source, sink, ip) for ip, _ in state.addresses(source, sink)]
    return tuple(sorted(hops, key=lambda hop: (ORDER.index(hop.kind), ":" in hop.ip)))


def best_way(state: ClusterState, used: RingHop) -> RingHop | None:
    """A cable between the two where the ring uses none: one that EXO reached the neighbour by, else one
    whose two ends share a network; None where the ring is on a cable, or has no other way.
    """
    if used.kind in CABLES:
        better = ways(state, used.source, used.sink)[:1] if used.kind != "thunderbolt" else ()
        return next((hop for hop in better if hop.kind == "thunderbolt"), None)
    reached = (hop for hop in ways(state, used.source, used.sink) if hop.kind in CABLES)
    return next(reached, None) or _unreached(state, used)


def _unreached(state: ClusterState, used: RingHop) -> RingHop | None:
    source, sink = state.node(used.source), state.node(used.sink)
    mine = {_network(interface.ip) for interface in _cables(source)}
    for interface in _cables(sink):
        network = _network(interface.ip)
        # a router gives Wi-Fi and cable one network, so the address in use proves no second way
        if network and network in mine and interface.ip != used.ip:
            return RingHop(used.source, used.sink, interface.ip, interface_kind(interface), interface.name)
    return None


def _cables(node: StateNode | None) -> list[Interface]:
    return [one for one in node.interfaces if interface_kind(one) in CABLES] if node else []


def _network(ip: str) -> str:
    """The /24 of an IPv4 address, which is what homes use; empty for other addresses."""
    try:
        return str(ipaddress.IPv4Network(f"{ipaddress.IPv4Address(ip)}/24", strict=False))
    except ValueError:
        return ""


def ring_hops(state: ClusterState, instance: StateInstance) -> tuple[RingHop, ...]:
    """The hops of a ring instance in the order of its ranks; none for one node, or for RDMA (Jaccl)."""
    nodes = [shard.node_id for shard in instance.shards]
    return tuple(
        _hop(state, source, sink, ip)
        for source, sink, ip in _addresses(instance, nodes)
        if ip not in NOBODY and source != sink
    )


def _addresses(instance: StateInstance, nodes: list[str]) -> Iterator[tuple[str, str, str]]:
    """(source, sink, address) of all neighbours."""
    body = next(iter(instance.raw.values()), None)
    if not isinstance(body, dict):
        return
    table = either(body, "hosts_by_node")
    for source in nodes if isinstance(table, dict) else ():
        for sink, host in zip(nodes, table.get(source) or (), strict=False):
            if isinstance(host, dict):
                yield source, sink, str(host.get("ip"))
    # up to 1.0.60 one list: where the rank before reaches each rank
    listed = body.get("hosts")
    for rank, host in enumerate(listed[: len(nodes)] if isinstance(listed, list) else ()):
        if isinstance(host, dict):
            yield nodes[rank - 1], nodes[rank], str(host.get("ip"))


def _hop(state: ClusterState, source: str, sink: str, ip: str) -> RingHop:
    node = state.node(sink)
    bare = ip.partition("%")[0]
    found = (one for one in (node.interfaces if node else ()) if one.ip.partition("%")[0] == bare)
    interface = next(found, None)
    kind = interface_kind(interface) if interface else "unknown"
    return RingHop(
        source, sink, ip, kind if kind in ORDER else "unknown", interface.name if interface else ""
    )
