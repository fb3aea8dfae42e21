"""Ask an EXO 1.x node about its cluster; nothing here changes anything."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import httpx

from live.errors import ApiChanged, PlacementRefused, RequestRefused
from live.exo.casing import snake
from live.exo.chat import Timeouts
from live.exo.state import ClusterState, StateInstance, parse_instance, parse_state
from live.http import Http

__all__ = ["ExoReader", "Preview"]


MOST_CPU = 0.04  # of a core; a state of 64 nodes (2 MB) takes some 40 ms to read


class Preview(dict[str, Any]):
    """One way in which EXO would place a model: `sharding`, `instance_meta`, `error`, and
    `instance` as it said it.
    """


class ExoReader:
    """Reads from one node, which speaks for its whole cluster; thread-safe.

    `transport` replaces the network. Every method raises Unreachable, ApiChanged or RequestRefused
    where that is what happens.
    """

    def __init__(
        self, base_url: str, transport: httpx.BaseTransport | None = None, timeouts: Timeouts | None = None
    ) -> None:
        self.timeouts = timeouts or Timeouts()
        self._transport = transport
        self.turn_to(base_url)
        self._last_state: ClusterState | None = None
        self._look_cpu_s = 0.0
        self.gives_parts = True

    def turn_to(self, base_url: str) -> None:
        """Talk to another node of the same cluster from now on."""
        self.http = Http(base_url, self._transport, self.timeouts.connect_s)

    @property
    def base_url(self) -> str:
        """The address that this client talks to."""
        return self.http.base_url

    def _get(self, path: str, **params: Any) -> Any:
        return self.http.json("GET", path, within_s=self.timeouts.answer_s, params=params or None)

    def node_id(self) -> str:
        """The id of the node asked (not of the master)."""
        answer = self._get("/node_id")
        if not isinstance(answer, str) or not answer:
            raise ApiChanged(
                f"{self.base_url}/node_id answers {str(answer)[:60]!r}, no id; is EXO 1.x there?"
            )
        return answer

    def state(self) -> ClusterState:
        """The cluster as this node knows it."""
        began_s = time.thread_time()
        found = parse_state(self._get("/state"))
        self._look_cpu_s = time.thread_time() - began_s
        self._last_state = found
        return found

    def work(self) -> ClusterState:
        """Instances and running tasks alone, the rest empty: a look is small however large the cluster.

        Versions before 1.0.70 give no parts of their state, so there it is the whole.
        """
        if self.gives_parts:
            try:
                # tasks first: one of an instance that has gone since is none
                tasks = self._get("/state/tasks")
                return parse_state(
                    {"topology": {}, "tasks": tasks, "instances": self._get("/state/instances")}
                )
            except (RequestRefused, ApiChanged):
                self.gives_parts = False
        return self.state()

    @property
    def pause_s(self) -> float:
        """How long to wait between two looks, so that looking takes at most `MOST_CPU` of a core.

        A client that is busy with the state stamps tokens late, and may run on a device that is measured.
        """
        return max(self.timeouts.poll_s, self._look_cpu_s / MOST_CPU)

    def models(self) -> tuple[dict[str, Any], ...]:
        """All model cards that the cluster knows, keys in snake_case; `id` is what the other methods take."""
        answer = snake(self._get("/models"))
        cards = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(cards, list):
            raise ApiChanged(f"{self.base_url}/models answers no list; is EXO 1.x there?")
        return tuple(card for card in cards if isinstance(card, dict))

    def features(self) -> tuple[str, ...]:
        """Which of the endpoints that came with later versions exist, by asking for
        them with harmless requests.
        """
        probes = {
            "state_path": "/state/topology",
            "traces": "/v1/traces",
            "feature_flags": "/v1/feature-flags",
        }
        # by asking: EXO reports the same version number in releases that differ
        return tuple(name for name, path in probes.items() if self._offers(path))

    def _offers(self, path: str) -> bool:
        try:
            self._get(path)
        except (RequestRefused, ApiChanged):
            return False
        return True

    def placement(
        self, model_id: str, *, min_nodes: int = 1, sharding: str = "Pipeline", meta: str = "MlxRing"
    ) -> StateInstance:
        """The instance that EXO would make now; raises PlacementRefused with EXO's
        reason when it would make none.
        """
        try:
            return parse_instance(
                self._get(
                    "/instance/placement",
                    model_id=model_id,
                    sharding=sharding,
                    instance_meta=meta,
                    min_nodes=min_nodes,
                )
            )
        except RequestRefused as error:
            if error.status in (404, 405):  # no such endpoint, or taken for the id of an instance
                return self._placement_of_previews(model_id, min_nodes, sharding, meta)
            hint = (
                "; is the model's id right, and can the cluster reach the model hub?"
                if error.status == 500
                else ""
            )
            raise PlacementRefused(
                f"EXO cannot place {model_id} on {min_nodes} or more nodes: {error}{hint}"
            ) from None

    def _placement_of_previews(
        self, model_id: str, min_nodes: int, sharding: str, meta: str
    ) -> StateInstance:
        """The same from `/instance/previews`, for a version without `/instance/placement`."""
        reasons = []
        for preview in self.previews(model_id):
            # previews list every way of placing; only the one asked for counts
            if preview.get("sharding") != sharding or preview.get("instance_meta") != meta:
                continue
            if preview.get("error"):
                reasons.append(str(preview["error"]))
            elif isinstance(preview.get("instance"), Mapping):
                found = parse_instance(preview["instance"])
                if len(found.shards) >= min_nodes:
                    return found
        raise PlacementRefused(
            f"EXO cannot place {model_id} on {min_nodes} or more nodes: {'; '.join(reasons)[:500]}"
        )

    def previews(self, model_id: str) -> tuple[Preview, ...]:
        """All ways in which EXO would place the model, and its reasons where it would not."""
        answer = self._get("/instance/previews", model_id=model_id)
        found = answer.get("previews") if isinstance(answer, dict) else None
        if not isinstance(found, list):
            raise ApiChanged(f"{self.base_url}/instance/previews answers no list")
        # The instance keeps its casing: it may be posted back.
        return tuple(
            Preview(
                {
                    **snake({key: value for key, value in entry.items() if key != "instance"}),
                    "instance": entry.get("instance"),
                }
            )
            for entry in found
            if isinstance(entry, dict)
        )
