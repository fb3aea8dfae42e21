"""Recovery: what the phases take, by hand, from the recordings, and against undisturbed runs."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.churn.estimate import lost_tokens_per_hour, predict_dropout
from simulator.churn.placing import survivors
from simulator.churn.spec import RecoverySpec
from simulator.churn.study import Evening, Study
from simulator.churn.trace import RecoveryTrace, ReplyTrace
from simulator.engine.base import engine, engines
from simulator.errors import CatalogError, PlacementError
from simulator.prepare import prepare
from simulator.run.evaluate import token_times_s
from simulator.scenario import Scenario
from tests.simulator.churn.scripts import DEVICES, scenario

DRILLS = Path(__file__).parents[3] / "results" / "dropout" / "drills.jsonl"
CERTAIN = {"law": "constant", "value": "0.1 ms"}


def drop(device: str = "beta", at_token: int = 10, **more: Any) -> dict[str, Any]:
    return {"event": "drop", "device": device, "at_token": at_token, **more}


def certain(engine: str = "exo", **changes: Any) -> Scenario:
    """The small cluster without noise and without heat, on quick links."""
    plain = scenario(engine).model_dump(mode="json", exclude_none=True)
    for device in plain["devices"].values():
        device["noise"], device["link"]["delay"] = {"sigma": 0}, CERTAIN
        device["speed"]["decode_spread"] = 0
        device.pop("heat", None)
    plain["common_noise"] = {"sigma": 0}
    plain["engine"] = {"name": engine, "memory_overhead": "20 MB", "overhead_spread": 0}
    return Scenario.model_validate(plain | changes)


def one(asked: Scenario) -> tuple[ReplyTrace, RecoveryTrace]:
    reply = Study(asked, 1).trace(0).replies[0]
    return reply, reply.recoveries[0]


@pytest.mark.parametrize("engine", ["exo", "exo-legacy", "llama-rpc"])
def test_without_events_it_is_the_ordinary_simulation(engine: str) -> None:
    """The same seeds give the same token times, row by row, as `sim run`."""
    calm = scenario(engine)
    calm = calm.model_copy(
        update={
            "devices": {name: spec.model_copy(update={"heat": None}) for name, spec in calm.devices.items()}
        }
    )
    told = [trace.replies[0].times_s for trace in Study(calm, 5).traces()]
    assert np.array(told) == pytest.approx(token_times_s(prepare(calm).job, 5)[0].T, rel=1e-12)


def test_the_reply_goes_on_as_on_the_survivors_alone() -> None:
    """Rate and prompt time after the drop are those of a cluster that never had the device, with the longer prompt."""
    asked = certain(events=[drop()])
    reply, loss = one(asked)
    alone = survivors(asked, [name for name in DEVICES if name != "beta"])
    workload = alone.workload.model_copy(update={"prompt_tokens": 16 + 10, "output_tokens": 14})
    expected = token_times_s(prepare(alone.model_copy(update={"workload": workload})).job, 1)[0, :, 0]
    assert loss.spent_s("prefill") == pytest.approx(expected[0])
    assert np.diff(reply.times_s[10:]) == pytest.approx(np.diff(expected))
    assert reply.complete


def test_the_client_notices_after_its_own_time_out() -> None:
    """Equal gaps: `max(factor * gap, least)` after the last token."""
    slow = certain(
        "llama-rpc", events=[drop(silent=True)], recovery={"time_out_factor": 4, "time_out_least": "1 ms"}
    )
    reply, loss = one(slow)
    gaps = np.diff(reply.times_s[:10])
    assert loss.spent_s("detect") == pytest.approx(4 * gaps[-1], rel=0.03)  # of the mean gap
    _, patient = one(certain(events=[drop()], recovery={"time_out_least": "7 s"}))
    assert patient.spent_s("detect") == pytest.approx(7.0)


def test_exos_state_shows_a_loss_after_the_probe_and_one_report() -> None:
    """Our client against the recordings: 3.2 s until it knows, 1 to 2 s until every survivor has reported once more."""
    losses = [
        found
        for trace in Study(certain(events=[drop()]), 40).traces()
        for found in trace.replies[0].recoveries
    ]
    assert all(2.5 <= loss.spent_s("detect") <= 3.5 for loss in losses)
    assert all(0.5 <= loss.spent_s("decide") <= 1.6 for loss in losses)


def test_exo_itself_notices_after_40_to_51_seconds() -> None:
    """Recorded: 39.8, 46.0, 47.9 and 49.0 s; a client that never loses patience waits for that."""
    asked = certain(events=[drop("delta")], recovery={"time_out_least": "1000 s", "time_out_most": "2000 s"})
    waits = [trace.replies[0].recoveries[0].spent_s("detect") for trace in Study(asked, 40).traces()]
    assert 40 <= min(waits) < 43
    assert 48 < max(waits) <= 51


def test_the_loss_of_exos_master_costs_a_new_election() -> None:
    """Recorded: 17.5 s until the survivors see each other again; the first device to have joined is the master."""
    _, master = one(certain(events=[drop("alpha")]))
    _, other = one(certain(events=[drop("beta")]))
    assert master.spent_s("detect") + master.spent_s("decide") == pytest.approx(17.5, abs=0.1)
    assert other.spent_s("decide") < 2


def test_a_silent_device_is_probed_first() -> None:
    _, silent = one(certain("llama-rpc", events=[drop(silent=True)]))
    _, told = one(certain("llama-rpc", events=[drop()]))
    assert silent.spent_s("decide") - told.spent_s("decide") == pytest.approx(2.0)


def test_legacy_exo_divides_anew_by_itself() -> None:
    """Recorded: the dead node is gone after 8.6 to 19.5 s, counted from the fault; four times, so that one more may
    take longer.
    """
    losses = [
        trace.replies[0].recoveries[0] for trace in Study(certain("exo-legacy", events=[drop()]), 40).traces()
    ]
    gone_s = [loss.spent_s("detect") + loss.spent_s("decide") for loss in losses]
    assert 8.6 <= np.median(gone_s) <= 19.5
    assert np.mean([8.6 <= one_s <= 19.5 for one_s in gone_s]) == pytest.approx(0.75, abs=0.2)
    loss = losses[0]
    assert loss.spent_s("start") == loss.spent_s("warm up") == 0


def test_exo_recovers_as_recorded() -> None:
    """Recorded: 8.0 and 8.6 s from the request to place until the first token, with 21 MB and 55 to 57 ms per token.

    The laws come from these two recordings, so this shows that they were put together right, no more.
    """
    tiny = {
        "name": "tiny",
        "layers": 16,
        "hidden": 512,
        "layer_bytes": "1 MB",
        "layer_flops": 7e6,
        "embedding_bytes": "2 MB",
        "head_bytes": "2 MB",
        "kv_bytes_per_token_per_layer": "2 kB",
    }
    speed = {"decode_bandwidth": "0.4 GB/s", "prefill_flops": "8 GFLOPS"}
    devices = {
        name: {
            "memory": "4 GB",
            "disk": "1 GB/s",
            "speed": speed,
            "link": {"delay": CERTAIN, "rate": "1 GB/s"},
        }
        for name in ("a", "b", "c")
    }
    asked = certain(
        model=tiny, devices=devices, events=[drop("c")], placement={"rule": "even"}, replications=50
    )
    predicted = predict_dropout(asked)
    gap_s = 1 / predicted.after_tokens_per_s.median  # type: ignore[union-attr]
    assert 0.045 < gap_s < 0.065
    after = sum(predicted.phases[name].median for name in ("start", "load", "warm up", "prefill", "resume"))
    assert 8.0 - 1.1 < after < 8.7  # a pause of 1 s in the recording is none of EXO's


def test_loading_is_from_disk_from_memory_or_through_the_client() -> None:
    everywhere = certain(events=[drop()], recovery={"files": "everywhere"})
    _, disk = one(everywhere)
    through = certain("llama-rpc", events=[drop()])
    _, client = one(through)
    # 13 of 16 layers at least, 50 MB each, over a line of 100 MB/s: seconds, where disks of 500 MB/s need less
    assert client.spent_s("load") > 3
    assert disk.spent_s("load") < 3
    slow = certain(events=[drop()], recovery={"files": "own_shard", "download": "5 MB/s"})
    _, download = one(slow)
    assert download.spent_s("load") > disk.spent_s("load") + 5


def through_client(**more: Any) -> tuple[ReplyTrace, RecoveryTrace]:
    return one(certain("llama-rpc", events=[drop()], **more))


def test_what_a_message_costs_the_engine_is_in_the_recorded_load_and_counts_once() -> None:
    """`load_fixed` is what restarts took beyond bytes and bare round trips: messages add nothing to it."""
    asked = certain("llama-rpc", events=[drop()])
    loads = []
    for hop_s in (0.0, 5e-3):
        costs = asked.engine.model_copy(update={"hop_overhead": hop_s})
        loads.append(one(asked.model_copy(update={"engine": costs}))[1])
    plain, dear = loads
    assert dear.spent_s("load") == pytest.approx(plain.spent_s("load"))
    assert dear.spent_s("prefill") > plain.spent_s("prefill") + 0.01


def test_the_laws_of_a_load_are_those_of_the_restarts() -> None:
    """What is said once and for each server gives what 12 restarts with one and with three servers left over."""
    facts = engine("llama-rpc").recovers()
    for phase, tolerance in (("load", 0.01), ("first_prompt", 0.05)):
        left: dict[int, list[float]] = {1: [], 3: []}
        for line in DRILLS.read_text(encoding="utf-8").splitlines():
            drill = json.loads(line)
            left[len(drill["layers"]) - 1].append(drill["phases_s"][f"{phase}_fixed"])
        for servers, found in left.items():
            said_s = np.mean(facts.laws[f"{phase}_fixed"].law.samples)  # type: ignore[union-attr]
            said_s += servers * facts.laws[f"{phase}_per_server"].law.mean_s
            assert said_s == pytest.approx(np.mean(found), rel=tolerance), (phase, servers)


def test_who_feeds_all_has_read_the_whole_file() -> None:
    """The client's own layers come from its file cache, whoever held them before."""
    fast, slow = (through_client(devices=_disks(disk))[1].spent_s("load") for disk in ("5 GB/s", "50 MB/s"))
    assert slow == pytest.approx(fast)


