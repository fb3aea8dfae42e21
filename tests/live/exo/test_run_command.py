"""`sim live run` on a fake EXO cluster over a real socket: several scenarios in turn, exit codes, JSON, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from live.url import kind_of
from sim.main import app
from simulator.errors import LiveError, SimulatorError
from simulator.files import dump
from simulator.result.measurement import read_measurement
from tests.live.exo.fake import MODEL, FakeExo
from tests.live.exo.losing import scenario as losing_scenario
from tests.live.test_measure import scenario

pytestmark = pytest.mark.timed


def run_cli(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["live", *words])
    error = done.exception if isinstance(done.exception, SimulatorError) else None
    return (error.exit_code if error else done.exit_code), done.stdout, str(error or done.stderr)


def files(folder: Path, *wanted: Any) -> list[str]:
    for one in wanted:
        dump(one, folder / f"{one.name}.yaml")
    return [str(folder / f"{one.name}.yaml") for one in wanted]


def measure(fake: FakeExo, *words: str) -> tuple[int, str, str]:
    with fake.serve() as server:
        return run_cli("run", *words, "--cluster", server.url.replace("http", "exo"))


def other(**changes: Any) -> Any:
    return scenario(name="other", placement={"layers": {"node-a": 8, "node-c": 8}}, **changes)


def test_several_scenarios_are_measured_in_turn(tmp_path: Path) -> None:
    """There and back, each visit in a file of its own, and nothing is left behind."""
    fake, out = FakeExo(), tmp_path / "measured"
    code, text, _ = measure(fake, *files(tmp_path, scenario(), other()), "--rounds", "2", "-o", str(out))
    assert code == 0
    found = [read_measurement(path) for path in sorted(out.glob("*.jsonl"))]
    assert sorted(one.provenance.name for one in found) == ["other", "other", "three", "three"]
    nodes = [len(one["MlxRingInstance"]["shardAssignments"]["nodeToRunner"]) for one in fake.posted]
    assert nodes == [2, 2, 2, 2]
    assert len(fake.deleted) == 4
    assert text.count("2 of 2 runs, median") == 4
    assert "{" not in text


def test_one_that_cannot_be_measured_does_not_stop_the_others(tmp_path: Path) -> None:
    wrong = scenario(name="wrong", placement={"layers": {"node-a": 3}})
    words = files(tmp_path, wrong, scenario())
    code, text, _ = measure(FakeExo(), *words, "-o", str(tmp_path / "out"))
    assert code == 1
    assert "2 of 2 runs" in text
    assert f"not measured: {words[0]}" in text
    assert len(list((tmp_path / "out").glob("*.jsonl"))) == 1


def test_a_slip_in_the_last_scenario_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: [")
    fake = FakeExo()
    code, _, error = measure(fake, *files(tmp_path, scenario()), str(tmp_path / "bad.yaml"))
    assert (code, fake.posted) == (2, [])
    assert "bad.yaml" in error
    code, _, error = measure(fake, *files(tmp_path, scenario(), other()), "-o", str(tmp_path / "m.jsonl"))
    assert "give a folder" in error
    assert not fake.posted


@pytest.mark.parametrize(("fake", "code"), [(FakeExo(), 0), (FakeExo(garbled_after=9), 1)])
def test_exit_code_0_means_that_all_runs_were_measured(tmp_path: Path, fake: FakeExo, code: int) -> None:
    got, text, _ = measure(fake, *files(tmp_path, scenario()), "-o", str(tmp_path / "m.jsonl"))
    assert got == code
    assert ("failed: run 0, chat 0: StreamGarbled" in text) == bool(code)


def test_json_only_when_asked(tmp_path: Path) -> None:
    code, text, _ = measure(
        FakeExo(), *files(tmp_path, scenario()), "--json", "-o", str(tmp_path / "m.jsonl")
    )
    assert (code, json.loads(text)["runs_done"]) == (0, 2)
    with FakeExo().serve() as server:
        words = ("scenario", "--cluster", server.url.replace("http", "exo"), "--model-id", MODEL)
        for more, is_json in (((), False), (("--json",), True)):
            code, text, _ = run_cli(*words, "-o", str(tmp_path / "mine.yaml"), *more)
            assert code == 0
            assert text.lstrip().startswith("{") == is_json


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_line_after_an_interrupt(tmp_path: Path, number: int) -> None:
    """What was kept and what was deleted; a process of its own, as signals come to one."""
    fake, out = FakeExo(gap_s=0.05), tmp_path / "m.jsonl"
    wanted = scenario(workload={"prompt_tokens": 60, "output_tokens": 20, "runs": 50})
    with fake.serve() as server:
        words = ["live", "run", *files(tmp_path, wanted), "-o", str(out)]
        words += ["--cluster", server.url.replace("http", "exo")]
        process = subprocess.Popen(
            [sys.executable, "-m", "sim.main", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "SIM_CACHE": str(tmp_path)},
        )
        end_s = time.monotonic() + 120  # a busy machine imports for half a minute
        while time.monotonic() < end_s and not (out.exists() and '"result"' in out.read_text()):
            time.sleep(0.05)
        process.send_signal(number)
        text, error = process.communicate(timeout=20)
    assert (process.returncode, text) == (130, "")
    last = error.strip().splitlines()[-1]
    (gone,) = fake.deleted
    assert last.startswith("interrupted: kept ")
    assert f"of 50 runs, {len(list(read_measurement(out).of('token')))} tokens in {out}" in last
    assert last.endswith(f"deleted instance {gone[:8]}")
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--cluster", "local", "--allow-busy"), "--allow-busy: means nothing for --cluster local"),
        (("--cluster", "exo-legacy://127.0.0.1:9", "--reuse-instance"), "--reuse-instance: means nothing"),
        (("--cluster", "127.0.0.1:52415"), "port 52415 is usually exo://127.0.0.1:52415"),
        (("--cluster", "mac:50052"), "port 50052 is usually llama-rpc://mac:50052"),
        (("--cluster", "mac"), "'mac' and says not what answers there; write local, exo://host:port"),
        (("--cluster", "https://mac:443"), "openais://mac:443 for an OpenAI-compatible server"),
    ],
)
def test_what_is_meant_is_told(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    code, _, error = run_cli("run", *files(tmp_path, scenario()), *words)
    assert code in (1, 2)
    assert message in error


def test_dropout_refuses_what_does_nothing_on_exo(tmp_path: Path) -> None:
    words = ["dropout", *files(tmp_path, losing_scenario()), "--kill", "node-c", "--at-token", "10"]
    for more in (("--mode", "hang"), ("--back-after", "3"), ("--exact",)):
        code, _, error = run_cli(*words, "--cluster", "exo://127.0.0.1:9", *more)
        assert code == 1
        assert f"{more[0]}: means nothing for --cluster exo" in error
    code, _, error = run_cli(*words, "--allow-busy")
    assert "--allow-busy: means nothing for --cluster local" in error


def test_kinds_of_clusters() -> None:
    assert [kind_of(text) for text in ("local", "exo://a,b", "openais://a")] == ["local", "exo", "openais"]
    with pytest.raises(LiveError, match=r"openai:// cannot be used by this command; write exo://host:port"):
        kind_of("openai://a:1", ("exo",))
