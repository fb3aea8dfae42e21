"""The client that loses no token, against recorded losses of real EXO clusters, in a fraction of their time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from live.errors import NotMended, NotReachedYet, PlacementRefused, StreamAborted, StreamGarbled
from live.exo.bounds import Bounds
from live.exo.build import build_instance
from live.exo.client import ExoClient
from live.exo.match import device_names
from live.exo.mend import Mended, Mender
from live.exo.state import ClusterState, parse_instance, parse_state
from live.http import Aborted
from live.recovery import ObservedRecovery
from live.session import _told
from simulator.errors import PlacementError
from simulator.scenario import Scenario
from tests.live.exo.fake import MODEL
from tests.live.exo.losing import IDS, SPEED, LosingExo, quick, recording, scenario, undisturbed, words
from tests.live.replay import ReplayServer, Request, Script, json_answer

pytestmark = pytest.mark.timed

WANTED = 40
PROMPT = "Tell me of rings."
ALL_PHASES = ["detect", "release", "decide", "start", "load", "warm up", "prefill", "resume"]


def names(state: ClusterState) -> dict[str, str]:
    return device_names(state.nodes)


@dataclass
class Held:
    """A mender on a fake cluster, with everything that it told."""

    fake: LosingExo
    mender: Mender
    tokens: list[tuple[int, int]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def chat(self, prompt: str = PROMPT, wanted: int = WANTED, **more: Any) -> Mended:
        return self.mender.chat(
            prompt, wanted, on_token=lambda index, t_ns: self.tokens.append((index, t_ns)), **more
        )


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExitStack]:
    monkeypatch.setattr("live.exo.owned.IN_FLIGHT_S", 0.1)
    with ExitStack() as opened:
        yield opened


def hold(stack: ExitStack, fake: LosingExo, wanted: Scenario | None = None) -> Held:
    """The fake's model, placed as recorded: 6 layers on node-a, 5 on node-b, 5 on node-c."""
    server = stack.enter_context(fake.serve())
    client = stack.enter_context(ExoClient(server.url, timeouts=quick(fake.speed)))
    layers = [(IDS["node-a"], 0, 6), (IDS["node-b"], 6, 11), (IDS["node-c"], 11, 16)]
    instance = client.create_instance(client.instance_with(MODEL, layers))
    client.wait_ready(instance)
    said: list[str] = []
    mender = Mender(
        client, wanted or scenario(fake.speed), instance, names, urls=[server.url], say=said.append
    )
    return Held(fake, mender, said=said)


def layers_of(posted: dict[str, Any]) -> dict[str, int]:
    """Layers by name of the node, in rank order."""
    assigned = posted["MlxRingInstance"]["shardAssignments"]
    of_id = {node_id: name for name, node_id in IDS.items()}
    found = {}
    for node, runner in assigned["nodeToRunner"].items():
        shard = assigned["runnerToShard"][runner]["PipelineShardMetadata"]
        found[of_id[node]] = shard["endLayer"] - shard["startLayer"]
    return found


def check_reply(held: Held, mended: Mended, wanted: int = WANTED) -> None:
    """No token lost or doubled: neither in the text, nor in what was told as it came."""
    assert mended.reply.text == words(wanted)
    assert [index for index, _ in held.tokens] == list(range(wanted))
    times = [t_ns for _, t_ns in held.tokens]
    assert times == sorted(times)
    assert [token.t_ns for token in mended.reply.tokens] == times
    assert mended.reply.finish_reason == "length"


def check_phases(mended: Mended, phases: list[str]) -> None:
    """In order, without gaps, and their sum is the time from the last token before to the first one after."""
    recovery = mended.recoveries[0]
    assert [phase for phase, _ in recovery.marks] == phases
    ends = [end for _, end in recovery.marks]
    assert ends == sorted(ends)
    assert sum(recovery.phases_s().values()) == pytest.approx(recovery.seconds)
    times = [mended.reply.sent_ns + token.t_ns for token in mended.reply.tokens]
    assert recovery.fault_ns == times[recovery.token - 1]
    assert ends[-1] == times[recovery.token]


