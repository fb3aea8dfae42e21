"""A cluster of 64 nodes, whose state has two megabytes: how often it is read whole, counted and not timed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import live.exo.reader as reader
from live.exo.client import ExoClient
from live.exo.state import ClusterState
from live.measure import MeasureOptions, measure_exo
from tests.live.exo.fake import FakeExo
from tests.live.exo.large import enlarged
from tests.live.replay import ReplayServer, Request, Script, json_answer
from tests.live.test_measure import QUICK, scenario

pytestmark = pytest.mark.timed


@pytest.fixture
def wholes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each state of all nodes that is parsed."""
    found: list[int] = []
    parse: Callable[[Any], ClusterState] = reader.parse_state

    def counted(raw: Any) -> ClusterState:
        state = parse(raw)
        found.extend([1] * (len(state.nodes) > 3))
        return state

    monkeypatch.setattr(reader, "parse_state", counted)
    return found


def test_while_it_measures_the_whole_state_is_never_read(
    tmp_path: Path, wholes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("live.exo.others.LOOK_S", 0.02)
    fake, at_tokens = FakeExo(gap_s=0.005, state=enlarged(), statuses=["RunnerReady"]), list[int]()
    assert len(json.dumps(fake.state)) > 1_900_000
    options = MeasureOptions(on_token=lambda *_: at_tokens.append(len(wholes)))
    with fake.serve() as server:
        done = measure_exo(scenario(), [server.url], tmp_path / "m.jsonl", options, timeouts=QUICK)
        asked = [request.path for request in server.requests]
    assert done.runs_done == 2
    # before: who is there, what to build, twice whether it is ready, and what the header says
    assert at_tokens[0] == at_tokens[-1] == len(wholes) == asked.count("/state") <= 6
    # meanwhile others are watched for all the same
    assert asked.count("/state/tasks") > 6


def test_versions_that_give_no_parts_are_read_as_rarely_as_their_state_is_large(
    wholes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def state(request: Request) -> Script | None:
        asked.append(request.path)
        return json_answer(enlarged()) if request.path == "/state" else None

    cpu_s = iter(range(0, 100, 2))
    monkeypatch.setattr("live.exo.reader.time.thread_time", lambda: next(cpu_s) / 25)
    with ReplayServer({"*": state}) as server:
        client = ExoClient(server.url)
        found = [client.work(), client.work()]
    assert asked == ["/state/tasks", "/state", "/state"]
    assert len(wholes) == len(found) == 2
    assert client.pause_s == pytest.approx(0.08 / 0.04)  # 80 ms of work, 4 % of a core