def _disks(disk: str) -> dict[str, Any]:
    devices = certain("llama-rpc").model_dump(mode="json", exclude_none=True)["devices"]
    return {
        name: {**device, "memory": "2 GB", "usable_memory": None, "disk": disk}
        for name, device in devices.items()
    }


def test_a_server_that_was_being_fed_answers_when_it_has_taken_that_in() -> None:
    """10 MiB in the sockets' buffers at 100 MB/s: a tenth of a second longer than at the first loss."""
    calm, loss = through_client()
    start_s = next(phase.start_s for phase in loss.phases if phase.name == "load")
    first = [name for name in loss.placed.devices if name != "alpha"]  # type: ignore[union-attr]
    second = {"event": "drop", "device": first[-1], "at": f"{start_s + 0.5} s"}
    _, twice = one(certain("llama-rpc", events=[drop(), second]))
    decided = [phase.end_s - phase.start_s for phase in twice.phases if phase.name == "decide"]
    assert calm.complete
    assert decided[1] - decided[0] == pytest.approx(10 * 2**20 / 100e6, abs=0.01)


def test_a_client_places_by_what_it_believes_and_the_layers_take_what_they_take() -> None:
    true = certain("llama-rpc", events=[drop()])
    devices = {
        name: spec.model_copy(
            update={"speed": spec.speed and spec.speed.model_copy(update={"decode_bandwidth": 20e9})}
        )
        for name, spec in true.devices.items()
    }
    believed = true.model_copy(update={"devices": devices})
    ((reply,),) = (trace.replies for trace in Study(true, 1, believed=believed).traces())
    placed = reply.epochs[-1][1]
    assert sorted(placed.job.placement.layer_counts.values()) == [5, 5, 6]
    speeds = {device.name: device.speed.decode_bandwidth for device in placed.job.ring}
    assert speeds == {"alpha": 40e9, "gamma": 10e9, "delta": 25e9}


