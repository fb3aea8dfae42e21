"""A fake EXO cluster that loses devices as it was recorded, in a fraction of the time.

The state follows `state_timeline_changes_only` of a recording in tests/data/exo/dropout from the request of chat number
`fatal` on, reports (`lastSeen`) included; the first instance's runners do as recorded, those of an instance posted later follow
`ready_sequence` of a `*_recovery.json`. A chat's text is `w0 w1 w2 ...`, and a later chat goes on behind the text it was given.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from live.exo.client import Timeouts
from simulator.scenario import Scenario
from tests.live.exo.fake import MODEL, FakeExo, rest
from tests.live.replay import DATA, SSE_HEADERS, Request, Script, chunked, head, json_answer

__all__ = ["SPEED", "LosingExo", "quick", "recording", "scenario", "undisturbed", "words"]

SPEED = 25.0
IDS = {"node-a": "a0" * 16, "node-b": "b1" * 16, "node-c": "c2" * 16}
EPOCH = datetime(2026, 11, 22, tzinfo=UTC)
REPORT_S = 1.0  # recorded: about once per second
GAP_S = 0.06  # recorded: 54.8 to 57.1 ms between tokens


def recording(name: str) -> Any:
    """A recording of tests/data/exo/dropout."""
    return json.loads((DATA / f"exo/dropout/{name}.json").read_text())


def count_words(text: str) -> int:
    """How many tokens a text given back has."""
    return len(text.split())


def undisturbed() -> Any:
    """The recorded cluster before anything happened to it, for ever."""
    whole = recording("kill9_worker_node_rank2")
    return whole | {
        "state_timeline_changes_only": whole["state_timeline_changes_only"][:2],
        "last_seen_age_samples": [sample for sample in whole["last_seen_age_samples"] if sample[0] < 0],
    }


def words(count: int, start: int = 0) -> str:
    """The text of so many tokens, as a reply that begins with them has it."""
    return " ".join(f"w{number}" for number in range(start, start + count))


def quick(speed: float = SPEED) -> Timeouts:
    """The usual time-outs, in the time of a replay."""
    usual = Timeouts()
    return Timeouts(
        connect_s=1,
        answer_s=3,
        first_token_s=usual.first_token_s / speed,
        idle_s=usual.idle_s / speed,
        idle_most_s=usual.idle_most_s / speed,
        look_again_s=usual.look_again_s / speed,
        report_s=usual.report_s / speed,
        appear_s=usual.appear_s / speed,
        poll_s=usual.poll_s / speed,
        ready_s=3,
    )


def scenario(speed: float = SPEED, **changes: Any) -> Scenario:
    """The recorded cluster: 16 layers on three nodes; the client's own times as fast as the replay."""
    made = {
        "name": "three",
        "model": {"name": MODEL, "layers": 16, "hidden": 512, "layer_bytes": "1.3 MB"},
        "devices": {name: {"kind": "Linux laptop LPDDR5/DDR5-4800 dual channel"} for name in IDS},
        "workload": {"prompt_tokens": 60, "output_tokens": 40, "runs": 1},
        "placement": {"layers": {"node-a": 6, "node-b": 5, "node-c": 5}},
        "recovery": {
            "time_out_least": f"{2 / speed} s",
            "time_out_most": f"{60 / speed} s",
            "probe": f"{2 / speed} s",
            "give_up": "20 s",
        },
    }
    return Scenario.model_validate(made | changes)