@pytest.mark.parametrize(
    ("name", "found_s"), [("kill9_worker_node_rank2", 10.0), ("link_down_worker_node_rank2", 10.0)]
)
def test_a_lost_node(stack: ExitStack, name: str, found_s: float) -> None:
    """EXO ends the stream after 46 to 49 s and never places again; we know from the node's silence, and go on without it."""
    held = hold(stack, LosingExo(record=recording(name)))
    mended = held.chat()
    received = held.fake.received
    check_reply(held, mended)
    check_phases(mended, ALL_PHASES)
    recovery = mended.recoveries[0]
    assert (recovery.token, recovery.devices) == (received, ("node-c",))
    assert recovery.phases_s()["detect"] * SPEED < found_s
    assert recovery.phases_s()["start"] * SPEED > 2.0  # recorded: 3.5 s until the new runners are connected
    # what was asked the second time: the prompt, the text but for its last word, and the tokens that lack
    (_, first), (_, second) = held.fake.chats
    assert first["messages"] == [{"role": "user", "content": PROMPT}]
    assert second["messages"] == [*first["messages"], {"role": "assistant", "content": words(received - 1)}]
    assert (first["max_tokens"], second["max_tokens"]) == (WANTED, WANTED - received + 1)
    # the old instance is deleted before there is a new one, which has no layer on the lost node
    old, new = held.fake.posted
    assert held.fake.deleted == [old["MlxRingInstance"]["instanceId"]]
    assert set(layers_of(new)) == {"node-a", "node-b"}
    assert sum(layers_of(new).values()) == 16
    assert recovery.layers == layers_of(new) == held.mender.layers


def test_the_master_is_lost(stack: ExitStack) -> None:
    """The state stands still, begins anew without instances at 7.5 s, and has the survivors' links back at 17.5 s."""
    sequence = recording("kill9_master_node_rank0_recovery")["ready_sequence"]
    held = hold(stack, LosingExo(record=recording("kill9_master_node_rank0"), sequence=sequence))
    mended = held.chat()
    check_reply(held, mended)
    recovery = mended.recoveries[0]
    assert recovery.devices == ("node-a",)
    assert set(layers_of(held.fake.posted[-1])) == {"node-b", "node-c"}
    placed_ns = dict(recovery.marks)["decide"]
    assert 17.4 < (placed_ns - recovery.fault_ns) / 1e9 * SPEED < 25.0
    assert [phase for phase, _ in recovery.marks][-6:] == ALL_PHASES[2:]
    assert len(held.fake.posted) == 2


def test_a_lost_runner_is_restarted_by_exo(stack: ExitStack) -> None:
    """An error event at 2.4 s, all runners ready again at 22.2 s, in the same instance: nothing to place, nothing to delete."""
    held = hold(stack, LosingExo(record=recording("kill9_runner_process_only_rank1")))
    mended = held.chat()
    check_reply(held, mended)
    check_phases(mended, ["detect", "decide", "start", "load", "warm up", "prefill", "resume"])
    recovery = mended.recoveries[0]
    assert recovery.devices == ("node-b",)
    assert 20.0 < (dict(recovery.marks)["warm up"] - recovery.fault_ns) / 1e9 * SPEED < 25.0
    assert (len(held.fake.posted), held.fake.deleted) == (1, [])


def test_a_second_loss_while_the_model_is_loaded(stack: ExitStack) -> None:
    """node-b dies 3 s after the instance on node-a and node-b was posted: one recovery, two rounds."""
    held = hold(stack, LosingExo(dies_after_post={1: ("node-b", 3.0)}))
    mended = held.chat()
    check_reply(held, mended)
    (recovery,) = mended.recoveries
    assert recovery.devices == ("node-c", "node-b")
    assert layers_of(held.fake.posted[-1]) == {"node-a": 16}
    phases = [phase for phase, _ in recovery.marks]
    assert phases.count("detect") == phases.count("release") == 2
    assert len(held.fake.deleted) == 2
    assert sum(recovery.phases_s().values()) == pytest.approx(recovery.seconds)


def test_a_second_break_in_the_same_reply(stack: ExitStack) -> None:
    held = hold(stack, LosingExo(breaks={1: 6}))
    mended = held.chat()
    check_reply(held, mended)
    # 6 tokens came before the second break, the first of them made again
    assert [recovery.token for recovery in mended.recoveries] == [held.fake.received, held.fake.received + 5]
    assert held.fake.chats[2][1]["messages"][1]["content"] == words(held.fake.received + 4)
    assert (
        len(held.fake.posted) == 2
    )  # the second time nothing was lost, so the reply is only asked for again


