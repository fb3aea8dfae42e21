"""Talk to a legacy EXO cluster (0.0.x, before the rewrite): topology, streamed chats, and who works when.

It offers less than EXO 1.x: the client chooses neither layers nor order (a rule over the memories does),
`max_tokens` is ignored, a hanging-up client cancels nothing, and after a lost node a request hangs for ever.
There are calls that stop a node or remove a model; this client has none of them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import httpx

from live.errors import ApiChanged, LiveError, ModelSubstituted, RequestRefused
from live.exo.chat import Timeouts, stream_reply
from live.exo.diagnose import Diagnosis
from live.http import Http
from live.number import finite
from live.reply import StreamedReply
from live.stream import OnToken, StreamRules
from simulator.engine.legacy.placement import LegacyPartition, partition
from simulator.errors import did_you_mean
from simulator.units import SIZE

__all__ = ["LegacyClient", "LegacyNode", "LegacyTopology"]

MOST_TOKENS = 10_000  # legacy EXO's default --max-generate-tokens; the request cannot change it


@dataclass(frozen=True, slots=True)
class LegacyNode:
    """A node; `memory_mib` is its total memory as it announces it, the only thing that decides its layers."""

    node_id: str
    model: str
    chip: str
    memory_mib: int
    tflops: dict[str, float]

    @property
    def memory_bytes(self) -> float:
        """Total memory (bytes)."""
        return self.memory_mib * SIZE["MiB"]


@dataclass(frozen=True, slots=True)
class LegacyTopology:
    """One node's view of the cluster; views of different nodes may differ for seconds after a change."""

    nodes: tuple[LegacyNode, ...]
    edges: tuple[tuple[str, str, str], ...]
    """(from, to, description), as in 'WiFi (en0)'."""
    active_node_id: str | None

    def node(self, node_id: str) -> LegacyNode:
        """The node of that id; raises KeyError."""
        return {node.node_id: node for node in self.nodes}[node_id]


