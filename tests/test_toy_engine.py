"""An engine of one file gets every command; what it does not offer is refused by name."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sim.main import main
from simulator.engine.base import engine, engines, register
from simulator.errors import SimulatorError
from simulator.files import loads
from simulator.prepare import prepare
from simulator.result.measurement import MeasurementWriter, Provenance
from simulator.run.evaluate import token_times_s
from simulator.scenario import Scenario
from tests.toy_engine import BARE, ENGINE

SCENARIO = """
name: toys
model: {name: tiny, layers: 12, layer_bytes: 20 MB, hidden: 256, head_bytes: 10 MB, kv_bytes_per_token_per_layer: 1 kB}
devices:
  a: {kind: MacBook Air M4, memory: 16 GB, link: {kind: ethernet_1g}}
  b: {kind: MacBook Air M4, memory: 16 GB, link: {kind: wifi6}}
engine: ENGINE
placement: PLACEMENT
workload: {prompt_tokens: 16, output_tokens: 24, runs: 2}
replications: 6
"""
Run = Callable[..., str]


@pytest.fixture(scope="module", autouse=True)
def toys() -> Iterator[None]:
    """Both toys are known here and nowhere else."""
    from simulator.engine import base

    register(ENGINE)
    register(BARE)
    yield
    base._PLUGINS.clear()


@pytest.fixture
def sim(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command line in a folder with a scenario of each toy; gives standard output, or the error's text."""
    for name, rule in (("toy", "toy"), ("bare", "even")):
        text = SCENARIO.replace("ENGINE", name).replace("PLACEMENT", rule)
        (tmp_path / f"{name}.yaml").write_text(text)
        (tmp_path / f"{name}_even.yaml").write_text(
            text.replace("name: toys", "name: evens").replace(f"placement: {rule}", "placement: even")
        )
    monkeypatch.chdir(tmp_path)

    def run(*args: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["sim", *args])
        ended = 0
        try:
            main()
        except SystemExit as stop:
            ended = int(stop.code or 0)
        captured = capsys.readouterr()
        assert ended == code, captured.err + captured.out
        return captured.out if code == 0 else captured.err

    return run


def test_the_toy_is_found_and_takes_no_other_name() -> None:
    assert engine("toy") == ENGINE
    assert {"exo", "exo-legacy", "llama-rpc", "toy"} <= set(engines())
    stolen = replace(ENGINE, facts=ENGINE.facts.model_copy(update={"name": "exo"}))
    with pytest.raises(SimulatorError, match="'exo' is known already"):
        register(stolen)


def test_both_evaluators_agree() -> None:
    job = prepare(loads(SCENARIO.replace("ENGINE", "toy").replace("PLACEMENT", "toy"), Scenario)).job
    assert job.placement.layer_counts == {"a": 1, "b": 11}
    fast, simpy = (token_times_s(job, 3, evaluator) for evaluator in ("recursion", "simpy"))
    np.testing.assert_allclose(fast, simpy, rtol=1e-9)


def test_run_and_compare(sim: Run) -> None:
    told = json.loads(sim("run", "toy.yaml", "--json"))
    assert told["engine"] == "toy"
    assert told["tokens_per_s"]["median"] > 0
    ranked = json.loads(sim("compare", "toy.yaml", "toy_even.yaml", "--json"))
    assert {row["scenario"] for row in ranked["ranking"]} == {"toys", "evens"}


def test_place_shows_its_own_rule_and_no_other_engines(sim: Run) -> None:
    told = json.loads(sim("place", "toy.yaml", "--json"))
    assert {option["name"] for option in told["beside"]} == {"toy", "speed", "even"}
    assert told["proof"]["gap"] < 1e-9


def test_plan(sim: Run) -> None:
    told = json.loads(sim("plan", "toy.yaml", "--budget", "0 EUR", "--json"))
    assert told["options"][0]["tokens_per_s"]["median"] > 0


def test_dropout_and_evening(sim: Run) -> None:
    told = json.loads(
        sim(
            "dropout",
            "toy.yaml",
            "--device",
            "b",
            "--at-token",
            "5",
            "--replications",
            "3",
            "--no-charts",
            "--json",
        )
    )
    assert told["replies"]["completed"] == 1
    assert told["recovery_s"]["median"] > 0
    evening = json.loads(
        sim(
            "evening",
            "toy.yaml",
            "--hours",
            "0.1",
            "--requests-per-hour",
            "60",
            "--replications",
            "2",
            "--json",
        )
    )
    assert evening["completed"]["median"] == 1


