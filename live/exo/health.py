"""What a cluster says of its own health: reports, runners, downloads, disks, Thunderbolt, former ids.

Types after EXO of 2026-06 (shared/types: profiling, thunderbolt, worker/downloads, worker/runners).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from live.exo.casing import either
from live.exo.diagnose import SILENT_S
from live.exo.state import ClusterState, Runner, StateInstance, names_of, parse_state
from live.number import finite

__all__ = [
    "ClusterHealth",
    "Download",
    "NodeHealth",
    "StuckRunner",
    "downloads_of",
    "health_of",
    "silent_nodes",
]

STANDING_S = 3.0  # a living master numbers several events per second (recordings)
STARTING = (
    "absent",
    "RunnerIdle",
    "RunnerConnecting",
    "RunnerConnected",
    "RunnerLoading",
    "RunnerLoaded",
    "RunnerWarmingUp",
)


@dataclass(frozen=True, slots=True)
class NodeHealth:
    """What one node tells of its disk and its Thunderbolt ports; None where it does not tell."""

    disk_bytes: float | None = None
    disk_free_bytes: float | None = None
    has_rdma: bool | None = None
    """RDMA over Thunderbolt is switched on; only Macs from macOS 26.2 on tell."""
    has_bridge: bool | None = None
    """The network service that bridges the Thunderbolt ports is on."""
    bridge_service: str = "Thunderbolt Bridge"
    port_bits_per_s: float | None = None
    """Of the fastest Thunderbolt port."""
    os_build: str = ""


@dataclass(frozen=True, slots=True)
class Download:
    """A model on one node: `status` is Pending, Ongoing, Completed or Failed."""

    node_id: str
    model_id: str
    status: str
    share: float | None = None
    """Of its bytes that are there."""
    missing_bytes: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class StuckRunner:
    """A runner on its way to ready, and for how long it has not got on (s) while we looked."""

    node_id: str
    runner: Runner
    since_s: float


@dataclass(frozen=True, slots=True)
class ClusterHealth:
    """One look at a cluster, or two: then `waited_s` lie between `state` and `later`."""

    state: ClusterState
    nodes: Mapping[str, NodeHealth] = field(default_factory=dict)
    bridge_cycles: tuple[tuple[str, ...], ...] = ()
    downloads: tuple[Download, ...] = ()
    former_ids: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By the name of a living node: ids under which the cluster knew it before."""
    later: ClusterState | None = None
    waited_s: float = 0.0

    @property
    def newest(self) -> ClusterState:
        """The last look."""
        return self.later or self.state

    @property
    def is_standing(self) -> bool:
        """Nothing was numbered between the looks: there is no master."""
        return (
            self.later is not None
            and self.waited_s >= STANDING_S
            and 0 <= self.state.event_index == self.later.event_index
        )

    @property
    def silent(self) -> dict[str, float]:
        """Seconds since the last report of each node that should have reported since, by its id."""
        return silent_nodes(self.newest)

    def starting(self, instance: StateInstance) -> tuple[StuckRunner, ...]:
        """Runners of the instance that are neither ready nor failed, with how long that was watched."""
        before = {shard.runner_id: runner for shard, runner in self.state.runners_of(instance)}
        return tuple(
            StuckRunner(shard.node_id, now, self.waited_s if before.get(shard.runner_id) == now else 0.0)
            for shard, now in self.newest.runners_of(instance)
            if now.status in STARTING
        )


def silent_nodes(state: ClusterState) -> dict[str, float]:
    """Seconds since the last report of each node of one state that others have outlived by 5 s, by its id."""
    return {node_id: quiet_s for node_id, quiet_s in state.silences_s().items() if quiet_s > SILENT_S}


