"""A swarm: against the engine's own tokens, recorded recoveries, and what must hold whatever servers do."""

from __future__ import annotations

import json
import os
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sim import swarm_cmd
from simulator.engine.base import engine
from simulator.engine.petals.flow import backoff_s
from simulator.errors import CatalogError, PlacementError, ScenarioError
from simulator.files import loads
from simulator.prepare import prepare
from simulator.run.evaluate import token_times_s
from simulator.scenario import Scenario
from simulator.swarm import study
from simulator.swarm.population import setting
from simulator.swarm.run import Swarm, Tale, replicate
from simulator.swarm.study import enough, one_more, rows_of, swarm_answer, tale_row

DATA = Path(__file__).parents[2] / "data" / "petals"
EXAMPLES = int(os.environ.get("SWARM_EXAMPLES", "8"))
SPEED = "{decode_bandwidth: 100 GB/s, prefill_flops: 20 TFLOPS, decode_spread: 0.0, prefill_spread: 0.0}"
LINK = "{delay: {law: constant, value: 5 ms}, rate: 1 Gbit/s, delay_spread: 0.0, rate_spread: 0.0}"
PLAIN = f"""
name: rooms
model: {{name: small, layers: 18, layer_bytes: 1 GB, hidden: 4096, kv_bytes_per_token_per_layer: 4 kB}}
devices:
  client: {{memory: 8 GB, speed: {SPEED}, link: {LINK}}}
  s1: {{memory: 16 GB, speed: {SPEED}, link: {LINK}}}
  s2: {{memory: 16 GB, speed: {SPEED}, link: {LINK}}}
  s3: {{memory: 16 GB, speed: {SPEED}, link: {LINK}}}
  s4: {{memory: 16 GB, speed: {SPEED}, link: {LINK}}}
engine: {{name: petals, overhead_spread: 0.0}}
placement: {{rule: manual, layers: {{client: 0, s1: 6, s2: 6, s3: 6}}}}
workload: {{prompt_tokens: 16, output_tokens: 64, runs: 1}}
replications: 1
"""
STAYS = {"s1": {"span": [0, 6]}, "s2": {"span": [6, 12]}, "s3": {"span": [12, 18]}, "s4": {"span": [6, 12]}}


def swarm(**changes: Any) -> Scenario:
    """Three servers and a spare for the middle, with what is said of the swarm."""
    scenario = loads(PLAIN, Scenario)
    return scenario.replace(
        placement={"rule": "petals", "roles": {"client": "embedding"}}, swarm={"stays": STAYS, **changes}
    )


def tale(scenario: Scenario, replication: int = 0) -> Tale:
    return replicate(setting(scenario), replication)


def test_a_quiet_swarm_gives_the_engines_rate() -> None:
    """One user and no churn: tokens come as the engine's own processes say, token by token."""
    stays = {name: one for name, one in STAYS.items() if name != "s4"}
    found = tale(swarm(hours=0.2, stays={**stays, "s4": {"blocks": 1}}))
    rates = [(one.tokens - 1) / (one.ended_s - one.first_s) for one in found.replies if one.tokens == 64]
    times_s = token_times_s(prepare(loads(PLAIN, Scenario)).job, 1)[0, :, 0]
    assert np.median(rates) == pytest.approx(63 / (times_s[-1] - times_s[0]), rel=0.02)
    assert found.coverage.whole_s == pytest.approx(found.span_s, abs=1.0)


@pytest.mark.parametrize("users", [3, 6])
def test_users_slow_each_other_down_as_chats_of_the_engine_do(users: int) -> None:
    stays = {name: one for name, one in STAYS.items() if name != "s4"}
    found = tale(swarm(hours=0.2, users=users, stays={**stays, "s4": {"blocks": 1}}))
    scenario = loads(PLAIN, Scenario)
    busy = scenario.replace(
        workload={"prompt_tokens": 16, "output_tokens": 64, "runs": 1, "concurrency": users}
    )
    times_s = token_times_s(prepare(busy).job, 1)[:, :, 0]
    theirs = users * 63 / float(np.mean(times_s[:, -1] - times_s[:, 0]))
    ours = [(one.tokens - 1) / (one.ended_s - one.first_s) for one in found.replies if one.tokens == 64]
    # equal chats of constant steps find a rhythm in which they never meet, which those of other lengths do not
    assert users * np.median(ours) == pytest.approx(theirs, rel=0.2)