def test_survivors_that_cannot_hold_the_model_are_told_apart() -> None:
    small = {
        name: spec | {"memory": "260 MB"}
        for name, spec in certain().model_dump(mode="json", exclude_none=True)["devices"].items()
    }
    for spec in small.values():
        spec.pop("usable_memory", None)
    asked = certain(devices=small, events=[drop()], recovery={"give_up": "60 s"})
    predicted = predict_dropout(asked, 3)
    assert predicted.recovery_s is None
    assert predicted.completed == 0
    ((reason, share),) = predicted.refusals
    assert share == 1
    assert "alpha, gamma, delta cannot hold the model" in reason
    assert "are missing; take a smaller quantisation" in reason


def test_the_last_device_may_leave_and_everybody_come_back() -> None:
    everybody = [drop(name, 5) for name in DEVICES]
    reply, loss = one(certain(events=everybody, recovery={"give_up": "30 s"}))
    assert (len(reply.times_s), reply.complete, loss.resumed_s) == (5, False, None)
    assert reply.end_s == pytest.approx(loss.fault_s + 30)
    back = [{"event": "rejoin", "device": name, "at": "60 s"} for name in DEVICES]
    reply, loss = one(certain(events=everybody + back))
    assert reply.complete
    assert loss.spent_s("wait") > 50


