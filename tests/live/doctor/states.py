"""States of EXO clusters that are ill: from public issues, from recordings, and recordings changed as EXO's types allow.

`field_states.json.gz` holds the states behind exo-explore/exo#2295 (ring on Wi-Fi), #1137 (warming up for ever), #2194
(stale nodes), #858 (docker0), and a loop of bridges as EXO lists it, each as its cluster answered `GET /state`.
"""

from __future__ import annotations

import copy
import gzip
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from live.exo.state import parse_state
from tests.live.exo.fake import rest
from tests.live.replay import DATA

__all__ = [
    "IDS",
    "aged",
    "best_ring",
    "changed",
    "downloading",
    "field_state",
    "macs",
    "master_killed",
    "recorded",
    "worker_killed",
]

FIELD: dict[str, Any] = json.loads(gzip.decompress((DATA / "exo/field_states.json.gz").read_bytes()))
IDS = dict(zip(("node-a", "node-b", "node-c"), rest("state_running_min3")["topology"]["nodes"], strict=True))
EPOCH = datetime(2026, 11, 22, 10, 40, tzinfo=UTC)


def field_state(name: str) -> Any:
    """One of the states of public issues."""
    return copy.deepcopy(FIELD[name])


def recorded() -> Any:
    """Three nodes, one instance over all of them, as recorded."""
    return rest("state_running_min3")


def changed(raw: Any, **changes: Any) -> Any:
    """The state with other values under some keys."""
    return copy.deepcopy(raw) | changes


def aged(raw: Any, ages_s: dict[str, float], events: int = 0) -> Any:
    """The state some events later, its nodes having reported so many seconds ago."""
    seen = {IDS[name]: (EPOCH - timedelta(seconds=age_s)).isoformat() for name, age_s in ages_s.items()}
    return changed(raw, lastSeen=seen, lastEventAppliedIdx=raw["lastEventAppliedIdx"] + events)


def _ages(name: str, at_s: float) -> dict[str, float]:
    samples = json.loads((DATA / f"exo/dropout/{name}.json").read_text())["last_seen_age_samples"]
    return min(samples, key=lambda sample: abs(sample[0] - at_s))[1]


def worker_killed(at_s: float, events: int = 0) -> Any:
    """Reports so many seconds after node-c was killed, as recorded; it stays in the topology for 39 s."""
    return aged(recorded(), _ages("kill9_worker_node_rank2", at_s), events)


def master_killed(at_s: float) -> Any:
    """The same after the master was killed: nothing moves any more."""
    return aged(recorded(), _ages("kill9_master_node_rank0", at_s))


def macs(name: str = "bridge_loop", **health: Any) -> Any:
    """Macs on Thunderbolt 5 with RDMA on and the bridge off, with changes to what they tell."""
    raw = field_state(name)
    nodes = raw["topology"]["nodes"]
    raw["thunderboltBridgeCycles"] = []
    raw["nodeThunderboltBridge"] = {
        node: {"enabled": False, "exists": True, "serviceName": None} for node in nodes
    }
    raw["nodeRdmaCtl"] = {node: {"enabled": True} for node in nodes}
    port = {"rdmaInterface": "rdma_en2", "domainUuid": "u", "linkSpeed": "Up to 80 Gb/s"}
    raw["nodeThunderbolt"] = {node: {"interfaces": [port]} for node in nodes}
    for key, change in health.items():
        raw[key] = {**raw[key], **{nodes[index]: value for index, value in change.items()}}
    return raw


def joined(raw: Any, *pairs: tuple[int, int]) -> Any:
    """The state with RDMA edges, both ways, between these nodes."""
    nodes, edges = raw["topology"]["nodes"], raw["topology"]["connections"]
    ports = {"sourceRdmaIface": "rdma_en2", "sinkRdmaIface": "rdma_en2"}
    for one, other in (*pairs, *((b, a) for a, b in pairs)):
        edges.setdefault(nodes[one], {}).setdefault(nodes[other], []).append(ports)
    return raw


def best_ring(name: str = "ring_on_wifi") -> Any:
    """The ring of a field case, placed anew over Thunderbolt."""
    text = json.dumps(field_state(name)["instances"]).replace('"ip": "192.168.1.6', '"ip": "169.254.10.')
    return changed(field_state(name), instances=json.loads(text))


def downloading(status: str, **body: Any) -> Any:
    """The recorded cluster, whose node-b has its model in this state of download."""
    raw = recorded()
    (instance,) = parse_state(raw).instances.values()
    shard = next(iter(instance.raw["MlxRingInstance"]["shardAssignments"]["runnerToShard"].values()))
    entry = {
        f"Download{status}": {"nodeId": IDS["node-b"], "shardMetadata": shard, "modelDirectory": "", **body}
    }
    return changed(raw, downloads={IDS["node-b"]: [entry]})