@pytest.mark.parametrize("ban_s", [15.0, 40.0])
def test_a_server_that_failed_is_left_out_for_as_long_as_the_scenario_says(ban_s: float) -> None:
    bans = Swarm(setting(swarm(ban=f"{ban_s:g} s")), 0).client(0).view.bans
    bans.failed(1, 0.0)
    assert bans.banned(1, ban_s - 0.1)
    assert not bans.banned(1, ban_s)


def lone(how: str, repairs: list[str], **changes: Any) -> Tale:
    """The middle server is lost in a reply, and a spare is there."""
    loss = {"server": "s2", "at": "200 s", "how": how, **changes}
    stays = {**STAYS, "s4": {"span": [6, 12], "region": "far"}}
    return tale(
        swarm(hours=0.3, losses=[loss], repairs=repairs, stays=stays, regions={"here": {"far": "200 ms"}}), 1
    )


def test_a_shipped_client_never_gets_over_a_loss() -> None:
    found = lone("kill", [])
    lost = [one for one in found.replies if one.outcome == "lost"]
    assert len(lost) == 1
    assert lost[0].ended_s - lost[0].recoveries[0].at_s == pytest.approx(600.0, abs=1.0)
    assert not lost[0].recoveries[0].recovered


def test_a_repaired_client_comes_back_at_an_attempt_after_a_look() -> None:
    found = lone("kill", ["eof", "replay"])
    (recovery,) = [one for reply in found.replies for one in reply.recoveries]
    assert recovery.recovered
    attempts_s = np.cumsum(list(islice(backoff_s(1.0, 60.0), 9)))
    assert recovery.waited_s == attempts_s[recovery.attempts - 1]
    assert all(one.outcome != "lost" for one in found.replies)
    assert all(one.tokens == 64 for one in found.replies if one.outcome == "complete")


def test_a_server_that_wakes_up_in_time_has_lost_nothing() -> None:
    found = lone("hang", ["eof", "replay"], back_after="12 s")
    (recovery,) = [one for reply in found.replies for one in reply.recoveries]
    assert recovery.recovered
    assert recovery.total_s == pytest.approx(12.0, abs=0.5)
    assert recovery.attempts == 0


def test_attempts_come_when_recorded_clients_made_them() -> None:
    """13 recorded losses: each attempt lies where the back-off puts it, counted from the notice (within 0.5 s)."""
    recorded = json.loads((DATA / "recoveries.json").read_text())
    ours = np.cumsum(list(islice(backoff_s(1.0, 60.0), 9)))
    seen = 0
    for one in recorded.values():
        at_s = np.array(one["failed_at_s"][1:]) - one["notice_s"] if one["failed_at_s"] else np.zeros(0)
        np.testing.assert_allclose(at_s, ours[: len(at_s)], atol=1.5, rtol=0.005)
        seen += len(at_s)
        if one["finished"] and one["opened_at_s"] and one["mode"] != "stop_cont":
            late_s = one["opened_at_s"][0] - one["notice_s"] - ours[len(one["delays_s"]) - 1]
            assert 0 <= late_s < 0.5
    assert seen > 25


