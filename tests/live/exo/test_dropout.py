"""`exo_dropout` on recorded losses: what the file holds, and what the user is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from live.errors import LiveError
from live.exo.dropout import ExoDropped, exo_dropout
from live.measure import MeasureOptions, measure_exo
from simulator.result.measurement import read_measurement
from tests.live.exo.losing import SPEED, LosingExo, quick, recording, scenario, undisturbed

pytestmark = pytest.mark.timed

WARM_UPS = 2


def drop(fake: LosingExo, out: Path, said: list[str] | None = None, **more: Any) -> ExoDropped:
    with fake.serve() as server:
        return exo_dropout(
            more.pop("wanted", scenario()),
            [server.url],
            more.pop("device", "node-c"),
            more.pop("at_token", 10),
            out,
            say=(said if said is not None else []).append,
            timeouts=quick(),
            **more,
        )


def test_a_command_takes_the_device_away(tmp_path: Path) -> None:
    out, said = tmp_path / "d.jsonl", list[str]()
    fake = LosingExo(fatal=WARM_UPS)
    done = drop(fake, out, said, command="true")
    received = fake.received
    (recovery,) = done.recoveries
    assert (recovery.token, recovery.devices, len(done.tokens)) == (received, ("node-c",), 40)
    assert done.before == pytest.approx(
        received / fake.record["fault_after_request_start_s"] * SPEED, rel=0.3
    )
    assert done.after == pytest.approx(SPEED / 0.06, rel=0.3)
    assert "true" in " ".join(said)
    found = read_measurement(out)
    assert found.complete
    assert [event["token"] for event in found.of("token")] == list(range(40))
    phases = list(found.of("phase"))
    assert [event["phase"] for event in phases] == [phase for phase, _ in recovery.marks]
    assert all(event["device"] == "node-c" and event["run"] == 0 for event in phases)
    assert all(one["end_ns"] == other["start_ns"] for one, other in zip(phases, phases[1:], strict=False))
    tokens = [event["t_ns"] for event in found.of("token")]
    assert (phases[0]["start_ns"], phases[-1]["end_ns"]) == (tokens[received - 1], tokens[received])
    assert (phases[-1]["end_ns"] - phases[0]["start_ns"]) / 1e9 == pytest.approx(recovery.seconds)
    assert found.provenance.cluster["fault"] == {"device": "node-c", "at_token": 10, "how": "true"}
    assert any(
        "`true` ended with exit code 0" in text and "last token before the silence" in text
        for text in done.warnings
    )
    assert len(fake.deleted) == len(fake.posted) == 2  # nothing is left behind


def test_the_operator_is_asked(tmp_path: Path) -> None:
    said: list[str] = []
    done = drop(LosingExo(fatal=WARM_UPS), tmp_path / "d.jsonl", said)
    assert any("take node-c away now" in text for text in said)
    assert any("by hand at token 10" in text for text in done.warnings)
    assert len(done.recoveries) == 1


def test_nothing_breaks(tmp_path: Path) -> None:
    with pytest.raises(LiveError, match="nothing broke") as caught:
        drop(
            LosingExo(record=undisturbed(), at_once=0),
            tmp_path / "d.jsonl",
            command="echo no such host >&2; exit 3",
        )
    assert "exit code 3: no such host" in str(caught.value)
    assert "node-a, node-b, node-c" in str(caught.value)
    assert len(list(read_measurement(tmp_path / "d.jsonl").of("token"))) == 40


def test_a_reply_that_cannot_be_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "d.jsonl"
    record = recording("unpatched_zenoh_1.9.0/kill9_master_node_zenoh_router_mode")
    patient = {"time_out_least": "0.08 s", "time_out_most": "2.4 s", "probe": "0.08 s", "give_up": "0.8 s"}
    monkeypatch.setattr("live.session.RECOVERY_S", 0.1)
    with pytest.raises(LiveError, match="given up after 0.8 s without a token"):
        drop(LosingExo(fatal=WARM_UPS, record=record), out, wanted=scenario(recovery=patient), command="true")
    found = read_measurement(out)
    assert len(list(found.of("token"))) == 10
    assert [event["outcome"] for event in found.of("result")] == ["NotMended"]
    assert next(found.of("phase"))["phase"] == "detect"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"device": "node-d"}, r"no device 'node-d' in the scenario"),
        ({"at_token": 40}, r"token 40 is not inside the reply: give one from 2 to 39"),
        ({"device": "node-a"}, r"the only address given"),
    ],
)
def test_refused_before_anything_is_placed(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    fake = LosingExo()
    with pytest.raises(LiveError, match=message):
        drop(fake, tmp_path / "d.jsonl", **wrong)
    assert not fake.posted
    assert not (tmp_path / "d.jsonl").exists()


def test_a_measurement_goes_on_without_a_lost_device(tmp_path: Path) -> None:
    """`sim live run`: the reply is whole, and the file says which run is no steady state, and why no more runs follow."""
    out, fake = tmp_path / "m.jsonl", LosingExo(fatal=WARM_UPS + 1)
    wanted = scenario(workload={"prompt_tokens": 60, "output_tokens": 40, "runs": 4})
    with fake.serve() as server:
        done = measure_exo(wanted, [server.url], out, MeasureOptions(), timeouts=quick())
    found = read_measurement(out)
    assert (done.runs_done, done.failures) == (2, ())
    assert {event["run"] for event in found.of("phase")} == {1}
    assert {key: len(times) for key, times in found.token_times_s().items()} == {(0, 0): 40, (1, 0): 40}
    assert [event["outcome"] for event in found.of("result")] == ["complete"] * 2
    assert any("(node-c lost); the next token came" in text for text in done.warnings)
    assert any("stopped after run 1: the layers lie elsewhere now (" in text for text in done.warnings)
    assert done.steady is not None
    assert len(done.steady.per_request) == 1  # of the run in which nothing was lost
