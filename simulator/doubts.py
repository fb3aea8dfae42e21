"""Doubts about a placement by tensor: what its engine does not look at, and what its cables cannot be; and
about an engine that stands for another.
"""

from __future__ import annotations

from collections import Counter

from simulator import catalog
from simulator.engine.base import Engine
from simulator.placement.memory import MemoryUse
from simulator.runtime.job import Job
from simulator.scenario import Scenario
from simulator.units import format_bytes

__all__ = ["cable_doubts", "overcommitted", "split_doubts", "stand_in_doubts"]

SMALL_GROUPS = {"mx": 32, "nv": 16}
"""Values that share a scale in formats of the OCP microscaling specification (MXFP4), and in NVFP4."""
CABLES = ("thunderbolt", "usb4")
"""How the names of networks begin whose cable takes a Thunderbolt port."""


def stand_in_doubts(scenario: Scenario, flow: Engine) -> list[str]:
    """That another engine is meant than the one that is simulated."""
    meant = scenario.engine.stands_for
    if meant is None:
        return []
    return [
        f"{meant} is meant, and {flow.name} stands for it: what differs there is not simulated, and "
        "times are less sure by as much as such engines were seen to differ; run both once on one device and "
        "calibrate, or compare"
    ]


def split_doubts(scenario: Scenario, flow: Engine, job: Job) -> list[str]:
    """What would stop ranks that split every layer: lacking links, groups of a quantisation cut in two."""
    if not job.placement.splits_layers:
        return []
    found, ranks = [], len(job.shards)
    backend = flow.facts.backend(scenario.engine.backend)
    lacking = backend.lacks(job.cluster, job.placement.devices)
    if lacking and ranks > 1:
        found.append(f"{flow.name} over {backend.name} would not start: {lacking}")
    bits = scenario.model.quantisation or ""
    group = SMALL_GROUPS.get(bits[:2].lower(), flow.facts.quantisation_group)
    if group is None or flow.facts.quantisation_group is None or bits.lower() in ("bf16", "fp16", "fp32"):
        return found
    cut = [width for width in scenario.model.split_widths or () if width % (ranks * group)]
    if cut:
        widths = " and ".join(f"{width:,} columns are {width / ranks:g} for each" for width in cut)
        found.append(
            f"{flow.name} cannot split {bits} weights among {ranks} devices: {widths}, no multiple of the "
            f"{group} that share a scale; take another number of devices, or weights of 16 bits"
        )
    return found


def overcommitted(flow: Engine, memory: tuple[MemoryUse, ...]) -> str:
    """What an engine that compares sums alone does to devices that are too small, in words; else nothing."""
    small = [row for row in memory if not row.fits]
    if not flow.splits_layers or not small or sum(row.over_bytes for row in small) == 0:
        return ""
    has, needs = sum(row.cap_bytes for row in memory), sum(row.total_bytes for row in memory)
    if needs > has:
        return ""
    rows = ", ".join(
        f"{row.device} with {format_bytes(row.total_bytes)} for {format_bytes(row.cap_bytes)}"
        for row in small
    )
    sums = f"{format_bytes(needs)} of {format_bytes(has)}"
    return f"{flow.name} compares only sums ({sums}), so it overcommits {rows}"


def cable_doubts(scenario: Scenario) -> list[str]:
    """Devices with more Thunderbolt or USB4 cables than their kind has ports."""
    used = Counter(
        name for wire in scenario.wires if (wire.kind or "").startswith(CABLES) for name in wire.between
    )
    found = []
    for name, cables in used.items():
        kind = scenario.devices[name].kind
        ports = catalog.thunderbolt_ports(kind) if kind else None
        if ports is not None and cables > ports:
            found.append(
                f"{name}: {cables} cables go to a {kind}, which has {ports} ports for them; chain the "
                "machines in a ring (two cables each) instead of a full mesh, or use fewer"
            )
    return found
