"""Whose an address is, and by what the knocks that come from it are counted."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

__all__ = ["Networks", "is_local", "is_loopback", "networks_of", "parse", "source_of"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Networks = frozenset[ipaddress.IPv4Network | ipaddress.IPv6Network]

# RFC 6598; Tailscale gives its devices addresses of it
SHARED = ipaddress.ip_network("100.64.0.0/10")
HOST_BITS = 64  # of an IPv6 network: a single host may take 2**64 addresses (RFC 4291, 2.5.1)


def parse(text: str) -> Address | None:
    """The address without its zone, IPv4 where it is mapped into IPv6; None for a name and for nonsense.

    >>> parse("::ffff:10.0.0.5"), parse("fe80::1%eth0"), parse("phone.local")
    (IPv4Address('10.0.0.5'), IPv6Address('fe80::1'), None)
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # Python before 3.13 takes any mapped address for a private one, 8.8.8.8 included
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback(text: str) -> bool:
    """Whether only this machine can reach that address."""
    address = parse(text)
    return text == "localhost" or (address is not None and address.is_loopback)


def is_local(text: str) -> bool:
    """Whether an address belongs to a LAN, this machine or a Tailscale network, so that
    asking it leaves no doubt.

    Announcements are unsigned; without this rule anybody on the LAN could send us to any host of the
    internet.
    """
    address = parse(text)
    if address is None or address.is_multicast or address.is_unspecified:
        return False
    return address.is_private or address.is_loopback or address.is_link_local or address in SHARED


def networks_of(own: Iterable[tuple[str, str, int]]) -> Networks:
    """The networks that this device is on, by its (interface, address, prefix length)."""
    found = set()
    for _, text, prefix in own:
        if address := parse(text):
            # privacy and DHCPv6 addresses come with /128, and their neighbours are in the /64 all the same
            bits = HOST_BITS if address.version == 6 else prefix
            found.add(ipaddress.ip_network((address, bits), strict=False))
    return frozenset(found)


def source_of(text: str, neighbours: Networks) -> str:
    """By what knocks from there are counted: the address, but the /64 of an IPv6 host that is no neighbour.

    On the own network all devices share one /64: counted by that, a single stranger would lock them all out.
    """
    address = parse(text)
    if address is None:
        return text
    if address.version == 4 or address.is_loopback:
        return str(address)
    if address.is_link_local:
        return text  # with its zone: the same address on two interfaces is two devices
    network = ipaddress.ip_network((address, HOST_BITS), strict=False)
    return str(address) if network in neighbours else str(network)
