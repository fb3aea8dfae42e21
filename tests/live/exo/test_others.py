"""Two at once, and others: leases, a replica that is not up to date, foreign chats, downloads, a mesh in the making."""

from __future__ import annotations

import copy
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from calibrate.samples import sample
from live.errors import ClusterBusy, InstanceFailed, PlacementRefused
from live.exo.client import Timeouts
from live.exo.lease import came_first, host_lock, lease_age_s, marked, new_lease
from live.exo.state import parse_state
from live.measure import MeasureOptions, MeasureResult, measure_exo
from tests.live.exo.fake import MODEL, FakeExo, rest
from tests.live.test_measure import QUICK, measure, scenario

pytestmark = pytest.mark.timed

OTHER_MODEL = "synthetic/Llama-24L-256h-4bit"
HASTY = Timeouts(
    connect_s=1, answer_s=3, poll_s=0.01, appear_s=0.5, ready_s=3, idle_s=0.5, look_again_s=0.05, mesh_s=0.4
)


def instance_of(model: str, *, lease: bool) -> dict[str, Any]:
    """The recorded instance of two nodes, of another model, and perhaps made by a `sim live run`."""
    raw = rest("instance_placement_min2")
    raw["MlxRingInstance"]["shardAssignments"]["modelId"] = model
    return marked(raw) if lease else raw


def id_of(raw: dict[str, Any]) -> str:
    return str(raw["MlxRingInstance"]["instanceId"])


def add(raw: dict[str, Any], *, first: bool) -> Any:
    """A change of the state: `raw` is there, before or behind what is there already."""

    def change(state: dict[str, Any]) -> None:
        others = state["instances"]
        if others and id_of(raw) not in others:
            state["instances"] = {id_of(raw): raw} | others if first else others | {id_of(raw): raw}

    return change


def test_ids_say_who_made_them() -> None:
    lease = new_lease()
    assert bytes.fromhex(lease[:8] + lease[9:13]) == b"simliv"
    assert lease[14] == "8"  # version and variant of RFC 9562
    assert lease[19] in "89ab"
    assert 0 <= (lease_age_s(lease) or 0) < 5
    assert [lease_age_s(one) for one in ("dc625420-4aaa-4b9e-82aa-53bc2e93082c", "placed-0")] == [None, None]


def test_the_order_of_the_state_says_who_was_first() -> None:
    """EXO's master orders all events, and a JSON object keeps the order in which it was filled."""
    state = rest("state_idle_3nodes")
    one, other = (instance_of(OTHER_MODEL, lease=True) for _ in range(2))
    state["instances"] = {id_of(one): one, id_of(other): other}
    parsed = parse_state(state)
    assert came_first(parsed, id_of(one)) == ()
    assert [found.instance_id for found in came_first(parsed, id_of(other))] == [id_of(one)]


def test_two_that_place_at_the_same_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`misc/two_runs_at_once`: both measured, 5.6 to 17.6 tokens/s. Now one does, and the other deletes its own."""
    fake = FakeExo()
    fake.state["downloads"] = {}
    together = threading.Barrier(2, timeout=10)
    create = fake._create

    def met(instance: dict[str, Any]) -> Any:
        # both have looked, found nobody, and place
        fake._lock.release()
        together.wait()
        fake._lock.acquire()
        return create(instance)

    monkeypatch.setattr(fake, "_create", met)
    results: list[MeasureResult | Exception] = []

    def run(server_url: str, out: Path) -> None:
        try:
            # as from two machines: no lock is shared
            results.append(measure_exo(scenario(), [server_url], out, MeasureOptions(), timeouts=QUICK))
        except ClusterBusy as error:
            results.append(error)

    monkeypatch.setattr("live.measure.host_lock", lambda _: host_lock(()))
    with fake.serve() as server:
        threads = [
            threading.Thread(target=run, args=(server.url, tmp_path / f"{number}.jsonl")) for number in (0, 1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    (refused,) = [one for one in results if isinstance(one, ClusterBusy)]
    (measured,) = [one for one in results if isinstance(one, MeasureResult)]
    assert "made by a `sim live run`" in str(refused)
    assert "ours is deleted" in str(refused)
    assert (measured.runs_done, measured.failures) == (2, ())
    assert sorted(fake.deleted) == sorted(map(id_of, fake.posted))
    assert len(list(tmp_path.glob("*.jsonl"))) == 1


@pytest.mark.parametrize(
    ("lease", "first", "message"),
    [
        (True, True, r"came instance .* \(made by a `sim live run`"),
        (False, False, f"came instance .* of {OTHER_MODEL}"),
        (True, False, ""),
    ],
)
def test_looks_again_after_placing(tmp_path: Path, lease: bool, first: bool, message: str) -> None:
    """Who was there first stays, and a `sim live run` that came second gives way; a person's instance does not."""
    raw, fake = instance_of(OTHER_MODEL, lease=lease), FakeExo()
    fake.at_look = {2: add(raw, first=first)}
    if not message:  # it sees us, and goes
        fake.at_look = {4: lambda state: state["instances"].pop(id_of(raw), None)}
        created = fake._create

        def both(instance: dict[str, Any]) -> Any:
            answer = created(instance)
            fake.state["instances"][id_of(raw)] = raw
            return answer

        fake._create = both  # type: ignore[method-assign]
        result, _ = measure(fake, tmp_path / "m.jsonl")
        assert result.failures == ()
        return
    with pytest.raises(ClusterBusy, match=message):
        measure(fake, tmp_path / "m.jsonl")
    assert fake.deleted == [id_of(fake.posted[0])]
    assert not (tmp_path / "m.jsonl").exists()


