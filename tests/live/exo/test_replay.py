"""Every recorded stream of EXO 1.x, over a real socket: the recorded tokens, times and outcome."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from live.errors import MasterLost, NotStreamed, StreamBroken, StreamCutOff, StreamErrorEvent, StreamStalled
from live.exo.client import ExoClient, Timeouts
from live.reply import StreamedReply
from live.steady import tokens_per_s
from tests.live.replay import DATA, SSE_HEADERS, ReplayServer, Script, chunked, exo_stream, head, json_answer

pytestmark = pytest.mark.timed

EXO = DATA / "exo"
STREAMS = sorted([*EXO.glob("chat_stream/*.jsonl"), *EXO.glob("busywait/*.jsonl")])
DROPOUTS = sorted(EXO.glob("dropout/**/*.json"))
STATE = json.loads((EXO / "rest/state_running_min3.json").read_text())["response"]
SPEED = 40.0
CHAT = "POST /v1/chat/completions"


def recorded(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()][1:]


def chat_of(
    script: Script,
    *,
    speed: float = SPEED,
    timeouts: Timeouts | None = None,
    state: Any = STATE,
    max_tokens: int = 256,
) -> tuple[StreamedReply, ReplayServer]:
    """The reply that our client makes of a script."""
    states = state if callable(state) else json_answer(state)
    with ReplayServer({CHAT: script, "GET /state": states}, speed) as server:
        client = ExoClient(server.url, timeouts=timeouts)
        client.state()
        return client.chat("synthetic/Llama-16L-512h-4bit", "?", max_tokens=max_tokens), server


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.name.partition(".")[0])
def test_streams(path: Path) -> None:
    header, script = exo_stream(path)
    reply, server = chat_of(script)
    lines = recorded(path)
    tokens = [line for line in lines if line["line"].startswith("data: {")]
    last = json.loads(tokens[-1]["line"][6:])
    assert len(reply.tokens) == len(tokens) == header["body"]["max_tokens"] == reply.completion_tokens
    assert reply.text == "".join(
        json.loads(line["line"][6:])["choices"][0]["delta"]["content"] for line in tokens
    )
    assert (reply.finish_reason, reply.done) == (last["choices"][0]["finish_reason"], True)
    assert reply.command_id == last["id"]
    assert reply.prompt_tokens == last["usage"]["prompt_tokens"]
    assert reply.cached_tokens == last["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert reply.stats["generation_tokens"] == len(tokens)
    assert reply.stats["peak_memory_usage"]["in_bytes"] > 0
    assert len(reply.prefill) == sum("prefill_progress" in line["line"] for line in lines)
    assert reply.keep_alives == sum("keep-alive" in line["line"] for line in lines)
    # The last connection is the chat; its first send is the head. What left the server is what arrived, in time.
    sends = zip(
        server.sent_ns[-1][1:], lines, strict=False
    )  # we hang up at [DONE], maybe before EOF was sent
    sent = [ns - reply.sent_ns for ns, line in sends if line in tokens]
    late_s = sorted((token.t_ns - ns) / 1e9 for token, ns in zip(reply.tokens, sent, strict=True))
    assert late_s[len(late_s) // 2] < 0.02  # 0.015 ms on a quiet machine; benchmarks judge strictly
    assert late_s[-1] < 0.2
    times_s = [
        token.t_ns / 1e9 - line["t_ns"] / 1e9 / SPEED
        for token, line in zip(reply.tokens, tokens, strict=True)
    ]
    assert max(map(abs, times_s)) < 0.2


def test_recorded_rate_is_the_engines_rate() -> None:
    """Client gaps at full speed give EXO's own `generation_tps` to 15 %: the rest is the path of the messages."""
    _, script = exo_stream(EXO / "chat_stream/clean_a14_b2.sse.jsonl")
    reply, _ = chat_of(script, speed=1.0)
    rate = tokens_per_s([token.t_ns for token in reply.tokens])
    assert rate == pytest.approx(reply.stats["generation_tps"], rel=0.15)