def test_a_second_loss_during_the_recovery_starts_it_again() -> None:
    calm, _ = one(certain(events=[drop()]))
    loss = calm.recoveries[0]
    loading = next(phase for phase in loss.phases if phase.name == "start")
    second = {"event": "drop", "device": "delta", "at": f"{loading.start_s + 0.5} s"}
    reply, twice = one(certain(events=[drop(), second]))
    assert reply.complete
    assert len(reply.recoveries) == 1
    assert [phase.name for phase in twice.phases].count("decide") == 2
    assert twice.placed is not None
    assert set(twice.placed.devices) == {"alpha", "gamma"}


def test_a_returned_device_is_taken_in_before_the_next_reply() -> None:
    events = [drop("alpha", 5, back_after="5 s")]
    trace = Study(certain(events=events), 1, Evening(0.2, 100)).trace(0)
    assert "alpha" not in trace.replies[0].epochs[-1][1].devices
    assert "alpha" in trace.replies[-1].epochs[-1][1].devices
    assert any(found.is_planned for reply in trace.replies for found in reply.recoveries)


@pytest.mark.parametrize(
    ("event", "change"),
    [
        ({"event": "background_load", "load": 0.5}, {"background_load": 0.5}),
        (
            {"event": "degrade_link", "delay_factor": 30},
            {
                "link": {
                    "delay": {"law": "constant", "value": "3 ms"},
                    "rate": "100 MB/s",
                    "delay_spread": 0,
                    "rate_spread": 0,
                }
            },
        ),
    ],
)
def test_what_changes_for_good_is_as_if_it_had_always_been(
    event: dict[str, Any], change: dict[str, Any]
) -> None:
    """From the next token on the gaps are those of a scenario written that way; the token in the making is both."""
    changed = Study(certain(events=[{**event, "device": "beta", "at_token": 12}]), 1).trace(0).replies[0]
    devices = certain().model_dump(mode="json", exclude_none=True)["devices"]
    devices["beta"] |= change
    always = Study(certain(devices=devices, placement={"layers": _layers(certain())}), 1).trace(0).replies[0]
    never = Study(certain(), 1).trace(0).replies[0]
    assert np.diff(changed.times_s)[11:] == pytest.approx(np.diff(always.times_s)[11:])
    assert np.diff(changed.times_s)[:11] == pytest.approx(np.diff(never.times_s)[:11])


