"""Petals' own decisions, recorded from its unmodified functions: all of both kinds; what a client remembers."""

from __future__ import annotations

import json
from math import inf, isinf, isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.engine.petals.blocks import (
    Span,
    announced_throughput,
    best_start,
    block_throughputs,
    blocks_that_fit,
    should_move,
)
from simulator.engine.petals.peers import Bans, Pings, expires_s, last_announced_s, pinged_next
from simulator.engine.petals.routes import (
    Candidates,
    MissingBlocks,
    Online,
    batch_chances,
    draw_route,
    shortest_route,
)
from simulator.errors import PlacementError
from simulator.files import loads
from simulator.plan.place.search import search
from simulator.prepare import prepare
from simulator.scenario import Scenario

DATA = Path(__file__).parents[2] / "data" / "petals"
Case = dict[str, Any]


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=case["id"]) for case in json.loads((DATA / name).read_text())["cases"]]


def spans_of(case: Case) -> dict[str, Span]:
    """By their ids, in whose order Petals adds up."""
    return {
        one["peer_id"]: Span(one["start"], one["end"], one["throughput"])
        for one in case["servers"]
        if one["state"] != "OFFLINE"
    }


@pytest.mark.parametrize("case", cases("block_selection_cases.json"))
def test_block_selection(case: Case) -> None:
    spans, blocks = spans_of(case), case["total_blocks"]
    if case["kind"] == "choose_best_blocks":
        start = best_start(block_throughputs(spans, blocks), case["num_blocks"])
        assert {"start": start, "end": start + case["num_blocks"]} == case["expected"]
        return
    local = next(one["peer_id"] for one in case["servers"] if one["name"] == case["local"])
    votes = [
        should_move(local, spans, blocks, np.random.default_rng(seed), case["balance_quality"])
        for seed in range(12)
    ]
    assert (np.mean(votes) > 0.5) == case["expected"]
    assert np.mean(votes) == pytest.approx(case["share_of_60_shuffles"], abs=0.35)


def candidates(case: Case) -> tuple[Candidates, list[str]]:
    """The servers that are online, in the order in which a client lists them."""
    online = [one for one in case["servers"] if one["state"] == "ONLINE"]
    at = {one["peer_id"]: i for i, one in enumerate(online)}
    rtts = {name: inf if rtt == "inf" else rtt for name, rtt in case["client_rtts_s"].items()}
    pings = sorted(
        (i, at[peer], rtt)
        for i, one in enumerate(online)
        for peer, rtt in (one.get("next_pings") or {}).items()
        if peer in at
    )
    found = Online(
        start=np.array([one["start"] for one in online], dtype=np.int64),
        end=np.array([one["end"] for one in online], dtype=np.int64),
        block_s=np.array([1 / (one.get("inference_rps") or 300) for one in online]),
        pinged_from=np.array([i for i, _, _ in pings], dtype=np.int64),
        pinged_to=np.array([j for _, j, _ in pings], dtype=np.int64),
        pinged_s=np.array([float(rtt) for _, _, rtt in pings]),
    )
    rtt_s = np.array([rtts.get(one["name"], nan) for one in online])
    room = [inf if one.get("cache_tokens_left") is None else one["cache_tokens_left"] for one in online]
    return Candidates(found, rtt_s, np.array(room)), [one["name"] for one in online]


@pytest.mark.parametrize("case", cases("routing_cases.json"))
def test_routing(case: Case) -> None:
    servers, names = candidates(case)
    if case["kind"] == "max_throughput":
        for hop, begun in zip(case["expected"]["hops"], case["expected"]["route"], strict=True):
            holding, chances = batch_chances(servers, begun["start"])
            found = dict(zip([names[i] for i in holding], chances, strict=True))
            assert found == pytest.approx(dict(zip(hop["candidates"], hop["p"], strict=True)))
        drawn = draw_route(servers, case["start_block"], case["end_block"], np.random.default_rng(1))
        assert all(hop.end == servers.online.end[hop.server] for hop in drawn)
        return
    if "error" in case["expected"]:
        with pytest.raises(MissingBlocks, match="no server that is online holds blocks"):
            shortest_route(servers, case["start_block"], case["end_block"], case["cache_tokens_needed"])
        return
    route = shortest_route(servers, case["start_block"], case["end_block"], case["cache_tokens_needed"])
    found_hops = [{"server": names[hop.server], "start": hop.start, "end": hop.end} for hop in route.hops]
    assert found_hops == case["expected"]["route"]
    assert route.cost_s == pytest.approx(case["expected"]["total_cost_s"], rel=1e-12)


def test_drawn_routes_follow_the_chances() -> None:
    case = next(
        case.values[0] for case in cases("routing_cases.json") if case.values[0]["kind"] == "max_throughput"
    )
    servers, _ = candidates(case)
    holding, chances = batch_chances(servers, case["start_block"])
    rng = np.random.default_rng(2)
    first = [draw_route(servers, case["start_block"], case["end_block"], rng)[0].server for _ in range(2000)]
    shares = [first.count(int(one)) / len(first) for one in holding]
    np.testing.assert_allclose(shares, chances, atol=0.04)


