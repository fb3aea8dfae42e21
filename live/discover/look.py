"""Run all sources of discovery at the same time and make one table of what they saw."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

from live.agent.addresses import is_local
from live.agent.facts import own_addresses
from live.discover import exo_udp, legacy_udp, mdns
from live.discover.agents import with_facts
from live.discover.catalogue import with_speed
from live.discover.exo_udp import Heard
from live.discover.found import FoundDevice, clean, merge
from live.discover.hosts import API_PORT, Probe, look_again, probe_all
from live.discover.mdns import Announced
from live.exo.ring import interface_kind
from live.exo.state import Interface
from simulator.errors import LiveError

__all__ = ["Discovery", "Options", "Sources", "discover", "networks_here", "read_host", "sweep"]

SWEEP_LIMIT = 1024
SWEEP_TIMEOUT_S = 0.5
MAX_ASKED = 64

Host = tuple[str, int]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Options:
    """What to look for: hosts (host, port) that the user names, and for how many seconds to listen."""

    hosts: tuple[Host, ...] = ()
    seconds: float = 4.0
    namespaces: tuple[str, ...] = (exo_udp.DEFAULT_NAMESPACE,)
    sweep: str = ""
    """a network such as 192.168.1.0/24 in which every address may be asked"""
    this_machine: bool = True
    """ask EXO's port on loopback too: a node here knows all others"""
    token: str = ""
    """of our agents; with it they tell what they run on"""


def _legacy(seconds: float) -> tuple[FoundDevice, ...]:
    with legacy_udp.open_socket() as listener:
        return legacy_udp.listen(listener, seconds)


@dataclass(frozen=True, slots=True)
class Sources:
    """The four ways to the network, replaceable in tests."""

    multicast: Callable[[float, Sequence[str]], Heard] = exo_udp.seek_everywhere
    legacy: Callable[[float], tuple[FoundDevice, ...]] = _legacy
    announced: Callable[[float], Announced] = mdns.browse
    probe: Callable[[Sequence[Host]], tuple[Probe, ...]] = probe_all
    again: Callable[[Sequence[Probe]], tuple[Probe, ...]] = look_again


@dataclass(frozen=True, slots=True)
class Discovery:
    """Everything that was seen, and what went wrong on the way."""

    found: tuple[FoundDevice, ...]
    probes: tuple[Probe, ...] = ()
    heard: Heard = field(default_factory=Heard)
    announced: Announced = field(default_factory=Announced)
    faults: tuple[str, ...] = ()

    @property
    def present(self) -> tuple[FoundDevice, ...]:
        """The devices that are really there: without those that the cluster lists and no longer hears."""
        return tuple(row for row in self.found if row.silent_s is None)


def read_host(text: str) -> Host:
    """'host', 'host:port', '[v6]:port', 'http://host:port' or 'exo://host:port'; raises LiveError."""
    rest = text.strip().removeprefix("http://").removeprefix("exo://").rstrip("/")
    if rest.startswith("["):
        host, _, port = rest[1:].partition("]")
        port = port.removeprefix(":")
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    else:
        host, port = rest, ""
    named = 0 < len(host) <= 253 and not any(character.isspace() or character in "/@?#" for character in host)
    if not named or (port and not (port.isdecimal() and 0 < int(port[:6]) < 65536)):
        raise LiveError(
            f"{text!r:.80} is no host; write host, host:port or http://host:port (EXO: port {API_PORT})"
        )
    return host, int(port) if port else API_PORT


def sweep(network: str, port: int = API_PORT, timeout_s: float = SWEEP_TIMEOUT_S) -> tuple[str, ...]:
    """Addresses of a local network on which something listens on `port`; raises
    LiveError for a wrong network.
    """
    try:
        parsed = ipaddress.ip_network(network, strict=False)
    except ValueError as error:
        raise LiveError(f"{network!r:.60} is no network; write for example 192.168.1.0/24") from error
    if parsed.num_addresses > SWEEP_LIMIT or not is_local(str(parsed.network_address + 1)):
        raise LiveError(
            f"{network}: only local networks of at most {SWEEP_LIMIT} addresses are swept; name hosts"
        )

    def open_port(address: str) -> bool:
        try:
            socket.create_connection((address, port), timeout=timeout_s).close()
        except OSError:
            return False
        return True

    addresses = [str(address) for address in parsed.hosts()]
    with ThreadPoolExecutor(max_workers=128, thread_name_prefix="sweep") as pool:
        answers = pool.map(open_port, addresses)
        return tuple(address for address, is_open in zip(addresses, answers, strict=True) if is_open)


