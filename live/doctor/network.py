"""Checks of the network between the devices."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from live.agent.facts import AgentFacts, link_kind_of
from live.discover.found import LEGACY, LIBP2P, ZENOH
from live.doctor.finding import DoctorFinding, problem, unknown, warning
from live.doctor.gather import Surroundings

__all__ = ["HEARD_BY", "different_networks", "hotspot", "mesh", "multicast", "on_lan", "vpn", "wifi"]

SHARED = ipaddress.ip_network("100.64.0.0/10")  # RFC 6598; Tailscale gives every device an address in it

# Networks that phones open as hotspots. iOS: 172.20.10.0/28, which no router uses. Android: the
# prefixes of tethering in AOSP (frameworks/base, Tethering: USB 42, Wi-Fi 43, Bluetooth 44, Wi-Fi
# direct 49); Windows: 137.
HOTSPOTS = (
    ("172.20.10.0/28", "an iPhone's hotspot", True),
    ("192.168.42.0/24", "an Android phone's USB tethering", False),
    ("192.168.43.0/24", "an Android phone's hotspot", False),
    ("192.168.44.0/24", "an Android phone's Bluetooth tethering", False),
    ("192.168.49.0/24", "Android's Wi-Fi direct", False),
    ("192.168.137.0/24", "a Windows hotspot", False),
)
BAND_LIMIT_MHZ = 2500.0  # 2.4 GHz channels end at 2.4835 GHz
WEAK_DBM = -70.0  # below about -70 dBm radios fall back to slow and repeated transmissions

# sources of a row that need announcements to arrive
HEARD_BY = {"EXO multicast", "libp2p mDNS", "legacy broadcast"}

Network = ipaddress.IPv4Network


def _own_networks(facts: AgentFacts) -> list[Network]:
    """IPv4 networks that a device is directly in, without loopback and single addresses."""
    found = []
    for _, address, prefix in facts.addresses:
        parsed = _v4(address)
        if parsed and not parsed.is_loopback and 0 < prefix < 32:
            found.append(ipaddress.IPv4Network((parsed, prefix), strict=False))
    return found


def _v4(address: str) -> ipaddress.IPv4Address | None:
    try:
        return ipaddress.IPv4Address(address)
    except ValueError:
        return None


def on_lan(addresses: tuple[str, ...]) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses among these that belong to a LAN, not to loopback or a Tailscale network."""
    parsed = (_v4(address) for address in addresses)
    return [one for one in parsed if one and not one.is_loopback and one not in SHARED]


def different_networks(seen: Surroundings) -> Iterator[DoctorFinding]:
    """Devices none of whose addresses lies in a network of this machine: another subnet or VLAN."""
    mine = _own_networks(seen.facts[0])
    if not mine:
        yield unknown("own network", "no IPv4 network here; join the Wi-Fi or plug the cable in")
        return
    devices = [(found.name or found.node_id[:12], found.addresses) for found in seen.discovery.found]
    devices += [(facts.name, tuple(address for _, address, _ in facts.addresses)) for facts in seen.facts[1:]]
    for name, addresses in devices:
        reachable = on_lan(addresses)
        if reachable and not any(address in network for address in reachable for network in mine):
            yield problem(
                f"{name} is in another subnet or VLAN",
                f"{' '.join(map(str, reachable[:3]))}, this machine is in {' '.join(map(str, mine))}",
                "EXO's discovery never crosses a router, so all devices must share one subnet",
                "join the same SSID (not the guest one) or switch; else Tailscale with subnet routes, and "
                "--host names",
            )


def multicast(seen: Surroundings) -> Iterator[DoctorFinding]:
    """Devices that answer by HTTP but cannot be heard: multicast, mDNS or broadcast is blocked on the way."""
    way_out = (
        "switch off client (AP) isolation and IGMP snooping without a querier, leave the guest Wi-Fi, let "
        "the firewall pass UDP 52413 (EXO), 5353 (mDNS), 5678 (legacy)"
    )
    if seen.discovery.heard.faults and not seen.discovery.heard.greeted:
        yield problem(
            "multicast cannot be sent from here",
            seen.discovery.heard.faults[0],
            "discovery needs IPv6 multicast on the LAN",
            "switch IPv6 on for this interface",
        )
    for found in seen.discovery.found:
        elsewhere = found.api and not found.api.startswith(("127.", "localhost", "[::1]"))
        heard = HEARD_BY & set(found.seen_by)
        if elsewhere and found.generation in (ZENOH, LIBP2P, LEGACY) and not heard:
            yield problem(
                f"{found.name} cannot be heard",
                f"answers at {found.api}, but no announcement arrived",
                "the devices find each other by multicast, mDNS or broadcast only",
                way_out,
            )
    announced = {address for found in seen.discovery.announced.agents for address in found.addresses}
    for host, port in seen.answering_agents:
        address = _v4(host)
        if address and not address.is_loopback and host not in announced:
            yield warning(
                f"the agent at {host}:{port} cannot be heard by mDNS",
                "it answers when asked by address",
                "agents announce themselves on 224.0.0.251:5353, unless told --no-announce",
                way_out,
            )


