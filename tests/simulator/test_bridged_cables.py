"""A daisy chain: devices without a cable of their own meet over those of others, where these are bridged."""

from __future__ import annotations

import pytest

from simulator.cluster.cluster import Cluster, Wire
from simulator.errors import ScenarioError
from simulator.files import loads
from simulator.laws import Constant
from simulator.prepare import prepare
from simulator.run.evaluate import token_times_s
from simulator.scenario import Scenario
from tests.helpers import device

NAMES = ("a", "b", "c", "d")
MAC = "{kind: Mac Studio M3 Ultra 60c, memory: 96 GB, link: {kind: wifi6}}"
CHAIN = f"""
name: chain
model: {{name: Llama-3.3-70B, quantisation: 4bit}}
devices: {{a: {MAC}, b: {MAC}, c: {MAC}, d: {MAC}}}
wires:
  - {{between: [a, b], kind: thunderbolt5, bridged: true}}
  - {{between: [b, c], kind: thunderbolt5, bridged: true}}
  - {{between: [c, d], kind: thunderbolt5, bridged: true}}
engine: {{name: mlx, sharding: tensor, backend: ring}}
workload: {{prompt_tokens: 10, output_tokens: 4, runs: 1}}
"""


def chain(*bridged: bool, rate: float = 1e9) -> Cluster:
    wires = tuple(
        Wire(frozenset(ends), "cable", Constant(value="1 ms"), rate, 0.0, 0.0, is_bridged=passes)
        for ends, passes in zip(zip(NAMES, NAMES[1:], strict=False), bridged, strict=True)
    )
    return Cluster(tuple(device(name) for name in NAMES), (), wires)


def test_each_cable_on_the_way_is_paid_for() -> None:
    """Both ends of each of three cables, there as back; neighbours have one."""
    cluster = chain(True, True, True)
    assert cluster.path("a", "b").median_s == pytest.approx(0.002)
    assert cluster.path("a", "d").median_s == pytest.approx(0.006)
    assert cluster.path("d", "a").median_s == pytest.approx(0.006)
    assert [leg.name for leg in cluster.path("c", "a").legs] == [
        f"wire/{name}" for name in ("b--c/c/out", "b--c/b/in", "a--b/b/out", "a--b/a/in")
    ]


def test_who_does_not_pass_on_ends_the_chain() -> None:
    """Over a cable that is not bridged only its own two ends meet."""
    cluster = chain(True, False, True)
    assert cluster.kinds_between("b", "c") == ("cable",)
    assert cluster.kinds_between("a", "b") == ("cable",)
    assert cluster.kinds_between("a", "d") == (device("a").link.kind,)


def test_a_ring_over_a_chain_waits_for_the_way_back() -> None:
    """Far slower than a full ring of the same cables, far faster than closing it over Wi-Fi."""
    bridged = loads(CHAIN, Scenario)
    wifi = loads(CHAIN.replace(", bridged: true", ""), Scenario)
    ring = loads(CHAIN.replace("engine:", "  - {between: [d, a], kind: thunderbolt5}\nengine:"), Scenario)

    def last_s(scenario: Scenario) -> float:
        return float(token_times_s(prepare(scenario).job, 20)[0, -1].mean())

    assert 1.2 * last_s(ring) < last_s(bridged) < 0.5 * last_s(wifi)


def test_rdma_ends_at_the_neighbour() -> None:
    with pytest.raises(
        ScenarioError, match=r"wires.0: bridged cables carry no RDMA, .* or take the same cable"
    ):
        loads(CHAIN.replace("thunderbolt5,", "thunderbolt5_rdma,"), Scenario)
