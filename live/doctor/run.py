"""All checks in their order, as a table, as JSON, as an exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.text import Text

from live.discover.found import clean
from live.doctor import cluster, device, health, looked, network, ways
from live.doctor.finding import DoctorFinding, unknown
from live.doctor.gather import Surroundings

__all__ = ["CHECKS", "Check", "as_json", "examine", "exit_code", "render"]

NAMES_SHOWN = 6


class Check(NamedTuple):
    """A check: `find` gives what is wrong, `looked_at` what it could look at,
    `needs` what would let it look.
    """

    name: str
    find: Callable[[Surroundings], Iterator[DoctorFinding]]
    looked_at: Callable[[Surroundings], Iterator[str]]
    needs: str


ASK = "start EXO on the devices and name one with --host ADDRESS"
STATE = f"only EXO 1.x tells: {ASK}"
AGENT = "start `sim live agent --listen ADDRESS` on each device and name them with --agents ADDRESS,ADDRESS"
CHECKS: tuple[Check, ...] = (
    Check("EXO is there", cluster.exo_missing, looked.nodes, ASK),
    Check("ports are open", cluster.ports, looked.ports, f"{ASK}, by its address in the LAN"),
    Check("one subnet", network.different_networks, looked.devices, f"{ASK}; or {AGENT}"),
    Check(
        "multicast works",
        network.multicast,
        looked.senders,
        f"another device with EXO or our agent must announce itself: {ASK}",
    ),
    Check(
        "every node reaches every other",
        network.mesh,
        looked.pairs,
        f"two EXO nodes at least, not legacy: {ASK}",
    ),
    Check("every node reports", health.reports, looked.states, STATE),
    Check("one id per machine", health.identities, looked.states, STATE),
    Check("runners are ready", health.runners, looked.instances, f"no instance is placed; {STATE}"),
    Check("the ring takes the best way", ways.ring, looked.rings, f"no ring of two nodes is placed; {STATE}"),
    Check("no way through containers", ways.edges, looked.pairs, f"two EXO nodes at least: {ASK}"),
    Check("Thunderbolt is set up", ways.thunderbolt, looked.ports_of_macs, f"no Mac told its ports; {STATE}"),
    Check("models are downloaded", health.downloads, looked.downloads, f"no download was told; {STATE}"),
    Check("disks have room", health.disks, looked.disks, f"no node told its disk; {STATE}"),
    Check("one EXO version", cluster.versions, looked.versions, ASK),
    Check("no VPN", network.vpn, looked.links, AGENT),
    Check("no phone as access point", network.hotspot, looked.addresses, AGENT),
    Check(
        "Wi-Fi is fast and awake",
        network.wifi,
        looked.radios,
        f"no Wi-Fi was seen; unless all are on cables, {AGENT}",
    ),
    Check("the model fits", cluster.memory, looked.memories, ASK),
    Check("clocks agree", cluster.clocks, looked.clocks, ASK),
    Check(
        "no battery saver", device.power, looked.savers, f"no device told whether it saves energy; {AGENT}"
    ),
    Check("devices are cool", device.heat, looked.temperatures, f"no device told its temperature; {AGENT}"),
    Check("agents answer", device.agents, looked.answering, AGENT),
    Check("every device was looked at", device.unseen, looked.visited, f"no other device was found; {ASK}"),
)
COLOURS = {"ok": "green", "unknown": "cyan", "warning": "yellow", "problem": "red"}


def examine(seen: Surroundings) -> tuple[DoctorFinding, ...]:
    """The findings of all checks; without any, a check says ok if it had something
    to look at, else unknown.
    """
    return tuple(
        finding for check in CHECKS for finding in tuple(check.find(seen)) or (_silence(check, seen),)
    )


def _silence(check: Check, seen: Surroundings) -> DoctorFinding:
    """What it means that a check found nothing."""
    names = list(dict.fromkeys(check.looked_at(seen)))
    if not names:
        return unknown(f"not checked: {check.name}", check.needs)
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return DoctorFinding("ok", check.name, f"looked at {', '.join(names[:NAMES_SHOWN])}{more}")


def exit_code(findings: Sequence[DoctorFinding], *, strict: bool = False) -> int:
    """0 without problems; 1 with one, or with `strict` also for a warning."""
    bad = {"problem", "warning"} if strict else {"problem"}
    return 1 if any(finding.level in bad for finding in findings) else 0


def render(findings: Sequence[DoctorFinding]) -> RenderableType:
    """Problems first, each with its rule and the way out; what is fine in short."""
    lines: list[Text] = []
    for level in ("problem", "warning", "unknown", "ok"):
        for finding in findings:
            if finding.level == level:
                lines.extend(_lines(finding))
    return Group(*lines)


def _lines(finding: DoctorFinding) -> list[Text]:
    value = f": {clean(finding.value, 300)}" if finding.value else ""
    lines = [Text.assemble((f"{finding.level:8}", COLOURS[finding.level]), clean(finding.what, 200), value)]
    if finding.rule:
        lines.append(Text(f"         rule: {finding.rule}"))
    if finding.way_out:
        lines.append(Text(f"         way out: {finding.way_out}"))
    return lines


def as_json(findings: Sequence[DoctorFinding]) -> dict[str, Any]:
    """The same for programs."""
    levels = ("problem", "warning", "unknown", "ok")
    counts = {level: sum(finding.level == level for finding in findings) for level in levels}
    return {"findings": [asdict(finding) for finding in findings], "counts": counts}
