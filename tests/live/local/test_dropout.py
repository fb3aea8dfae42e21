"""Dropouts for real: no token is lost or doubled, phases tile the recovery, and faults nobody can make are refused."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from live.local.breaking import HELLO, answers
from live.local.conversation import LocalReply, Patience
from live.local.dropout import Dropped, InjectedFault, run_dropout
from live.local.frames import FrameReader
from live.local.relay import Relay
from live.local.shaping import DirectionSpec, LegSpec, LinkShape
from live.recovery import PHASES, ObservedRecovery
from sim.live_dropout_cmd import dropout as command
from simulator.churn.spec import RecoverySpec
from simulator.errors import LiveError, PlacementError
from simulator.laws.law import Constant
from simulator.result.measurement import read_measurement
from simulator.scenario import Scenario
from tests.live.local.parts import needs_engine, scenario

LAYERS, TOKENS, AT = [4, 4, 4, 4], 32, 16


def asked() -> Scenario:
    """A client and three servers."""
    return scenario(LAYERS, output_tokens=TOKENS)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Dropped:
    """The same greedy reply without a fault."""
    return run_dropout(asked(), (), tmp_path_factory.mktemp("plain") / "plain.jsonl")


class TestForReal:
    """On real llama.cpp processes."""

    pytestmark = needs_engine

    def test_kill_9(self, uninterrupted: Dropped, tmp_path: Path) -> None:
        done = run_dropout(asked(), [InjectedFault("d1", AT, "kill")], tmp_path / "kill.jsonl")
        self._check(done, uninterrupted, "d1")
        assert (
            done.recoveries[0].phases_s()["detect"] < RecoverySpec().time_out_least
        )  # told by the closed connection

    def test_a_silent_hang(self, uninterrupted: Dropped, tmp_path: Path) -> None:
        done = run_dropout(asked(), [InjectedFault("d2", AT, "hang")], tmp_path / "hang.jsonl")
        self._check(done, uninterrupted, "d2")
        phases_s, client = done.recoveries[0].phases_s(), RecoverySpec()
        assert client.time_out_least - 0.3 < phases_s["detect"] < client.time_out_least + 1
        assert client.probe - 0.1 < phases_s["decide"] < client.probe + 1

    def test_exact_rereading_gives_the_tokens_of_an_uninterrupted_reply(self, tmp_path: Path) -> None:
        """A batch of 32 tokens and more is rounded differently from single steps; steps are not."""
        longer = scenario(LAYERS, prompt_tokens=32, output_tokens=2 * TOKENS)
        plain = run_dropout(longer, (), tmp_path / "plain.jsonl")
        done = run_dropout(longer, [InjectedFault("d1", AT)], tmp_path / "exact.jsonl", exact=True)
        assert done.tokens == plain.tokens

    def test_a_batch_gives_the_tokens_of_a_fresh_cluster_that_reads_the_same(self, tmp_path: Path) -> None:
        """Nothing is lost or doubled: the survivors say what they would say if they had always been alone."""
        longer = scenario(LAYERS, prompt_tokens=32, output_tokens=2 * TOKENS)
        done = run_dropout(longer, [InjectedFault("d3", AT)], tmp_path / "batch.jsonl")
        layers = list(done.recoveries[0].layers.values())
        fresh = scenario(layers, prompt_tokens=32, output_tokens=2 * TOKENS - AT)
        assert (
            done.tokens[AT:]
            == run_dropout(fresh, (), tmp_path / "fresh.jsonl", received=done.tokens[:AT]).tokens
        )

    def test_a_loss_during_a_recovery(self, tmp_path: Path) -> None:
        """One more server goes while the model loads: one recovery, gone through twice, and no token lost."""
        faults = [InjectedFault("d1", AT), InjectedFault("d3", AT, later_s=0.25)]
        done = run_dropout(asked(), faults, tmp_path / "twice.jsonl")
        (recovery,) = done.recoveries
        assert set(recovery.devices) == {"d1", "d3"}
        assert set(recovery.layers) == {"d0", "d2"}
        names = [name for name, _ in recovery.marks]
        assert names.count("release") == 2
        assert names[-2:] == ["prefill", "resume"]
        assert len(done.tokens) == TOKENS
        assert sum(recovery.phases_s().values()) == pytest.approx(recovery.seconds)

    def test_who_comes_back_is_taken_in_before_the_next_reply(self, tmp_path: Path) -> None:
        """A client at 40 % of its speed is taken to be worth relieving."""
        weak = scenario([2, 14], loads=["60 %", "0 %"], output_tokens=TOKENS)
        done = run_dropout(
            weak, [InjectedFault("d1", AT, back_after_s=0.1)], tmp_path / "back.jsonl", replies=2
        )
        lost, back = done.recoveries
        assert (lost.devices, lost.is_planned, lost.layers) == (("d1",), False, {"d0": 16})
        assert (back.devices, back.is_planned, back.layers) == (("d1",), True, {"d0": 2, "d1": 14})
        assert [len(reply.times_ns) for reply in done.replies] == [TOKENS, TOKENS]
        # that both are told, and not which is faster: on some machines messages cost more than the layers save
        assert done.next is not None
        assert done.after is not None
        assert min(done.next, done.after) > 0
        found = read_measurement(done.path)
        assert [event["token"] for event in found.of("token")] == 2 * list(range(TOKENS))
        assert [event["phase"] for event in found.of("phase") if event["run"] == 1] == list(PHASES[1:])

    def test_who_would_not_help_stays_out(self, tmp_path: Path) -> None:
        """Four processes of one machine are no faster than three: the same rule as the simulator's."""
        done = run_dropout(
            asked(), [InjectedFault("d2", AT, back_after_s=0.1)], tmp_path / "out.jsonl", replies=2
        )
        assert [recovery.is_planned for recovery in done.recoveries] == [False]

    @staticmethod
    def _check(done: Dropped, uninterrupted: Dropped, lost: str) -> None:
        """Every token once and the same as without the fault; the phases fill the whole recovery."""
        assert done.tokens == uninterrupted.tokens
        assert len(done.tokens) == TOKENS
        (recovery,) = done.recoveries
        assert (recovery.devices, recovery.token) == ((lost,), AT)
        assert lost not in recovery.layers
        assert sum(recovery.layers.values()) == sum(LAYERS)
        found = read_measurement(done.path)
        assert found.complete
        assert [event["token"] for event in found.of("token")] == list(range(TOKENS))
        phases = list(found.of("phase"))
        assert tuple(event["phase"] for event in phases) == PHASES
        assert all(one["end_ns"] == two["start_ns"] for one, two in zip(phases, phases[1:], strict=False))
        assert (phases[-1]["end_ns"] - phases[0]["start_ns"]) / 1e9 == pytest.approx(recovery.seconds)

    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            (InjectedFault("d0", AT), "d0 is the client"),
            (InjectedFault("d9", AT), "choose one of the servers d1, d2, d3"),
            (InjectedFault("d1", TOKENS), "token 32 is not inside the reply"),
            (
                InjectedFault("d1", AT, "hang", back_after_s=1.0),
                "only a device that is killed can go later or come back",
            ),
        ],
    )
    def test_faults_that_nobody_can_make(self, fault: InjectedFault, said: str, tmp_path: Path) -> None:
        with pytest.raises(LiveError, match=said):
            run_dropout(asked(), [fault], tmp_path / "none.jsonl")
        assert not (tmp_path / "none.jsonl").exists()

    def test_survivors_that_cannot_hold_the_model(self, tmp_path: Path) -> None:
        full = scenario([4, 12], output_tokens=TOKENS)
        small = full.devices["d0"].model_copy(update={"usable_memory": 350e6})
        tight = full.model_copy(update={"devices": {**full.devices, "d0": small}})
        with pytest.raises(PlacementError, match="d0 cannot hold the model"):
            run_dropout(tight, [InjectedFault("d1", AT)], tmp_path / "small.jsonl")
        (outcome,) = read_measurement(tmp_path / "small.jsonl").of("result")
        assert (outcome["outcome"], outcome["tokens"]) == ("PlacementError", AT)


