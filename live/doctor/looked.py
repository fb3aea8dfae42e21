"""What each check had to look at: a check with nothing to look at must not say ok.

Every function gives the names of the devices, hosts or ways that could have shown the fault of its check.
"""

from __future__ import annotations

from collections.abc import Iterator

from live.agent.addresses import is_loopback
from live.discover.found import FoundDevice
from live.doctor.cluster import exo_nodes
from live.doctor.gather import Surroundings
from live.doctor.health import clusters, name_of
from live.doctor.network import HEARD_BY, on_lan
from live.exo.ring import ring_hops

__all__ = [
    "addresses",
    "answering",
    "clocks",
    "devices",
    "disks",
    "downloads",
    "instances",
    "links",
    "memories",
    "nodes",
    "pairs",
    "ports",
    "ports_of_macs",
    "radios",
    "rings",
    "savers",
    "senders",
    "states",
    "temperatures",
    "versions",
    "visited",
]


def _label(found: FoundDevice) -> str:
    return found.name or found.node_id[:12] or "unnamed"


def _others(seen: Surroundings) -> list[FoundDevice]:
    """Found devices without this machine: what it hears from itself shows nothing about the network."""
    own = {address for _, address, _ in seen.facts[0].addresses if not is_loopback(address)}
    return [
        found
        for found in seen.discovery.found
        if not own & set(found.addresses) and not is_loopback(found.api.rpartition(":")[0].strip("[]"))
    ]


def nodes(seen: Surroundings) -> Iterator[str]:
    """EXO nodes."""
    yield from map(_label, exo_nodes(seen))


def ports(seen: Surroundings) -> Iterator[str]:
    """Hosts that answered; loopback passes no firewall and says nothing about ports."""
    answered = (probe for probe in seen.discovery.probes if probe.outcome in ("exo", "legacy", "other"))
    yield from (probe.where for probe in answered if not is_loopback(probe.host))


def devices(seen: Surroundings) -> Iterator[str]:
    """Other devices whose IPv4 address is known."""
    yield from (_label(found) for found in _others(seen) if on_lan(found.addresses))
    yield from (
        facts.name for facts in seen.facts[1:] if on_lan(tuple(address for _, address, _ in facts.addresses))
    )


def senders(seen: Surroundings) -> Iterator[str]:
    """Other devices whose announcement was heard."""
    yield from (_label(found) for found in _others(seen) if (HEARD_BY | {"agent mDNS"}) & set(found.seen_by))


def pairs(seen: Surroundings) -> Iterator[str]:
    """Topologies of two nodes or more, by the node that gave them; legacy EXO does
    not tell who reaches whom.
    """
    yield from (
        probe.where for probe in seen.discovery.probes if probe.outcome == "exo" and len(probe.found) > 1
    )


def states(seen: Surroundings) -> Iterator[str]:
    """Nodes in the states of clusters."""
    for _, health in clusters(seen):
        yield from (name_of(health.newest, node.node_id) for node in health.newest.nodes)


def instances(seen: Surroundings) -> Iterator[str]:
    """Placed models."""
    for _, health in clusters(seen):
        yield from (instance.model_id for instance in health.newest.instances.values())


def rings(seen: Surroundings) -> Iterator[str]:
    """Placed models whose ring has hops."""
    for _, health in clusters(seen):
        state = health.newest
        yield from (one.model_id for one in state.instances.values() if ring_hops(state, one))


def ports_of_macs(seen: Surroundings) -> Iterator[str]:
    """Nodes that told of Thunderbolt or RDMA."""
    for _, health in clusters(seen):
        for node_id, node in health.nodes.items():
            if (node.has_rdma, node.has_bridge, node.port_bits_per_s) != (None, None, None):
                yield name_of(health.newest, node_id)


def downloads(seen: Surroundings) -> Iterator[str]:
    """Nodes that told which models they have."""
    for _, health in clusters(seen):
        yield from (name_of(health.newest, one.node_id) for one in health.downloads)


def disks(seen: Surroundings) -> Iterator[str]:
    """Nodes that told how full their disk is."""
    for _, health in clusters(seen):
        told = (key for key, node in health.nodes.items() if node.disk_free_bytes is not None)
        yield from (name_of(health.newest, node_id) for node_id in told)


def versions(seen: Surroundings) -> Iterator[str]:
    """EXO nodes that told their version."""
    yield from (_label(found) for found in exo_nodes(seen) if found.version)


def links(seen: Surroundings) -> Iterator[str]:
    """Devices that told the kind of their link, and the ways from here that the routing table knows."""
    yield from (facts.name for facts in seen.facts if facts.link_kind != "unknown")
    yield from (f"the way to {address}" for address, interface in seen.routes if interface)


def addresses(seen: Surroundings) -> Iterator[str]:
    """Devices whose IPv4 address is known, this machine too."""
    if on_lan(tuple(address for _, address, _ in seen.facts[0].addresses)):
        yield seen.facts[0].name
    yield from devices(seen)


def radios(seen: Surroundings) -> Iterator[str]:
    """Devices that told about their Wi-Fi."""
    yield from (facts.name for facts in seen.facts if facts.wifi)


def memories(seen: Surroundings) -> Iterator[str]:
    """EXO nodes that told their free memory."""
    yield from (_label(found) for found in exo_nodes(seen) if found.memory_free_bytes is not None)


def clocks(seen: Surroundings) -> Iterator[str]:
    """Hosts that told their time."""
    yield from (probe.where for probe in seen.discovery.probes if probe.clock_offset_s is not None)


def savers(seen: Surroundings) -> Iterator[str]:
    """Devices that told whether a battery saver is on."""
    yield from (facts.name for facts in seen.facts if facts.power.saver is not None)


def temperatures(seen: Surroundings) -> Iterator[str]:
    """Devices that told their temperature."""
    yield from (facts.name for facts in seen.facts if facts.temperature_c is not None)


def answering(seen: Surroundings) -> Iterator[str]:
    """Agents that were named and answered."""
    yield from (f"{host}:{port}" for host, port in seen.answering_agents)


def visited(seen: Surroundings) -> Iterator[str]:
    """Other devices, all of them: the check names those without an agent."""
    yield from map(_label, _others(seen))
