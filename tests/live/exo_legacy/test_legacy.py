"""Every HTTP recording of legacy EXO over a real socket, its topology, its layers, and who worked when."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median
from typing import Any

import pytest

import live.exo_legacy
from live.errors import (
    ApiChanged,
    BrokenReply,
    LiveError,
    ModelSubstituted,
    NotStreamed,
    RequestRefused,
    ServerTimeout,
    StreamStalled,
)
from live.exo.chat import Timeouts
from live.exo_legacy.client import LegacyClient
from live.exo_legacy.dwell import DwellPoller, dwell_times_s
from tests.live.replay import DATA, ReplayServer, Request, Script, json_answer, legacy_exchange

pytestmark = pytest.mark.timed

LEGACY = DATA / "exo_legacy"
MODELS = json.loads((LEGACY / "http/models.json").read_text())["body"]
TOPOLOGY = json.loads((LEGACY / "http/topology_idle_3nodes.json").read_text())["body"]
CHAT = "POST /v1/chat/completions"


def recordings() -> list[Path]:
    """All streams: files that hold chunks."""
    return [path for path in sorted(LEGACY.rglob("*.json")) if "chunks" in json.loads(path.read_text())]


def routes(chat: Script, *, old: bool = False, topology: Any = TOPOLOGY) -> dict[str, Any]:
    """A node; any call that stops one or removes a model fails the test."""

    def other(request: Request) -> None:
        assert not re.search("quit|delete", request.method + request.path, re.IGNORECASE), request

    answer = topology if callable(topology) else json_answer(topology)
    known = {
        CHAT: chat,
        "GET /topology": answer,
        "GET /v1/models": json_answer(MODELS),
        "GET /healthcheck": json_answer({"status": "ok"}),
        "*": other,
    }
    return known if old else known | {"GET /v1/topology": answer}


def is_old(path: Path) -> bool:
    """Recorded with 0.0.11, which sends fillers."""
    return "v0.0.11" in str(path)


def expected(path: Path) -> tuple[int, str]:
    """Tokens and the words in a recording: fillers without text are no tokens with 0.0.11."""
    chunks = json.loads(path.read_text())["chunks"]
    texts = [
        json.loads(c["data"][6:])["choices"][0]["delta"]["content"]
        for c in chunks
        if c["data"].startswith("data")
    ]
    tokens = [text for text in texts if text or not is_old(path)]
    return len(tokens), "".join(tokens)


@pytest.mark.parametrize("path", recordings(), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_streams(path: Path) -> None:
    record, script = legacy_exchange(path)
    speed = max(30.0, record["t_end"] / 0.35)
    hangs = script.end == "hold"
    timeouts = Timeouts(
        first_token_s=2.0,
        idle_s=15 / speed if hangs else 2.0,
        idle_most_s=15 / speed if hangs else 2.0,
        patience=2,
    )
    with ReplayServer(routes(script, old=is_old(path)), speed) as server:
        client = LegacyClient(server.url, timeouts=timeouts)
        model = "llama-3.2-1b"
        if hangs:
            with pytest.raises(StreamStalled) as caught:
                client.chat(model, "?")
            reply = caught.value.reply
        else:
            reply = client.chat(model, "?")
            assert reply.finish_reason == "length"
    count, text = expected(path)
    assert (len(reply.tokens), reply.text, reply.done) == (count, text, False)
    assert count == record.get("client_stream_tokens_received", count)
    times = [
        chunk["t"]
        for chunk in record["chunks"]
        if json.loads(chunk["data"][6:] or "{}").get("choices")
        and (not is_old(path) or json.loads(chunk["data"][6:])["choices"][0]["delta"]["content"])
    ]
    assert (
        max(abs(token.t_ns / 1e9 - t_s / speed) for token, t_s in zip(reply.tokens, times, strict=True))
        < 0.25
    )
    assert reply.headers_ns is not None
    assert reply.headers_ns / 1e9 == pytest.approx(record["t_headers"] / speed, abs=0.25)


def test_there_are_recordings_of_every_kind() -> None:
    names = " ".join(str(path) for path in recordings())
    for kind in (
        "concurrent3",
        "observer_on_last",
        "after_rejoin",
        "v0.0.11/chat_stream",
        "max_tokens_5_ignored",
    ):
        assert kind in names
    assert [
        expected(LEGACY / "v0.0.11/chat_stream.json")[0],
        expected(LEGACY / "http/chat_stream_max_tokens_5_ignored.json")[0],
    ] == [40, 48]


@pytest.mark.parametrize(
    "name", ["kill_middle_node_raw_socket", "v0.0.11_kill_last_raw_socket", "v0.0.15_kill_last_raw_socket"]
)
def test_dropouts(name: str) -> None:
    """Tokens stop without a word; then either the engine's raw 408 comes, or nothing for ever."""
    path = LEGACY / f"dropout/{name}.json"
    record, script = legacy_exchange(path)
    says_408 = "408" in record["events"][-1]["bytes"]
    speed = 60.0 if says_408 else 10.0
    patient = Timeouts(idle_s=60.0 / speed if says_408 else 0.5, idle_most_s=60.0, patience=2)
    kind = ServerTimeout if says_408 else StreamStalled
    with ReplayServer(routes(script, old=is_old(path)), speed) as server, pytest.raises(kind) as caught:
        LegacyClient(server.url, timeouts=patient).chat("llama-3.2-1b", "?")
    texts = re.findall(
        r'"delta": \{"role": "assistant", "content": "(.*?)"\}', "".join(e["bytes"] for e in record["events"])
    )
    tokens = [text for text in texts if text or not is_old(path)]
    assert record["data_events"] == len(texts)
    assert caught.value.tokens_received == len(tokens) > 0


