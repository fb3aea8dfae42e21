"""Instances with our own layers and ring order: equal to those that EXO really took, in the words of each version."""

from __future__ import annotations

import json
from typing import Any

import pytest

from live.errors import NotReachedYet, PlacementRefused
from live.exo.build import build_instance
from live.exo.state import ClusterState, parse_instance, parse_state
from tests.live.exo.fake import rest
from tests.live.replay import DATA

A, B, C = (
    "c23be1351091c5fea37ee056335b39d0",
    "d66a68583f2072fb2d9bbdc3b7b39d75",
    "8f767940680fa000a79b1c14c4bac7f5",
)


def idle() -> dict[str, Any]:
    """Three nodes without an instance."""
    return rest("state_idle_3nodes")  # type: ignore[no-any-return]


def built(raw: dict[str, Any], layers: Any) -> dict[str, Any]:
    state: ClusterState = parse_state(raw)
    return build_instance(parse_instance(rest("instance_placement_min2")), state, layers)


def old_state() -> dict[str, Any]:
    """The form of 1.0.60: profiles in the topology's nodes, edges in a list (exo-explore/exo, v1.0.60-alpha.1)."""

    def node(node_id: str, name: str) -> dict[str, Any]:
        memory = {"ramTotal": {"inBytes": 16 * 2**30}, "ramAvailable": {"inBytes": 8 * 2**30}}
        return {
            "nodeId": node_id,
            "nodeProfile": {
                "chipId": "Apple M2",
                "modelId": "Mac mini",
                "friendlyName": name,
                "memory": memory,
                "networkInterfaces": [{"name": "en0", "ipAddress": "10.0.0.1"}],
                "system": {},
            },
        }

    edges = [
        {"localNodeId": a, "sendBackNodeId": b, "sendBackMultiaddr": {"address": f"/ip4/10.0.0.{n}/tcp/4001"}}
        for a, b, n in (("12D3a", "12D3b", 2), ("12D3b", "12D3a", 1))
    ]
    return {
        "instances": {},
        "runners": {},
        "tasks": {},
        "lastEventAppliedIdx": 3,
        "topology": {"nodes": [node("12D3a", "mini a"), node("12D3b", "mini b")], "connections": edges},
    }


def test_oldest_version() -> None:
    state = parse_state(old_state())
    assert [(node.name, node.chip, node.free_bytes) for node in state.nodes] == [
        ("mini a", "Apple M2", 8 * 2**30),
        ("mini b", "Apple M2", 8 * 2**30),
    ]
    assert state.addresses("12D3a", "12D3b") == (("10.0.0.2", "unknown"),)
    shard = {
        "PipelineShardMetadata": {
            "modelMeta": {"modelId": "m", "nLayers": 4},
            "deviceRank": 0,
            "worldSize": 1,
            "startLayer": 0,
            "endLayer": 4,
            "nLayers": 4,
        }
    }
    template = parse_instance(
        {
            "MlxRingInstance": {
                "instanceId": "i",
                "hosts": [],
                "shardAssignments": {
                    "modelId": "m",
                    "runnerToShard": {"r": shard},
                    "nodeToRunner": {"12D3a": "r"},
                },
            }
        }
    )
    body = build_instance(template, state, [("12D3b", 0, 1), ("12D3a", 1, 4)])["MlxRingInstance"]
    assert [host["ip"] for host in body["hosts"]] == ["10.0.0.2", "10.0.0.1"]
    assert "hostsByNode" not in body
    assert all(
        "modelMeta" in s["PipelineShardMetadata"] for s in body["shardAssignments"]["runnerToShard"].values()
    )


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("b2_a14", [(B, 0, 2), (A, 2, 16)]),
        ("a14_b2", [(A, 0, 14), (B, 14, 16)]),
        ("b16", [(B, 0, 16)]),
        ("a5_b5_c6", [(A, 0, 5), (B, 5, 10), (C, 10, 16)]),
        ("c6_b5_a5", [(C, 0, 6), (B, 6, 11), (A, 11, 16)]),
    ],
)
def test_own_placement_is_what_exo_took(name: str, layers: list[tuple[str, int, int]]) -> None:
    """Ids and ports apart, the instance equals the recorded one with which EXO really ran that split."""
    state = parse_state(rest("state_idle_3nodes"))
    nodes = {node.name: node.node_id for node in state.nodes}
    assert nodes == {"node-a": A, "node-b": B, "node-c": C}
    template = parse_instance(rest("instance_placement_min3"))
    made = build_instance(template, state, layers)
    record = json.loads((DATA / f"exo/rest/post_instance_custom_{name}.json").read_text())
    assert plain(made) == plain(record["request"]["body"]["instance"])


def plain(instance: dict[str, Any]) -> Any:
    """An instance without what is random or may be left out."""
    body = instance["MlxRingInstance"]
    assigned = body["shardAssignments"]
    shards = {}
    for node, runner in assigned["nodeToRunner"].items():
        shard = dict(assigned["runnerToShard"][runner]["PipelineShardMetadata"])
        shard.pop("immediateException", None)
        shard.pop("shouldTimeout", None)
        shards[node] = shard
    ports = {host["port"] for hosts in body["hostsByNode"].values() for host in hosts} - {0}
    assert ports == {body["ephemeralPort"]}
    hosts = {node: [host["ip"] for host in row] for node, row in body["hostsByNode"].items()}
    return assigned["modelId"], shards, hosts


def test_four_in_a_ring_know_their_neighbours_only() -> None:
    raw = rest("state_idle_3nodes")
    ids = [A, B, C, "d4"]
    raw["topology"] = {
        "nodes": ids,
        "connections": {
            a: {
                b: [{"sinkMultiaddr": {"address": f"/ip4/10.0.0.{ids.index(b)}/tcp/1"}}]
                for b in ids
                if b != a
            }
            for a in ids
        },
    }
    made = build_instance(
        parse_instance(rest("instance_placement_min1")),
        parse_state(raw),
        [(node, 4 * i, 4 * i + 4) for i, node in enumerate(ids)],
    )
    row = made["MlxRingInstance"]["hostsByNode"][B]
    assert [host["ip"] for host in row] == ["10.0.0.0", "0.0.0.0", "10.0.0.2", "198.51.100.1"]
    assert row[3]["port"] == 0


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([(A, 0, 8), (B, 9, 16)], "layer 8 comes next"),
        ([(A, 0, 8), (B, 8, 15)], "end at layer 15"),
        ([(A, 0, 8), (A, 8, 16)], "twice"),
        ([("nobody", 0, 16)], "no node 'nobody'"),
        ([(A, 0, 0), (B, 0, 16)], "at least one"),
    ],
)
def test_wrong_placements_never_reach_exo(layers: Any, message: str) -> None:
    with pytest.raises(PlacementRefused, match=message):
        built(idle(), layers)


def test_neighbours_without_a_way_are_refused() -> None:
    raw = idle()
    del raw["topology"]["connections"][A][B]
    with pytest.raises(NotReachedYet, match="node-a has not reached node-b yet"):
        built(raw, [(A, 0, 8), (B, 8, 16)])
