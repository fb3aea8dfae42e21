"""Tensor instances on EXO: placed by it, built by us, measured, written down, on what real clusters answered."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from live.errors import LiveError, PlacementRefused
from live.exo.build import build_instance
from live.exo.client import ExoClient
from live.exo.placing import is_tensor
from live.exo.scenario import scenario_of
from live.exo.state import parse_instance, parse_state
from simulator.files import dump, load
from simulator.prepare import prepare
from simulator.result.measurement import read_measurement
from simulator.scenario import Scenario
from tests.live.doctor import states
from tests.live.exo.fake import MODEL, FakeExo, rest
from tests.live.exo.test_build import A, B, C
from tests.live.test_measure import QUICK, measure, scenario

RECORDED = Path(__file__).parents[3] / "results" / "exo" / "tensor" / "measurements"
TENSOR = {"name": "exo", "sharding": "tensor"}


def preview() -> dict[str, Any]:
    """The Tensor instance of two nodes that EXO itself would have made."""
    found = rest("instance_previews")["previews"]
    return next(one["instance"] for one in found if one["sharding"] == "Tensor" and "TensorShard" in str(one))


def shards(instance: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(tag, body) of each node's shard, in order of rank."""
    found = [
        next(iter(one.items()))
        for one in instance["MlxRingInstance"]["shardAssignments"]["runnerToShard"].values()
    ]
    return sorted(found, key=lambda one: one[1]["deviceRank"])


def split(nodes: list[str], template: str = "instance_placement_min3", card: Any = None) -> dict[str, Any]:
    raw = copy.deepcopy(rest(template))
    for _, shard in shards(raw):
        shard["modelCard"] |= card or {}
    state = parse_state(rest("state_idle_3nodes"))
    return build_instance(parse_instance(raw), state, [(node, 0, 16) for node in nodes])


def test_a_built_instance_is_what_exo_would_have_made() -> None:
    """Ids and ports apart, from the pipeline's template as from Tensor's own."""
    wanted = preview()
    nodes = list(wanted["MlxRingInstance"]["hostsByNode"])
    ranked = {
        runner: node for node, runner in wanted["MlxRingInstance"]["shardAssignments"]["nodeToRunner"].items()
    }
    order = sorted(
        ranked,
        key=lambda runner: wanted["MlxRingInstance"]["shardAssignments"]["runnerToShard"][runner][
            "TensorShardMetadata"
        ]["deviceRank"],
    )
    made = split([ranked[runner] for runner in order])
    assert shards(made) == shards(wanted)
    assert set(made["MlxRingInstance"]) == set(wanted["MlxRingInstance"])
    assert set(made["MlxRingInstance"]["hostsByNode"]) == set(nodes)
    state = parse_state(rest("state_idle_3nodes"))
    again = build_instance(parse_instance(made), state, [(A, 0, 9), (B, 9, 16)])
    assert [tag for tag, _ in shards(again)] == ["PipelineShardMetadata"] * 2, "and back"


@pytest.mark.parametrize(
    ("nodes", "card", "words"),
    [
        ([A, B, C], {}, r"3 nodes cannot split this model by tensor: its hidden size \(512\)"),
        ([A, B], {"numKeyValueHeads": 1}, r"its KV heads \(1\) are no multiple of 2"),
        ([A, B], {"supportsTensor": False}, "cannot shard it by tensor"),
        ([A, A], {}, "appears twice"),
        ([A, "nobody"], {}, "no node 'nobody'"),
    ],
)
def test_what_exo_would_not_check_is_refused(nodes: list[str], card: dict[str, Any], words: str) -> None:
    with pytest.raises(PlacementRefused, match=words):
        split(nodes, card=card)


def asked(**changes: Any) -> Scenario:
    work = {"prompt_tokens": 60, "output_tokens": 16, "runs": 1}
    pair = {"devices": {"node-a": {}, "node-b": {}}, "placement": {}, "engine": TENSOR, "workload": work}
    return scenario(**pair | changes)