def test_the_gap_of_a_lone_holder_is_closed_when_its_announcement_has_expired() -> None:
    """Recorded with periods of 120 and 60 s: the entry expired 151 s after the kill, the spare moved at 198 s."""
    stays = {name: {"blocks": 6} for name in STAYS}
    spec = {"stays": stays, "hours": 0.4, "users": 0, "losses": [{"server": "s2", "at": "300 s"}]}
    for replication in range(3):
        given = setting(swarm(**spec))
        world = Swarm(given, replication)
        found = world.tale()
        held = np.array([found.counts[i].min() for i in range(len(found.counts))])
        loss = int(np.searchsorted(found.sampled_s, 300.0))
        closed = [at for at in found.sampled_s[loss:][held[loss:] > 0] if at > 301]
        if held[loss] == 0:
            # two periods at most until it expires, then a look within 120 s, and the move
            assert closed[0] - 300 < 240 + 120 + 60
            assert found.moves >= 1


def test_missing_blocks_are_counted() -> None:
    found = tale(swarm(hours=0.5, users=0, losses=[{"server": "s3", "at": "900 s"}]))
    np.testing.assert_allclose(found.coverage.missing_s[12:], 900.0, atol=1)
    assert found.coverage.missing_s[:12].max() == 0
    assert found.coverage.whole_s == pytest.approx(900.0, abs=1)


POPULATION = {
    "gpu": {
        "kind": "RTX 3060", "count": 14, "delay": "8 ms", "rate": "50 Mbit/s", "blocks": 6, "good_bye": "50 %",
        "uptime": {"law": "exponential", "mean": "20 min"}, "away": {"law": "exponential", "mean": "10 min"},
    }
}  # fmt: skip


def public(**changes: Any) -> Scenario:
    return swarm(population=POPULATION, stays={}, repairs=["eof", "replay"], **changes)


@st.composite
def churns(draw: st.DrawFn) -> tuple[Scenario, int]:
    """Any small swarm, with servers that come and go at any pace, and clients of any number."""
    kind = {
        **POPULATION["gpu"],
        "count": draw(st.integers(1, 20)),
        "blocks": draw(st.integers(1, 18)),
        "good_bye": draw(st.sampled_from(["0 %", "50 %", "100 %"])),
        "uptime": {"law": "exponential", "mean": draw(st.sampled_from(["2 min", "20 min", "5 h"]))},
        "away": {"law": "exponential", "mean": draw(st.sampled_from(["1 min", "20 min"]))},
    }
    coming: dict[str, Any] = draw(st.sampled_from([{"users": 3}, {"arrivals": "200 /h"}]))
    repairs = draw(st.sampled_from([[], ["eof"], ["replay"], ["eof", "replay"]]))
    scenario = swarm(
        population={"gpu": kind},
        stays={"s1": {"blocks": 9}},
        hours=0.15,
        repairs=repairs,
        patience="200 s",
        **coming,
    )
    return scenario.model_copy(update={"seed": draw(st.integers(0, 2**31))}), draw(st.integers(0, 3))


@given(churns())
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_holds_under_any_churn(case: tuple[Scenario, int]) -> None:
    scenario, replication = case
    world = Swarm(setting(scenario), replication)
    found = world.tale()
    repaired = "replay" in (scenario.swarm.repairs if scenario.swarm else ())
    for one in found.replies:
        assert 0 <= one.tokens <= 64
        assert one.asked_s <= found.span_s
        if one.outcome == "complete":
            # no token is lost or comes twice, and time goes forward
            assert one.tokens == 64
            assert one.asked_s < one.first_s < one.ended_s
            assert repaired or not one.recoveries
        for loss in one.recoveries:
            assert 0 <= loss.token <= 64
            assert min(loss.notice_s, loss.waited_s, loss.replay_s) >= 0
    for server in world.servers:
        # caches never hold more than there is, nor less than nothing
        assert -1e-6 <= server.room_tokens <= server.kind.cache_tokens + 1e-6
        chats: Any = server.chats.values()
        legs = [leg for chat in chats for leg in chat.legs if leg.server is server]
        held = [leg.reserved_tokens for leg in legs if leg.life == server.life]
        if server.alive:
            assert sum(held) == pytest.approx(server.kind.cache_tokens - server.room_tokens)
    online = [one for one in world.servers if one.alive]
    counts = np.zeros(18, dtype=int)
    for one in online:
        counts[one.start : one.end] += 1
    np.testing.assert_array_equal(counts, world.board.coverage.counts)
    # the same seed gives the same bytes, here and in another process
    again = tale_row(scenario.model_dump_json(round_trip=True), replication)
    assert again == json.dumps(study._row(found, 0.15))