def test_a_lost_node_is_named() -> None:
    """The topology tells who left, 12 to 20 s after the fault; the stream never does."""
    lines = (LEGACY / "dropout/kill_middle_topology_alpha.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    views = [
        TOPOLOGY,
        {
            "nodes": {n: TOPOLOGY["nodes"][n] for n in ("alpha", "charlie")},
            "peer_graph": {},
            "active_node_id": None,
        },
    ]
    assert "bravo" not in json.dumps(last.get("nodes", last.get("body", {}).get("nodes", [])))
    _, script = legacy_exchange(LEGACY / "dropout/kill_middle_node_raw_socket.json")
    seen: list[Request] = []

    def topology(request: Request) -> Script:
        seen.append(request)
        return json_answer(views[0] if len(seen) < 3 else views[1])

    known = routes(Script(script.sends[:-1], "hold"), topology=topology)
    with (
        ReplayServer(known, 30.0) as server,
        pytest.raises(StreamStalled, match="because bravo left the cluster"),
    ):
        LegacyClient(server.url, timeouts=Timeouts(idle_s=0.2, idle_most_s=0.2)).chat("llama-3.2-1b", "?")


@pytest.mark.parametrize(
    ("name", "status"),
    [("chat_bad_message", 500), ("chat_missing_messages", 500), ("chat_mlx_only_model", 400)],
)
def test_refusals(name: str, status: int) -> None:
    record, script = legacy_exchange(LEGACY / f"http/{name}.json")
    with ReplayServer(routes(script)) as server, pytest.raises(RequestRefused) as caught:
        LegacyClient(server.url).chat("llama-3.2-1b", "?")
    assert caught.value.status == status == record["status"]
    words = record.get("body_text") or record["body"]["detail"]
    assert words.split()[-1] in str(caught.value)


@pytest.mark.parametrize("name", ["chat_nonstream", "chat_gpt4_alias"])
def test_whole_answers_are_no_streams(name: str) -> None:
    _, script = legacy_exchange(LEGACY / f"http/{name}.json")
    with ReplayServer(routes(script), 1000.0) as server, pytest.raises(NotStreamed):
        LegacyClient(server.url).chat("llama-3.2-1b", "?")


