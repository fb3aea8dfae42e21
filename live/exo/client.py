"""Talk to an EXO 1.x cluster, from 1.0.60 to the HEAD of 2026-06, by what it offers and
not by its version number.

>>> # with ExoClient("http://10.0.0.7:52415") as exo:
>>> #     instance = exo.create_instance(exo.placement("mlx-community/Llama-3.2-1B-Instruct-4bit").raw)
>>> #     exo.wait_ready(instance)
>>> #     reply = exo.chat(model, "Tell me of rings.", max_tokens=64)

Leaving the block deletes the instances that this client made, and no other, also on Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from live.errors import ApiChanged, InstanceFailed, LiveError, PlacementRefused, RequestRefused
from live.exo.build import NodeLayers, build_instance, unlinked
from live.exo.casing import snake
from live.exo.chat import Timeouts, stream_reply
from live.exo.diagnose import SILENT_S, Inquiry
from live.exo.lease import marked
from live.exo.missing import Missing
from live.exo.owned import Owned
from live.exo.reader import ExoReader, Preview
from live.exo.state import ClusterState, StateInstance, parse_instance
from live.number import finite
from live.reply import StreamedReply
from live.stream import OnToken, StreamRules
from simulator.churn.spec import RecoverySpec

__all__ = ["BenchReply", "ExoClient", "Preview", "Timeouts"]

LOOKS = 3  # looks at a silent cluster until one that stands still is told


class BenchReply(dict[str, Any]):
    """EXO's answer to a benchmark, keys in snake_case:
    `generation_stats`, `power_usage`, `choices`, `elapsed_s`.
    """

    @property
    def generation_tokens_per_s(self) -> float | None:
        """EXO's `generation_tps`: (n - 1) / (last token - first token) on rank 0."""
        stats = self.get("generation_stats")
        return finite(stats.get("generation_tps")) if isinstance(stats, dict) else None