def test_a_server_that_is_back_forgets_the_chats_of_its_life_before() -> None:
    """Found by random churn: who waits in vain for a lost server still named it, and room was counted twice."""
    uptime = {"law": "exponential", "mean": "2 min"}
    kind = {**POPULATION["gpu"], "count": 8, "blocks": 6, "uptime": uptime, "away": "20 s"}
    for replication in range(4):
        world = Swarm(setting(swarm(population={"gpu": kind}, stays={}, users=4, hours=0.1)), replication)
        world.tale()
        for server in (one for one in world.servers if one.alive):
            chats: Any = server.chats.values()
            legs = [leg for chat in chats for leg in chat.legs if leg.server is server]
            held = sum(leg.reserved_tokens for leg in legs if leg.life == server.life)
            assert held == pytest.approx(server.kind.cache_tokens - server.room_tokens)


def test_a_route_never_has_one_span_twice() -> None:
    world = Swarm(setting(public(hours=0.2, users=6)), 0)
    world.tale()
    chats = {id(chat): chat for server in world.servers for chat in server.chats.values()}
    for chat in chats.values():
        spans = sorted((leg.start, leg.end) for leg in chat.legs)  # type: ignore[attr-defined]
        assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))


def test_answers_over_replications() -> None:
    scenario = public(hours=0.15, users=2)
    rows = rows_of(scenario, 2)
    answer = swarm_answer(scenario, rows)
    assert answer.servers == 18
    assert 0 <= answer.whole.median <= 1
    assert answer.completed.median + answer.lost.median + answer.refused.median == pytest.approx(1, abs=0.2)
    (gain,) = one_more(scenario, rows)
    assert gain.kind == "gpu"
    needed = enough(public(hours=0.1), "gpu", 0.5, 1)
    assert 0 <= needed <= 14


def test_what_never_suffices_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    brief = {**POPULATION["gpu"], "uptime": "1 s", "away": "10 h", "count": 0}
    scenario = swarm(population={"gpu": brief}, stays={name: {"blocks": 1} for name in STAYS}, hours=0.02)
    monkeypatch.setattr(study, "MOST_COUNT", 4)
    with pytest.raises(PlacementError, match="not even 4 servers of 'gpu' keep all blocks served"):
        enough(scenario, "gpu", 0.99, 1)


def test_losses_of_a_swarm_are_not_those_of_a_ring() -> None:
    with pytest.raises(CatalogError, match="`sim swarm` plays that"):
        engine("petals").recovers()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"swarm": None}, "swarm: is not there; say who serves and for how long"),
        (
            {"engine": "exo", "placement": {"rule": "exo"}},
            "'exo' has a ring that somebody places, and no swarm",
        ),
        ({"swarm": {"stays": {"nobody": {}}}}, "'nobody' is no server"),
        ({"swarm": {"losses": [{"server": "s9", "at": "3 s"}]}}, "'s9' is no server"),
    ],
)
def test_what_is_no_swarm_is_refused_with_the_way_out(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        setting(swarm().replace(**changes))


@pytest.mark.parametrize("share", ["abc", "0%", "200%"])
def test_a_share_that_is_none_is_refused_before_the_work(share: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "rows_of", lambda *_: pytest.fail("the swarm was simulated"))
    app = typer.Typer()
    app.command()(swarm_cmd.swarm)
    done = CliRunner().invoke(app, ["petals_flaky", "--whole", share])
    assert str(done.exception).startswith("--whole")