def test_one_machine_locks(tmp_path: Path) -> None:
    fake = FakeExo()
    node = fake.state["topology"]["nodes"][1]
    with host_lock([node]):
        with pytest.raises(ClusterBusy, match=r"another `sim live run` of this machine \(process \d+\)"):
            measure(fake, tmp_path / "m.jsonl")
        result, _ = measure(fake, tmp_path / "n.jsonl", allow_busy=True)
    assert result.runs_done == 2
    measure(fake, tmp_path / "o.jsonl")  # let go of


def foreign_task(instance_id: str, command: str) -> dict[str, Any]:
    return {"TextGeneration": {"taskStatus": "Running", "commandId": command, "instanceId": instance_id}}


def test_a_foreign_chat_marks_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes and goes within a run; our own chats and replies are no other work."""
    monkeypatch.setattr("live.exo.others.LOOK_S", 0.05)  # a run takes 0.4 s here
    fake = FakeExo(shows_tasks=True, gap_s=0.02)
    result, _ = measure(fake, tmp_path / "own.jsonl")
    assert (result.runs_done, result.warnings) == (2, ())
    fake = FakeExo(shows_tasks=True, gap_s=0.02)

    seen: list[int] = []

    def ask(state: dict[str, Any]) -> None:
        # two looks long, in the first run: two warm-ups and one chat were asked by then
        state["tasks"].pop("b-foreign-task", None)
        if len(fake.chats) == 3 and len(seen) < 2:
            seen.append(fake.all_looks)
            ours = next(iter(state["instances"]))
            state["tasks"]["b-foreign-task"] = foreign_task(ours, "not-ours")

    fake.at_look = {1: ask}
    result, found = measure(fake, tmp_path / "m.jsonl")
    assert found.disturbed_runs == {0}
    assert result.runs_done == 1
    assert "run 0: somebody else used the cluster meanwhile (TextGeneration b-foreig)" in result.failures[0]
    assert result.steady is not None
    assert len(result.steady.per_request) == 1
    assert any("run 0: somebody else used the cluster; left out" in text for text in sample(found).warnings)


def test_a_task_of_an_instance_that_is_gone_is_none() -> None:
    """The own previous reply: its instance is deleted, and its task stands in the state for a while."""
    state = rest("state_running_min2")
    ours = next(iter(state["instances"]))
    state["tasks"] = {"t": foreign_task(ours, "c"), "u": foreign_task("gone", "d")}
    assert [task.command_id for task in parse_state(state).busy_tasks] == ["c"]


def test_the_replica_of_a_node_that_has_just_started(tmp_path: Path) -> None:
    """It replays what was before it came: instances long deleted, and reports that go faster than the clock."""
    fake = FakeExo()
    current, running = copy.deepcopy(fake.state), rest("state_running_min2")
    fresh = fake._state
    said: list[str] = []

    def replayed() -> Any:
        looks = fake.all_looks
        fake.state["instances"] = running["instances"] if looks < 4 else {}
        if looks == 4:
            fake.state["instances"] = current["instances"]
            fake._state = fresh  # type: ignore[method-assign]
        found = fresh()
        behind = timedelta(minutes=max(0, 10 - 2 * looks))
        found["lastSeen"] = {key: (datetime.now(UTC) - behind).isoformat() for key in found["lastSeen"]}
        return found

    fake._state = replayed  # type: ignore[method-assign]
    result, _ = measure(fake, tmp_path / "m.jsonl", say=said.append)
    assert result.runs_done == 2
    assert "looking again: a node that has just started shows what was there before" in said


def test_an_incomplete_mesh_is_waited_for(tmp_path: Path) -> None:
    """Recorded: complete 10 to 25 s after start; until then EXO finds no cycle."""
    fake, said = FakeExo(), list[str]()
    whole = copy.deepcopy(fake.state["topology"]["connections"])
    a, *others = fake.state["topology"]["nodes"]
    fake.state["topology"]["connections"] = {key: {} for key in others} | {a: whole[a]}
    fake.at_look = {6: lambda state: state["topology"].update(connections=whole)}
    with fake.serve() as server:
        options = MeasureOptions(say=said.append)
        measure_exo(scenario(), [server.url], tmp_path / "m.jsonl", options, timeouts=HASTY)
        assert any(
            "waiting for the mesh, complete 10 to 25 s after a start: node-b has not reached" in text
            for text in said
        )
        fake.at_look = {}
        fake.state["topology"]["connections"] = {}
        with pytest.raises(PlacementRefused, match="mesh is incomplete for 0.4 s and longer"):
            measure_exo(scenario(), [server.url], tmp_path / "n.jsonl", options, timeouts=HASTY)


def download(node: str, tag: str, **body: Any) -> dict[str, Any]:
    """As `DownloadCompleted` was recorded, with the fields that EXO's other kinds have."""
    listed = rest("state_running_min3")["downloads"][node]
    of_model = next(
        entry["DownloadCompleted"]
        for entry in listed
        if entry["DownloadCompleted"]["shardMetadata"]["PipelineShardMetadata"]["modelCard"]["modelId"]
        == MODEL
    )
    return {tag: {key: of_model[key] for key in ("nodeId", "shardMetadata")} | body}


