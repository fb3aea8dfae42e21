"""A fake EXO cluster over a real socket, made of recorded answers; strict where EXO is strict."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.live.replay import DATA, SSE_HEADERS, ReplayServer, Request, Script, chunked, head, json_answer

__all__ = ["MODEL", "FakeExo", "rest"]

MODEL = "synthetic/Llama-16L-512h-4bit"


def rest(name: str) -> Any:
    """The recorded answer of that name."""
    return json.loads((DATA / f"exo/rest/{name}.json").read_text())["response"]


@dataclass
class FakeExo:
    """Three nodes, one model. `statuses` are what runners say, one entry per look at the state, the last for ever."""

    bench_streams: bool = True
    gap_s: float = 0.002
    times_s: Sequence[float] = ()
    """When each token of a reply comes, as recorded; else one each `gap_s`."""
    bursts: int = 1
    """Tokens that are handed out together, as by a process that got no turn."""
    ends_after: int | None = None
    """/v1/chat/completions ends its text after so many tokens; the benchmark endpoint never does."""
    breaks_after: int | None = None
    garbled_after: int | None = None
    hangs: bool = False
    statuses: list[str] = field(default_factory=lambda: ["RunnerConnecting", "RunnerReady"])
    loses_creations: bool = False
    shows_tasks: bool = False
    """The state lists the chat under way, as EXO's does."""
    at_look: dict[int, Callable[[dict[str, Any]], None]] = field(default_factory=dict)
    """What happens to the state at its so many-th look, counted from the start."""
    state: dict[str, Any] = field(default_factory=lambda: rest("state_idle_3nodes"))
    posted: list[dict[str, Any]] = field(default_factory=list)
    placements: list[tuple[str, str]] = field(default_factory=list)
    """(sharding, instance_meta) of each placement asked for, or placed."""
    deleted: list[str] = field(default_factory=list)
    chats: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    looks: int = 0
    all_looks: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def serve(self) -> ReplayServer:
        """A server for this cluster."""
        return ReplayServer({"*": self})

    def __call__(self, request: Request) -> Script | None:
        """EXO's answer."""
        url = urlsplit(request.path)
        name = f"{request.method} {url.path}"
        with self._lock:
            simple = {
                "GET /node_id": lambda: "c23be1351091c5fea37ee056335b39d0",
                "GET /state": self._state,
                "GET /models": lambda: rest("models"),
                "GET /v1/feature-flags": lambda: rest("feature_flags"),
                "GET /state/topology": lambda: self.state["topology"],
                "GET /state/tasks": lambda: self._look()["tasks"],
                "GET /state/instances": lambda: self.state["instances"],
            }
            if name in simple:
                return json_answer(simple[name]())
            if name == "GET /instance/placement":
                return self._placement(parse_qs(url.query))
            if name == "POST /instance":
                return self._create(request.json()["instance"])
            if name == "POST /place_instance":
                return self._place(request.json())
            if request.method == "DELETE" and url.path.startswith("/instance/"):
                return self._delete(url.path.rpartition("/")[2])
            if name in ("POST /v1/chat/completions", "POST /bench/chat/completions"):
                return self._chat(url.path, request.json())
        return None

    def _state(self) -> Any:
        return copy.deepcopy(self._look())

    def _look(self) -> dict[str, Any]:
        """The state moves on with each look."""
        self.looks += 1
        self.all_looks += 1
        status = self.statuses[min(self.looks, len(self.statuses)) - 1]
        for instance in self.state["instances"].values():
            for runner in instance["MlxRingInstance"]["shardAssignments"]["runnerToShard"]:
                body = (
                    {"errorMessage": "out of memory", "diagnostics": []} if status == "RunnerFailed" else {}
                )
                self.state["runners"][runner] = {status: body}
        self.state["lastEventAppliedIdx"] += 1
        now = datetime.now(UTC).isoformat()
        self.state["lastSeen"] = dict.fromkeys(self.state["topology"]["nodes"], now)
        for look, change in self.at_look.items():
            if look <= self.all_looks:
                change(self.state)
        return self.state

    def _placement(self, query: dict[str, list[str]]) -> Script:
        nodes = int(query.get("min_nodes", ["1"])[0])
        self.placements.append((query["sharding"][0], query["instance_meta"][0]))
        if query["sharding"] == ["Tensor"] and query["model_id"] == [MODEL]:
            return self._tensor(nodes, query["instance_meta"][0])
        if query["model_id"] != [MODEL]:
            return json_answer(
                {"error": {"message": "No cycles found with sufficient memory", "code": 400}}, 400
            )
        if nodes > 3:
            return json_answer(rest("instance_placement_min4_error"), 400)
        return json_answer(rest(f"instance_placement_min{nodes}"))

    def _create(self, instance: dict[str, Any]) -> Script:
        """EXO forbids unknown fields: whatever we send must have the keys of what it made itself."""
        tensor = self._tensor_instance(2, "MlxRing")
        wanted = _shape(rest("instance_placement_min2")) | _shape(tensor)
        got = _shape(instance)
        if not got <= wanted:
            return json_answer({"detail": f"extra: {sorted(got - wanted)}"}, 422)
        self.posted.append(instance)
        if not self.loses_creations:
            body = instance["MlxRingInstance"]
            self.state["instances"][body["instanceId"]] = instance
            self.looks = 0
        return json_answer({"message": "Command received.", "command_id": "c"})

    def _tensor(self, nodes: int, meta: str) -> Script:
        """What EXO's previews said of Tensor: the instance of two nodes, and why there is none of three."""
        made = self._tensor_instance(nodes, meta)
        if made:
            return json_answer(made)
        found = [one for one in rest("instance_previews")["previews"] if one["sharding"] == "Tensor"]
        reason = next(one["error"] for one in found if one["instance_meta"] == meta and one["error"])
        return json_answer({"error": {"message": reason, "code": 400}}, 400)

    def _tensor_instance(self, nodes: int, meta: str) -> Any:
        found = [one for one in rest("instance_previews")["previews"] if one["sharding"] == "Tensor"]
        made = [one["instance"] for one in found if one["instance_meta"] == meta and one["instance"]]
        return next((one for one in made if len(one["MlxRingInstance"]["hostsByNode"]) >= nodes), None)

    def _place(self, body: dict[str, Any]) -> Script:
        self.placements.append((body["sharding"], body["instance_meta"]))
        if body["sharding"] == "Tensor":
            made = self._tensor_instance(body["min_nodes"], body["instance_meta"])
        else:
            made = rest(f"instance_placement_min{body['min_nodes']}")
        made["MlxRingInstance"]["instanceId"] = f"placed-{len(self.state['instances'])}"
        return self._create(made)

    def _delete(self, instance_id: str) -> Script:
        if instance_id not in self.state["instances"]:
            return json_answer(rest("instance_unknown_404"), 404)
        del self.state["instances"][instance_id]
        self.deleted.append(instance_id)
        return json_answer({"message": "Command received.", "command_id": "c", "instance_id": instance_id})

    def _chat(self, path: str, body: dict[str, Any]) -> Script:
        self.chats.append((path, body))
        bench = path.startswith("/bench")
        if not any(_model(instance) == body["model"] for instance in self.state["instances"].values()):
            return json_answer(rest("chat_without_instance_error"), 404)
        total = body["max_tokens"]
        prompt = len(body["messages"][0]["content"].split()) * 2 + 11
        if bench and not (self.bench_streams and body["stream"]):
            stats = {"generation_tokens": total, "prompt_tokens": prompt, "generation_tps": 20.0}
            return json_answer({"id": "x", "choices": [], "generation_stats": stats})
        if not bench and self.ends_after is not None:
            total = min(total, self.ends_after)
        if self.shows_tasks:
            ours = next(key for key, one in self.state["instances"].items() if _model(one) == body["model"])
            task = {"taskStatus": "Running", "commandId": "cmd", "instanceId": ours}
            self.state["tasks"]["a-task-of-ours"] = {"TextGeneration": task}
        return self._stream(total, prompt, "length" if total == body["max_tokens"] else "stop")

    def _stream(self, total: int, prompt: int, reason: str) -> Script:
        sends = [(0.0, head(200, SSE_HEADERS)), (0.0, chunked(b": keep-alive\n\n"))]
        for token in range(total):
            if token == self.breaks_after:
                error = {"error": {"message": "Runner shutdown", "type": "InternalServerError", "code": 500}}
                sends.append(
                    (token * self.gap_s, chunked(f"data: {json.dumps(error)}\n\ndata: [DONE]\n\n".encode()))
                )
                return Script((*sends, (token * self.gap_s, b"0\r\n\r\n")))
            if token == self.garbled_after:
                return Script((*sends, (token * self.gap_s, chunked(b"data: {oops\n\n"))))
            if self.hangs and token == 5:
                return Script(tuple(sends), "hold")
            last = token == total - 1
            choice: dict[str, Any] = {"index": 0, "delta": {"role": "assistant", "content": "x"}}
            choice |= {"finish_reason": reason} if last else {}
            event: dict[str, Any] = {"id": "cmd", "model": MODEL, "choices": [choice]}
            if last:
                event["usage"] = {"prompt_tokens": prompt, "completion_tokens": total}
            out = min(total, (token // self.bursts + 1) * self.bursts)
            at_s = self.times_s[token] if self.times_s else out * self.gap_s
            sends.append((at_s, chunked(f"data: {json.dumps(event)}\n\n".encode())))
        stats = json.dumps(
            {"generation_tps": 1 / self.gap_s, "prompt_tokens": prompt, "generation_tokens": total}
        )
        end_s = self.times_s[total - 1] if self.times_s else total * self.gap_s
        sends.append((end_s, chunked(f": generation_stats {stats}\n\ndata: [DONE]\n\n".encode())))
        return Script((*sends, (end_s, b"0\r\n\r\n")))


def _model(instance: dict[str, Any]) -> str:
    return str(instance["MlxRingInstance"]["shardAssignments"]["modelId"])


def _shape(value: Any, where: str = "") -> set[str]:
    """The key paths of an object; ids (with digits and dashes) count as one."""
    if isinstance(value, list):
        return set().union(*(_shape(inner, f"{where}[]") for inner in value)) if value else set()
    if not isinstance(value, dict):
        return set()
    found: set[str] = set()
    for key, inner in value.items():
        name = f"{where}.{'ID' if any(letter.isdigit() for letter in key) else key}"
        found |= {name} | _shape(inner, name)
    return found