def test_patience_follows_the_observed_rate() -> None:
    """Ten mean gaps, within bounds; a recovery is no gap; before a first token, as long as it may be."""
    client = RecoverySpec.model_validate(
        {"time_out_factor": 10, "time_out_least": "0.1 s", "time_out_most": "60 s"}
    )
    patience = Patience(client)
    assert patience.left_s() == client.time_out_most
    now_s = time.monotonic()
    for at_s in (now_s - 2, now_s - 1, now_s):
        patience.gap.note(at_s)
    assert patience.gap.mean_s == pytest.approx(1.0)
    assert patience.left_s() == pytest.approx(10.0, abs=1.0)
    patience.gap.note(now_s + 1.8)
    assert patience.gap.mean_s == pytest.approx(1.1)  # an eighth of 0.8 s more
    patience.broken()
    assert patience.left_s() == client.time_out_most
    patience.gap.note(now_s + 500)
    assert patience.gap.mean_s == pytest.approx(1.1)


def test_phases_fill_the_recovery() -> None:
    recovery = ObservedRecovery(
        3, 10**9, ("d1",), marks=[(name, 10**9 * (2 + number)) for number, name in enumerate(PHASES)]
    )
    assert recovery.phases_s() == dict.fromkeys(PHASES, 1.0)
    assert recovery.seconds == len(PHASES)
    again = ObservedRecovery(3, 0, marks=[("load", 10**9), ("release", 2 * 10**9), ("load", 5 * 10**9)])
    assert again.phases_s() == {"load": 4.0, "release": 1.0}
    assert not again.is_over


