"""What holds whatever servers do: any churn, losses by hand, few or many chats, with repairs and without.

`SWARM_EXAMPLES=1000 python -m pytest tests/simulator/swarm/test_churn.py` plays a thousand scripts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.scenario import Scenario
from simulator.swarm import chats, study
from simulator.swarm.board import Board
from simulator.swarm.chats import Chat, Client
from simulator.swarm.population import Server, setting
from simulator.swarm.run import Swarm
from simulator.swarm.study import tale_row
from tests.simulator.swarm.worlds import POPULATION, swarm

EXAMPLES = int(os.environ.get("SWARM_EXAMPLES", "4"))
BLOCKS, HOURS = 18, 0.15


class Told(Chat):
    """A chat that keeps each value of the tokens that are left, the one under way in part, and whether any come."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "left":
            self.__dict__.setdefault("told", []).append((value, self.__dict__.get("decodes", False)))
        super().__setattr__(name, value)


@contextmanager
def watched(seen: list[Told]) -> Iterator[None]:
    """Look at every route that begins to decode, and at every cache whenever something is taken or given back."""
    go_on, take_room = Client.go_on, Board.take_room

    def route(self: Client, chat: Told) -> None:
        seen.append(chat)
        spans = sorted((leg.start, leg.end) for leg in chat.legs)
        # each block once: no gap, and never two servers of one span
        assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])]
        assert spans[-1][1] == BLOCKS
        go_on(self, chat)

    def cache(self: Board, server: Server, tokens: float) -> None:
        take_room(self, server, tokens)
        assert -1e-6 <= server.room_tokens <= server.kind.cache_tokens + 1e-6

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chats, "Chat", Told)
        patch.setattr(Client, "go_on", route)
        patch.setattr(Board, "take_room", cache)
        yield


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
    coming: dict[str, Any] = draw(st.sampled_from([{"users": 3}, {"users": 12}, {"arrivals": "200 /h"}]))
    loss = {
        "server": "s1",
        "at": f"{draw(st.integers(1, 500))} s",
        "how": draw(st.sampled_from(["kill", "hang", "leave"])),
        "back_after": draw(st.sampled_from([None, "5 s", "250 s"])),
    }
    lasting = draw(st.sampled_from([{}, {"uptime": "100 s", "away": "10 s"}]))
    scenario = swarm(
        population={"gpu": kind},
        stays={"s1": {"blocks": 9, **lasting}, "s2": {"blocks": draw(st.integers(1, 18))}},
        hours=HOURS,
        repairs=draw(st.sampled_from([[], ["eof"], ["replay"], ["eof", "replay"]])),
        patience="200 s",
        balance_period=draw(st.sampled_from(["5 s", "60 s"])),
        losses=draw(st.sampled_from([[], [loss]])),
        **coming,
    )
    # a server has room for two chats of the longer kind
    tokens = draw(st.sampled_from([64, 1900]))
    workload = scenario.workload.model_copy(update={"output_tokens": tokens})
    changes = {"seed": draw(st.integers(0, 2**31)), "workload": workload}
    return scenario.model_copy(update=changes), draw(st.integers(0, 3))


@given(churns())
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_holds_under_any_churn(case: tuple[Scenario, int]) -> None:
    scenario, replication = case
    world, decoded = Swarm(setting(scenario), replication), []
    with watched(decoded):
        found = world.tale()
    tokens = scenario.workload.output_tokens
    repaired = "replay" in (scenario.swarm.repairs if scenario.swarm else ())
    for chat in {id(one): one for one in decoded}.values():
        no_token_is_lost_or_comes_twice(chat, tokens)
    for one in found.replies:
        assert 0 <= one.tokens <= tokens
        assert 0 <= one.asked_s <= found.span_s
        if one.outcome == "complete":
            assert one.tokens == tokens
            assert one.asked_s < one.first_s < one.ended_s <= found.span_s
            assert repaired or all(loss.how == "hang" for loss in one.recoveries)
        # time goes forward, and so does the text
        assert one.recoveries == sorted(one.recoveries, key=lambda loss: (loss.at_s, loss.token))
        for loss in one.recoveries:
            assert 1 <= loss.token <= tokens
            assert one.first_s <= loss.at_s <= found.span_s
            assert min(loss.notice_s, loss.waited_s, loss.replay_s) >= 0
    what_is_held_is_what_is_told(world)
    # the same seed gives the same bytes, here and in another process
    again = tale_row(scenario.model_dump_json(round_trip=True), replication)
    assert again == json.dumps(study._row(found, HOURS))


def no_token_is_lost_or_comes_twice(chat: Told, tokens: int) -> None:
    """What is left falls to nothing; a loss sets it back to the beginning of the token under way, no further."""
    told = chat.__dict__["told"][1:]
    assert told[0] == (tokens - 1, False)
    for (before, _), (after, decodes) in zip(told, told[1:], strict=False):
        assert after <= before if decodes else after == ceil(before - 1e-9)
    if chat.reply.outcome == "complete":
        assert told[-1][0] <= 1e-9


def what_is_held_is_what_is_told(world: Swarm) -> None:
    """Room in caches is that of the chats there, and blocks are served by who is online."""
    counts = np.zeros(BLOCKS, dtype=int)
    for server in (one for one in world.servers if one.alive):
        counts[server.start : server.end] += 1
        legs = [leg for chat in server.chats.values() for leg in chat.legs]  # type: ignore[attr-defined]
        held = [leg.reserved_tokens for leg in legs if leg.server is server and leg.life == server.life]
        assert sum(held) == pytest.approx(server.kind.cache_tokens - server.room_tokens)
    np.testing.assert_array_equal(counts, world.board.coverage.counts)


def test_a_server_that_is_back_forgets_the_chats_of_its_life_before() -> None:
    """Found by random churn: who waits in vain for a lost server still named it, and room was counted twice."""
    uptime = {"law": "exponential", "mean": "2 min"}
    kind = {**POPULATION["gpu"], "count": 8, "blocks": 6, "uptime": uptime, "away": "20 s"}
    for replication in range(4):
        world = Swarm(setting(swarm(population={"gpu": kind}, stays={}, users=4, hours=0.1)), replication)
        world.tale()
        what_is_held_is_what_is_told(world)


def test_a_server_that_hung_has_the_room_again_of_chats_that_went_elsewhere() -> None:
    """Found by random churn: it kept room for them for ever."""
    stays = {"s1": {"blocks": 9}, "s2": {"blocks": 9}}
    losses = [{"server": "s1", "at": "2 s", "how": "hang", "back_after": "250 s"}]
    world = Swarm(setting(swarm(stays=stays, losses=losses, users=3, hours=HOURS, patience="200 s")), 0)
    world.tale()
    what_is_held_is_what_is_told(world)


def test_a_server_that_came_again_by_itself_is_not_woken_up_beside_that() -> None:
    stays = {"s1": {"blocks": 9, "uptime": "60 s", "away": "10 s"}}
    losses = [{"server": "s1", "at": "30 s", "how": how, "back_after": "120 s"} for how in ("hang", "kill")]
    for loss in losses:
        world = Swarm(setting(swarm(stays=stays, losses=[loss], users=1, hours=HOURS)), 0)
        world.tale()
        what_is_held_is_what_is_told(world)
