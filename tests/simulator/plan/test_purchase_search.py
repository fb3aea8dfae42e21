"""The purchase search: theory of its parts, the pruned front against evaluating everything, published rows."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrate.ground.cases import load_case
from simulator.engine.base import engine
from simulator.files import loads
from simulator.plan.buy.hops import hops_of, orders
from simulator.plan.buy.mix import fill, scenario_of
from simulator.plan.buy.options import shelf
from simulator.plan.buy.parts import WORLDS, Parts
from simulator.plan.buy.prices import PriceBook
from simulator.plan.buy.search import mixes, search
from simulator.plan.buy.worlds import Worlds
from simulator.prepare import prepare
from simulator.result.summary import tokens_per_s
from simulator.run.evaluate import token_times_s
from simulator.runtime.draws import Draws
from simulator.scenario import Scenario
from tests.helpers import device, job, link

PUBLISHED = Path(__file__).parents[3] / "scenarios" / "published"
TWO_MACS = """
name: two_macs
model: {name: Llama-3.1-8B}
engine: ENGINE
access_points: {home: {}}
devices:
  air: {kind: MacBook Air M3, memory: 8 GB, link: {kind: wifi24}}
  pro: {kind: MacBook Pro M3 Pro, memory: 18 GB, link: {kind: wifi5}}
