"""All checks in their order, as a table, as JSON, as an exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from live.discover.found import clean
from live.doctor import cluster, device, network
from live.doctor.finding import Finding
from live.doctor.gather import Surroundings

__all__ = ["CHECKS", "as_json", "examine", "exit_code", "render"]

CHECKS: tuple[tuple[str, Callable[[Surroundings], Iterator[Finding]]], ...] = (
    ("EXO is there", cluster.exo_missing),
    ("ports are open", cluster.ports),
    ("one subnet", network.different_networks),
    ("multicast works", network.multicast),
    ("every node reaches every other", network.mesh),
    ("one EXO version", cluster.versions),
    ("no VPN in the path", network.vpn),
    ("no phone as access point", network.hotspot),
    ("Wi-Fi is fast and awake", network.wifi),
    ("the model fits", cluster.memory),
    ("clocks agree", cluster.clocks),
    ("no battery saver", device.power),
    ("devices are cool", device.heat),
    ("agents answer", device.agents),
    ("every device was looked at", device.unseen),
)
COLOURS = {"ok": "green", "unknown": "cyan", "warning": "yellow", "problem": "red"}


def examine(seen: Surroundings) -> tuple[Finding, ...]:
    """The findings of all checks; a check without any gives one that says ok."""
    found: list[Finding] = []
    for name, check in CHECKS:
        found.extend(tuple(check(seen)) or (Finding("ok", name),))
    return tuple(found)


def exit_code(findings: Sequence[Finding], *, strict: bool = False) -> int:
    """0 without problems; 1 with one, or with `strict` also for a warning."""
    bad = {"problem", "warning"} if strict else {"problem"}
    return 1 if any(finding.level in bad for finding in findings) else 0


def render(findings: Sequence[Finding]) -> RenderableType:
    """Problems first, each with its rule and the way out; what is fine in short."""
    lines: list[Text] = []
    for level in ("problem", "warning", "unknown", "ok"):
        for finding in findings:
            if finding.level == level:
                lines.extend(_lines(finding))
    return Group(*lines)


def _lines(finding: Finding) -> list[Text]:
    value = f": {clean(finding.value, 300)}" if finding.value else ""
    lines = [Text.assemble((f"{finding.level:8}", COLOURS[finding.level]), clean(finding.what, 200), value)]
    if finding.rule:
        lines.append(Text(f"         rule: {finding.rule}"))
    if finding.way_out:
        lines.append(Text(f"         way out: {finding.way_out}"))
    return lines


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """The same for programs."""
    levels = ("problem", "warning", "unknown", "ok")
    counts = {level: sum(finding.level == level for finding in findings) for level in levels}
    return {"findings": [asdict(finding) for finding in findings], "counts": counts}