def _layers(asked: Scenario) -> dict[str, int]:
    return prepare(asked).job.placement.layer_counts


def test_a_throttled_device_takes_as_much_longer() -> None:
    throttled = Study(
        certain(events=[{"event": "throttle", "device": "beta", "at": "0 s", "speed": 0.25}]), 1
    )
    calm = Study(certain(), 1)
    slow, fast = (np.diff(study.trace(0).replies[0].times_s)[5] for study in (throttled, calm))
    job = prepare(certain()).job
    beta = next(device for device in job.ring if device.name == "beta")
    stage_s = job.placement.layer_counts["beta"] * job.model.layer_bytes / beta.speed.decode_bandwidth
    # every rank of EXO's ring computes the head too, and the slowest one counts: hence more than the stage alone
    assert slow - fast >= 3 * stage_s
    assert slow - fast < 3 * (stage_s + 0.02)


def test_heat_slows_a_long_reply_down() -> None:
    base = certain(events=[]).model_dump(mode="json", exclude_none=True)
    base["devices"]["gamma"]["heat"] = {"approach": "1 s", "sustained": 0.5}
    base["workload"] = {"prompt_tokens": 16, "output_tokens": 400, "runs": 1}
    reply = Study(Scenario.model_validate(base), 1).trace(0).replies[0]
    gaps = np.diff(reply.times_s)
    assert gaps[-1] > 1.05 * gaps[2]
    # medians: each hundredth token waits for a look at other chats
    blocks = [float(np.median(gaps[k : k + 40])) for k in range(0, 360, 40)]
    assert all(a <= b * 1.001 for a, b in pairwise(blocks))


def test_other_peoples_random_numbers_do_not_move() -> None:
    """One event more leaves the moments of the others where they were."""
    flap = {"event": "drop", "device": "gamma", "rate": "3600 /h", "back_after": "1 s"}
    other = {"event": "background_load", "device": "alpha", "rate": "2000 /h", "load": 0.1, "lasting": "1 s"}
    work = {"prompt_tokens": 16, "output_tokens": 300, "runs": 1}
    alone, together = (
        Study(certain(events=events, workload=work), 1).trace(0).happened
        for events in ([flap], [flap, other])
    )
    first = next(found for found in alone if found.what == "drop")
    assert first in together


def test_tokens_lost_per_hour() -> None:
    """Without failures none; with very many nearly all that could be made."""
    assert lost_tokens_per_hour(0.0, 100.0, 2.0) == 0
    assert lost_tokens_per_hour(3600.0, 1e6, 2.0) == pytest.approx(7200, rel=1e-3)


def test_the_time_out_follows_the_rate_within_bounds() -> None:
    client = RecoverySpec()
    assert [client.time_out_s(gap) for gap in (0.01, 1.0, 100.0)] == [2.0, 10.0, 60.0]


def test_every_engine_says_how_it_recovers() -> None:
    known = [flow for flow in engines().values() if flow.recovery is not None]
    assert {flow.name for flow in known} == {"exo", "exo-legacy", "llama-rpc"}
    for flow in known:
        for law in flow.recovers().laws.values():
            assert law.source
            assert law.confidence in ("measured", "exact-from-table", "read-from-text", "assumed")
    with pytest.raises(CatalogError, match="'ray' is no known engine"):
        engine("ray")


def test_a_cluster_that_never_held_the_model_is_refused() -> None:
    asked = certain(
        model={"name": "huge", "layers": 16, "layer_bytes": "5 GB", "hidden": 8192}, events=[drop()]
    )
    with pytest.raises(PlacementError, match="are missing; take a smaller quantisation"):
        predict_dropout(asked, 2)


def test_requests_may_be_written_in_the_scenario() -> None:
    """A trace as it stands; a rate gives as many chats as it says, each after the one before."""
    trace = certain(
        workload={"prompt_tokens": 16, "output_tokens": 4, "arrivals": {"times": ["1 s", "30 s"]}}
    )
    assert [reply.asked_s for reply in Study(trace, 1).trace(0).replies] == [1.0, 30.0]
    poisson = certain(
        workload={"prompt_tokens": 16, "output_tokens": 4, "arrivals": {"rate": "60 /h", "chats": 7}}
    )
    replies = Study(poisson, 1).trace(0).replies
    assert len(replies) == 7
    assert all(a.end_s <= b.started_s for a, b in pairwise(replies)), "one reply is made at a time"