workload: {prompt_tokens: 64, output_tokens: 32, runs: 1}
replications: 40
"""


def two_macs(engine_name: str = "exo") -> Scenario:
    return loads(TWO_MACS.replace("ENGINE", engine_name), Scenario)


def planner(scenario: Scenario, budget: float, *allow: str):
    options = shelf(scenario, PriceBook("EUR"), budget, allow=allow)
    return options, Parts(scenario)


# --- theory ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 12), st.lists(st.tuples(st.integers(1, 9), st.integers(1, 8)), min_size=1, max_size=3))
def test_fill_is_the_best_of_all_splits(layers: int, devices: list[tuple[int, int]]) -> None:
    costs, caps = [cost for cost, _ in devices], [cap for _, cap in devices]
    splits = [split for split in product(*(range(1, cap + 1) for cap in caps)) if sum(split) == layers]
    found = fill(layers, [float(cost) for cost in costs], caps)
    if not splits:
        assert found is None
        return
    assert found in splits
    assert np.dot(found, costs) == min(np.dot(split, costs) for split in splits)


@pytest.mark.parametrize("name", ["exo", "exo-legacy", "llama-rpc"])
def test_hop_cost_is_what_the_engine_makes_of_its_links(name: str) -> None:
    """With instant transmission and constant delays, a token costs its stages, its head and its hops."""
    sides = [0.001, 0.004, 0.002]  # one-way delay of each device's side
    ring = job([device(f"d{i}", link=link(side)) for i, side in enumerate(sides)], name)
    still = job([device(f"d{i}") for i in range(3)], name)
    times, bare = (np.diff(engine(name).token_times_s(j, Draws(j, 0, 1))[0, :, 0])[-1] for j in (ring, still))
    edges = {(i, j): sides[i] + sides[j] for i, j in permutations(range(3), 2)}
    assert times - bare == pytest.approx(hops_of(name).cost_s((0, 1, 2), edges), rel=1e-9)


@pytest.mark.parametrize("name", ["exo", "exo-legacy", "llama-rpc"])
@pytest.mark.parametrize("ranks", [1, 4, 7])
def test_an_order_names_every_rank_once(name: str, ranks: int) -> None:
    rng = np.random.default_rng(3)
    edges = {(i, j): float(rng.uniform(1, 9)) for i, j in permutations(range(ranks), 2)}
    found = orders(hops_of(name), edges, [0.0] * ranks)
    assert all(sorted(order) == list(range(ranks)) for order in found)
    assert len(set(found)) == len(found)
    assert {order[0] for order in found} == {order[-1] for order in found} == set(range(ranks))


def test_a_direct_cable_is_used_by_neighbours() -> None:
    edges = dict.fromkeys(permutations(range(4), 2), 5.0) | {(0, 3): 0.1, (3, 0): 0.1}
    order = orders(hops_of("exo"), edges, [0.0] * 4)[0]
    assert abs(order.index(0) - order.index(3)) == 1


def test_worlds_are_balanced_and_belong_to_names() -> None:
    """Each factor takes evenly spread quantiles of its law, whatever else is in the job."""
    scenario = two_macs()
    worlds = Worlds(1, 40)
    given_job = worlds.given(prepare(scenario).job)
    assert given_job.posterior is not None
    table = dict(zip(given_job.posterior.names, np.array(given_job.posterior.draws).T, strict=True))
    shared = prepare(scenario).job.cluster.device("air").speed.decode_shared[1]
    assert shared.by == "every Apple M3 10c"
    logs = np.sort(np.log(table[f"world/{shared.by}/decode"])) / shared.spread
    assert np.median(logs) == pytest.approx(0, abs=1e-12)
    assert logs.std() == pytest.approx(1, abs=0.03)
    alone = scenario.model_copy(update={"devices": {"air": scenario.devices["air"]}, "model": scenario.model})
    alone = alone.model_copy(update={"model": alone.model.model_copy(update={"name": "Llama-3.2-1B"})})
    other = worlds.given(prepare(alone).job)
    assert other.posterior is not None
    assert (
        other.posterior.draws[7][other.posterior.names.index("world/air/decode")]
        == table["world/air/decode"][7]
    )


# --- the fast job is the scenario's own -----------------------------------------------------------------------------


@pytest.mark.parametrize("engine_name", ["exo", "llama-rpc"])
def test_a_mix_is_the_job_that_prepare_makes_of_its_scenario(engine_name: str) -> None:
    scenario = two_macs(engine_name)
    options, parts = planner(scenario, 100, "network")
    found = list(mixes(options, parts, 100))
    assert len(found) > 8
    for mix in found:
        fast = parts.job(mix)
        slow = prepare(scenario_of(mix, scenario, "made").model_copy(update={"workload": parts.workload})).job
        assert fast.model == slow.model
        assert fast.shards == slow.shards
        assert np.array_equal(token_times_s(fast, 5, "recursion"), token_times_s(slow, 5, "recursion"))


@pytest.mark.parametrize("engine_name", ["exo", "llama-rpc"])
def test_no_mix_beats_its_ceiling_in_any_world(engine_name: str) -> None:
    """The bound holds for the median, and it is near where there is no network: it is not vacuous."""
    scenario = two_macs(engine_name)
    options, parts = planner(scenario, 900, "network", "macs", "quantisation")
    found = list(mixes(options, parts, 900, most_purchases=1))
    assert len(found) > 50
    for mix in found[::7]:
        assert float(np.median(parts.rates(mix))) <= parts.ceiling(mix)
    alone = next(mix for mix in found if len(mix.members) == 1)
    assert float(np.median(parts.rates(alone))) > 0.7 * parts.ceiling(alone)


def test_a_small_first_device_changes_the_order_not_the_answer() -> None:
    """The phone has the best link but no room for the embedding of a client, so another device is the client."""
    scenario = loads(
        """
name: small_first
model: {name: Llama-3.3-70B, quantisation: Q2_K}
engine: llama-rpc
access_points: {home: {}}
devices:
  phone: {kind: Pixel 8 Pro, usable_memory: 0.9 GB, link: {kind: ethernet_1g}}
  big: {kind: Mac mini M4 Pro, memory: 64 GB, link: {kind: wifi24}}
  other: {kind: Mac mini M4 Pro, memory: 64 GB, link: {kind: wifi24}}
