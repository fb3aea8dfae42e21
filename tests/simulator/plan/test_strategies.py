"""Strategies: pipeline against tensor, each at its best; and doubts about what a split cannot be."""

from __future__ import annotations

from typing import Any

import pytest

import simulator
from simulator.errors import PlacementError
from simulator.plan.buy.money import read_money
from simulator.plan.buy.prices import PriceBook
from simulator.plan.buy.wiring import tensor_plans, wired
from simulator.plan.place.strategies import Strategies, strategies
from simulator.prepare import prepare
from simulator.scenario import Scenario


def macs(count: int = 2, cable: str = "thunderbolt5_rdma", **changes: Any) -> Scenario:
    """Equal Macs, each wired to each other one."""
    names = [f"m{at}" for at in range(count)]
    pairs = [(a, b) for at, a in enumerate(names) for b in names[at + 1 :]]
    tree: dict[str, Any] = {
        "name": "macs",
        "model": {"name": "Llama-3.3-70B", "quantisation": "4bit"},
        "wires": [{"between": pair, "kind": cable} for pair in pairs],
        "devices": {name: {"kind": "Mac Studio M4 Max", "memory": "128 GB"} for name in names},
        "workload": {"prompt_tokens": 16, "output_tokens": 16, "runs": 1},
        "replications": 20,
    }
    return Scenario.model_validate(tree | changes)


def found(scenario: Scenario) -> Strategies:
    answer = strategies(scenario)
    assert answer is not None
    return answer


def test_two_equal_macs_over_rdma_are_faster_by_tensor() -> None:
    answer = found(macs())
    assert [way.name for way in answer.ranking] == ["exo-tensor over jaccl", "exo", "exo-tensor over ring"]
    best = answer.ranking[0].scenario
    assert best is not None
    # what is handed out runs as it stands
    assert prepare(best).job.placement.devices == ("m0", "m1")


def test_a_slow_second_device_is_left_to_the_pipeline() -> None:
    answer = found(simulator.load("uneven_pair").model_copy(update={"replications": 20}))
    assert answer.ranking[0].engine == "exo"
    assert "needs thunderbolt5_rdma" in (answer.ranking[-1].refused or "")


def test_the_best_subset_leaves_a_slow_third_out_and_a_third_alone_cannot_join() -> None:
    """Eight KV heads and 8,192 columns: two or four ranks, never three."""
    odd = macs(3)
    slow = odd.devices["m2"].model_copy(update={"kind": "Mac mini M4 Pro", "memory": 64e9})
    answer = found(odd.model_copy(update={"devices": {**odd.devices, "m2": slow}}))
    assert set(answer.ranking[0].placement.devices) == {"m0", "m1"}  # type: ignore[union-attr]


def test_engines_of_tensor_alone_are_placed_and_pipelines_alone_are_not_asked() -> None:
    pis = simulator.load("four_pis").model_copy(update={"replications": 20})
    assert [way.engine for way in found(pis).ranking] == ["dllama"]
    assert strategies(simulator.load("legacy_phones")) is None


def test_a_mesh_needs_as_many_ports_as_neighbours() -> None:
    four = macs(4, model={"name": "Llama-3.2-3B", "quantisation": "4bit"})
    minis = {name: {"kind": "Mac mini M2", "memory": "24 GB"} for name in four.devices}
    spec = four.model_dump(exclude_none=True) | {"devices": minis}
    doubts = prepare(Scenario.model_validate(spec)).warnings
    assert sum("3 cables go to a Mac mini M2, which has 2 ports" in doubt for doubt in doubts) == 4
    assert not any("cables go to" in doubt for doubt in prepare(macs(4)).warnings)


def test_a_group_of_a_quantisation_is_not_cut_in_two() -> None:
    """2,880 columns over four are 720: no multiple of the 32 that share a scale."""
    tensor = {"name": "exo", "sharding": "tensor"}
    gpt = macs(4, model={"name": "gpt-oss-120b", "quantisation": "MXFP4-Q8"}, engine=tensor)
    assert any("2,880 columns are 720 for each, no multiple of the 32" in w for w in prepare(gpt).warnings)
    fine = macs(2, model={"name": "gpt-oss-120b", "quantisation": "MXFP4-Q8"}, engine=tensor)
    assert not any("columns are" in w for w in prepare(fine).warnings)


def test_exo_looks_at_the_sum_of_memory_alone() -> None:
    tensor = {"name": "exo", "sharding": "tensor"}
    pair = macs(engine=tensor)
    small = pair.devices["m1"].model_copy(update={"kind": "MacBook Air M4", "memory": 24e9})
    with pytest.raises(PlacementError, match=r"compares only sums .* so it overcommits m1"):
        prepare(pair.model_copy(update={"devices": {**pair.devices, "m1": small}}))


def test_a_backend_that_its_links_cannot_carry_is_doubted() -> None:
    jaccl = {"name": "exo", "sharding": "tensor", "backend": "jaccl"}
    assert any("would not start" in w for w in prepare(macs(cable="thunderbolt5", engine=jaccl)).warnings)


def test_cables_are_bought_where_they_make_tensor_worth_it() -> None:
    """Two Macs on Ethernet: a Thunderbolt 5 cable makes RDMA of it, at the price of the data."""
    apart = macs(wires=())
    found = tensor_plans(apart, read_money("100 USD"))
    best = found[0]
    assert best.strategy == "exo-tensor over jaccl"
    assert (best.price, best.words) == (60.0, "join m0 and m1 each to each (1 x Thunderbolt 5 cable)")
    assert prepare(best.scenario).job.placement.splits_layers
    unwired = next(one for one in found if not one.words)
    assert (unwired.price, unwired.strategy) == (0.0, "exo-tensor over ring")
    assert best.tokens_per_s.median > 1.3 * unwired.tokens_per_s.median
    assert [one.words for one in tensor_plans(apart, read_money("50 USD"))] == [""]
    assert tensor_plans(simulator.load("legacy_phones"), read_money("100 USD")) == ()


def test_a_mesh_is_not_bought_beyond_the_ports_and_a_switch_for_more_than_two() -> None:
    minis = {f"m{at}": {"kind": "Mac mini M4 Pro", "memory": "64 GB"} for at in range(5)}
    asked = macs(wires=(), devices=minis, model={"name": "Llama-3.2-3B", "quantisation": "4bit"})
    words = [words for _, _, words in wired(asked, PriceBook("USD"))]
    assert max(word.count("and") for word in words) == 3  # four machines: three ports each
    assert "(6 x Thunderbolt 5 cable)" in words[-1]
    sparks = {f"s{at}": {"kind": "DGX Spark", "memory": "128 GB"} for at in range(3)}
    (two, _, _), (three, quotes, _) = wired(macs(wires=(), devices=sparks), PriceBook("USD"))
    assert [wire.kind for wire in two.wires] == ["roce_200g"]
    assert {spec.link.kind for spec in three.devices.values()} == {"roce_200g"}
    assert sum(quote.amount for quote in quotes) == 3 * 110 + 1300
