"""The discovery as a table, as JSON, and what to say when devices are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from live.discover.found import AGENT, ZENOH, FoundDevice
from live.discover.look import Discovery
from simulator.units import format_bytes

__all__ = ["as_json", "missing", "nothing", "render"]

COLUMNS = ("device", "chip", "memory", "free", "est. TFLOPS", "est. bandwidth", "EXO", "addresses", "link")


def _gigabytes(value: float | None) -> str:
    return "?" if value is None else format_bytes(value)


def _row(found: FoundDevice) -> list[str]:
    program = (
        "no EXO seen" if found.generation in ("", AGENT) else f"{found.generation} {found.version}".strip()
    )
    shown = [
        address for address in found.addresses if not address.lower().startswith("fe80")
    ] or found.addresses
    return [
        found.name or found.node_id[:12] or "?",
        found.chip or "?",
        _gigabytes(found.memory_total_bytes),
        _gigabytes(found.memory_free_bytes),
        "?" if found.flop_per_s is None else f"{found.flop_per_s / 1e12:.3g}",
        "?" if found.memory_bytes_per_s is None else f"{found.memory_bytes_per_s / 1e9:.3g} GB/s",
        f"{program}{', agent' if found.agent else ''}",
        " ".join(shown[:3]),
        found.link_kind,
    ]


def render(discovery: Discovery, complaints: Sequence[str] = ()) -> RenderableType:
    """One table for people, the faults of the sources, and `complaints` about what is missing."""
    silent = len(discovery.found) - len(discovery.present)
    title = f"{len(discovery.present)} devices{f', and {silent} not heard of' if silent else ''}"
    table = Table(*COLUMNS, title=title, title_justify="left", box=None, pad_edge=False)
    for found in sorted(discovery.found, key=lambda row: (row.generation in ("", AGENT), row.name)):
        # Text and not markup: a device may be called "[red]"
        table.add_row(*map(Text, _row(found)))
    notes = [f"note: {fault}" for fault in discovery.faults]
    notes += [f"note: {probe.detail}" for probe in discovery.probes if probe.outcome not in ("exo", "legacy")]
    notes += [f"note: {note}" for found in discovery.found for note in found.notes]
    notes += [f"note: {note}" for note in (*_silent(discovery), *_unconfirmed(discovery))]
    return Group(table, *(Text(line) for line in (*notes, *complaints)))


def _silent(discovery: Discovery) -> list[str]:
    """Devices that a cluster still lists, and no longer hears: EXO takes 30 to 41 s to drop one."""
    if any(probe.health and probe.health.is_standing for probe in discovery.probes):
        return ["the cluster's state stands still: its master is lost, so who else is there is not known"]
    return [
        f"{row.name or row.node_id[:12]} is not counted: no sign of life for {row.silent_s:.0f} s, and a "
        "node reports every second; is EXO still running there?"
        for row in discovery.found
        if row.silent_s is not None
    ]


def _unconfirmed(discovery: Discovery) -> list[str]:
    """Sightings that are no rows: other libp2p programs, and namespaces that nobody of ours belongs to."""
    rows = {found.node_id for found in discovery.found}
    others = [peer for peer in discovery.announced.libp2p if peer.node_id not in rows]
    notes = []
    if others:
        addresses = " ".join(address for peer in others for address in peer.addresses[:1])
        notes.append(
            f"{len(others)} libp2p programs that do not answer as EXO (IPFS and others use the same name, "
            f"and EXO's port may be closed): {addresses}"
        )
    nameless = [
        found for found in discovery.found if found.generation == ZENOH and not found.memory_total_bytes
    ]
    if nameless:
        notes.append(
            f"{len(nameless)} EXO nodes answer by multicast, but their HTTP address is not known; name one "
            "machine with --host and the rest follows, or look for it with --sweep NETWORK"
        )
    return notes


def missing(
    discovery: Discovery, expect: int, named: Sequence[tuple[str, int]] = (), networks: Sequence[str] = ()
) -> list[str]:
    """Which of `expect` devices are missing, the likely causes and the ways out, in lines; nothing when there
    are enough. `networks` are those of this machine, which may be swept.
    """
    count = len(discovery.present)
    if count >= expect:
        return []
    first = f"found {count} of {expect} devices, {expect - count} missing"
    return [first, *_which(discovery, named), *_causes(discovery), *_ways_out(networks)]


def nothing(
    discovery: Discovery, named: Sequence[tuple[str, int]] = (), networks: Sequence[str] = ()
) -> list[str]:
    """The likely causes of an empty table and the ways out, in lines; nothing when there are devices."""
    if discovery.found:
        return []
    return [
        "found no devices",
        *_which(discovery, named),
        *_causes(discovery),
        "way out: start EXO on a device (docs/live-setup.md) and name it with --host ADDRESS",
        *_ways_out(networks),
        "way out: on a device without EXO start `sim live agent --listen ADDRESS`; it announces itself",
    ]


def _ways_out(networks: Sequence[str]) -> list[str]:
    """Asking every address of a network, which only its owner may decide."""
    return [
        f"way out: ask every address of this machine's network: sim live discover --sweep {network}"
        for network in networks
    ]


def _which(discovery: Discovery, named: Sequence[tuple[str, int]]) -> list[str]:
    lines = [
        f"missing: {probe.where} ({probe.outcome}: {probe.detail})"
        for probe in discovery.probes
        if (probe.host, probe.port) in named and not probe.found
    ]
    gone = dict.fromkeys(name for probe in discovery.probes for name in probe.departed)
    lines.extend(
        f"missing: {name} was in this cluster and has left it; is EXO still running there?" for name in gone
    )
    answered = {address.partition("%")[0] for found in discovery.found for address in found.addresses}
    silent = [address for address in discovery.heard.hellos if address.partition("%")[0] not in answered]
    lines.extend(f"missing: {address} says hello by multicast but does not answer us" for address in silent)
    return lines


def _causes(discovery: Discovery) -> list[str]:
    """The causes that fit what was seen, the likeliest first."""
    outcomes = {probe.outcome for probe in discovery.probes}
    heard = discovery.heard.answers or discovery.heard.hellos or discovery.announced.libp2p
    causes = []
    if not discovery.found and not {"refused", "silent", "filtered", "absent"} & outcomes:
        causes.append(
            "EXO and our agent run on none of the devices, this machine included, or are still starting"
        )
    if "refused" in outcomes:
        causes.append(
            "EXO does not run on a host that is up, or uses another --api-port: start it, or name host:port"
        )
    if "filtered" in outcomes:
        causes.append("a host lives, but its firewall drops TCP 52415: let it pass there")
    if "absent" in outcomes:
        causes.append("no machine has the address or name of a host: it is off, or has got another address")
    if "silent" in outcomes:
        causes.append("a host is off, on another subnet or guest Wi-Fi, or its firewall drops TCP 52415")
    if not heard:
        causes.append(
            "no announcement was heard at all: multicast is blocked (client isolation, guest Wi-Fi, VLAN, "
            "VPN), or the devices are on another network"
        )
    else:
        causes.append("the missing device is asleep, on another SSID or VLAN, or has not started EXO yet")
    causes.append(
        "mixed EXO versions do not see each other; name each device with --host and run `sim live doctor`"
    )
    return [f"likely cause: {cause}" for cause in causes]


def as_json(discovery: Discovery, complaints: Sequence[str] = ()) -> dict[str, Any]:
    """The same for programs; bytes, bytes/s, flop/s."""
    hosts = [
        {"host": probe.where, "outcome": probe.outcome, "detail": probe.detail} for probe in discovery.probes
    ]
    return {
        "devices": [asdict(found) for found in discovery.found],
        "hosts": hosts,
        "faults": list(discovery.faults),
        "missing": list(complaints),
    }