def dropout_script(record: dict[str, Any]) -> Script | None:
    """The client's side of a dropout: only its last events were kept, so earlier tokens are made up before them."""
    events = record.get("client_stream_last_events")
    if not isinstance(events, list) or not events:
        return None
    fault_s = record["fault_after_request_start_s"]
    tokens = sum(line.startswith('data: {"id"') for _, line in events)
    first = next(line for _, line in events if line.startswith('data: {"id"'))
    missing = record["client_stream_tokens_received"] - tokens
    sends = [(0.0, head(200, SSE_HEADERS))]
    sends += [((i + 1) * fault_s / (missing + 2), chunked(f"{first}\n\n".encode())) for i in range(missing)]
    for t_s, line in events:
        data = b"0\r\n\r\n" if line == "<EOF>" else chunked(f"{line}\n\n".encode())
        sends.append((max(fault_s + t_s, sends[-1][0]), data))
    return Script(tuple(sends))


WITH_STREAM = [path for path in DROPOUTS if dropout_script(json.loads(path.read_text()))]


@pytest.mark.parametrize("path", WITH_STREAM, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_dropouts_as_recorded(path: Path) -> None:
    """A patient client sees the recorded end: an error event, or a plain EOF without [DONE] after keep-alives."""
    record = json.loads(path.read_text())
    script = dropout_script(record)
    assert script is not None
    patient = Timeouts(idle_s=30.0, first_token_s=30.0)
    kind = StreamErrorEvent if "runner_process" in path.name else StreamCutOff
    with pytest.raises(kind) as caught:
        chat_of(script, timeouts=patient, speed=100.0)
    reply = caught.value.reply
    assert caught.value.tokens_received == len(reply.tokens) == record["client_stream_tokens_received"]
    assert reply.keep_alives == sum(line == ": keep-alive" for _, line in record["client_stream_last_events"])
    assert reply.end_ns is not None
    assert reply.end_ns / 1e9 == pytest.approx(script.sends[-1][0] / 100.0, abs=0.2)
    if kind is StreamErrorEvent:
        assert "Runner shutdown before completing command (signal=9 (Killed))" in str(caught.value)


def hasty(speed: float) -> Timeouts:
    """The default time-outs, in the time of a replay."""
    normal = Timeouts()
    return Timeouts(
        idle_s=normal.idle_s / speed,
        first_token_s=normal.first_token_s / speed,
        idle_most_s=normal.idle_most_s / speed,
        look_again_s=normal.look_again_s / speed,
    )


class Cluster:
    """`/state` as it was during a dropout: `state_timeline_changes_only`, brought back to the form of the API."""

    def __init__(self, record: dict[str, Any], speed: float) -> None:
        self._now, self._speed = time.monotonic, speed
        self._started: float | None = None
        self.timeline = record["state_timeline_changes_only"]
        self.ages = record["last_seen_age_samples"]
        self.fault_s = record["fault_after_request_start_s"]

    def start(self) -> None:
        self._started = self._now()

    def __call__(self, _: object) -> Script:
        since = -99.0 if self._started is None else (self._now() - self._started) * self._speed - self.fault_s
        at = [entry for entry in self.timeline if entry["t_since_fault_s"] <= since] or self.timeline[:1]
        ages = [sample for t_s, sample in self.ages if t_s <= since] or [self.timeline[0]["last_seen_age_s"]]
        return json_answer(state_of(at[-1] | {"last_seen_age_s": ages[-1]}, since))


def state_of(entry: dict[str, Any], since_s: float) -> dict[str, Any]:
    """A `/state` from one compact entry; a living cluster's event number moves on, as it was recorded."""
    nodes = entry["topology_nodes"]
    assignments = {
        instance: [(node, f"{instance}-{node}", status) for node, status in runners]
        for instance, runners in entry["instances"].items()
    }
    ages = entry["last_seen_age_s"]
    oldest = since_s - entry["t_since_fault_s"]
    connections: dict[str, dict[str, Any]] = {}
    for edge in entry["edges"]:
        source, _, sink = edge.partition(">")
        connections.setdefault(source, {})[sink] = [
            {
                "sinkMultiaddr": {
                    "address": f"/ip4/10.0.0.{nodes.index(sink)}" if sink in nodes else "/ip4/10.0.0.99"
                }
            }
        ]
    return {
        "instances": {key: ring(key, shards) for key, shards in assignments.items()},
        "runners": {runner: {status: {}} for shards in assignments.values() for _, runner, status in shards},
        "topology": {"nodes": nodes, "connections": connections},
        "nodeIdentities": {node: {"friendlyName": node} for node in nodes},
        "lastSeen": {
            node: (datetime(2026, 11, 22, tzinfo=UTC) - timedelta(seconds=age)).isoformat()
            for node, age in ages.items()
        },
        "tasks": {},
        "lastEventAppliedIdx": entry["event_idx"] + (int(3 * oldest) if "frozen" not in entry else 0),
    }


def ring(key: str, shards: list[tuple[str, str, str]]) -> dict[str, Any]:
    size = len(shards)
    return {
        "MlxRingInstance": {
            "instanceId": key,
            "shardAssignments": {
                "modelId": "synthetic/Llama-16L-512h-4bit",
                "runnerToShard": {
                    runner: {
                        "PipelineShardMetadata": {
                            "deviceRank": rank,
                            "worldSize": size,
                            "startLayer": rank,
                            "endLayer": rank + 1,
                            "nLayers": size,
                        }
                    }
                    for rank, (_, runner, _) in enumerate(shards)
                },
                "nodeToRunner": {node: runner for node, runner, _ in shards},
            },
        }
    }


SILENT = [
    path for path in WITH_STREAM if "runner_process" not in path.name
]  # EXO itself reports that one at once


@pytest.mark.parametrize("path", SILENT, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_dropouts_found_out_early(path: Path) -> None:
    """With its own time-out the client learns from the state who is lost, long before EXO ends the stream."""
    record = json.loads(path.read_text())
    script, speed = dropout_script(record), 20.0
    assert script is not None
    cluster = Cluster(record, speed)

    def chat(_: object) -> Script:
        cluster.start()
        return script

    timeouts = hasty(speed)
    with ReplayServer({CHAT: chat, "GET /state": cluster}, speed) as server:
        client = ExoClient(server.url, timeouts=timeouts)
        with pytest.raises(StreamStalled, match=r"node-c") as caught:
            client.chat("synthetic/Llama-16L-512h-4bit", "?", max_tokens=256)
    reply = caught.value.reply
    assert len(reply.tokens) == record["client_stream_tokens_received"]
    assert reply.end_ns is not None
    since_fault_s = reply.end_ns / 1e9 * speed - record["fault_after_request_start_s"]
    assert since_fault_s < record["client_stream_last_events"][-1][0] / 2


@pytest.mark.parametrize(
    "name", ["kill9_master_node_rank0", "unpatched_zenoh_1.9.0/kill9_master_node_zenoh_router_mode"]
)
def test_master_lost(name: str) -> None:
    """Keep-alives for ever: recorded as still hanging after 50 s and more; the state gives it away."""
    record = json.loads((EXO / f"dropout/{name}.json").read_text())
    frozen = "unpatched" in name
    if frozen:
        record["state_timeline_changes_only"] = [
            entry | {"frozen": True} for entry in record["state_timeline_changes_only"]
        ]
    speed, fault_s = 20.0, record["fault_after_request_start_s"]
    cluster = Cluster(record, speed)
    token = exo_stream(EXO / "chat_stream/place_min3.sse.jsonl")[1].sends[5][1]
    sends = [(0.0, head(200, SSE_HEADERS)), *((fault_s * i / 10, token) for i in range(10))]
    sends += [(fault_s + 10.0 * i, chunked(b": keep-alive\n\n")) for i in range(1, 40)]

    def chat(_: object) -> Script:
        cluster.start()
        return Script(tuple(sends), "hold")

    timeouts = hasty(speed)
    with ReplayServer({CHAT: chat, "GET /state": cluster}, speed) as server:
        client = ExoClient(server.url, timeouts=timeouts)
        with pytest.raises(StreamBroken) as caught:
            client.chat("synthetic/Llama-16L-512h-4bit", "?", max_tokens=256)
    assert isinstance(caught.value, MasterLost), caught.value
    assert caught.value.tokens_received == 10


def test_one_whole_answer_is_no_stream() -> None:
    answer = json.loads((EXO / "bench/clean_a14_b2.json").read_text())["response"]
    with pytest.raises(NotStreamed):
        chat_of(json_answer(answer))


@pytest.mark.parametrize("path", sorted(EXO.glob("bench/*.json")), ids=lambda path: path.stem)
def test_bench(path: Path) -> None:
    record = json.loads(path.read_text())
    with ReplayServer({"POST /bench/chat/completions": json_answer(record["response"])}) as server:
        reply = ExoClient(server.url).bench("synthetic/Llama-16L-512h-4bit", "?", max_tokens=32)
    assert reply.generation_tokens_per_s == record["response"]["generation_stats"]["generation_tps"]
    assert reply["generation_stats"]["generation_tokens"] == 32
    assert reply["generation_stats"]["peak_memory_usage"]["in_bytes"] > 0
