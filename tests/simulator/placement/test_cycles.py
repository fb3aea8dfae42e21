"""The order of rings against EXO's own lists, and against theory."""

from __future__ import annotations

import json
from itertools import combinations, permutations
from math import comb, factorial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.engine.exo.cycles import Wiring

DATA = Path(__file__).parents[2] / "data" / "placement"
CASES = json.loads((DATA / "exo_cases.json").read_text(encoding="utf-8"))["cases"]


def mesh(names: str) -> Wiring:
    return Wiring(tuple(names), tuple(permutations(names, 2)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_recorded_order_of_all_rings(case: dict[str, Any]) -> None:
    given_in = case["input"]
    edges = [tuple(edge) for edge in [*given_in["edges_in_insertion_order"], *(given_in["rdma_edges"] or [])]]
    recorded = [tuple(ring) for ring in case["all_cycles_in_order"] if isinstance(ring, list)]
    rings = list(Wiring(tuple(given_in["node_ram_available_bytes"]), tuple(edges)).rings())
    assert rings[: len(recorded)] == recorded
    # One list was cut by the recorder and says so in its last entry.
    cut = [ring for ring in case["all_cycles_in_order"] if isinstance(ring, str)]
    assert len(rings) == (int(cut[0].split()[1]) if cut else len(recorded))


@pytest.mark.parametrize("n", range(1, 7))
def test_mesh_has_the_right_number_of_rings(n: int) -> None:
    """Theory: C(n, k) (k - 1)! directed rings of length k."""
    rings = list(mesh("abcdef"[:n]).rings())
    assert len(rings) == len(set(rings)) == sum(comb(n, k) * factorial(k - 1) for k in range(1, n + 1))


@st.composite
def wirings(draw: st.DrawFn) -> Wiring:
    nodes = "abcde"[: draw(st.integers(1, 5))]
    pairs = list(permutations(nodes, 2))
    edges = draw(st.lists(st.sampled_from(pairs), max_size=24)) if pairs else []
    return Wiring(tuple(nodes), tuple(edges))


@settings(deadline=None)
@given(wirings())
def test_rings_are_exactly_the_simple_cycles(wiring: Wiring) -> None:
    """Brute force: each arrangement of each node set, first node least, whose every step is an edge."""
    edges, found = set(wiring.edges), list(wiring.rings())
    expected = set()
    for size in range(2, len(wiring.nodes) + 1):
        for first, *rest in combinations(wiring.nodes, size):
            for tail in permutations(rest):
                ring = (first, *tail)
                if all(step in edges for step in zip(ring, (*tail, first), strict=True)):
                    expected.add(ring)
    turned = [
        ring[ring.index(min(ring)) :] + ring[: ring.index(min(ring))] for ring in found if len(ring) > 1
    ]
    assert sorted(turned) == sorted(expected)
    assert found[len(turned) :] == [(node,) for node in wiring.nodes]


@settings(deadline=None)
@given(wirings())
def test_first_ring_is_the_first_in_the_list(wiring: Wiring) -> None:
    """The short cut agrees with the list: which ring of a set comes first, and which set of a length."""
    first: dict[frozenset[str], tuple[str, ...]] = {}
    for ring in wiring.rings():
        first.setdefault(frozenset(ring), ring)
    for size in range(1, len(wiring.nodes) + 1):
        sought = [wiring.first_ring(members) for members in combinations(wiring.nodes, size)]
        in_order = sorted((ring for ring in sought if ring), key=lambda ring: ring.rank_key)
        assert [ring.devices for ring in in_order] == [ring for ring in first.values() if len(ring) == size]


def test_mesh_begins_with_the_last_to_join() -> None:
    """As recorded: nodes a, b, c give the ranks c, a, b."""
    ring = mesh("abc").first_ring("abc")
    assert ring is not None
    assert ring.devices == ("c", "a", "b")


def test_parallel_edges_change_the_order_but_add_no_ring() -> None:
    """A second address heard of later moves a sink behind the others (compared with rustworkx 0.18.1)."""
    plain = mesh("abc")
    doubled = Wiring(plain.nodes, (*plain.edges, ("c", "a")))
    assert sorted(plain.rings()) == sorted(doubled.rings())
    assert next(plain.rings()) == ("c", "a", "b")
    assert list(doubled.rings()) == [
        ("c", "b", "a"),
        ("c", "b"),
        ("c", "a", "b"),
        ("c", "a"),
        ("b", "a"),
        ("a",),
        ("b",),
        ("c",),
    ]
