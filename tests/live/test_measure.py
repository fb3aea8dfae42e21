"""Measuring on a fake cluster: what is in the file, when it refuses, and what an interrupt leaves."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from live.errors import ClusterBusy, LiveError, PlacementRefused, Unreachable
from live.exo.client import Timeouts
from live.exo.match import device_names, match_devices, match_model
from live.exo.state import parse_state
from live.measure import MeasureOptions, MeasureResult, measure_exo
from live.prompts import PromptMaker
from live.steady import steady_state
from simulator.result.measurement import Measurement, MeasurementWriter, Provenance, read_measurement
from simulator.scenario import Scenario
from tests.live.exo.fake import MODEL, FakeExo, rest
from tests.live.replay import DATA

pytestmark = pytest.mark.timed

QUICK = Timeouts(
    connect_s=1, answer_s=3, poll_s=0.01, appear_s=1, ready_s=3, idle_s=0.5, look_again_s=0.05, patience=1
)


def scenario(**changes: Any) -> Scenario:
    made = {
        "name": "three",
        "model": MODEL,
        "devices": {"node-a": {}, "node-b": {}, "node-c": {}},
        "workload": {"prompt_tokens": 60, "output_tokens": 20, "runs": 2},
        "placement": {"layers": {"node-b": 2, "node-a": 14}},
    }
    return Scenario.model_validate(made | changes)


def measure(
    fake: FakeExo, path: Path, wanted: Scenario | None = None, **options: Any
) -> tuple[MeasureResult, Measurement]:
    with fake.serve() as server:
        result = measure_exo(
            wanted or scenario(),
            ["http://127.0.0.1:9", server.url],
            path,
            MeasureOptions(**options),
            timeouts=QUICK,
        )
    return result, read_measurement(path)


def test_a_whole_measurement(tmp_path: Path) -> None:
    fake = FakeExo()
    result, found = measure(fake, tmp_path / "m.jsonl")
    times = found.token_times_s()
    assert {key: len(values) for key, values in times.items()} == {(0, 0): 20, (1, 0): 20}
    assert all((values[1:] >= values[:-1]).all() for values in times.values())
    assert found.complete
    head = found.provenance
    assert [(shard.device, shard.start_layer, shard.end_layer) for shard in head.placement] == [
        ("node-b", 0, 2),
        ("node-a", 2, 16),
    ]
    assert (head.source, head.model_layers, head.model_bytes, head.warm_up_requests) == (
        "exo",
        16,
        21366784,
        2,
    )
    assert head.devices[0].memory_bytes == 25276514304
    assert "downloads" not in head.cluster["state"]
    assert head.cluster["endpoint"].startswith("/bench")
    assert head.scenario == scenario().model_dump(mode="json", exclude_none=True)
    assert [event["outcome"] for event in found.of("result")] == ["complete"] * 2
    assert result.runs_done == 2
    assert result.steady is not None
    # one token every 2 ms: never faster, but a busy machine may be slower
    assert 50 < result.steady.median_tokens_per_s < 700
    assert len(fake.posted) == len(fake.deleted) == 1


def test_prompts_are_fresh_and_of_the_wanted_length(tmp_path: Path) -> None:
    """The fake counts 2 tokens a word and 11 more; what the warm-up taught shows in the runs."""
    fake = FakeExo()
    _, found = measure(fake, tmp_path / "m.jsonl")
    prompts = [body["messages"][0]["content"] for _, body in fake.chats]
    assert len({prompt.split()[0] for prompt in prompts}) == len(prompts) == 4
    assert all(abs(event["prompt_tokens"] - 60) <= 2 for event in found.of("result"))


def test_without_streamed_benchmark_chats_are_measured(tmp_path: Path) -> None:
    """Up to 1.0.71: the benchmark answers as a whole, and a chat may end early, which must be said."""
    fake = FakeExo(bench_streams=False, ends_after=12)
    result, found = measure(fake, tmp_path / "m.jsonl")
    assert found.provenance.cluster["endpoint"] == "/v1/chat/completions"
    assert [event["tokens"] for event in found.of("result")] == [12, 12]
    assert sum("only 12 of 20 tokens" in text for text in result.warnings) == 2


def test_concurrency(tmp_path: Path) -> None:
    wanted = scenario(workload={"prompt_tokens": 30, "output_tokens": 10, "runs": 2, "concurrency": 3})
    result, found = measure(FakeExo(), tmp_path / "m.jsonl", wanted)
    assert sorted(found.token_times_s()) == [(run, chat) for run in range(2) for chat in range(3)]
    sent = [event["sent_ns"] for event in found.of("result") if event["run"] == 0]
    assert (max(sent) - min(sent)) / 1e9 < 0.1
    assert result.steady is not None
    assert result.steady.exo_bench_tokens_per_s == max(result.steady.per_request) * 3


def test_exos_own_placement(tmp_path: Path) -> None:
    wanted = scenario(placement={"min_devices": 3})
    _, found = measure(FakeExo(), tmp_path / "m.jsonl", wanted)
    assert [shard.end_layer for shard in found.provenance.placement] == [4, 8, 16]


def test_a_rule_of_ours_is_placed_by_the_client(tmp_path: Path) -> None:
    """EXO places by its own rule alone, so any other one has to be made here."""
    known = {"name": MODEL, "layers": 16, "hidden": 512, "layer_bytes": "1 MB"}
    device = {"kind": "Linux laptop LPDDR5/DDR5-4800 dual channel"}
    devices = {f"node-{x}": device for x in "abc"}
    wanted = scenario(model=known, devices=devices, engine="exo", placement={"rule": "even"})
    _, found = measure(FakeExo(), tmp_path / "m.jsonl", wanted)
    assert [s.end_layer - s.start_layer for s in found.provenance.placement] in (
        [5, 5, 6],
        [6, 5, 5],
        [5, 6, 5],
    )
    assert not any("layers lie as" in text for text in found.warnings)


def test_where_scenario_and_cluster_differ_it_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    known = {"name": MODEL, "layers": 16, "hidden": 512, "layer_bytes": "1 MB"}
    device = {"kind": "Linux laptop LPDDR5/DDR5-4800 dual channel"}
    devices = {f"node-{x}": device for x in "abc"}
    wanted = scenario(model=known, devices=devices, engine="exo", placement={"min_devices": 3})
    told: list[str] = []
    _, found = measure(FakeExo(), tmp_path / "m.jsonl", wanted, say=told.append)
    said = next(index for index, text in enumerate(told) if "the layers lie as" in text)
    assert said < told.index("warming up")
    assert any("the layers lie as" in text for text in found.warnings)


def test_layers_beyond_free_memory_are_warned_of(tmp_path: Path) -> None:
    fake = FakeExo()
    free = {"inBytes": 1000}
    for memory in fake.state["nodeMemory"].values():
        memory["ramAvailable"] = free
    _, found = measure(fake, tmp_path / "m.jsonl")
    assert any("node-a: its 14 layers take" in text and "give it fewer" in text for text in found.warnings)


def test_bursts_are_warned_of_at_once(tmp_path: Path) -> None:
    told: list[str] = []
    fake = FakeExo(bursts=5)
    _, found = measure(fake, tmp_path / "m.jsonl", say=told.append)
    said = next(index for index, text in enumerate(told) if "in bursts" in text)
    assert said < told.index("run 2 of 2")
    assert "rank 0" in told[said]
    assert any("in bursts" in text for text in found.warnings)


def test_refuses_when_others_are_there(tmp_path: Path) -> None:
    fake = FakeExo()
    fake.state["instances"] = rest("state_running_min2")["instances"]
    with pytest.raises(
        ClusterBusy, match="an idle instance of .* already .*measure it with --reuse-instance"
    ):
        measure(fake, tmp_path / "m.jsonl")
    with pytest.raises(ClusterBusy, match="may send our requests to it"):
        measure(fake, tmp_path / "m.jsonl", allow_busy=True)
    assert not fake.posted
    assert not (tmp_path / "m.jsonl").exists()
    _, found = measure(fake, tmp_path / "m.jsonl", reuse_instance=True)
    assert not fake.posted
    assert not fake.deleted
    assert found.complete


def test_refuses_running_tasks_unless_told(tmp_path: Path) -> None:
    fake = FakeExo()
    fake.state["tasks"] = {
        "t1": {"TextGeneration": {"taskStatus": "Running"}},
        "t2": {"LoadModel": {"taskStatus": "Running"}},
        "t3": {"TextGeneration": {"taskStatus": "Complete"}},
    }
    with pytest.raises(ClusterBusy, match="task TextGeneration t1;"):
        measure(fake, tmp_path / "m.jsonl")
    result, _ = measure(fake, tmp_path / "m.jsonl", allow_busy=True)
    assert any("other work" in text for text in result.warnings)


def test_a_broken_reply_is_mended_and_the_run_goes_on(tmp_path: Path) -> None:
    """An error event while all is well, in every reply: each is asked for again behind what came, and the placement stays."""
    fake = FakeExo(breaks_after=9)
    result, found = measure(fake, tmp_path / "m.jsonl")
    assert {key: len(values) for key, values in found.token_times_s().items()} == {(0, 0): 20, (1, 0): 20}
    assert [event["outcome"] for event in found.of("result")] == ["complete"] * 2
    assert (result.runs_done, result.failures, len(fake.posted)) == (2, (), 1)
    assert [recovery.token for recovery in result.recoveries] == [9, 17, 9, 17]  # one is made again
    assert result.steady is None  # a run with a recovery is no steady state


def test_a_reply_beyond_mending_is_kept_and_the_run_goes_on(tmp_path: Path) -> None:
    result, found = measure(FakeExo(garbled_after=9), tmp_path / "m.jsonl")
    assert {key: len(values) for key, values in found.token_times_s().items()} == {(0, 0): 9, (1, 0): 9}
    assert [event["outcome"] for event in found.of("result")] == ["StreamGarbled"] * 2
    assert result.runs_done == 0
    assert "StreamGarbled" in result.failures[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_everything(tmp_path: Path, number: int) -> None:
    fake = FakeExo(hangs=True)
    fake_timeouts = Timeouts(connect_s=1, answer_s=3, poll_s=0.01, idle_s=30, first_token_s=30)
    path = tmp_path / "m.jsonl"

    def stop(run: int, chat: int, token: int) -> None:
        if token == 4:
            threading.Timer(0.05, os.kill, (os.getpid(), number)).start()

    # The fake hangs at its sixth token, also in the warm-up, so that is made shorter.
    with pytest.MonkeyPatch.context() as patch, fake.serve() as server:
        patch.setattr("live.session.WARM_UP_TOKENS", 5)
        with pytest.raises(KeyboardInterrupt):
            measure_exo(scenario(), [server.url], path, MeasureOptions(on_token=stop), timeouts=fake_timeouts)
    found = read_measurement(path)
    assert not found.complete
    assert {key: len(values) for key, values in found.token_times_s().items()} == {(0, 0): 5}
    assert found.events[-1] == {"type": "end", "outcome": "interrupted"}
    assert [event["outcome"] for event in found.of("result")] == ["StreamAborted"]
    assert len(fake.posted) == len(fake.deleted) == 1


def test_measurements_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text("precious")
    fake = FakeExo()
    with pytest.raises(LiveError, match="never overwritten"):
        measure(fake, tmp_path / "m.jsonl")
    assert not fake.posted


def test_wrong_names_are_refused_before_anything_is_placed(tmp_path: Path) -> None:
    fake = FakeExo()
    with pytest.raises(LiveError, match="nodes are node-a"):
        measure(fake, tmp_path / "m.jsonl", scenario(devices={"x": {}}, placement={"layers": {"x": 16}}))
    with pytest.raises(LiveError, match="no model 'llama'"):
        measure(fake, tmp_path / "m.jsonl", scenario(model="llama"))
    with pytest.raises(PlacementRefused, match="tile"):
        measure(fake, tmp_path / "m.jsonl", scenario(placement={"layers": {"node-a": 3}}))
    assert not fake.posted
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        measure_exo(scenario(), ["http://127.0.0.1:9"], tmp_path / "m.jsonl", timeouts=QUICK)


def test_names_of_devices_and_models() -> None:
    state = parse_state(rest("state_idle_3nodes"))
    ids = [node.node_id for node in state.nodes]
    assert match_devices(["Node A", "x"], state.nodes, {"x": ids[1][:8]}) == {"Node A": ids[0], "x": ids[1]}
    with pytest.raises(LiveError, match="say --device device=node"):
        match_devices(["node-a", "again"], state.nodes, {"again": "node-a"})
    assert list(device_names(state.nodes).values()) == ["node-a", "node-b", "node-c"]
    cards = rest("models")["data"]
    assert match_model("Llama-3.3-70B", "4bit", cards) == "mlx-community/Llama-3.3-70B-Instruct-4bit"
    glm = [{"id": "mlx-community/GLM-4.7-8bit", "quantization": "8bit"}]
    assert match_model("GLM-4.7", "8bit", glm) == "mlx-community/GLM-4.7-8bit"
    assert match_model("llama 3.3 70b", None, cards) == "mlx-community/Llama-3.3-70B-Instruct-4bit"
    with pytest.raises(LiveError, match="--model"):
        match_model("Llama-9", None, cards)


@pytest.mark.parametrize(("overhead", "per_word"), [(11, 2.0), (40, 1.0), (300, 1.3)])
def test_prompt_maker_learns_a_line(overhead: int, per_word: float) -> None:
    maker = PromptMaker(1000)
    for words in (4, None):
        _, count = maker.make(words)
        maker.learn(count, round(overhead + per_word * count))
    assert abs(overhead + per_word * maker.words_for_target() - 1000) <= per_word + 1


def test_steady_state_is_what_exo_reports(tmp_path: Path) -> None:
    """The real campaign, four streams at once: EXO's own rates, within what the messages' path adds."""
    lines = [json.loads(line) for line in (DATA / "exo/campaign/H_a8b8c8_c4.jsonl").read_text().splitlines()]
    header = lines[0]
    blank = {"device": "a", "start_layer": 0, "end_layer": 24}
    provenance = Provenance.model_validate(
        {
            "name": "c",
            "created": "",
            "source": "exo",
            "engine": "exo",
            "engine_version": "",
            "model": "m",
            "model_layers": 24,
            "devices": [{"name": "a", "chip": "", "os": ""}],
            "placement": [blank],
            "prompt_tokens": 36,
            "output_tokens": 128,
            "runs": 2,
            "concurrency": 4,
            "warm_up_requests": 1,
            "clock": "",
        }
    )
    with MeasurementWriter(tmp_path / "m.jsonl", provenance) as out:
        for line in lines[1:]:
            out.write("token", run=line["run"], chat=line["stream"], token=line["token"], t_ns=line["t_ns"])
    found = steady_state(read_measurement(tmp_path / "m.jsonl"))
    assert found is not None
    engine = [request["engine_generation_tps"] for request in header["requests"]]
    assert list(found.per_request) == pytest.approx(engine, rel=0.03)
    assert found.exo_bench_tokens_per_s == pytest.approx(max(engine) * 4, rel=0.03)
