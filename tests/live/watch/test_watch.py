"""`sim live watch`: what it shows of a cluster, how often it asks, and that names do nothing."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from live.errors import LiveError
from live.watch.follow import Followed
from live.watch.pace import watch
from live.watch.sources import View, exo_look, inert, rpc_look
from sim.main import app
from simulator.errors import SimulatorError
from simulator.library import load
from tests.live.exo.fake import FakeExo, rest
from tests.live.replay import ReplayServer, json_answer


def run_cli(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["live", "watch", *words])
    error = done.exception if isinstance(done.exception, SimulatorError) else None
    return (error.exit_code if error else done.exit_code), done.stdout, str(error or done.stderr)


def measurement(path: Path, gap_s: float, tokens: int = 40) -> Path:
    header = {"type": "header", "scenario": load("llama_server").model_dump(mode="json", exclude_none=True)}
    lines: list[dict[str, Any]] = [header]
    lines += [
        {"type": "token", "run": 0, "chat": 0, "token": n, "t_ns": int((1 + n * gap_s) * 1e9)}
        for n in range(tokens)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_an_exo_cluster_in_plain_lines() -> None:
    with FakeExo().serve() as server:
        code, out, _ = run_cli("--cluster", server.url.replace("http", "exo"), "--looks", "1")
    assert code == 0
    assert "node-a" in out
    assert "layers" in out
    assert "\x1b" not in out


def test_never_more_than_one_request_a_second() -> None:
    shown: list[View] = []
    with FakeExo().serve() as server:
        begun_s = time.monotonic()
        watch(exo_look([server.url]), shown.append, every_s=0.1, looks=3)
        took_s = time.monotonic() - begun_s
    assert len(server.requests) == len(shown) == 3
    assert took_s >= 2.0


def test_a_cluster_that_does_not_answer_is_an_alarm_and_asked_again() -> None:
    shown: list[View] = []
    with FakeExo().serve() as server:
        watch(exo_look(["http://127.0.0.1:9", server.url]), shown.append, every_s=1, looks=2)
    assert shown[0].alarms
    assert shown[1].devices


def test_names_do_nothing_to_the_terminal() -> None:
    assert inert("a\x1b]0;x\x07\u202eb\n") == r"a\x1b]0;x\x07\u202eb\n"
    models = {"data": [{"id": "evil\x1b[2J[red]name"}]}
    with ReplayServer({"*": json_answer(models)}) as server:
        _, out, _ = run_cli("--cluster", server.url.replace("http", "openai"), "--looks", "1")
    assert r"evil\x1b[2J[red]name" in out


def test_a_failed_runner_is_an_alarm() -> None:
    instance = rest("instance_placement_min3")
    runner = next(iter(instance["MlxRingInstance"]["shardAssignments"]["runnerToShard"]))
    state = rest("state_idle_3nodes")
    state["instances"] = {"one": instance}
    state["runners"] = {runner: {"RunnerFailed": {"errorMessage": "out of memory\x1b[2J"}}}
    with ReplayServer({"GET /state": json_answer(state)}) as server:
        alarms = exo_look([server.url])().alarms
    assert any("failed: out of memory\\x1b[2J" in alarm for alarm in alarms)


@pytest.mark.parametrize(("gap_s", "said"), [(5.0, "slower than"), (0.001, "faster than")])
def test_reality_outside_the_interval_is_an_alarm(gap_s: float, said: str, tmp_path: Path) -> None:
    file = measurement(tmp_path / "m.jsonl", gap_s)
    with ReplayServer({"*": json_answer({"data": [{"id": "m"}]})}) as server:
        cluster = server.url.replace("http", "openai")
        _, out, _ = run_cli("--cluster", cluster, "--looks", "1", "--follow", str(file))
    assert f"tokens/s is {said} the predicted interval" in out
    assert "predicted" in out
    assert "slowest hop (predicted)" in out


def test_a_few_tokens_are_no_alarm(tmp_path: Path) -> None:
    file = measurement(tmp_path / "m.jsonl", 5.0, tokens=8)
    with ReplayServer({"*": json_answer({"data": [{"id": "m"}]})}) as server:
        cluster = server.url.replace("http", "openai")
        _, out, _ = run_cli("--cluster", cluster, "--looks", "1", "--follow", str(file))
    assert "measured 0.2 tokens/s over 8 tokens" in out
    assert "ALARM" not in out


def test_a_file_is_read_as_it_grows(tmp_path: Path) -> None:
    path = measurement(tmp_path / "m.jsonl", 0.1, tokens=3)
    followed = Followed(path)
    followed.read()
    assert followed.rate == pytest.approx(10)
    with path.open("a") as file:
        file.write('{"type":"token","run":0,"chat":0,"token":3,"t_ns":14')
        file.flush()
        followed.read()
        assert followed.tokens == 3
        file.write('00000000}\n{"type":"end","outcome":"complete"}\n')
        file.flush()
    followed.read()
    assert (followed.tokens, followed.has_ended) == (4, True)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("hello\n")
    with pytest.raises(LiveError, match="x:1: no line of a measurement"):
        Followed(tmp_path / "x").read()
    with pytest.raises(LiveError, match="name the file that `sim live run` writes"):
        Followed(tmp_path / "y").read()


def test_rpc_servers_are_knocked_at_in_turn() -> None:
    with socket.create_server(("127.0.0.1", 0)) as open_one:
        look = rpc_look([f"127.0.0.1:{open_one.getsockname()[1]}", "127.0.0.1:9"])
        first, second = look(), look()
    assert [row.status.partition(",")[0] for row in first.devices] == ["open", "not asked yet"]
    assert second.devices[1].status.startswith("closed")
    assert len(second.alarms) == 1


def test_an_interrupt_ends_it_civilly(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("live.watch.pace.time.sleep", stop)
    with ReplayServer({"*": json_answer({"data": [{"id": "m"}]})}) as server:
        code, out, err = run_cli("--cluster", server.url.replace("http", "openai"))
    assert code == 0
    assert "model m" in out
    assert "nothing was changed on the cluster" in err


def test_an_address_of_nothing_to_watch() -> None:
    code, _, err = run_cli("--cluster", "local")
    assert code != 0
    assert "write exo://host:52415" in err
