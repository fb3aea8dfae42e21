"""`sim live run --cluster exo-legacy://...` on recorded streams of a legacy cluster of three nodes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from live.errors import ClusterBusy, LiveError, Unreachable
from live.exo.chat import Timeouts
from live.exo_legacy.measure import measure_legacy
from live.measure import MeasureOptions, connect
from sim.live_cmd import app
from sim.live_exo_cmd import live_scenario
from simulator.errors import PlacementError
from simulator.files import dump
from simulator.result.measured import measured_summary
from simulator.result.measurement import read_measurement
from simulator.scenario import Scenario
from tests.live.exo_legacy.test_legacy import CHAT, LEGACY, TOPOLOGY, routes
from tests.live.replay import ReplayServer, Script, json_answer, legacy_exchange

pytestmark = pytest.mark.timed

SPEED = 40.0
MEMORIES_MIB = {"alpha": 24576, "bravo": 10, "charlie": 9}
TOKENS = 48  # in the recording, whatever was asked for


def scenario(**changes: Any) -> Scenario:
    """The recorded cluster: 24, 16 and 8 GB."""
    made = {
        "name": "legacy",
        "model": {"name": "llama-3.2-1b", "layers": 16, "hidden": 2048, "layer_bytes": "120 MB"},
        "engine": "exo-legacy",
        "devices": {
            name: {"kind": "Linux laptop LPDDR5/DDR5-4800 dual channel"}
            for name in ("alpha", "bravo", "charlie")
        },
        "workload": {"prompt_tokens": 40, "output_tokens": 40, "runs": 2},
    }
    return Scenario.model_validate(made | changes)


def served(script: Script | None = None, **changes: Any) -> ReplayServer:
    """The recorded cluster; it counts two tokens a word and eleven more."""
    if script is None:
        _, script = legacy_exchange(LEGACY / "http/chat_stream_max_tokens_5_ignored.json")

    def count(request: Any) -> Script:
        words = request.json()["messages"][0]["content"].split()
        return json_answer({"num_tokens": 2 * len(words) + 11})

    return ReplayServer(routes(script, **changes) | {"POST /v1/chat/token/encode": count}, SPEED)


def test_a_scenario_is_measured(tmp_path: Path) -> None:
    out, counted = tmp_path / "m.jsonl", list[tuple[int, int, int]]()
    options = MeasureOptions(power={"bravo": "battery"}, on_token=lambda *token: counted.append(token))
    with served() as server:
        done = measure_legacy(scenario(), [server.url], out, options)
    found = read_measurement(out)
    head = found.provenance
    assert found.complete
    assert (head.source, head.engine, head.model, head.model_layers) == (
        "exo-legacy",
        "exo-legacy",
        "llama-3.2-1b",
        16,
    )
    assert [(s.device, s.start_layer, s.end_layer) for s in head.placement] == [
        ("alpha", 0, 8),
        ("bravo", 8, 13),
        ("charlie", 13, 16),
    ]
    assert [device.memory_bytes for device in head.devices] == [24576 * 2**20, 16384 * 2**20, 8192 * 2**20]
    assert head.devices[1].power_source == "battery"
    # the cluster goes on beyond what the scenario wants; those tokens are read, as nothing ends them, but not kept
    assert {key: len(times) for key, times in found.token_times_s().items()} == {(0, 0): 40, (1, 0): 40}
    assert [event["tokens"] for event in found.of("result")] == [TOKENS, TOKENS]
    assert counted == [(run, 0, token) for run in range(2) for token in range(40)]
    assert (done.runs_done, done.failures, done.warnings) == (2, (), ())
    assert done.steady is not None
    assert measured_summary(found).runs == 2
    chats = [r for r in server.requests if r.path == "/v1/chat/completions"]
    prompts = [request.json()["messages"][0]["content"] for request in chats]
    assert len(set(prompts)) == 3  # a warm-up and two runs, none of them computed before


def test_an_old_version_tells_how_long_each_node_works(tmp_path: Path) -> None:
    """Up to 0.0.12, in the warm-up only: the questions cost the node some time."""
    _, script = legacy_exchange(LEGACY / "v0.0.11/chat_stream.json")
    views = [TOPOLOGY | {"active_node_id": name} for name in ("alpha", "bravo", None)]
    asked = []

    def topology(_: Any) -> Script:
        asked.append(1)
        # the first look, before anything runs, finds nobody at work
        return json_answer(views[len(asked) // 4 % 3 if len(asked) > 3 else 2])

    with served(script, old=True, topology=topology) as server:
        measure_legacy(scenario(), [server.url], tmp_path / "m.jsonl")
    head = read_measurement(tmp_path / "m.jsonl").provenance
    assert head.engine_version == "0.0.12 or older"
    assert {"alpha", "bravo", "between nodes"} >= head.cluster["dwell_median_s"].keys() > set()


def test_a_lost_node_ends_the_measurement(tmp_path: Path) -> None:
    _, whole = legacy_exchange(LEGACY / "http/chat_stream_max_tokens_5_ignored.json")
    cut, chats = Script(whole.sends[:20], "hold"), list[int]()

    def chat(_: Any) -> Script:
        chats.append(1)
        return cut if len(chats) == 3 else whole

    hasty = Timeouts(first_token_s=5, idle_s=0.5, idle_most_s=0.5, patience=2)
    with served(chat) as server:  # type: ignore[arg-type]  # a maker of scripts
        done = measure_legacy(scenario(), [server.url], tmp_path / "m.jsonl", timeouts=hasty)
    found = read_measurement(tmp_path / "m.jsonl")
    assert done.runs_done == 1
    assert [event["outcome"] for event in found.of("result")] == ["complete", "StreamStalled"]
    assert "takes no lost request up again" in done.warnings[-1]
    assert 0 < len(found.token_times_s()[1, 0]) < TOKENS


def tiny() -> Mapping[str, Any]:
    """bravo, in the middle of the ring, has too little memory for one layer."""
    nodes = {name: TOPOLOGY["nodes"][name] | {"memory": mib} for name, mib in MEMORIES_MIB.items()}
    return TOPOLOGY | {"nodes": nodes}


@pytest.mark.parametrize(
    ("changes", "topology", "error", "message"),
    [
        ({"engine": "exo"}, TOPOLOGY, LiveError, "engine is exo, and the cluster is legacy EXO"),
        ({"workload": {"concurrency": 2}}, TOPOLOGY, LiveError, "one chat at a time"),
        (
            {"placement": {"layers": {"alpha": 4, "bravo": 8, "charlie": 4}}},
            TOPOLOGY,
            LiveError,
            r"places by memory \(8 on alpha, 5 on bravo, 3 on charlie\)",
        ),
        ({}, tiny(), PlacementError, "legacy EXO would hang: bravo"),
        ({}, TOPOLOGY | {"active_node_id": "bravo"}, ClusterBusy, "bravo works on somebody's request"),
        (
            {"devices": {"alpha": {"kind": "Linux laptop LPDDR5/DDR5-4800 dual channel"}}},
            TOPOLOGY,
            LiveError,
            "the cluster has bravo, charlie, which gets layers as well",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_runs(
    tmp_path: Path, changes: Any, topology: Any, error: type[Exception], message: str
) -> None:
    with served(topology=topology) as server, pytest.raises(error, match=message):
        measure_legacy(scenario(**changes), [server.url], tmp_path / "m.jsonl")
    assert not (tmp_path / "m.jsonl").exists()
    assert not [request for request in server.requests if request.path == CHAT.partition(" ")[2]]


def test_the_two_generations_are_not_taken_for_each_other(tmp_path: Path) -> None:
    with served() as server, pytest.raises(LiveError, match=r"is legacy EXO .* write exo-legacy://"):
        connect([server.url])
    with ReplayServer({"*": lambda _: None}) as server:
        with pytest.raises(LiveError, match=r"is a web server, and no EXO.*openai://127"):
            connect([server.url])
        with pytest.raises(Unreachable, match=r"no legacy EXO \(0\.0\.x\); write exo://"):
            measure_legacy(scenario(), [server.url], tmp_path / "m.jsonl")
    with pytest.raises(LiveError, match="no scenario can be made of it"):
        live_scenario("exo-legacy://127.0.0.1:9", tmp_path / "mine.yaml")


def test_the_command(tmp_path: Path) -> None:
    dump(scenario(), tmp_path / "legacy.yaml")
    with served() as server:
        cluster = server.url.replace("http", "exo-legacy", 1)
        arguments = [
            "run",
            str(tmp_path / "legacy.yaml"),
            "--cluster",
            cluster,
            "-o",
            str(tmp_path / "m.jsonl"),
            "--json",
        ]
        answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["runs_done"] == 2
