"""The links of a cluster as a scenario has them: those of its ring, else those that EXO would choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from live.exo.health import health_of
from live.exo.ring import ORDER, RingHop, best_way, ring_hops, ways
from live.exo.state import ClusterState, StateInstance, StateNode
from simulator.catalog.hardware import DeviceFacts
from simulator.scenario import LinkSpec, WireSpec

__all__ = ["link_of", "remarks", "used_hops", "wires_of"]

# What EXO calls an interface, as a network of the catalogue.
# It does not tell generations apart, so the usual one.
LINKS = {"wifi": "wifi6", "ethernet": "ethernet_1g", "maybe_ethernet": "ethernet_1g"}
VPNS = {"tailscale": "tailscale", "wg": "wireguard", "utun": "wireguard"}
THUNDERBOLT_5 = 80e9  # bit/s: its ports report 80 or 120 Gb/s, those of Thunderbolt 4 at most 40


def used_hops(
    state: ClusterState, instance: StateInstance | None
) -> tuple[tuple[RingHop, ...], tuple[RingHop, ...]]:
    """The hops of the instance's ring, and the best way between all other pairs, which EXO would choose."""
    ring = ring_hops(state, instance) if instance else ()
    paired = {(hop.source, hop.sink) for hop in ring}
    ids = [node.node_id for node in state.nodes]
    others = ((a, b) for a in ids for b in ids if a != b and (a, b) not in paired)
    return ring, tuple(hop for pair in others for hop in ways(state, *pair)[:1])


def link_of(node: StateNode, state: ClusterState, hops: Sequence[RingHop]) -> LinkSpec | None:
    """How the others reach the node through the LAN, cables between two aside; None where EXO does not say.

    Where two neighbours use different ways, the worse one: it is what a token waits for.
    """
    mine = [hop for hop in hops if hop.sink == node.node_id and hop.kind != "thunderbolt"]
    # a node whose neighbours have a cable to it still has a link, which nothing of the ring passes
    others = [other.node_id for other in state.nodes if other.node_id != node.node_id]
    mine = (
        mine
        or [hop for other in others for hop in ways(state, other, node.node_id) if hop.kind != "thunderbolt"][
            :1
        ]
    )
    if not mine and not others:
        kinds = {interface.kind for interface in node.interfaces}
        return next((LinkSpec(kind=LINKS[kind]) for kind in ORDER if kind in kinds & set(LINKS)), None)
    worst = max(mine, key=lambda hop: ORDER.index(hop.kind), default=None)
    if worst is None:
        return None
    if worst.kind == "vpn":
        return LinkSpec(
            vpn=next((vpn for start, vpn in VPNS.items() if worst.interface.startswith(start)), None)
        )
    return LinkSpec(kind=LINKS[worst.kind]) if worst.kind in LINKS else None


def wires_of(
    state: ClusterState,
    names: Mapping[str, str],
    hops: Sequence[RingHop],
    instance: StateInstance | None,
    known: Mapping[str, DeviceFacts | None],
) -> list[WireSpec]:
    """Thunderbolt cables that are used in both directions, or by RDMA where the instance has that."""
    kinds: dict[tuple[str, str], set[str]] = {}
    for hop in hops:
        kinds.setdefault((hop.source, hop.sink), set()).add(hop.kind)
    rdma = {(edge.source, edge.sink) for edge in state.edges if edge.rdma}
    is_rdma = instance is not None and instance.meta == "MlxJaccl"
    found = []
    for i, one in enumerate(state.nodes):
        for other in state.nodes[i + 1 :]:
            ends = ((one.node_id, other.node_id), (other.node_id, one.node_id))
            between = (names[one.node_id], names[other.node_id])
            if is_rdma and rdma & set(ends):
                found.append(WireSpec(between=between, kind="thunderbolt5_rdma"))
            elif all(kinds.get(end) == {"thunderbolt"} for end in ends):
                found.append(WireSpec(between=between, kind=_generation(state, one, other, known)))
    return found


def _generation(
    state: ClusterState, one: StateNode, other: StateNode, known: Mapping[str, DeviceFacts | None]
) -> str:
    """By what the slower end says of its ports, else by what its kind of machine has."""
    told = health_of(state.raw).nodes if state.raw else {}

    def is_fifth(node: StateNode) -> bool:
        speed = told[node.node_id].port_bits_per_s if node.node_id in told else None
        facts = known.get(node.node_id)
        return speed >= THUNDERBOLT_5 if speed else facts is not None and "TB5" in facts.network_ports

    return "thunderbolt5" if is_fifth(one) and is_fifth(other) else "thunderbolt4"


def remarks(state: ClusterState, names: Mapping[str, str], hops: Sequence[RingHop]) -> list[str]:
    """Where the ring passes by a better way, one sentence for each pair."""
    found = {}
    for hop in hops:
        better = best_way(state, hop)
        if better is not None:
            ends = sorted((names[hop.source], names[hop.sink]))
            found[tuple(ends)] = (
                f"{ends[0]} and {ends[1]}: the ring uses {hop.kind} ({hop.ip}) although there is "
                f"{better.kind} ({better.ip}); the scenario has what is used, `sim live doctor` says what to "
                "do"
            )
    return list(found.values())