class LegacyClient:
    """A client for one node of a legacy cluster; thread-safe."""

    def __init__(
        self, base_url: str, transport: httpx.BaseTransport | None = None, timeouts: Timeouts | None = None
    ) -> None:
        self.timeouts = timeouts or Timeouts()
        self.http = Http(base_url, transport, self.timeouts.connect_s)
        self._sends_fillers: bool | None = None

    @property
    def base_url(self) -> str:
        """The address that this client talks to."""
        return self.http.base_url

    def _get(self, path: str) -> Any:
        return self.http.json("GET", path, within_s=self.timeouts.answer_s)

    def is_legacy(self) -> bool:
        """Whether a legacy node answers here: its health check and the keys of its topology tell."""
        try:
            if self._get("/healthcheck") != {"status": "ok"}:
                return False
            self.topology()
        except (RequestRefused, ApiChanged):
            return False
        return True

    def topology(self) -> LegacyTopology:
        """Nodes and edges as the node asked sees them; raises ApiChanged when it is no legacy EXO."""
        raw = self._get("/topology")
        nodes, graph = (raw.get("nodes"), raw.get("peer_graph")) if isinstance(raw, dict) else (None, None)
        if not isinstance(nodes, dict) or not isinstance(graph, dict):
            raise ApiChanged(
                f"{self.base_url}/topology holds no nodes and peer_graph; is this legacy EXO (0.0.x)?"
            )
        active = raw.get("active_node_id")
        return LegacyTopology(
            nodes=tuple(_node(node_id, node) for node_id, node in nodes.items()),
            edges=tuple(
                (str(edge.get("from_id")), str(edge.get("to_id")), str(edge.get("description") or ""))
                for edges in graph.values()
                if isinstance(edges, list)
                for edge in edges
                if isinstance(edge, dict)
            ),
            active_node_id=str(active) if active else None,
        )

    def models(self) -> tuple[str, ...]:
        """Ids of all models that this version knows; that says nothing about downloads."""
        raw = self._get("/v1/models")
        cards = raw.get("data") if isinstance(raw, dict) else None
        if not isinstance(cards, list):
            raise ApiChanged(f"{self.base_url}/v1/models answers no list; is this legacy EXO (0.0.x)?")
        return tuple(str(card.get("id")) for card in cards if isinstance(card, dict))

    def download_progress(self) -> dict[str, Any]:
        """Downloads in progress by node; empty when there are none."""
        raw = self._get("/v1/download/progress")
        return raw if isinstance(raw, dict) else {}

    def count_tokens(self, model_id: str, prompt: str) -> int:
        """Tokens of the prompt, chat template included, as this cluster counts them."""
        body = {"model": model_id, "messages": [{"role": "user", "content": prompt}]}
        raw = self.http.json("POST", "/v1/chat/token/encode", within_s=self.timeouts.answer_s, body=body)
        count = raw.get("num_tokens") if isinstance(raw, dict) else None
        if not isinstance(count, int):
            raise ApiChanged(f"{self.base_url}/v1/chat/token/encode answers no num_tokens")
        return count

    def partition(self, n_layers: int) -> LegacyPartition:
        """Ring order and layers, recomputed from the memories: the cluster does not show them."""
        return partition({node.node_id: node.memory_mib for node in self.topology().nodes}, n_layers)

    @property
    def sends_fillers(self) -> bool:
        """True up to 0.0.12, which has no `/v1/topology`: its streams hold events
        without text that are no tokens.
        """
        if self._sends_fillers is None:
            try:
                self._get("/v1/topology")
                self._sends_fillers = False
            except RequestRefused:
                self._sends_fillers = True
        return self._sends_fillers

    def chat(
        self,
        model_id: str,
        prompt: str,
        *,
        abort: threading.Event | None = None,
        on_token: OnToken | None = None,
    ) -> StreamedReply:
        """One streamed reply, as long as the cluster likes (`max_tokens` is ignored there).

        Hanging up would not stop the cluster, so replies are read to their end. Raises a BrokenReply with the
        tokens so far when the stream ends early, and ModelSubstituted when another model answered.
        """
        # to compare with: the stream never says why it stopped, the topology does (12 to 20 s later)
        before = self.topology()
        # asked first, because an unknown model is answered by another one with status 200
        known = self.models()
        if model_id not in known:
            hint = did_you_mean(model_id, known)
            raise LiveError(
                f"this cluster has no model {model_id!r}{hint}; it would silently take another instead"
            )
        body = {"model": model_id, "messages": [{"role": "user", "content": prompt}], "stream": True}
        rules = StreamRules(MOST_TOKENS, empty_is_token=not self.sends_fillers)
        reply = stream_reply(
            self.http,
            "/v1/chat/completions",
            body,
            rules,
            self.timeouts,
            why=lambda: self._why(before),
            # a look here is small, and the topology tells a loss within 8 to 20 s
            again_s=min(self.timeouts.look_again_s, self.timeouts.idle_s),
            abort=abort,
            on_token=on_token,
        )
        # the reply is whole and looks right, but it is of another model
        if reply.model not in (None, model_id):
            raise ModelSubstituted(f"{model_id} was asked for, and {reply.model} answered", reply)
        return reply

    def _why(self, before: LegacyTopology) -> Diagnosis:
        """What the topology says of a silent stream; a lost request is never resumed and never failed."""
        try:
            now = self.topology()
        except LiveError as error:
            return Diagnosis(False, False, f"and the node asked does not answer any more: {error}")
        gone = {node.node_id for node in before.nodes} - {node.node_id for node in now.nodes}
        # precedes leaving by seconds
        cut = {sink for _, sink, _ in before.edges} - {sink for _, sink, _ in now.edges}
        if gone or cut:
            lost = ", ".join(sorted(gone or cut))
            return Diagnosis(False, False, f"because {lost} left the cluster; send the request again")
        return Diagnosis(True, False, "although the topology shows nothing wrong")


def _node(node_id: str, raw: Any) -> LegacyNode:
    body = raw if isinstance(raw, dict) else {}
    flops = body.get("flops")
    told = {key: finite(value) for key, value in flops.items()} if isinstance(flops, dict) else {}
    tflops = {key: value for key, value in told.items() if value is not None}
    return LegacyNode(
        node_id=node_id,
        model=str(body.get("model") or "unknown"),
        chip=str(body.get("chip") or "unknown"),
        memory_mib=int(finite(body.get("memory")) or 0),
        # a figure that is none makes the others doubtful too
        tflops=tflops if len(tflops) == len(told) else {},
    )
