"""What announces itself by mDNS: libp2p programs, EXO 1.0.60 to 1.0.71 among them, and our own agents."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from live.agent.addresses import is_local
from live.agent.wire import SERVICE
from live.discover.found import AGENT, LIBP2P, FoundDevice, clean

__all__ = ["LIBP2P_SERVICE", "Announced", "browse", "parse_dnsaddr", "parse_texts"]

LIBP2P_SERVICE = "_p2p._udp.local."
MAX_NAMES = 256
RESOLVE_S = 4.0  # for all names together: anybody may announce names without an address
BASE58 = "[1-9A-HJ-NP-Za-km-z]"
DNSADDR = re.compile(
    rf"dnsaddr=/ip([46])/([0-9a-fA-F:.]{{2,45}})/(?:tcp|udp)/(\d{{1,5}})\S*?/p2p/({BASE58}{{20,80}})"
)


@dataclass(slots=True)
class Announced:
    """Rows of the table, and why mDNS may not have worked."""

    agents: tuple[FoundDevice, ...] = ()
    libp2p: tuple[FoundDevice, ...] = ()
    faults: list[str] = field(default_factory=list)


def parse_dnsaddr(text: str) -> tuple[str, int, str] | None:
    """Address, port and peer id of one TXT string of libp2p's mDNS, or None.

    >>> peer = "12D3KooWE3AwZFT9zEWDUxhya62hmvEbRxYBWaosn7Kiqw5wsu73"
    >>> parse_dnsaddr(f"dnsaddr=/ip4/10.0.0.5/tcp/4001/p2p/{peer}")[:2]
    ('10.0.0.5', 4001)
    """
    match = DNSADDR.match(text)
    if not match:
        return None
    try:
        address = ipaddress.ip_address(match[2])
    except ValueError:
        return None
    # the text says 4 or 6 itself; where that is wrong, it was not libp2p that wrote it
    return (str(address), int(match[3]), match[4]) if address.version == int(match[1]) else None


def parse_texts(record: bytes) -> tuple[str, ...]:
    """The strings of a TXT record (RFC 1035, 3.3.14: each with its length before it);
    a cut off one is left out.
    """
    texts: list[str] = []
    place = 0
    while place < len(record) and len(texts) < 64:
        length = record[place]
        part = record[place + 1 : place + 1 + length]
        if len(part) == length:
            texts.append(part.decode("utf-8", errors="replace"))
        place += 1 + length
    return tuple(texts)


def libp2p_peers(records: Sequence[bytes]) -> tuple[FoundDevice, ...]:
    """Rows by peer id; on these versions the peer id is the EXO node id. Addresses
    outside the LAN are left out.
    """
    addresses: dict[str, list[str]] = {}
    for record in records:
        for text in parse_texts(record):
            peer = parse_dnsaddr(text)
            if peer and is_local(peer[0]) and (peer[2] in addresses or len(addresses) < MAX_NAMES):
                addresses.setdefault(peer[2], []).append(peer[0])
    return tuple(
        FoundDevice(
            node_id=peer_id,
            generation=LIBP2P,
            addresses=tuple(dict.fromkeys(own[:16])),
            seen_by=("libp2p mDNS",),
        )
        for peer_id, own in addresses.items()
    )


class _Names:
    """Collects the names of services; zeroconf calls it from its own thread."""

    def __init__(self) -> None:
        self.names: dict[str, set[str]] = {SERVICE: set(), LIBP2P_SERVICE: set()}

    def add_service(self, _: Any, kind: str, name: str) -> None:
        """A service was announced."""
        if len(self.names[kind]) < MAX_NAMES:
            self.names[kind].add(name)

    update_service = add_service

    def remove_service(self, _: Any, kind: str, name: str) -> None:
        """A service said goodbye."""
        # a device that said goodbye is not in the table, though it was there a second ago
        self.names[kind].discard(name)


def browse(seconds: float, interfaces: Sequence[str] | None = None) -> Announced:
    """Ask for both services and collect answers for `seconds`, on the given own addresses or on all."""
    from zeroconf import Error, InterfaceChoice, IPVersion, ServiceBrowser, Zeroconf

    chosen = list(interfaces) if interfaces else InterfaceChoice.All
    try:
        zeroconf = Zeroconf(interfaces=chosen, ip_version=IPVersion.V4Only)
    except (OSError, Error) as error:
        return Announced(faults=[f"mDNS cannot be used here: {error}"])
    names = _Names()
    try:
        ServiceBrowser(zeroconf, list(names.names), listener=names)  # type: ignore[arg-type]
        time.sleep(seconds)
        end_s = time.monotonic() + RESOLVE_S
        agents = [_agent(zeroconf, name, end_s) for name in sorted(names.names[SERVICE])]
        records = [
            record for name in sorted(names.names[LIBP2P_SERVICE]) for record in _texts(zeroconf, name)
        ]
    finally:
        zeroconf.close()
    return Announced(tuple(agent for agent in agents if agent), libp2p_peers(records))


def _agent(zeroconf: Any, name: str, end_s: float) -> FoundDevice | None:
    """The agent of that name; nobody is asked after `end_s`, and what was heard by then counts."""
    left_s = min(max(end_s - time.monotonic(), 0.001), 1.0)
    info = zeroconf.get_service_info(SERVICE, name, timeout=1000 * left_s)
    addresses = (
        tuple(address for address in info.parsed_scoped_addresses() if is_local(address))[:16] if info else ()
    )
    if not addresses or not info.port:
        return None
    host = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
    return FoundDevice(
        name=clean(name.removesuffix(f".{SERVICE}")),
        generation=AGENT,
        addresses=addresses,
        agent=f"{host}:{info.port}",
        seen_by=("agent mDNS",),
    )


def _texts(zeroconf: Any, name: str) -> list[bytes]:
    """TXT records of a libp2p service. It has no SRV record, so zeroconf never calls it
    complete: read the cache.
    """
    from zeroconf import DNSText  # type: ignore[attr-defined]

    return [record.text for record in zeroconf.cache.entries_with_name(name) if isinstance(record, DNSText)]
