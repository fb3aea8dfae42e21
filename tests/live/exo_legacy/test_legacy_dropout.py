"""`sim live dropout --cluster exo-legacy://...` on recorded losses: a reply that hangs, a topology that tells, a next reply."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from live.errors import LiveError
from live.exo.chat import Timeouts
from live.exo_legacy.dropout import LegacyDropped, legacy_dropout
from sim.live_cmd import app
from simulator.files import dump
from simulator.result.measurement import read_measurement
from tests.live.exo_legacy.test_legacy import LEGACY, TOPOLOGY
from tests.live.exo_legacy.test_legacy_measure import SPEED, scenario, served
from tests.live.replay import ReplayServer, Request, Script, json_answer, legacy_exchange

pytestmark = pytest.mark.timed

LOSS = LEGACY / "dropout"
HEAD = (LOSS / "kill_middle_node_raw_socket.json", LOSS / "kill_middle_topology_alpha.jsonl")
OLD = (LOSS / "v0.0.11_kill_last_raw_socket.json", LOSS / "v0.0.11_kill_last_topology_node1.jsonl")
NEXT = {HEAD: LOSS / "kill_middle_next_request.json", OLD: LOSS / "v0.0.11_kill_last_next_request.json"}


def losing(loss: tuple[Path, Path], *, leaves: bool = True) -> ReplayServer:
    """A warm-up that goes well, a reply that loses a node with the recorded topologies, and the next request."""
    record, fatal = legacy_exchange(loss[0])
    _, whole = legacy_exchange(LEGACY / "http/chat_stream_max_tokens_5_ignored.json")
    _, after = legacy_exchange(NEXT[loss])
    views = [json.loads(line) for line in loss[1].read_text().splitlines()]
    chats, lost_s = list[float](), list[float]()

    def chat(_: Request) -> Script:
        chats.append(time.monotonic())
        if len(chats) == 2:
            lost_s.append(time.monotonic())
            return fatal
        return whole if len(chats) == 1 else after

    def topology(_: Request) -> Script:
        if not lost_s or not leaves:
            return json_answer(TOPOLOGY)
        at = record["t0_unix"] + (time.monotonic() - lost_s[0]) * SPEED
        seen = [view["body"] for view in views if view["t_unix"] <= at]
        return json_answer((seen[-1] if seen else TOPOLOGY) | {"active_node_id": None})

    return served(chat, old=loss is OLD, topology=topology)  # type: ignore[arg-type]  # a maker of scripts


QUICK = Timeouts(idle_s=10 / SPEED, idle_most_s=10 / SPEED, look_again_s=3 / SPEED, report_s=1 / SPEED)


def drop(server: ReplayServer, out: Path, **more: Any) -> LegacyDropped:
    return legacy_dropout(
        scenario(), [server.url], more.pop("device", "bravo"), 4, out, timeouts=QUICK, **more
    )


@pytest.mark.parametrize(("loss", "device", "left_s"), [(HEAD, "bravo", 12.6), (OLD, "charlie", 8.1)])
def test_a_loss_is_watched_to_the_next_reply(
    tmp_path: Path, loss: tuple[Path, Path], device: str, left_s: float
) -> None:
    out, said = tmp_path / "d.jsonl", list[str]()
    with losing(loss) as server:
        done = drop(server, out, device=device, command="true", say=said.append)
    (recovery,) = done.recoveries
    count = 10 if loss is HEAD else len(done.tokens)  # 0.0.11 sends fillers, which are no tokens
    assert (recovery.token, recovery.devices, len(done.tokens)) == (count, (device,), count)
    phases = recovery.phases_s()
    assert list(phases) == ["detect", "decide", "load", "resume"]
    # the node is gone `left_s` after the kill; looks are seconds apart, and the client is idle for 10 s before
    assert left_s - 1 < (phases["detect"] + phases["decide"]) * SPEED < left_s + 6
    answer = json.loads(NEXT[loss].read_text())
    assert phases["load"] * SPEED == pytest.approx(answer["t_headers"], abs=2.5)
    assert recovery.layers.keys() == {"alpha", "bravo", "charlie"} - {device}
    assert sum(recovery.layers.values()) == 16
    assert done.before
    assert done.next
    assert done.after is None
    found = read_measurement(out)
    # neither is a steady state of the placement in the header
    assert found.mended_runs == {0, 1}
    assert [event["outcome"] for event in found.of("result")][1] == "complete"
    assert any(f"{device} has left; asking again" in text for text in said)


def test_a_node_that_stays_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("live.exo_legacy.dropout.LEAVES_S", 0.2)
    with losing(HEAD, leaves=False) as server, pytest.raises(LiveError, match="bravo was to leave") as caught:
        drop(server, tmp_path / "d.jsonl", command="true")
    assert "give --cluster the address of another device" in str(caught.value)
    assert read_measurement(tmp_path / "d.jsonl").token_times_s().keys() == {(0, 0)}


def test_nothing_breaks(tmp_path: Path) -> None:
    with served() as server, pytest.raises(LiveError, match="nothing broke"):
        drop(server, tmp_path / "d.jsonl", command="true")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("live.exo_legacy.dropout.Timeouts", lambda: QUICK)
    monkeypatch.setattr("live.exo_legacy.client.Timeouts", lambda: QUICK)
    dump(scenario(), tmp_path / "legacy.yaml")
    with losing(HEAD) as server:
        given = ["--kill", "bravo", "--at-token", "4", "--command", "true", "-o", str(tmp_path / "d.jsonl")]
        cluster = server.url.replace("http", "exo-legacy", 1)
        done = CliRunner().invoke(
            app, ["dropout", str(tmp_path / "legacy.yaml"), "--cluster", cluster, *given]
        )
    assert done.exit_code == 0, done.output
    assert "10 tokens, lost with their reply: legacy EXO takes none up again" in done.output
    assert "none lost" not in done.output