@dataclass
class LosingExo(FakeExo):
    """Three nodes by name; `record` is what happens to them."""

    record: dict[str, Any] = field(default_factory=lambda: recording("kill9_worker_node_rank2"))
    sequence: list[Any] = field(
        default_factory=lambda: recording("kill9_worker_node_rank2_recovery")["ready_sequence"]
    )
    speed: float = SPEED
    fatal: int = 0
    """Number of the chat in which it happens."""
    at_once: int = 1
    """So many chats from `fatal` on break off together."""
    breaks: dict[int, int] = field(default_factory=dict)
    """Chat number -> tokens after which it ends with an error event, and nothing else is wrong."""
    dies_after_post: dict[int, tuple[str, float]] = field(default_factory=dict)
    """Number of a later instance -> (node that dies, so many recorded seconds after it was posted)."""
    empty: int = 0
    """So many tokens before the break have no text, as those of a character that is not complete."""
    thinking: int = 0
    """So many tokens at the start of a reply are thinking text."""
    hangs_after: int | None = None
    """The chat `fatal` is silent after so many tokens, for `silent_s` recorded seconds, and all is well."""
    silent_s: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.began: float | None = None
        self.posts: dict[str, float] = {}
        self.dead: dict[str, float] = {}
        """Node -> recorded time since the fault from which on it is silent, beside the recording."""
        self._reports = {name: reports(self.record, name) for name in IDS}

    @property
    def received(self) -> int:
        """Tokens that came before the fault."""
        return (
            int(self.record["client_stream_tokens_received"]) or 10
        )  # that of the master's loss was not kept

    def since_s(self, at: float | None = None) -> float:
        """Recorded seconds since the fault."""
        now = time.monotonic() if at is None else at
        began = now if self.began is None else self.began
        return (now - began) * self.speed - float(self.record["fault_after_request_start_s"])

    def _report(self, name: str, since_s: float) -> float:
        """When the node last reported."""
        return max(
            (at for at in self._reports[name] if at <= min(since_s, self.dead.get(name, since_s))),
            default=-99.0,
        )

    def _entry(self, since_s: float) -> dict[str, Any]:
        timeline = self.record["state_timeline_changes_only"]
        found: dict[str, Any] = (
            [one for one in timeline if one["t_since_fault_s"] <= since_s] or timeline[:1]
        )[-1]
        return found

    def _is_frozen(self, since_s: float) -> bool:
        return all(since_s - self._report(name, since_s) > 1.5 * REPORT_S for name in IDS)

    def _state(self) -> Any:
        since_s = self.since_s()
        for number, (node, later_s) in self.dies_after_post.items():
            if len(self.posts) > number:
                self.dead.setdefault(node, self.since_s(list(self.posts.values())[number]) + later_s)
        entry = self._entry(since_s)
        if not entry["instances"]:  # EXO, or a new master, deleted what was there at the fault
            self.state["instances"].pop(next(iter(self.posts)), None)
        nodes = entry["topology_nodes"]
        connections: dict[str, dict[str, Any]] = {}
        for edge in entry["edges"]:
            source, _, sink = edge.partition(">")
            address = f"/ip4/10.99.0.{list(IDS).index(sink) + 1}/tcp/52415"
            connections.setdefault(IDS[source], {})[IDS[sink]] = [{"sinkMultiaddr": {"address": address}}]
        reports = {name: self._report(name, since_s) for name in nodes}
        events = sum(
            1
            for name in nodes
            for at in self._reports[name]
            if entry["t_since_fault_s"] < at <= reports[name]
        )
        return {
            "instances": self.state["instances"],
            "runners": self._runners(entry, since_s),
            "topology": {"nodes": [IDS[name] for name in nodes], "connections": connections},
            "nodeIdentities": {IDS[name]: {"friendlyName": name} for name in IDS},
            "lastSeen": {
                IDS[name]: (EPOCH + timedelta(seconds=at / self.speed)).isoformat()
                for name, at in reports.items()
            },
            "tasks": {},
            "lastEventAppliedIdx": entry["event_idx"] + events,
        }

    def _runners(self, entry: dict[str, Any], since_s: float) -> dict[str, Any]:
        """The first instance's as recorded, those of later ones by the time since they were posted."""
        recorded = dict(next(iter(entry["instances"].values()), []))
        found = {}
        for number, (key, at) in enumerate(self.posts.items()):
            if key not in self.state["instances"]:
                continue
            assigned = self.state["instances"][key]["MlxRingInstance"]["shardAssignments"]
            for rank, (node, runner) in enumerate(assigned["nodeToRunner"].items()):
                name = next(name for name in IDS if IDS[name] == node)
                age_s = min(since_s, self.dead.get(name, since_s)) - self.since_s(at)
                step = [statuses for t_s, statuses in self.sequence if t_s <= age_s]
                status = (
                    recorded.get(name, "RunnerReady")
                    if number == 0
                    else (step[-1][min(rank, 1)] if step else "none")
                )
                if status != "none":
                    found[runner] = {status: {}}
        return found

    def _placement(self, query: dict[str, list[str]]) -> Script:
        return json_answer(rest("instance_placement_min1"))  # a template; our client chooses the nodes

    def _create(self, instance: dict[str, Any]) -> Script:
        if self._is_frozen(self.since_s()):
            return json_answer({"message": "Command received.", "command_id": "lost"})
        answer = super()._create(instance)
        self.posts[instance["MlxRingInstance"]["instanceId"]] = time.monotonic()
        return answer

    def _delete(self, instance_id: str) -> Script:
        if self._is_frozen(self.since_s()):
            return json_answer(
                {"message": "Command received.", "command_id": "lost", "instance_id": instance_id}
            )
        return super()._delete(instance_id)

    def _chat(self, path: str, body: dict[str, Any]) -> Script:
        number = len(self.chats)
        self.chats.append((path, body))
        if not self.state["instances"]:
            return json_answer(rest("chat_without_instance_error"), 404)
        given = body["messages"][1]["content"] if len(body["messages"]) > 1 else ""
        start = count_words(given)
        if number >= self.fatal:
            self.began = self.began or time.monotonic()
        if self.fatal <= number < self.fatal + self.at_once:
            return self._fatal_script(body, start).faster(self.speed)
        return self._script(body, start, self.breaks.get(number)).faster(self.speed)

    def _fatal_script(self, body: dict[str, Any], start: int) -> Script:
        """Tokens until the fault, then what the recorded client saw, or nothing at all."""
        if self.hangs_after is not None:
            return self._script(body, start, None, self.hangs_after)
        fault_s, events = self.record["fault_after_request_start_s"], self.record["client_stream_last_events"]
        known = (
            [entry for entry in events if not entry[1].startswith('data: {"id"')]
            if isinstance(events, list)
            else []
        )
        sends = [(0.0, head(200, SSE_HEADERS))]
        for token in range(self.received):
            text = "" if token >= self.received - self.empty else None
            sends.append(
                (
                    fault_s * (token + 1) / self.received,
                    self._token(start + token, text, token < self.thinking, is_first=token == 0),
                )
            )
        for at_s, line in known:
            data = b"0\r\n\r\n" if line == "<EOF>" else chunked(f"{line}\n\n".encode())
            sends.append((fault_s + at_s, data))
        return Script(tuple(sends), "close" if known else "hold")

    def _token(
        self,
        number: int,
        text: str | None = None,
        is_thinking: bool = False,
        last: dict[str, Any] | None = None,
        *,
        is_first: bool = False,
    ) -> bytes:
        key = "reasoning_content" if is_thinking else "content"
        # a token brings the space before its word; mlx-lm's detokenizers drop it at the start of a reply
        word = f"w{number}" if is_first else f" w{number}"
        choice = {"index": 0, "delta": {"role": "assistant", key: word if text is None else text}}
        event = {
            "id": "cmd",
            "model": MODEL,
            "choices": [choice | ({"finish_reason": "length"} if last else {})],
        }
        return chunked(f"data: {json.dumps(event | (last or {}))}\n\n".encode())

    def _script(
        self, body: dict[str, Any], start: int, breaks: int | None, pauses: int | None = None
    ) -> Script:
        """A whole reply behind the text given; prefill first."""
        prompt, total = (
            len(" ".join(turn["content"] for turn in body["messages"]).split()) * 2 + 11,
            body["max_tokens"],
        )
        progress = {
            "PrefillProgressChunk": {"model": MODEL, "processed_tokens": prompt, "total_tokens": prompt}
        }
        sends = [
            (0.0, head(200, SSE_HEADERS)),
            (0.3, chunked(f": prefill_progress {json.dumps(progress)}\n\n".encode())),
        ]
        for token in range(total):
            at_s = 0.4 + token * GAP_S + (self.silent_s if pauses is not None and token >= pauses else 0.0)
            if token == breaks:
                error = {"error": {"message": "Runner shutdown", "type": "InternalServerError", "code": 500}}
                sends.append((at_s, chunked(f"data: {json.dumps(error)}\n\ndata: [DONE]\n\n".encode())))
                break
            usage = (
                {"usage": {"prompt_tokens": prompt, "completion_tokens": total}}
                if token == total - 1
                else None
            )
            sends.append((at_s, self._token(start + token, last=usage, is_first=token == 0)))
        else:
            sends.append((sends[-1][0], chunked(b"data: [DONE]\n\n")))
        return Script((*sends, (sends[-1][0], b"0\r\n\r\n")))

    def __call__(self, request: Request) -> Script | None:
        """EXO's answer."""
        if request.path == "/node_id":
            return json_answer(IDS["node-a"])
        return super().__call__(request)


def reports(record: dict[str, Any], name: str) -> list[float]:
    """When a node reported (s since the fault), from the recorded ages of its last report; about once per second between."""
    samples = [(at_s, ages) for at_s, ages in record["last_seen_age_samples"]]
    samples += [
        (entry["t_since_fault_s"], entry["last_seen_age_s"])
        for entry in record["state_timeline_changes_only"]
    ]
    found: list[float] = []
    last_s = max(at_s for at_s, _ in samples)
    for at_s, ages in sorted(samples, key=lambda sample: sample[0]):
        report_s = at_s - ages[name] if name in ages else None
        if report_s is None or (found and report_s - found[-1] < 0.1):  # the same report, seen again
            continue
        while found and report_s - found[-1] > 1.5 * REPORT_S and report_s - found[-1] < 5.0:
            found.append(found[-1] + REPORT_S)
        found.append(report_s)
    if not found or last_s - found[-1] > 3.0:
        return [found[0] - REPORT_S * k for k in range(99, 0, -1)] + found if found else []
    return (
        [found[0] - REPORT_S * k for k in range(99, 0, -1)]
        + found
        + [found[-1] + REPORT_S * k for k in range(1, 2000)]
    )