def wifi(seen: Surroundings) -> Iterator[DoctorFinding]:
    """Radios that are slow by choice: 2.4 GHz, power-save, a weak signal."""
    radios = [(facts.name, facts.wifi) for facts in seen.facts if facts.wifi]
    for name, radio in radios:
        if radio.frequency_mhz is not None and radio.frequency_mhz < BAND_LIMIT_MHZ:
            yield warning(
                f"{name} is on 2.4 GHz Wi-Fi",
                f"{radio.frequency_mhz:g} MHz",
                "a token crosses every hop; 2.4 GHz is slow and shared with the neighbours",
                "join the 5 or 6 GHz network of the same router, or use a cable",
            )
        if radio.power_save:
            yield warning(
                f"{name} lets its radio sleep",
                "power save: on",
                "a sleeping radio is woken at the beacon, up to 100 ms later, at each token",
                f"sudo iw dev {radio.interface or 'wlan0'} set power_save off",
            )
        if radio.signal_dbm is not None and radio.signal_dbm < WEAK_DBM:
            yield warning(
                f"{name} has a weak signal",
                f"{radio.signal_dbm:g} dBm",
                f"at least {WEAK_DBM:g} dBm",
                "bring it nearer to the access point, or use a cable",
            )
    untold = [
        facts.name
        for facts in seen.facts
        if facts.link_kind == "wifi" and (facts.wifi is None or facts.wifi.frequency_mhz is None)
    ]
    if untold:
        yield unknown(
            f"Wi-Fi band of {', '.join(untold)}",
            "install iw (Linux) or the Termux:API app and package (Android)",
        )


def hotspot(seen: Surroundings) -> Iterator[DoctorFinding]:
    """Devices in a network that a phone has opened."""
    own = [(facts.name, tuple(address for _, address, _ in facts.addresses)) for facts in seen.facts]
    devices = own + [(found.name or found.node_id[:12], found.addresses) for found in seen.discovery.found]
    for name, addresses in devices:
        for network, what, certain in HOTSPOTS:
            hits = [one for one in map(_v4, addresses) if one and one in ipaddress.IPv4Network(network)]
            if hits:
                yield warning(
                    f"{name} is {'' if certain else 'probably '}on {what}",
                    f"{hits[0]} is in {network}",
                    "a phone as access point adds tens of ms, sleeps between tokens and often isolates its "
                    "clients",
                    "join all devices to one router's Wi-Fi, or a cable",
                )


def vpn(seen: Surroundings) -> Iterator[DoctorFinding]:
    """A VPN between the devices, or around one of them."""
    way_out = "switch the VPN off, or allow local network access in it; on a LAN no VPN is needed"
    for facts in seen.facts:
        if facts.link_kind == "vpn":
            yield warning(
                f"{facts.name} sends everything through a VPN",
                facts.interface,
                "a VPN adds delay to each hop and mostly drops multicast",
                way_out,
            )
    for address, interface in seen.routes:
        parsed = _v4(address)
        if link_kind_of(interface) == "vpn" or (parsed and parsed in SHARED):
            where = f"{address} by {interface or 'unknown interface'}"
            yield warning(
                "the way to a device leads through a VPN",
                where,
                "a VPN adds delay to each hop and mostly drops multicast",
                way_out,
            )


def mesh(seen: Surroundings) -> Iterator[DoctorFinding]:
    """Pairs of EXO nodes of which one cannot reach the other: EXO places rings over them and fails later."""
    pairs = dict.fromkeys(pair for probe in seen.discovery.probes for pair in probe.one_way)
    # a node that is gone is reached by nobody, which says nothing of the network
    gone = {found.name for found in seen.discovery.found if found.silent_s is not None}
    for source, sink in (pair for pair in pairs if not gone & set(pair)):
        yield problem(
            f"{source} cannot reach {sink}",
            "no connection in EXO's topology",
            "each pair of ring neighbours needs connections both ways (probed every 10 s at TCP 52415)",
            f"wait 25 s after a start; then let the firewall of {sink} pass TCP 52414, 52415 and 49153-65535",
        )