def test_chats_that_break_together_are_mended_once(stack: ExitStack) -> None:
    held = hold(stack, LosingExo(at_once=2))
    replies: list[Mended] = []

    def chat(prompt: str) -> None:
        replies.append(held.mender.chat(prompt, WANTED))

    threads = [threading.Thread(target=chat, args=(prompt,)) for prompt in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [mended.reply.text for mended in replies] == [words(WANTED)] * 2
    assert len(held.fake.posted) == 2
    for mended in replies:
        recovery = mended.recoveries[0]
        assert recovery.devices == ("node-c",)
        assert sum(recovery.phases_s().values()) == pytest.approx(recovery.seconds)
        assert "load" in recovery.phases_s()


def test_tokens_without_text_come_again(stack: ExitStack) -> None:
    """Two tokens had not completed their character when the stream broke: the engine makes them again, we count them once."""
    held = hold(stack, LosingExo(empty=2))
    mended = held.chat()
    assert mended.reply.text == words(WANTED)
    assert [index for index, _ in held.tokens] == list(range(WANTED))
    second = held.fake.chats[1][1]
    assert second["messages"][1]["content"] == words(held.fake.received - 3)
    assert second["max_tokens"] == WANTED - held.fake.received + 3


def test_thinking_text_cannot_be_given_back(stack: ExitStack) -> None:
    held = hold(stack, LosingExo(thinking=3))
    with pytest.raises(NotMended, match="thinking text") as caught:
        held.chat()
    assert caught.value.tokens_received == len(caught.value.reply.tokens) == held.fake.received
    assert len(held.fake.chats) == 1


def test_survivors_that_cannot_hold_the_model(stack: ExitStack) -> None:
    """The placement's own words, and everything that came."""
    tight = scenario(
        devices={
            name: {"kind": "Linux laptop LPDDR5/DDR5-4800 dual channel", "usable_memory": "8.5 MB"}
            for name in IDS
        },
        engine={"name": "exo", "memory_overhead": "0 B"},
    )
    held = hold(stack, LosingExo(), tight)
    with pytest.raises(NotMended, match="node-a, node-b cannot hold the model") as caught:
        held.chat()
    assert isinstance(caught.value.__cause__, PlacementError)
    assert caught.value.reply.text == words(held.fake.received)
    assert [phase for phase, _ in caught.value.recoveries[0].marks] == ["detect", "release"]
    assert (len(held.fake.posted), len(held.fake.deleted)) == (1, 1)


def test_gives_up(stack: ExitStack) -> None:
    """zenoh without the fix never elects a new master: the state stands still for ever."""
    record = recording("unpatched_zenoh_1.9.0/kill9_master_node_zenoh_router_mode")
    wanted = scenario(
        recovery={"time_out_least": "0.08 s", "time_out_most": "2.4 s", "probe": "0.08 s", "give_up": "1.5 s"}
    )
    held = hold(stack, LosingExo(record=record), wanted)
    with pytest.raises(NotMended, match=r"given up after 1.5 s without a token") as caught:
        held.chat()
    assert caught.value.reply.text == words(held.fake.received)
    assert len(held.fake.posted) == 1


def test_errors_without_end_are_not_repeated_without_end(stack: ExitStack) -> None:
    held = hold(stack, LosingExo(record=undisturbed(), at_once=0, breaks=dict.fromkeys(range(99), 0)))
    with pytest.raises(NotMended, match="no token came in 5 attempts"):
        held.chat()
    assert len(held.fake.chats) == 6


def test_a_pause_of_a_healthy_cluster_is_no_loss(stack: ExitStack) -> None:
    """Another request's prefill stops everybody's decoding: 20 s of silence, ten times the client's time-out."""
    held = hold(stack, LosingExo(record=undisturbed(), hangs_after=8, silent_s=20.0))
    mended = held.chat()
    check_reply(held, mended)
    assert (mended.recoveries, len(held.fake.chats)) == ((), 1)


def test_the_next_address_where_the_node_asked_is_lost(stack: ExitStack) -> None:
    fake = LosingExo()
    down = threading.Event()

    def first(request: Request) -> Script | None:
        return Script((), "reset") if down.is_set() else fake(request)

    door = stack.enter_context(ReplayServer({"*": first}))
    other = stack.enter_context(fake.serve())
    client = stack.enter_context(ExoClient(door.url, timeouts=quick()))
    instance = client.create_instance(
        client.instance_with(MODEL, [(IDS["node-a"], 0, 11), (IDS["node-c"], 11, 16)])
    )
    client.wait_ready(instance)
    mender = Mender(client, scenario(), instance, names, urls=[door.url, other.url])
    mended = mender.chat(PROMPT, WANTED, on_token=lambda index, _: down.set() if index == 4 else None)
    assert mended.reply.text == words(WANTED)
    assert client.base_url == other.url


def test_calling_off_a_recovery(stack: ExitStack) -> None:
    held = hold(stack, LosingExo(record=recording("kill9_master_node_rank0")))
    off = threading.Event()
    threading.Timer(0.5, off.set).start()
    with pytest.raises(StreamAborted) as caught:
        held.chat(abort=off)
    assert not isinstance(caught.value, Aborted)
    assert caught.value.reply.text == words(held.fake.received)
    assert caught.value.recoveries[0].marks[0][0] == "detect"


def test_what_is_no_loss_is_not_mended(stack: ExitStack) -> None:
    fake = LosingExo()
    held = hold(stack, fake)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake, "_token", lambda *_, **__: b"junk, no chunk\r\n")
        with pytest.raises(StreamGarbled):
            held.chat()
    assert len(fake.chats) == 1