""",
        Scenario,
    )
    options, parts = planner(scenario, 0)
    members = tuple(states[0] for states in options.owned)
    mix = parts.mix(members, options.choices[0])
    assert mix is not None
    assert mix.members[1].name == "phone"  # neither the embedding of the first nor the head of the last
    prepare(scenario_of(mix, scenario, "made"))


# --- the search -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine_name", ["exo", "llama-rpc"])
def test_pruning_loses_nothing(engine_name: str) -> None:
    """The front is that of evaluating every mix, with fewer evaluations."""
    scenario = two_macs(engine_name)
    options, parts = planner(scenario, 850, "network", "quantisation", "minipcs")
    pruned = search(options, parts, 850, most_purchases=1)
    full = search(options, parts, 850, most_purchases=1, prune=False)

    def points(found):
        return [(round(best.mix.price, 2), best.mix.choice.title, best.tokens_per_s) for best in found.front]

    assert points(pruned) == points(full)
    assert full.evaluated == full.considered == pruned.considered
    assert pruned.evaluated < full.evaluated / 2


def test_more_money_is_never_worse() -> None:
    scenario = two_macs().model_copy(update={"devices": {"air": two_macs().devices["air"]}})
    best = []
    for budget in (0.0, 60.0, 700.0):
        options, parts = planner(scenario, budget, "network", "macs")
        best.append(max(found.tokens_per_s for found in search(options, parts, budget).front))
    assert best == sorted(best)
    assert best[-1] > best[0]


def test_the_front_is_a_front_within_the_budget() -> None:
    options, parts = planner(two_macs(), 700, "network", "macs", "quantisation")
    front = search(options, parts, 700).front
    assert all(best.mix.price <= 700.01 for best in front)
    for one, other in permutations(front, 2):
        assert not one.beats(other.mix.price, other.mix.choice.quality, other.tokens_per_s)


# --- published rows: a slower device added or removed ---------------------------------------------------------------


@pytest.mark.parametrize(("name", "fastest"), [("V12", "max"), ("V38", "ultra")])
def test_the_planner_leaves_out_the_slower_device_as_measured(name: str, fastest: str) -> None:
    """V11 68 > V12 21 tokens/s, V38 alone 11.1 > with the Spark 5.9: leaving the second device out is the answer."""
    scenario = load_case(PUBLISHED / f"{name}.yaml").scenario
    options, parts = planner(scenario, 0)
    front = search(options, parts, 0).front
    assert [set(best.mix.placement) for best in front] == [{fastest}]


def test_the_planner_ranks_one_two_and_three_macs_as_measured() -> None:
    """V01 49.3 > V02 44.4 > V03 39.7 tokens/s."""
    options, parts = planner(load_case(PUBLISHED / "V03.yaml").scenario, 0)
    best: dict[int, float] = {}
    for mix in mixes(options, parts, 0):
        rate = float(np.median(parts.rates(mix)))
        best[len(mix.members)] = max(rate, best.get(len(mix.members), 0.0))
    assert best[1] > best[2] > best[3]


@pytest.mark.parametrize("order", [("V11", "V12"), ("V38-alone", "V38"), ("V01", "V02", "V03")])
def test_the_published_splits_rank_as_measured_too(order: tuple[str, ...]) -> None:
    rates = []
    for name in order:
        scenario = load_case(PUBLISHED / f"{name}.yaml").scenario
        balanced = Worlds(scenario.seed, WORLDS).given(prepare(scenario).job)
        rates.append(float(np.median(tokens_per_s(token_times_s(balanced, WORLDS, "recursion")))))
    assert rates == sorted(rates, reverse=True)


@settings(max_examples=15, deadline=None)
@given(st.floats(0, 400))
def test_every_mix_is_affordable_and_fits(budget: float) -> None:
    options, parts = planner(two_macs("llama-rpc"), budget, "network")
    for mix in mixes(options, parts, budget):
        assert mix.price <= budget + 0.01
        assert sum(mix.layers) == 32


def test_three_of_a_kind_have_three_names() -> None:
    """While the third was called like the second, the ring lost its layers: "sum to 24, but the model has 36"."""
    owned = two_macs().devices["air"]
    scenario = two_macs().model_copy(update={"devices": {"air": owned, "mac_mini_m4_16gb_2": owned}})
    options, parts = planner(scenario, 3000, "macs")
    minis = replace(options, offers=tuple(o for o in options.offers if o.name == "mac_mini_m4_16gb"))
    rings = [{member.name for member in mix.members} for mix in mixes(minis, parts, 3000, most_purchases=3)]
    bought = {
        "mac_mini_m4_16gb",
        "mac_mini_m4_16gb_3",
        "mac_mini_m4_16gb_4",
    }  # the second one's name is taken
    assert max(rings, key=len) == {*scenario.devices, *bought}
    assert search(minis, parts, 3000, most_purchases=3).front