def test_sweep_in_other_processes(sim: Run) -> None:
    told = json.loads(
        sim(
            "sweep",
            "toy.yaml",
            "--over",
            "devices.b.link.rtt=1ms,4ms",
            "--workers",
            "1",
            "--no-charts",
            "--json",
        )
    )
    near, far = (row["tokens_per_s_median"] for row in told["rows"])
    assert near > far


def test_sensitivity_and_load(sim: Run) -> None:
    told = json.loads(sim("sensitivity", "toy.yaml", "--points", "16", "--no-charts", "--json"))
    assert any(row["input"] == "world/engine/step" for row in told["influences"])
    load = json.loads(
        sim("load", "toy.yaml", "--rates", "5,20", "--chats", "3", "--most", "2", "--no-charts", "--json")
    )
    assert len(load["load"] if "load" in load else load["points"]) == 2


def measured(path: Path, layers: dict[str, int], seed: int) -> None:
    """A measurement as the toy itself would give it."""
    text = SCENARIO.replace("ENGINE", "toy").replace("PLACEMENT", f"{{layers: {json.dumps(layers)}}}")
    scenario = loads(text, Scenario).model_copy(update={"seed": seed, "replications": 1})
    prepared = prepare(scenario)
    times_s = token_times_s(prepared.job, scenario.workload.runs)[0]
    shards = [
        {"device": shard.device, "start_layer": shard.start_layer, "end_layer": shard.end_layer}
        for shard in prepared.job.shards
    ]
    header = Provenance.model_validate(
        {
            "name": path.stem, "created": "2026-11-27T00:00:00Z", "source": "local", "engine": "toy",
            "engine_version": "1", "model": "tiny", "model_layers": 12, "prompt_tokens": 16, "output_tokens": 24,
            "devices": [{"name": name, "chip": "toy", "os": "toy"} for name in layers], "placement": shards,
            "runs": scenario.workload.runs, "warm_up_requests": 1, "clock": "made up",
            "scenario": scenario.model_dump(mode="json"),
        }
    )  # fmt: skip
    with MeasurementWriter(path, header) as writer:
        for run in range(scenario.workload.runs):
            writer.write("request", run=run, chat=0, prompt_tokens=16, sent_ns=0)
            for token, time_s in enumerate(times_s[:, run]):
                writer.write("token", run=run, chat=0, token=token, t_ns=round(time_s * 1e9))
            writer.write("result", run=run, chat=0, outcome="complete", tokens=24)


def test_design_and_calibrate(sim: Run, tmp_path: Path) -> None:
    assert "next: sim live run" in sim("live", "design", "toy.yaml", "--runs", "3", "-o", "plan")
    for number, layers in enumerate(({"a": 6, "b": 6}, {"a": 2, "b": 10}, {"a": 12})):
        measured(tmp_path / f"m{number}.jsonl", layers, number)
    sim("calibrate", "m0.jsonl", "m1.jsonl", "m2.jsonl", "--draws", "40", "-o", "c.yaml")
    told = json.loads(sim("run", "toy.yaml", "--calibration", "c.yaml", "--json"))
    assert {row["label"] for row in told["placement"]} == {"calibrated"}


def test_what_it_does_not_offer_is_refused_by_name(sim: Run) -> None:
    for command in (("place",), ("plan", "--budget", "0 EUR")):
        said = sim(command[0], "bare.yaml", *command[1:], code=3)
        assert "engine 'bare' cannot be searched: its mean costs are not known" in said
        assert re.search(r"take engine exo or exo-legacy or llama-rpc or .* or toy$", said)
    said = sim("dropout", "bare.yaml", "--device", "b", "--at-token", "5", code=2)
    assert "how engine 'bare' gets over the loss of a device is not known" in said
    said = sim("load", "bare.yaml", "--rates", "5", code=2)
    assert re.search(
        r"how bare serves chats that come one by one is not recorded; use engine exo or .* or toy$", said
    )