def test_where_exos_rule_refuses_the_client_asks_for_a_split_of_its_own() -> None:
    """EXO divides by memory alone; three devices are too small for their part of what is left."""
    model = {
        "name": "headed",
        "layers": 16,
        "hidden": 512,
        "layer_bytes": "50 MB",
        "embedding_bytes": "40 MB",
        "head_bytes": "40 MB",
    }
    devices = certain().model_dump(mode="json", exclude_none=True)["devices"]
    for name, memory in zip(DEVICES, ("700 MB", "700 MB", "260 MB", "260 MB"), strict=True):
        devices[name]["memory"] = memory
    reply, loss = one(certain(model=model, devices=devices, placement={"rule": "exo"}, events=[drop("beta")]))
    assert reply.epochs[0][1].job.placement.rule == "exo"
    assert loss.placed is not None
    assert loss.placed.job.placement.rule == "speed"
    assert all(use.fits for use in loss.placed.memory)


def test_a_loss_later_than_a_token() -> None:
    """The second device leaves while the first recovery loads: one recovery, two attempts, both devices gone."""
    asked = certain("llama-rpc", events=[drop(), drop("delta", later="0.3 s")])
    reply, loss = one(asked)
    assert reply.complete
    assert [found.device for found in Study(asked, 1).trace(0).happened] == ["beta", "delta"]
    first, second = Study(asked, 1).trace(0).happened
    assert second.time_s - first.time_s == pytest.approx(0.3)
    assert loss.placed is not None
    assert not {"beta", "delta"} & set(loss.placed.devices)


def test_later_needs_a_token() -> None:
    with pytest.raises(ValueError, match="needs at_token"):
        certain(events=[{"event": "drop", "device": "beta", "at": "1 s", "later": "1 s"}])


def test_a_load_waits_for_each_server_on_its_own_link() -> None:
    """Counted on the wire: 28 questions to each server while loading and 5 before the first prompt, one after the other.

    So a link that is 10 ms slower each way costs 2 (28 + 5) 10 ms more per server behind it.
    """
    facts = engine("llama-rpc").recovers()
    times = {}
    for delay in ("0.1 ms", "10.1 ms"):
        plain = certain("llama-rpc").model_dump(mode="json", exclude_none=True)
        plain["devices"]["delta"]["link"]["delay"] = {"law": "constant", "value": delay}
        asked = Scenario.model_validate(plain | {"events": [drop()]})
        _, loss = one(asked)
        assert loss.placed is not None
        assert loss.placed.devices[1:] == ("gamma", "delta")
        times[delay] = loss
    near, far = times.values()
    assert far.spent_s("load") - near.spent_s("load") == pytest.approx(
        2 * facts.load_round_trips * 0.010, rel=1e-6
    )
    assert far.spent_s("prefill") - near.spent_s("prefill") == pytest.approx(
        2 * (facts.first_prompt_round_trips + 1) * 0.010, rel=1e-6
    )  # and one for the prompt itself


def test_taking_in_a_returned_device_is_estimated() -> None:
    """It comes back during the first reply; the second one begins with a planned recovery on all devices."""
    asked = certain(
        "llama-rpc",
        events=[drop("alpha", back_after="1 ms")],
        workload={
            "prompt_tokens": 16,
            "output_tokens": 24,
            "runs": 1,
            "arrivals": {"times": ["0 s", "1 ms"]},
        },
    )
    predicted = predict_dropout(asked, 3)
    assert predicted.regrown_s is not None
    assert predicted.regrown_tokens_per_s is not None
    second = predicted.traces[0].replies[1]
    assert predicted.regrown_s.median == pytest.approx(second.times_s[0] - second.started_s, rel=0.05)