def networks_here(addresses: Sequence[tuple[str, str, int]] | None = None) -> tuple[str, ...]:
    """Networks of this machine that `sweep` takes, of its (interface, address, prefix length).

    Of a network that is too large, the 256 addresses around our own; bridges to containers and tunnels
    lead to no other device.
    """
    found = []
    for name, address, prefix in own_addresses() if addresses is None else addresses:
        kind = interface_kind(Interface(name, address))
        is_lan = is_local(address) and not address.startswith("127.") and ":" not in address
        if kind in ("container", "vpn") or not is_lan:
            continue
        most = prefix if 2 ** (32 - prefix) <= SWEEP_LIMIT else 24
        if most < 31:
            found.append(str(ipaddress.ip_network(f"{address}/{most}", strict=False)))
    return tuple(dict.fromkeys(found))


def discover(options: Options = Options(), sources: Sources = Sources()) -> Discovery:
    """Look for devices with all sources at once; takes `options.seconds` and what the asked hosts need.

    Only hosts that the user named, this machine, and local addresses that announced themselves are asked. A
    source that fails is a fault in the result, not the end. Raises LiveError for a wrong sweep or namespace.
    """
    faults: list[str] = []
    for namespace in options.namespaces:
        exo_udp.namespace_of(namespace)  # wrong ones are refused before anything is sent
    named = [
        *options.hosts,
        *((address, API_PORT) for address in (sweep(options.sweep) if options.sweep else ())),
    ]
    own = [("127.0.0.1", API_PORT)] if options.this_machine else []
    with ThreadPoolExecutor(max_workers=4, thread_name_prefix="discover") as pool:
        multicast = pool.submit(sources.multicast, options.seconds, options.namespaces)
        legacy = pool.submit(sources.legacy, options.seconds)
        announced = pool.submit(sources.announced, options.seconds)
        probed = pool.submit(sources.probe, [*named, *own])
        # each source for itself: a port that is taken must not hide what the others saw
        heard = _result(multicast.result, Heard(), "EXO multicast", faults)
        none: tuple[FoundDevice, ...] = ()
        broadcast = _result(legacy.result, none, f"legacy broadcast (UDP {legacy_udp.PORT})", faults)
        services = _result(announced.result, Announced(), "mDNS", faults)
        first = [answer for answer in probed.result() if answer.found or (answer.host, answer.port) in named]
    # An interface that is down is no fault as long as another one could be used.
    faults.extend((*(() if heard.greeted else heard.faults), *services.faults))
    rows = [*heard.found(), *broadcast, *services.agents, *(row for answer in first for row in answer.found)]
    # A libp2p peer may be any program; it becomes a row when an EXO answers at its address.
    # That nothing listens at such an address is no fault: nobody said that EXO runs there.
    asked = sources.probe(_further([*rows, *services.libp2p], first))
    second = [answer for answer in asked if answer.outcome != "refused"]
    confirmed = [row for answer in second for row in answer.found]
    known = {row.node_id for row in (*rows, *confirmed)}
    libp2p = [row for row in services.libp2p if row.node_id in known]
    merged = merge([*rows, *confirmed, *libp2p])
    found = tuple(with_speed(row) for row in (with_facts(merged, options.token) if options.token else merged))
    # only now: between the looks lie the seconds of listening, in which a living node reports
    probes = sources.again([*first, *second])
    return Discovery(_with_silence(found, probes), probes, heard, services, tuple(faults))


def _with_silence(rows: Sequence[FoundDevice], probes: Sequence[Probe]) -> tuple[FoundDevice, ...]:
    """The rows, those marked of which their cluster hears nothing; whoever answered us himself is there."""
    silent: dict[str, float] = {}
    for health in (probe.health for probe in probes if probe.health):
        silent |= health.silent
        if health.is_standing:  # without a master nobody knows who lives
            silent |= {node.node_id: health.waited_s for node in health.state.nodes}
    return tuple(
        row if row.api or row.node_id not in silent else replace(row, silent_s=silent[row.node_id])
        for row in rows
    )


def _result(get: Callable[[], Value], default: Value, what: str, faults: list[str]) -> Value:
    try:
        return get()
    except OSError as error:
        faults.append(f"{what} could not be used: {clean(error.strerror or str(error), 120)}")
        return default


def _further(rows: Sequence[FoundDevice], asked: Sequence[Probe]) -> list[Host]:
    """The first IPv4 addresses of devices whose HTTP interface has not answered yet;
    EXO listens on IPv4 only.
    """
    answered = {row.node_id for answer in asked for row in answer.found if row.api and row.node_id}
    done = {answer.host for answer in asked}
    hosts: list[Host] = []
    for row in rows:
        if row.node_id in answered and row.node_id:
            continue
        usable = [address for address in row.addresses if ":" not in address and is_local(address)]
        hosts.extend((address, API_PORT) for address in usable[:1] if address not in done)
    # announcements are unsigned: a flood of them must not make us ask the whole network
    return list(dict.fromkeys(hosts))[:MAX_ASKED]
