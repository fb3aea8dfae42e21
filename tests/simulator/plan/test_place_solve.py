"""The exact search against brute force, against an integer programme of HiGHS, and in its invariants."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product
from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.plan.place.reduce import reduced, relaxed_lower_s
from simulator.plan.place.solve import MOST_DEVICES, solve, value_s
from simulator.runtime.ring_costs import RingCosts

CHATS = (1.0, 3.0, inf)


def random_costs(seed: int, devices: int, layers: int, kind: str, **changes: Any) -> RingCosts:
    """Costs of a ring (`walk` and `close`), of EXO's (`walk` both ways) or of a star."""
    rng = np.random.default_rng(seed)
    zero, hops = np.zeros((devices, devices)), rng.uniform(0, 3, (3, devices, devices))
    roomy = rng.integers(layers // 2, layers + 2, devices)
    caps = np.stack([roomy - rng.integers(0, 3, devices) * (row > 0) for row in range(4)])
    return replace(
        RingCosts(
            layers,
            rng.uniform(0.1, 2, devices),
            np.maximum(caps, 0),
            rng.uniform(0, 1, devices),
            rng.uniform(0, 1, devices),
            rng.uniform(0, 2, devices),
            rng.uniform(0, 1, devices) if kind == "exo" else np.zeros(devices),
            hops[0] if kind != "star" else zero,
            hops[1] if kind != "exo" else zero,
            hops[2] if kind == "star" else zero,
            contention=float(rng.choice([0.0, 0.2])),
        ),
        **changes,
    )


def may_hold(costs: RingCosts, order: tuple[int, ...], place: int) -> range:
    """Layers that the device at this place of the ring may get."""
    if order[place] in (costs.embedding, costs.head):
        return range(1)
    alone, last = len(order) == 1, len(order) - 1
    role = 3 if alone else 1 if place == 0 else 2 if place == last else 0
    return range(1, int(costs.caps[role, order[place]]) + 1)


def all_splits(costs: RingCosts) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Every legal (order, layers)."""
    found = []
    for count in range(1, costs.devices + 1):
        for order in permutations(range(costs.devices), count):
            if costs.embedding is not None and order[0] != costs.embedding:
                continue
            if costs.head is not None and order[-1] != costs.head:
                continue
            choices = [may_hold(costs, order, place) for place in range(count)]
            found += [
                (order, layers)
                for layers in product(*choices)
                if sum(layers) == costs.layers and sum(map(bool, layers)) >= costs.least_devices
            ]
    return found


def objective(costs: RingCosts, split: tuple[tuple[int, ...], tuple[int, ...]], chats: float) -> float:
    total, slowest = value_s(costs, *split)
    return max(slowest, total / chats) if chats > 1 else total


@pytest.mark.parametrize("kind", ["exo", "ring", "star"])
@given(seed=st.integers(0, 2**32), devices=st.integers(1, 4), layers=st.integers(1, 7), data=st.data())
@settings(max_examples=40, deadline=None)
def test_no_split_at_all_is_better(
    kind: str, seed: int, devices: int, layers: int, data: st.DataObject
) -> None:
    names = st.one_of(st.none(), st.integers(0, devices - 1))
    embedding, head = data.draw(names), data.draw(names)
    costs = random_costs(
        seed,
        devices,
        layers,
        kind,
        least_devices=data.draw(st.integers(1, 2)),
        embedding=embedding,
        head=head if head != embedding else None,
    )
    splits = all_splits(costs)
    for chats in CHATS:
        found = solve(costs, chats, keep=3)
        assert bool(found) == bool(splits)
        if not found:
            continue
        least = min(objective(costs, split, chats) for split in splits)
        best = found[0]
        assert (best.order, best.layers) in splits
        assert best.value_s == pytest.approx(least, rel=1e-9)
        assert best.lower_s <= least * (1 + 1e-9)
        assert best.value_s / best.lower_s - 1 < 1e-9
        assert best.value_s == pytest.approx(objective(costs, (best.order, best.layers), chats), rel=1e-9)


@given(seed=st.integers(0, 2**32), devices=st.integers(2, 4), layers=st.integers(2, 7))
@settings(max_examples=25, deadline=None)
def test_runners_up_are_the_best_of_their_sets(seed: int, devices: int, layers: int) -> None:
    costs = random_costs(seed, devices, layers, "ring")
    best: dict[frozenset[int], float] = {}
    for split in all_splits(costs):
        members = frozenset(split[0])
        best[members] = min(best.get(members, inf), objective(costs, split, 1.0))
    found = solve(costs, 1.0, keep=100)
    assert {frozenset(split.order): pytest.approx(split.value_s, rel=1e-9) for split in found} == best
    assert [split.value_s for split in found] == sorted(split.value_s for split in found)


def by_highs(costs: RingCosts, chats: float) -> float:
    """The same problem as an integer programme: who takes part, who follows whom, and how many layers (MTZ order)."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    size, layers = costs.devices, costs.layers
    # columns: n_d, u_d (takes part), f_d (first), l_d (last), x_ab (b follows a), p_d (place), m (slowest of all), v
    arcs = [(a, b) for a in range(size) for b in range(size) if a != b]
    at = {("n", d): d for d in range(size)} | {("u", d): size + d for d in range(size)}
    at |= {("f", d): 2 * size + d for d in range(size)} | {("l", d): 3 * size + d for d in range(size)}
    at |= {("x", arc): 4 * size + k for k, arc in enumerate(arcs)}
    at |= {("p", d): 4 * size + len(arcs) + d for d in range(size)}
    at |= {("m", 0): 5 * size + len(arcs), ("v", 0): 5 * size + len(arcs) + 1}
    rows, low, high = [], [], []

    def add(terms: dict[tuple[str, Any], float], least: float, most: float) -> None:
        row = np.zeros(len(at))
        for key, factor in terms.items():
            row[at[key]] += factor
        rows.append(row), low.append(least), high.append(most)

    add({("n", d): 1 for d in range(size)}, layers, layers)
    add({("f", d): 1 for d in range(size)}, 1, 1)
    add({("l", d): 1 for d in range(size)}, 1, 1)
    for d in range(size):
        middle, first, last, _ = costs.caps[:, d].astype(float)
        add({("n", d): 1, ("u", d): -1}, 0, inf)
        add({("n", d): 1, ("u", d): -middle, ("f", d): middle - first, ("l", d): middle - last}, -inf, 0)
        add({("u", d): 1, ("f", d): -1, **{("x", (a, b)): -1 for a, b in arcs if b == d}}, 0, 0)
        add({("u", d): 1, ("l", d): -1, **{("x", (a, b)): -1 for a, b in arcs if a == d}}, 0, 0)
        add({("m", 0): 1, ("u", d): -costs.most_s[d]}, 0, inf)
        add(
            {
                ("v", 0): 1,
                ("n", d): -costs.layer_s[d],
                ("u", d): -costs.each_s[d] - costs.most_s[d],
                ("f", d): -costs.first_s[d],
                ("l", d): -costs.last_s[d],
            },
            0 if chats > 1 else -inf,
            inf,
        )
    for a, b in arcs:
        add({("p", b): 1, ("p", a): -1, ("x", (a, b)): -size}, 1 - size, inf)
    total = {("n", d): float(costs.layer_s[d]) for d in range(size)} | {
        ("u", d): costs.each_s[d] for d in range(size)
    }
    total |= {("f", d): costs.first_s[d] for d in range(size)} | {
        ("l", d): costs.last_s[d] for d in range(size)
    }
    total |= {("x", arc): costs.walk_s[arc] for arc in arcs} | {("m", 0): 1.0}
    if chats < inf:
        add({("v", 0): chats, **{key: -value for key, value in total.items()}}, 0, inf)
    goal = np.zeros(len(at))
    goal[at["v", 0]] = 1
    whole = np.array([key[0] in "nuflx" for key in at], dtype=int)

    done = milp(
        goal,
        constraints=LinearConstraint(np.array(rows), low, high),
        integrality=whole,
        bounds=Bounds(0, [1 if key[0] in "uflx" else inf for key in at]),
        options={"mip_rel_gap": 1e-9},
    )
    assert done.success, done.message
    return float(done.fun)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("chats", CHATS)
def test_highs_finds_nothing_better(seed: int, chats: float) -> None:
    """Five devices and 20 layers, which are too many to list; hops on a path, roles with caps of their own."""
    costs = random_costs(seed, 5, 20, "exo", contention=0.0)
    # the programme has one cap for a device that is first and last at once: make that the sum of both differences
    middle, first, last, _ = costs.caps
    costs = replace(costs, caps=np.stack([middle, first, last, np.maximum(0, first + last - middle)]))
    assert solve(costs, chats)[0].value_s == pytest.approx(by_highs(costs, chats), rel=1e-6)


def test_eight_devices_and_eighty_layers_take_no_time() -> None:
    """The target is two seconds for the whole search; `benchmarks/bench_place.py` measures that."""
    import time

    costs = random_costs(3, 8, 80, "ring")
    start_s = time.process_time()
    for chats in CHATS:
        assert solve(costs, chats)
    assert time.process_time() - start_s < 2


def test_one_more_device_or_one_more_byte_never_costs_more() -> None:
    for seed in range(20):
        costs = random_costs(seed, 5, 30, "ring")
        for chats in CHATS:
            best = solve(costs, chats)
            fewer, more = (
                solve(costs.only(range(4)), chats),
                solve(replace(costs, caps=costs.caps + 1), chats),
            )
            assert not fewer or best[0].value_s <= fewer[0].value_s * (1 + 1e-9)
            assert more[0].value_s <= best[0].value_s * (1 + 1e-9)


def test_a_crowd_is_cut_to_what_can_be_searched_with_a_bound() -> None:
    costs = random_costs(5, MOST_DEVICES + 4, 60, "ring", embedding=MOST_DEVICES + 3)
    with pytest.raises(ValueError, match="too many"):
        solve(costs)
    small, chosen = reduced(costs)
    assert small.devices == MOST_DEVICES == len(chosen)
    assert chosen[small.embedding or 0] == costs.embedding
    for chats in CHATS:
        assert 0 < relaxed_lower_s(costs, chats) <= solve(small, chats)[0].value_s
    few = random_costs(5, 5, 60, "ring")
    assert reduced(few) == (few, (0, 1, 2, 3, 4))