def test_silently_substituted_models_are_found_out() -> None:
    """`chat_unknown_model_falls_back`: an unknown model was asked for, the default answered, with status 200."""
    _, script = legacy_exchange(LEGACY / "http/chat_unknown_model_falls_back.json")
    with ReplayServer(routes(script), 200.0) as server:
        client = LegacyClient(server.url)
        with pytest.raises(LiveError, match="no model 'nonsense'"):
            client.chat("nonsense", "?")
        with pytest.raises(ModelSubstituted, match=r"llama-3\.2-1b answered") as caught:
            client.chat("llama-3.1-8b", "?")
    assert caught.value.tokens_received == 48


def test_reads() -> None:
    _, encode = legacy_exchange(LEGACY / "http/token_encode.json")
    _, progress = legacy_exchange(LEGACY / "http/download_progress_idle.json")
    extra = {"POST /v1/chat/token/encode": encode, "GET /v1/download/progress": progress}
    with ReplayServer(routes(Script(())) | extra) as server:
        client = LegacyClient(server.url)
        assert client.is_legacy()
        assert client.count_tokens("llama-3.2-1b", "?") == 38
        assert client.download_progress() == {}
        assert not client.sends_fillers
        topology = client.topology()
        assert [(node.node_id, node.memory_mib) for node in topology.nodes] == [
            ("alpha", 24576),
            ("charlie", 8192),
            ("bravo", 16384),
        ]
        assert ("alpha", "bravo", "Ethernet (eth0)") in topology.edges
        split = client.partition(16)
        assert (split.ring, split.shards) == (("alpha", "bravo", "charlie"), ((0, 8), (8, 13), (13, 16)))


def test_modern_exo_is_not_legacy() -> None:
    with ReplayServer({"*": lambda _: None}) as server:
        assert not LegacyClient(server.url).is_legacy()
    with ReplayServer({"GET /topology": json_answer({"a": 1})}) as server, pytest.raises(ApiChanged):
        LegacyClient(server.url).topology()


def test_dwell_times_of_the_recorded_poll() -> None:
    """Beside the recording stand medians of 63.8, 35.8, 30.5 ms and gaps of about 8 ms; without the prefill, so 5 %."""
    rows = [
        json.loads(line)
        for line in (LEGACY / "v0.0.11/topology_active_node_poll.jsonl").read_text().splitlines()
    ]
    dwell = dwell_times_s([(round(row["t_unix"] * 1e9), row["active_node_id"]) for row in rows])
    measured = {node: median(times) * 1e3 for node, times in dwell.items()}
    assert measured == pytest.approx({"alpha": 63.8, "bravo": 35.8, "charlie": 30.5, None: 8.0}, rel=0.05)


def test_polling_follows_the_active_node() -> None:
    """A node that is active for 60 ms, then nobody for 20 ms, comes out so to 10 ms."""
    import time

    def topology(_: Request) -> Script:
        phase = time.monotonic() * 1e3 % 80
        return json_answer(TOPOLOGY | {"active_node_id": "alpha" if phase < 60 else None})

    with ReplayServer({"GET /topology": topology}) as server, DwellPoller(LegacyClient(server.url)) as poller:
        time.sleep(1.2)
    dwell = dwell_times_s(poller.changes[1:])
    assert len(dwell["alpha"]) >= 8
    assert median(dwell["alpha"]) == pytest.approx(0.060, abs=0.010)
    assert median(dwell[None]) == pytest.approx(0.020, abs=0.010)
    assert poller.failures == 0


def test_broken_replies_say_how_far_they_came() -> None:
    assert issubclass(ModelSubstituted, BrokenReply)


def test_nothing_can_stop_a_node() -> None:
    """No request of ours names the calls that stop a node or remove a model."""
    folder = Path(live.exo_legacy.__file__ or "").parent
    for path in folder.glob("*.py"):
        assert not re.search(r"/quit|DELETE|\.delete\(|[\"']delete", path.read_text()), path
