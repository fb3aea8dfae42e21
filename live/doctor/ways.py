"""Checks of the ways between the nodes of an EXO 1.x cluster: the ring's own, Thunderbolt, RDMA."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from live.discover.found import clean
from live.doctor.finding import DoctorFinding, problem, warning
from live.doctor.gather import Surroundings
from live.doctor.health import clusters, name_of
from live.exo.health import ClusterHealth
from live.exo.ring import RingHop, best_way, ring_hops, ways
from live.exo.state import ClusterState, StateInstance

__all__ = ["edges", "ring", "thunderbolt"]

WORDS = {
    "wifi": "Wi-Fi",
    "thunderbolt": "Thunderbolt",
    "maybe_ethernet": "Ethernet",
    "ethernet": "Ethernet",
    "vpn": "a VPN",
    "container": "a bridge to containers",
    "usb": "USB tethering",
    "cellular": "a cellular modem",
    "unknown": "an interface of unknown kind",
}
MOST_PAIRS = 6
THUNDERBOLT_5 = 80e9  # bit/s: its ports report 80 or 120 Gb/s, those of Thunderbolt 4 at most 40


def _way(hop: RingHop) -> str:
    """'Wi-Fi (192.168.1.62, en1)'."""
    return f"{WORDS[hop.kind]} ({', '.join(clean(part) for part in (hop.ip, hop.interface) if part)})"


def ring(seen: Surroundings) -> Iterator[DoctorFinding]:
    """Rings over a slow way although there is a cable, or over a bridge behind which nobody is."""
    for _, health in clusters(seen):
        for instance in health.newest.instances.values():
            yield from _ring(health.newest, instance)


def _ring(state: ClusterState, instance: StateInstance) -> Iterator[DoctorFinding]:
    told: set[frozenset[str]] = set()
    for hop in ring_hops(state, instance):
        pair, better = frozenset((hop.source, hop.sink)), best_way(state, hop)
        if pair in told or (better is None and hop.kind != "container"):
            continue
        told.add(pair)  # both directions have one cause
        source, sink = name_of(state, hop.source), name_of(state, hop.sink)
        reached = better in ways(state, hop.source, hop.sink)
        if better is None or hop.kind == "container":
            fact = "no other device is behind that"
        elif reached:
            fact = f"there is {_way(better)}"
        else:
            fact = f"both have Ethernet in one network ({clean(better.ip)}), though EXO has not used it"
        make = problem if reached or hop.kind == "container" else warning
        yield make(
            f"the ring of {clean(instance.model_id, 80)} goes from {source} to {sink} over {_way(hop)}",
            fact,
            "a token crosses every hop twice; an instance keeps the addresses that it was placed with",
            "check the cable and its network service, wait until EXO has found it (10 s), then delete the "
            f"instance and place it again{_switch_off(hop)}",
        )


def _switch_off(hop: RingHop) -> str:
    if hop.kind == "container":
        return f"; take {clean(hop.interface)} down there meanwhile (as for Docker: stop its service)"
    if hop.kind == "wifi":
        return "; if it comes back to Wi-Fi, switch Wi-Fi off on both for the placing"
    return ""


def edges(seen: Surroundings) -> Iterator[DoctorFinding]:
    """Neighbours that reach each other only through a bridge to containers, or a VPN."""
    for _, health in clusters(seen):
        state, silent = health.newest, health.silent
        nodes = [node.node_id for node in state.nodes if node.node_id not in silent]
        for source, sink in ((a, b) for a in nodes for b in nodes if a != b):
            best = next(iter(ways(state, source, sink)), None)
            if best is None or best.kind not in ("container", "vpn"):
                continue
            make = problem if best.kind == "container" else warning
            yield make(
                f"{name_of(state, source)} reaches {name_of(state, sink)} only over {_way(best)}",
                f"of {len(ways(state, source, sink))} connections in EXO's topology",
                "a bridge to containers leads to no other device: the same address is on every machine that "
                "has one"
                if best.kind == "container"
                else "a VPN adds delay to each hop and takes rate",
                f"take {clean(best.interface) or 'it'} down on {name_of(state, sink)}, restart EXO there, "
                "and let TCP 52415 pass on the network that joins the two",
            )


def thunderbolt(seen: Surroundings) -> Iterator[DoctorFinding]:
    """Bridges that make loops, and RDMA that is off or has no chance."""
    for _, health in clusters(seen):
        yield from _bridges(health)
        yield from _rdma(health)


def _bridges(health: ClusterHealth) -> Iterator[DoctorFinding]:
    state = health.newest
    bridged = [node_id for node_id, node in health.nodes.items() if node.has_bridge]
    # EXO lists each loop in both directions, and every pair as one of two; a loop needs three cables
    loops = {frozenset(cycle) for cycle in health.bridge_cycles if len(set(cycle)) > 2}
    for loop in (one for one in loops if not any(one < other for other in loops)):
        yield problem(
            "Thunderbolt bridges form a loop",
            f"{', '.join(sorted(name_of(state, node_id) for node_id in loop))} (thunderboltBridgeCycles)",
            "bridges pass broadcasts on in circles, which takes the whole network down",
            f"on all but one of them: {_off(health, min(loop))}",
        )
    if bridged and not loops and len(state.nodes) > 1:
        yield warning(
            "the Thunderbolt bridge is on",
            ", ".join(sorted(name_of(state, node_id) for node_id in bridged)),
            "through a bridge there is no RDMA, and a third cable makes a loop",
            f"{_off(health, bridged[0])} (EXO's app does so), and let each port have its own address by DHCP",
        )


def _off(health: ClusterHealth, node_id: str) -> str:
    service = clean(health.nodes[node_id].bridge_service).replace('"', "")
    return f'sudo networksetup -setnetworkserviceenabled "{service}" off'


def _rdma(health: ClusterHealth) -> Iterator[DoctorFinding]:
    state, nodes = health.newest, health.nodes
    fast = [key for key, node in nodes.items() if (node.port_bits_per_s or 0.0) >= THUNDERBOLT_5]
    used = {
        shard.node_id for one in state.instances.values() if one.meta == "MlxJaccl" for shard in one.shards
    }
    # a node that does not tell has no rdma_ctl: EXO counts it as off
    could = used | set(fast if len(fast) > 1 else ())
    off = [key for key in nodes if not nodes[key].has_rdma and key in could]
    if off:
        make = problem if used & set(off) else warning
        yield make(
            "RDMA over Thunderbolt is off",
            ", ".join(sorted(name_of(state, node_id) for node_id in off)),
            "EXO places RDMA instances (MlxJaccl) only where all nodes have it on; without it a hop over "
            "Thunderbolt takes several times as long",
            "macOS 26.2 or newer: start into Recovery (hold the power button), Terminal, `rdma_ctl enable`, "
            "restart",
        )
    yield from _rdma_between(health, [key for key in nodes if nodes[key].has_rdma], is_used=bool(used))
    builds = {nodes[key].os_build for key in nodes if nodes[key].has_rdma and nodes[key].os_build}
    if len(builds) > 1:
        yield warning(
            "several versions of macOS with RDMA",
            ", ".join(sorted(map(clean, builds))),
            "RDMA ports of different builds may not find each other (EXO's README)",
            "update all Macs to the same build",
        )


def _rdma_between(health: ClusterHealth, on: list[str], *, is_used: bool) -> Iterator[DoctorFinding]:
    """Pairs of nodes with RDMA that no cable joins, where it is used or others have found each other so."""
    state = health.newest
    joined = {frozenset((edge.source, edge.sink)) for edge in state.edges if edge.rdma}
    apart = [pair for pair in combinations(sorted(on), 2) if frozenset(pair) not in joined]
    if not apart or not (joined or is_used):
        return
    told = [" and ".join(name_of(state, node_id) for node_id in pair) for pair in apart]
    yield warning(
        "RDMA does not join every two of the Macs that have it on",
        f"no RDMA connection between {'; '.join(told[:MOST_PAIRS])}",
        "EXO places an RDMA instance (MlxJaccl) only where each node has its own cable to every other: none "
        "on a chain or a star of three",
        f"join them directly, Thunderbolt 5 at both ends: {len(on)} Macs need {len(on) - 1} ports each; or "
        "place on those that are joined, or over the ring (MlxRing)",
    )