def health_of(raw: Any) -> ClusterHealth:
    """The health in an answer of `GET /state`; raises ApiChanged when it is none."""
    state = parse_state(raw)
    living = [node.node_id for node in state.nodes]
    cycles = either(raw, "thunderbolt_bridge_cycles")
    return ClusterHealth(
        # a whole state takes megabytes, and every node of a cluster may be asked for it
        replace(state, raw={}),
        {node_id: _node(raw, node_id) for node_id in living},
        tuple(
            tuple(map(str, cycle))
            for cycle in (cycles if isinstance(cycles, list) else ())
            # EXO computes the list when a bridge is switched, so it may name nodes that have left
            if isinstance(cycle, list) and set(map(str, cycle)) <= set(living)
        ),
        tuple(downloads_of(raw, living)),
        _former_ids(raw, state),
    )


def _node(raw: dict[str, Any], node_id: str) -> NodeHealth:
    def part(key: str) -> dict[str, Any]:
        return _dict(_dict(raw, key), node_id)

    disk, bridge, rdma = part("node_disk"), part("node_thunderbolt_bridge"), part("node_rdma_ctl")
    ports = part("node_thunderbolt").get("interfaces")
    speeds = [_bits_per_s(port) for port in ports] if isinstance(ports, list) else []
    return NodeHealth(
        _bytes(either(disk, "total")),
        _bytes(either(disk, "available")),
        _flag(rdma.get("enabled")),
        _flag(bridge.get("enabled")),
        str(either(bridge, "service_name") or "Thunderbolt Bridge")[:60],
        max((speed for speed in speeds if speed), default=None),
        str(either(part("node_identities"), "os_build_version") or "")[:40],
    )


def _bits_per_s(port: Any) -> float | None:
    """'Up to 80 Gb/s' as a number, which is how macOS' system_profiler writes it and EXO hands it on."""
    told = re.search(r"(\d+) ?Gb/s", str(either(port, "link_speed"))) if isinstance(port, dict) else None
    return float(told.group(1)) * 1e9 if told else None


def downloads_of(raw: Mapping[str, Any], living: Iterable[str]) -> Iterator[Download]:
    """What a raw state says of downloads on the nodes `living`."""
    for node_id in living:
        listed = _dict(raw, "downloads").get(node_id)
        for entry in listed if isinstance(listed, list) else ():
            if isinstance(entry, dict) and len(entry) == 1:
                tag, body = next(iter(entry.items()))
                if isinstance(body, dict):
                    yield _download(node_id, str(tag).removeprefix("Download"), body)


def _download(node_id: str, status: str, body: dict[str, Any]) -> Download:
    shard = next(iter(_dict(body, "shard_metadata").values()), None)
    card = _dict(shard, "model_card") or _dict(shard, "model_meta")  # model_meta: up to 1.0.63
    progress = _dict(body, "download_progress") or body
    total = _bytes(either(progress, "total")) or _bytes(either(card, "storage_size"))
    there = total if status == "Completed" else _bytes(either(progress, "downloaded"))
    share, missing = (there / total, total - there) if total and there is not None else (None, total)
    error = str(either(body, "error_message") or "")[:300]
    return Download(node_id, str(either(card, "model_id") or ""), status, share, missing, error)


def _former_ids(raw: dict[str, Any], state: ClusterState) -> dict[str, tuple[str, ...]]:
    """EXO never forgets an identity: a node that restarts leaves its old one behind."""
    living = {node.node_id: node.name for node in state.nodes}
    found: dict[str, list[str]] = {}
    for node_id, name in names_of(raw).items():
        if node_id not in living and name in living.values():
            found.setdefault(name, []).append(node_id)
    return {name: tuple(ids) for name, ids in found.items()}


def _dict(raw: Any, key: str) -> dict[str, Any]:
    value = either(raw, key) if isinstance(raw, dict) else None
    return value if isinstance(value, dict) else {}


def _flag(raw: Any) -> bool | None:
    return raw if isinstance(raw, bool) else None


def _bytes(raw: Any) -> float | None:
    value = either(raw, "in_bytes") if isinstance(raw, dict) else raw
    return finite(value)