@pytest.mark.timed
def test_exos_own_tensor_placement_is_measured(tmp_path: Path) -> None:
    """The recorded pace of two ranks by tensor, token by token, comes out as it went in."""
    times_s = read_measurement(RECORDED / "T_tensor2_24L_0ms.jsonl.gz").token_times_s()[0, 0]
    fake = FakeExo(times_s=times_s.tolist())
    _, found = measure(fake, tmp_path / "m.jsonl", asked())
    assert fake.placements == [("Tensor", "MlxRing")]
    assert [tag for tag, _ in shards(fake.posted[0])] == ["TensorShardMetadata"] * 2
    assert found.provenance.cluster["sharding"] == "Tensor"
    assert [(shard.start_layer, shard.end_layer) for shard in found.provenance.placement] == [(0, 16)] * 2
    gaps_s = np.diff(found.token_times_s()[0, 0])
    assert np.median(gaps_s) == pytest.approx(np.median(np.diff(times_s[: len(gaps_s) + 1])), rel=0.2)


@pytest.mark.timed
def test_a_tensor_instance_in_an_order_of_ours(tmp_path: Path) -> None:
    fake = FakeExo()
    measure(fake, tmp_path / "m.jsonl", asked(placement={"order": ["node-b", "node-a"]}))
    (instance,) = fake.posted
    assigned = instance["MlxRingInstance"]["shardAssignments"]
    assert list(assigned["nodeToRunner"]) == [B, A]
    assert [body["deviceRank"] for _, body in shards(instance)] == [0, 1]
    with pytest.raises(LiveError, match="EXO's choice alone"):
        measure(
            fake,
            tmp_path / "n.jsonl",
            asked(engine=TENSOR | {"backend": "jaccl"}, placement={"order": ["node-a", "node-b"]}),
        )


@pytest.mark.timed
def test_why_exo_places_no_tensor_instance(tmp_path: Path) -> None:
    """Three nodes for four KV heads; RDMA without a Mac. In EXO's words."""
    three = asked(devices={"node-a": {}, "node-b": {}, "node-c": {}})
    with pytest.raises(PlacementRefused, match="No tensor sharding found for model with hidden_size=512"):
        measure(FakeExo(), tmp_path / "m.jsonl", three)
    fake = FakeExo()
    with pytest.raises(PlacementRefused, match="No cycle where every node supports a backend"):
        measure(fake, tmp_path / "n.jsonl", asked(engine=TENSOR | {"backend": "jaccl"}))
    assert fake.placements[0] == ("Tensor", "MlxJaccl")


@pytest.mark.timed
def test_place_instance_by_tensor() -> None:
    fake = FakeExo()
    with fake.serve() as server, ExoClient(server.url, None, QUICK) as client:
        made = client.place_instance(MODEL, min_nodes=2, sharding="Tensor")
        assert is_tensor(made)
        assert fake.placements == [("Tensor", "MlxRing")] * 2, "asked for its reasons first, then placed"


@pytest.mark.timed
def test_a_small_node_is_doubted_though_exo_took_it(tmp_path: Path) -> None:
    """EXO compares the sum of memory alone."""
    fake = FakeExo()
    for node in (B, C):
        fake.state["nodeMemory"][node]["ramAvailable"] = {"inBytes": 2**20}
    _, found = measure(fake, tmp_path / "m.jsonl", asked())
    assert any("its part of 16 layers take 10.7 MB and 1.05 MB is free" in text for text in found.warnings)


def test_a_running_tensor_instance_as_a_scenario(tmp_path: Path) -> None:
    raw = rest("state_idle_3nodes")
    instance = preview()
    raw["instances"] = {"i": instance}
    state = parse_state(raw)
    (running,) = state.instances.values()
    made, notes = scenario_of(state, running.card, instance=running)
    assert (made.engine.name, made.engine.sharding, made.engine.backend) == ("exo-tensor", "tensor", "ring")
    assert list(made.devices) == [state.name_of(shard.node_id) for shard in running.shards]
    assert any("left out, as the running Tensor instance does without" in note for note in notes)
    dump(made, tmp_path / "mine.yaml", "What can it do?")
    assert load(tmp_path / "mine.yaml", Scenario) == made
    placed = prepare(made).job.placement
    assert placed.splits_layers
    assert set(placed.devices) == set(made.devices)


def test_a_running_rdma_instance_as_a_scenario() -> None:
    """A field case: two Macs by tensor over JACCL."""
    state = parse_state(states.joined(states.macs("warming"), (0, 1)))
    (running,) = state.instances.values()
    made, _ = scenario_of(state, running.card, instance=running)
    assert (made.engine.sharding, made.engine.backend) == ("tensor", "jaccl")
    assert [wire.kind for wire in made.wires] == ["thunderbolt5_rdma"]