def test_without_a_complete_scenario_exo_places(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that the simulator knows nothing of: EXO's own placement, as long as it leaves out whom we miss."""
    fake = LosingExo()
    held = hold(stack, fake, scenario(model=MODEL))
    asked: list[int] = []

    def placement(query: dict[str, list[str]]) -> Script:
        asked.append(1)
        noticed = (
            [(IDS["node-a"], 0, 8), (IDS["node-b"], 8, 16)] if len(asked) > 2 else [(IDS["node-c"], 0, 16)]
        )
        return json_answer(
            build_instance(parse_instance(fake.posted[0]), parse_state(fake._state()), noticed)
        )

    monkeypatch.setattr(fake, "_placement", placement)
    mended = held.chat()
    check_reply(held, mended)
    assert len(asked) == 3
    assert layers_of(fake.posted[-1]) == {"node-a": 8, "node-b": 8}


def test_a_refusal_is_told_by_its_type_and_not_by_its_words(stack: ExitStack) -> None:
    """Links that EXO has not probed yet are waited for; whatever EXO itself refuses is not, whatever it says."""
    held = hold(stack, LosingExo(record=undisturbed()))
    moving, bounds = held.mender._moving, Bounds(2**63, 1.0, threading.Event())
    moving._refused_s = 1e-9  # refused long ago
    moving._note_refusal(NotReachedYet("no link yet"), bounds)
    assert bounds.waiting_for == "no link yet"
    with pytest.raises(PlacementError, match="has not reached the memory"):
        moving._note_refusal(PlacementRefused("EXO: it has not reached the memory it needs"), bounds)


def test_an_instance_of_others_is_left_to_exo(stack: ExitStack) -> None:
    """It is not ours to delete: EXO does so itself, recorded at 49.1 s, and only then is there a new one."""
    held = hold(stack, LosingExo(speed=50.0))
    held.mender.client.owned.forget(held.mender.instance.instance_id)
    mended = held.chat()
    check_reply(held, mended)
    assert not held.fake.deleted
    placed_ns = dict(mended.recoveries[0].marks)["decide"]
    assert 49.0 < (placed_ns - mended.recoveries[0].fault_ns) / 1e9 * held.fake.speed < 60.0


def test_a_ring_that_hangs_is_made_anew(stack: ExitStack) -> None:
    """All nodes report, all runners say they run, and no token comes for longer than any prompt takes."""
    held = hold(stack, LosingExo(record=undisturbed(), hangs_after=8, silent_s=9999.0, speed=60.0))
    mended = held.chat()
    check_reply(held, mended)
    assert mended.recoveries[0].devices == ()
    assert (len(held.fake.posted), len(held.fake.deleted)) == (2, 1)
    assert layers_of(held.fake.posted[-1]) == {"node-a": 6, "node-b": 5, "node-c": 5}


def test_a_word_of_several_tokens_is_not_torn(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a token that had a space before it gets one back: here every other one goes on with its word."""
    fake = LosingExo()
    token = fake._token

    def piece(
        number: int, text: str | None = None, *more: Any, is_first: bool = False, **named: Any
    ) -> bytes:
        whole = ("" if is_first or number % 2 else " ") + f"w{number}" if text is None else text
        return token(number, whole, *more, **named)

    monkeypatch.setattr(fake, "_token", piece)
    monkeypatch.setattr("tests.live.exo.losing.count_words", lambda text: text.count("w"))
    held = hold(stack, fake)
    whole = "".join(f"{'' if number % 2 else ' '}w{number}" for number in range(WANTED)).strip()
    assert held.chat().reply.text == whole


def test_who_was_cut_off_leaves_a_healthy_ring_alone(stack: ExitStack) -> None:
    """Our own way to the cluster is down for a while: afterwards all is well there, so only the reply is asked again."""
    fake = LosingExo(record=undisturbed(), hangs_after=8, silent_s=9999.0)
    down = threading.Event()
    door = stack.enter_context(
        ReplayServer({"*": lambda request: Script((), "reset") if down.is_set() else fake(request)})
    )
    client = stack.enter_context(ExoClient(door.url, timeouts=quick()))
    instance = client.create_instance(
        client.instance_with(MODEL, [(IDS["node-a"], 0, 11), (IDS["node-c"], 11, 16)])
    )
    client.wait_ready(instance)
    mender = Mender(client, scenario(), instance, names, urls=[door.url])

    def cut(index: int, _: int) -> None:
        if index == 4:
            down.set()
            threading.Timer(1.0, down.clear).start()

    mended = mender.chat(PROMPT, WANTED, on_token=cut)
    assert mended.reply.text == words(WANTED)
    assert (len(fake.posted), fake.deleted) == (1, [])
    assert mender.instance.instance_id == instance.instance_id


def test_one_that_somebody_deleted_is_not_made_again(stack: ExitStack) -> None:
    """EXO ends its streams, all nodes report, and its runners stay in the state as shut down for ever (recorded)."""
    fake = LosingExo(record=undisturbed(), at_once=0)
    held = hold(stack, fake)
    instance = held.mender.instance

    def state() -> Any:
        found = LosingExo._state(fake)
        if instance.instance_id not in found["instances"]:
            found["runners"] |= {shard.runner_id: {"RunnerShuttingDown": {}} for shard in instance.shards}
        return found

    def chat(path: str, body: dict[str, Any]) -> Script:
        fake.chats.append((path, body))
        fake.began = fake.began or time.monotonic()
        whole = fake._script(body, 0, None)
        fake.state["instances"].clear()
        return Script(whole.sends[:12], "close").faster(fake.speed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake, "_state", state)
        patch.setattr(fake, "_chat", chat)
        with pytest.raises(
            NotMended, match="was deleted by somebody although all of its devices are there"
        ) as caught:
            held.chat()
    assert len(fake.posted) == 1
    assert caught.value.recoveries[0].devices == ()


def test_the_lost_master_is_named_where_nothing_could_be_mended(stack: ExitStack) -> None:
    """`drop8` of the second cluster: the master died, the survivors were too small, and "nobody lost" was told."""
    tight = scenario(
        devices={
            name: {"kind": "Linux laptop LPDDR5/DDR5-4800 dual channel", "usable_memory": "8.5 MB"}
            for name in IDS
        },
        engine={"name": "exo", "memory_overhead": "0 B"},
    )
    held = hold(stack, LosingExo(record=recording("kill9_master_node_rank0")), tight)
    with pytest.raises(NotMended, match="cannot hold the model") as caught:
        held.chat()
    (recovery,) = caught.value.recoveries
    assert recovery.devices == ("node-a",)
    assert "(node-a lost), and could not be mended" in _told(recovery)
    # a master that held no layers
    assert "(the cluster's master lost)" in _told(ObservedRecovery(3, 0, cause="the cluster's master"))