def test_rates_leave_the_recovery_out(tmp_path: Path) -> None:
    """Ten tokens/s before, five after, and a second in between that belongs to neither."""
    before = [k * 10**8 for k in range(5)]
    after = [before[-1] + 10**9 + k * 2 * 10**8 for k in range(5)]
    reply = LocalReply(
        10,
        tokens=list(range(10)),
        times_ns=before + after,
        recoveries=[ObservedRecovery(5, before[-1], ("d1",))],
    )
    done = Dropped(tmp_path, (reply,))
    assert done.before == pytest.approx(10)
    assert done.after == pytest.approx(5)


def test_the_greeting_is_one_message_of_the_protocol() -> None:
    assert FrameReader(is_request=True).feed(memoryview(HELLO)) == [("hello", len(HELLO))]


def _server(reply: bytes | None) -> Iterator[str]:
    """Accepts once; says `reply`, closes for an empty one, stays silent for None."""
    listener = socket.create_server(("127.0.0.1", 0))
    kept = []

    def serve() -> None:
        near, _ = listener.accept()
        kept.append(near)
        near.recv(64)
        if reply is not None:
            near.sendall(reply)
            near.close()

    threading.Thread(target=serve, daemon=True).start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    for near in kept:
        near.close()
    listener.close()


@pytest.mark.parametrize(
    ("reply", "there"), [(bytes(36), True), (b"", False), (None, False), (b"four", False)]
)
def test_only_a_reply_counts_as_an_answer(reply: bytes | None, there: bool) -> None:
    for endpoint in _server(reply):
        begin_s = time.monotonic()
        assert answers(endpoint, 0.3) is there
        assert time.monotonic() - begin_s < 10  # a server that hangs would never let go
    assert not answers(endpoint, 0.3)  # nobody listens there any more


def test_a_dark_link_passes_nothing_and_closes_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        direction = DirectionSpec(
            source="a", sink="b", legs=(LegSpec(law=Constant(value=0.0)),), seconds_per_byte=0.0
        )
        relay = Relay()
        port = relay.add(LinkShape(target=server.getsockname(), forth=direction, back=direction, seed=1))
        with socket.create_connection(("127.0.0.1", port)) as near:
            reader, writer = socket.socketpair()
            writer.send(b"x")
            near.sendall(b"before")
            _turn(relay, reader.fileno())
            far, _ = server.accept()
            assert far.recv(64) == b"before"
            relay.darken(port)
            near.sendall(b"after")
            _turn(relay, reader.fileno())
            for end in (near, far):
                end.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    end.recv(64)
            for end in (far, reader, writer):
                end.close()
        for lane in next(iter(relay.links.values())).kept:
            lane.source.close()
        next(iter(relay.links)).close()


def _turn(relay: Relay, ready: int) -> None:
    """Enough turns for a connection and its bytes; `ready` can be read, so that no turn waits."""
    for _ in range(20):
        relay.turn(ready)
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cluster", "llama-rpc://mac:50052"], "nobody here can pull the plug"),
        (["--cluster", "exo://mac:52415", "--kill", "laptop"], "one device goes at a time"),
        (["--command", "true"], "on the local cluster devices are taken away without one"),
        (["--kill", "phone+soon"], "write DEVICE or DEVICE\\+SECONDS"),
        (["--mode", "hagn"], "did you mean 'hang'"),
    ],
)
def test_the_command_says_what_it_cannot_do(arguments: list[str], said: str) -> None:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, ["four_devices", "--kill", "phone", "--at-token", "5", *arguments])
    assert isinstance(result.exception, LiveError)
    assert re.search(said, str(result.exception))