def test_what_a_server_announces() -> None:
    assert announced_throughput(48486.8, 1e9, 40) == pytest.approx(48486.8 / 20.5)
    assert announced_throughput(1e9, 762.9, 40) == 762.9
    assert announced_throughput(1e9, 100.0, 40, relayed=True) == 20.0
    # 24 GiB, Llama-2-70B in nf4: blocks of 455 MB, keys and values of 16,384 tokens in 67 MB
    assert blocks_that_fit(24 * 2**30, 455e6, 67.1e6, 8192) == 46
    assert blocks_that_fit(1e9, 455e6, 67.1e6, 8192) == 0


def test_a_ban_doubles_but_is_not_prolonged_while_it_lasts() -> None:
    bans: Bans[str] = Bans()
    bans.failed("a", 0.0)
    bans.failed("a", 10.0)
    assert [bans.banned("a", at) for at in (14.9, 15.1)] == [True, False]
    bans.failed("a", 20.0)
    assert [bans.banned("a", at) for at in (49.9, 50.1)] == [True, False]
    assert bans.kept(["a", "b"], 30.0) == ["b"]
    assert bans.kept(["a"], 30.0) == ["a"]
    bans.succeeded("a")
    assert not bans.banned("a", 30.0)


def test_pings_are_smoothed_and_forgotten() -> None:
    pings, one = Pings(3), np.array([1])
    assert isnan(pings.of(one, 0.0)[0])
    pings.add(1, 0.1, 0.0)
    pings.add(1, 0.2, 60.0)
    assert pings.of(one, 60.0)[0] == pytest.approx(0.2 * 0.2 + 0.8 * 0.1)
    pings.add(1, inf, 120.0)
    assert isinf(pings.of(one, 120.0)[0])
    pings.add(1, 0.3, 180.0)
    assert pings.of(one, 180.0)[0] == 0.3
    assert isnan(pings.of(one, 480.0)[0])


def test_recorded_chance_that_a_refresh_pings_the_dead_server() -> None:
    """Four servers of 18 blocks, 22 entries between the first and the last block, 6 of them the dead one's: 0.64."""
    middle, dead = np.repeat([1, 2, 4, 3], [5, 6, 6, 5]), 4
    rng = np.random.default_rng(3)
    drawn = [dead in pinged_next(middle, np.array([3]), rng) for _ in range(4000)]
    assert np.mean(drawn) == pytest.approx(0.64, abs=0.02)


def test_an_announcement_is_believed_for_two_periods() -> None:
    assert last_announced_s(7.0, 200.0, 120.0) == 127.0
    assert expires_s(127.0, 120.0) == 367.0
    assert expires_s(0.0, 1.0) == 3.0


SWARM = """
name: swarm
model: {name: small, layers: 18, layer_bytes: 1 GB, hidden: 4096, kv_bytes_per_token_per_layer: 4 kB}
devices:
  client: {memory: 8 GB, speed: SPEED, link: {delay: DELAY, rate: 1 Gbit/s}}
  s1: {memory: 10 GB, speed: SPEED, link: {delay: DELAY, rate: 1 Gbit/s}}
  s2: {memory: 10 GB, speed: SPEED, link: {delay: DELAY, rate: 1 Gbit/s}}
  s3: {memory: 10 GB, speed: SPEED, link: {delay: DELAY, rate: 1 Gbit/s}}
  far: {memory: 10 GB, speed: SPEED, link: {delay: {law: constant, value: 1 s}, rate: 1 Gbit/s}}
engine: petals
placement: {rule: petals, roles: {client: embedding}}
""".replace("SPEED", "{decode_bandwidth: 100 GB/s, prefill_flops: 20 TFLOPS}").replace(
    "DELAY", "{law: constant, value: 5 ms}"
)


def test_a_swarm_places_itself() -> None:
    """Each server takes what fits beside its cache, where least is announced; the client takes the near chain."""
    placement = prepare(loads(SWARM, Scenario)).job.placement
    assert placement.embedding == "client"
    assert placement.left_out == ("far",)
    # 10 GB less the engine and room for gradients: 8 blocks of 1 GB and 67 MB; the third one overlaps
    assert [(one.device, one.start_layer, one.end_layer) for one in placement.shards] == [
        ("client", 0, 0),
        ("s1", 0, 8),
        ("s2", 8, 16),
        ("s3", 16, 18),
    ]


def test_the_search_says_what_the_rule_loses() -> None:
    """Petals' own choice beside the best one, on the same random numbers."""
    scenario = loads(SWARM, Scenario).replace(workload={"prompt_tokens": 16, "output_tokens": 16})
    answer = search(scenario.model_copy(update={"replications": 10}))
    (own,) = [one for one in answer.beside if one.name == "petals"]
    assert own.placement is not None
    assert own.placement.rule == "petals"
    assert own.gain is not None
    assert own.gain.median >= 1 - 1e-9
    # the same four devices, but no server between two others that a single longer one could do without
    assert answer.best.placement is not None
    assert len(answer.best.placement.shards) <= len(own.placement.shards)


def test_too_few_servers_are_refused_with_what_they_took() -> None:
    short = SWARM.replace("  s3: {memory: 10 GB", "  s3: {memory: 2 GB").replace(
        "  far: {memory: 10 GB", "  far: {memory: 1 GB"
    )
    with pytest.raises(PlacementError, match=r"holds blocks 16, 17 .*s1 0 to 7, s2 8 to 15"):
        prepare(loads(short, Scenario))