def downloading(share: float) -> dict[str, Any]:
    total = 21_366_784
    return {
        "downloadProgress": {"total": {"inBytes": total}, "downloaded": {"inBytes": round(share * total)}}
    }


def test_a_model_that_nobody_has_downloaded(tmp_path: Path) -> None:
    """Its progress is told, and what fails or stands still ends after minutes and not after 30 of silence."""
    fake, said = FakeExo(statuses=["RunnerIdle"] * 7 + ["RunnerReady"]), list[str]()
    node = fake.state["topology"]["nodes"][0]

    def say(entry: dict[str, Any]) -> Any:
        return lambda state: state["downloads"].update({node: [entry]})

    fake.at_look = {1: say(download(node, "DownloadPending"))}
    fake.at_look |= {5: say(download(node, "DownloadOngoing", **downloading(0.35)))}
    fake.at_look |= {8: say(download(node, "DownloadCompleted", total={"inBytes": 21_366_784}))}
    result, _ = measure(fake, tmp_path / "m.jsonl", say=said.append)
    assert result.runs_done == 2
    told = " | ".join(said)
    assert (
        "node-a has not downloaded the model, 21.4 MB to come" in told or "node-a has not downloaded" in told
    )
    assert "node-a has not downloaded the model: 35 %" in told or "35%" in told
    fake = FakeExo(statuses=["RunnerIdle"])
    fake.at_look = {1: say(download(node, "DownloadFailed", errorMessage="401 Client Error"))}
    with pytest.raises(
        InstanceFailed, match="node-a could not download .*: 401 Client Error; see that node-a"
    ):
        measure(fake, tmp_path / "n.jsonl")
    fake.at_look = {1: say(download(node, "DownloadOngoing", **downloading(0.35)))}
    impatient = Timeouts(connect_s=1, answer_s=3, poll_s=0.01, appear_s=1, ready_s=30, stall_s=0.3)
    with fake.serve() as server, pytest.raises(InstanceFailed, match=r"35%.*nothing has moved for 0 s"):
        measure_exo(scenario(), [server.url], tmp_path / "o.jsonl", timeouts=impatient)
    assert not (tmp_path / "o.jsonl").exists()