class ExoClient(ExoReader):
    """A reader that also places models and asks them; thread-safe.

    `transport` replaces the network. Every method raises Unreachable, ApiChanged or RequestRefused
    where that is what happens.
    """

    def __init__(
        self, base_url: str, transport: httpx.BaseTransport | None = None, timeouts: Timeouts | None = None
    ) -> None:
        super().__init__(base_url, transport, timeouts)
        self.owned = Owned(self)
        self.commands: set[str] = set()
        """Ids of our own generations, as their streams told them."""
        self.made: set[str] = set()
        """Ids of all instances that we ever made."""
        self.unnamed = 0
        """Own generations that broke before they told theirs."""

    def __enter__(self) -> Self:
        self.owned.watch_signals()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            gone = self.owned.release()
            if isinstance(error, KeyboardInterrupt):
                ids = ", ".join(one[:8] for one in gone)
                error.add_note(
                    f"deleted instance {ids}" if gone else "no instance of ours was left to delete"
                )
        except LiveError as left:
            if error is None:
                raise
            error.add_note(str(left))  # what happened first is what the user needs to know first

    # Placing

    def template(self, model_id: str) -> StateInstance:
        """An instance of the model to build others from: what EXO would make, else one that runs already."""
        try:
            return self.placement(model_id)
        except PlacementRefused:
            running = [one for one in self.state().instances.values() if one.model_id == model_id]
            if running and running[0].meta == "MlxRing":
                return running[0]
            raise

    def instance_with(self, model_id: str, layers: Sequence[NodeLayers]) -> dict[str, Any]:
        """The instance with `layers` on these nodes in this ring order; post it with `create_instance`."""
        return build_instance(self.template(model_id), self.state(), layers)

    def instance_split(self, model_id: str, nodes: Sequence[str]) -> dict[str, Any]:
        """The Tensor instance over the ring of these nodes, in this order; post it with `create_instance`."""
        template = self.template(model_id)
        n_layers = template.shards[0].n_layers
        return build_instance(template, self.state(), [(node, 0, n_layers) for node in nodes])

    def when_linked(
        self, make: Callable[[], Mapping[str, Any]], say: Callable[[str], None]
    ) -> Mapping[str, Any]:
        """What `make` gives; refused while nodes have not found each other yet, it is tried again.

        EXO probes its links every 10 s; a mesh of three was complete 10 to 25 s after start (recorded).
        Raises PlacementRefused.
        """
        end_s = time.monotonic() + self.timeouts.mesh_s
        while True:
            try:
                return make()
            except PlacementRefused as error:
                lacking = ", ".join(unlinked(self.state())[:4])
                if not lacking:
                    raise
                if time.monotonic() > end_s:
                    raise PlacementRefused(
                        f"{error}; the mesh is incomplete for {self.timeouts.mesh_s:g} s and longer, and EXO "
                        f"probes every 10 s: {lacking}; check the network between them"
                    ) from None
                say(f"waiting for the mesh, complete 10 to 25 s after a start: {lacking}")
                time.sleep(max(self.pause_s, min(1.0, self.timeouts.mesh_s / 10)))

    def create_instance(self, raw: Mapping[str, Any]) -> StateInstance:
        """Post an instance: one from `placement`, `previews` or `instance_with`, under an id that says whose
        it is (`live.exo.lease`). It is ours: we delete it when done.
        """
        raw = marked(raw)
        instance = parse_instance(raw)
        self.owned.add(instance.instance_id)  # before posting: an interrupt may come in between
        self.made.add(instance.instance_id)
        try:
            self.http.json("POST", "/instance", within_s=self.timeouts.answer_s, body={"instance": raw})
        except RequestRefused as error:
            # refused, so there is nothing of ours to delete
            self.owned.forget(instance.instance_id)
            raise PlacementRefused(f"EXO refuses the instance: {error}") from None
        self._wait_for(
            lambda state: state.instances.get(instance.instance_id), f"instance {instance.instance_id}"
        )
        return instance

    def place_instance(
        self, model_id: str, *, min_nodes: int = 1, sharding: str = "Pipeline", meta: str = "MlxRing"
    ) -> StateInstance:
        """Let EXO place the model.

        EXO keeps errors of `POST /place_instance` to its log, so its placement is asked for first.
        EXO does not say which instance it made; when others place the same model at the same
        moment none is taken for ours.
        """
        self.placement(model_id, min_nodes=min_nodes, sharding=sharding, meta=meta)
        # EXO does not say which instance it made: the one that was not there before is ours
        before = set(self.work().instances)
        body = {"model_id": model_id, "sharding": sharding, "instance_meta": meta, "min_nodes": min_nodes}
        # an interrupt between asking and seeing it must not leave it behind
        self.owned.expect(model_id, before)
        self.http.json("POST", "/place_instance", within_s=self.timeouts.answer_s, body=body)

        def new(state: ClusterState) -> list[StateInstance]:
            return [
                one for key, one in state.instances.items() if key not in before and one.model_id == model_id
            ]

        found: list[StateInstance] = self._wait_for(new, f"an instance of {model_id}")
        self.owned.expect(None, set())
        if len(found) > 1:
            raise PlacementRefused(
                f"{len(found)} instances of {model_id} appeared at once: somebody else places the same "
                "model; none is "
                f"taken for ours: delete what is not needed of {', '.join(one.instance_id for one in found)}"
            )
        self.owned.add(found[0].instance_id)
        return found[0]

    def _wait_for(self, look: Callable[[ClusterState], Any], what: str) -> Any:
        """Poll the state until `look` finds something."""
        deadline = time.monotonic() + self.timeouts.appear_s
        while True:
            found = look(self.work())
            if found:
                return found
            if time.monotonic() > deadline:
                raise PlacementRefused(
                    f"{what} did not appear within {self.timeouts.appear_s:g} s; EXO logs the reason on the "
                    "master only"
                )
            time.sleep(self.pause_s)

    def wait_ready(
        self,
        instance: StateInstance | str,
        within_s: float | None = None,
        on_change: Callable[[str], None] | None = None,
    ) -> ClusterState:
        """Wait until every runner is ready or running, and return that state.

        Raises InstanceFailed when a runner fails, the instance vanishes or `within_s` (default
        `timeouts.ready_s`) pass; `on_change` hears of each new set of states of the runners.
        """
        instance_id = instance if isinstance(instance, str) else instance.instance_id
        limit_s = self.timeouts.ready_s if within_s is None else within_s
        deadline, moved_s, shown = time.monotonic() + limit_s, time.monotonic(), ""
        while True:
            state = self.state()
            found = state.instances.get(instance_id)
            if found is None:
                raise InstanceFailed(
                    f"instance {instance_id} vanished; EXO deletes one whose node left or whose runners "
                    "failed 5 times"
                )
            missing = Missing.of(state, found)
            now = "; ".join((_describe(state, found), *missing.told()))
            if state.is_ready(found):
                return state
            # loading takes minutes with a look four times a second; only what changes is worth a line
            if now != shown:
                moved_s = time.monotonic()
                # a download that gets on is no reason to give up, however long it takes
                deadline = max(deadline, moved_s + self.timeouts.stall_s) if missing.downloads else deadline
                if on_change:
                    on_change(now)
            shown = now
            self._raise_failed(state, found)
            missing.check(time.monotonic() - moved_s, self.timeouts.stall_s)
            if time.monotonic() > deadline:
                raise InstanceFailed(
                    f"not ready after {limit_s:g} s: {now}; 'Connecting' for long means that the nodes "
                    "cannot reach each other at the addresses in the instance, or that the port is in use"
                )
            time.sleep(self.pause_s)

    def _raise_failed(self, state: ClusterState, instance: StateInstance) -> None:
        for shard, runner in state.runners_of(instance):
            if runner.status == "RunnerFailed":
                reason = runner.error or "EXO gives no reason; its log there may"
                raise InstanceFailed(f"the runner on {state.name_of(shard.node_id)} failed: {reason}")

    def delete_instance(self, instance: StateInstance | str) -> None:
        """Delete an instance that this client made; raises LiveError for any other."""
        instance_id = instance if isinstance(instance, str) else instance.instance_id
        if not self.owned.has(instance_id):
            raise LiveError(
                f"instance {instance_id} was not made by this run, so it is not deleted; its owner may"
            )
        self.owned.delete(instance_id)
        deadline = time.monotonic() + self.timeouts.appear_s
        # the answer to a deletion only says that the command was received
        while instance_id in self.work().instances and time.monotonic() < deadline:
            time.sleep(self.pause_s)

    # Generating

    def chat(
        self,
        model_id: str,
        prompt: str,
        *,
        max_tokens: int,
        instance_id: str | None = None,
        bench: bool = False,
        temperature: float | None = None,
        seed: int | None = None,
        abort: threading.Event | None = None,
        on_token: OnToken | None = None,
        received: str = "",
        client: RecoverySpec | None = None,
        into: StreamedReply | None = None,
    ) -> StreamedReply:
        """One streamed reply with the arrival time of every token.

        `bench` asks for exactly `max_tokens` tokens and no prefix cache (HEAD streams from its benchmark
        endpoint; where a version does not, NotStreamed or NotOffered is raised). `instance_id` helps to say
        why tokens stop. The reply goes on behind the text `received`: EXO leaves a last turn of the assistant
        open (exo-explore/exo, utils_mlx.py: assistant prefilling). `client` says when to look into silences,
        default: `timeouts` alone. Raises a BrokenReply with the tokens so far when the stream ends early.
        """
        # the state of a moment ago does: a look before each chat would cost it its first milliseconds
        before = self._last_state or self.state()
        turns = [{"role": "user", "content": prompt}]
        turns += [{"role": "assistant", "content": received}] if received else []
        body: dict[str, Any] = {
            "model": model_id,
            "messages": turns,
            "max_tokens": max_tokens,
            "stream": True,
        }
        body |= {
            key: value for key, value in (("temperature", temperature), ("seed", seed)) if value is not None
        }
        if bench:
            # a prompt that was computed before would make the first token too early
            body["use_prefix_cache"] = False
        of_model = (one.instance_id for one in before.instances.values() if one.model_id == model_id)
        silent_s = client.probe + self.timeouts.report_s if client else SILENT_S
        inquiry = Inquiry(
            self.state, before, instance_id or next(of_model, None), self.timeouts.look_again_s, silent_s
        )
        path = "/bench/chat/completions" if bench else "/v1/chat/completions"
        reply = StreamedReply() if into is None else into
        try:
            return stream_reply(
                self.http,
                path,
                body,
                StreamRules(max_tokens),
                self.timeouts,
                why=inquiry.look,
                again_s=max(self.timeouts.look_again_s / LOOKS, self.pause_s),
                client=client,
                abort=abort,
                on_token=on_token,
                into=reply,
            )
        finally:
            if reply.command_id:
                self.commands.add(reply.command_id)
            else:
                self.unnamed += 1

    def bench(
        self, model_id: str, prompt: str, *, max_tokens: int, use_prefix_cache: bool = False
    ) -> BenchReply:
        """EXO's own benchmark: exactly `max_tokens` tokens, its rates, no token times;
        NotOffered before 1.0.64.
        """
        body = {
            "model": model_id,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "stream": False,
            "use_prefix_cache": use_prefix_cache,
        }
        started = time.monotonic()
        answer = snake(
            self.http.json("POST", "/bench/chat/completions", within_s=self.timeouts.bench_s, body=body)
        )
        if not isinstance(answer, dict):
            raise ApiChanged(f"{self.base_url}/bench/chat/completions answers no object")
        return BenchReply(answer, elapsed_s=time.monotonic() - started)

    def cancel(self, command_id: str) -> bool:
        """Cancel a generation; False when it is over, or the version cannot (closing its
        connection then has to do).
        """
        try:
            self.http.json("POST", f"/v1/cancel/{command_id}", within_s=self.timeouts.answer_s)
        except RequestRefused as error:
            if error.status in (404, 405):
                return False
            raise
        return True


def _describe(state: ClusterState, instance: StateInstance) -> str:
    """`macbook: Loading (layers_loaded 3, total_layers 40); pixel: Idle`."""
    return "; ".join(
        f"{state.name_of(shard.node_id)}: {runner.status.removeprefix('Runner')}"
        + (f" ({runner.details})" if runner.details else "")
        for shard, runner in state.runners_of(instance)
    )
