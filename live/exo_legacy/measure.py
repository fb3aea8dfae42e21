"""Measure a scenario on a legacy EXO cluster (0.0.x): the cluster places, we ask and write down.

It offers less than EXO 1.x, and what it does not offer is refused by name: layers and order are the cluster's
own (by memory), a reply cannot be ended early, and a request whose node is lost hangs, so nothing is mended
(`dropout` watches what becomes of the cluster then).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from statistics import median

import httpx

from live.errors import BrokenReply, ClusterBusy, LiveError, Unreachable
from live.exo.chat import Timeouts
from live.exo.match import match_devices, match_model
from live.exo.provenance import client_software
from live.exo.state import StateNode
from live.exo_legacy.client import LegacyClient, LegacyNode, LegacyTopology
from live.exo_legacy.dwell import DwellPoller, dwell_times_s
from live.measure import MeasureOptions, MeasureResult, require_new
from live.prompts import PromptMaker
from live.reply import StreamedReply
from live.steady import steady_state
from simulator.complete import complete
from simulator.files import dumps
from simulator.placement.shard import Placement
from simulator.result.measurement import (
    DeviceProvenance,
    MeasurementWriter,
    Provenance,
    ShardProvenance,
    read_measurement,
)
from simulator.scenario import Scenario

__all__ = ["LegacyRuns", "OnLoss", "measure_legacy"]

ENGINE_NAME = "exo-legacy"
FEW_WORDS = 4


def measure_legacy(
    scenario: Scenario,
    cluster_urls: Sequence[str],
    out_path: str | Path,
    options: MeasureOptions | None = None,
    *,
    transport: httpx.BaseTransport | None = None,
    timeouts: Timeouts | None = None,
    on_loss: OnLoss | None = None,
) -> MeasureResult:
    """Warm up, run the scenario's workload, and append every token to a Measurement at `out_path`.

    Raises LiveError for what a legacy cluster cannot do, PlacementError where its own split would hang,
    ClusterBusy when others use it, and what `LegacyClient` raises; a reply that breaks ends the measurement,
    with everything that came in the file, and what `on_loss` adds to it.
    """
    chosen = options or MeasureOptions()
    require_new(out_path)
    full = _checked(scenario)
    client = _connect(cluster_urls, transport, timeouts)
    topology = client.topology()
    _refuse_busy(topology, chosen)
    cards = [{"id": model} for model in client.models()]
    model_id = chosen.model_id or match_model(full.model.name, full.model.quantisation, cards)
    node_of = _matched(topology, full, chosen)
    placement = _placement(client, full, node_of)
    runs = LegacyRuns(client, full, model_id, chosen, node_of)
    dwell_s = runs.warm_up()
    devices = tuple(_device(name, topology.node(node_of[name]), chosen) for name in placement.devices)
    header = _provenance(full, client, model_id, devices, placement).model_copy(
        update={
            "cluster": {
                "address": client.base_url,
                "edges": [list(edge) for edge in topology.edges],
                "dwell_median_s": dwell_s,
                **chosen.extra,
            }
        }
    )
    with MeasurementWriter(out_path, header) as writer:
        runs.run_all(writer, on_loss)
        for text in chosen.remarks():
            writer.warn(text)
    found = read_measurement(out_path)
    return MeasureResult(Path(out_path), runs.done, tuple(runs.failures), steady_state(found), found.warnings)


def _checked(scenario: Scenario) -> Scenario:
    """The completed scenario, if it is one that such a cluster can run."""
    full = complete(scenario)
    if full.engine.name != ENGINE_NAME:
        raise LiveError(
            f"{full.name}: engine is {full.engine.name}, and the cluster is legacy EXO; set "
            f"`engine: {ENGINE_NAME}`, or give the address of an EXO 1.x cluster as exo://host:port"
        )
    if full.workload.concurrency != 1:
        raise LiveError(
            f"{full.name}: workload.concurrency is {full.workload.concurrency}, but one chat at a time is "
            "measured on legacy EXO; set it to 1"
        )
    return full


def _connect(
    urls: Sequence[str], transport: httpx.BaseTransport | None, timeouts: Timeouts | None
) -> LegacyClient:
    """A client for the first address at which legacy EXO answers."""
    failures = []
    for url in urls:
        client = LegacyClient(url, transport, timeouts)
        try:
            if client.is_legacy():
                return client
        except Unreachable as error:
            failures.append(str(error))
        else:
            failures.append(f"{url} is no legacy EXO (0.0.x); write exo://host:port for EXO 1.x")
    raise Unreachable("; ".join(failures))


def _refuse_busy(topology: LegacyTopology, options: MeasureOptions) -> None:
    """Raise ClusterBusy when somebody's request is under way."""
    if topology.active_node_id is not None and not options.allow_busy:
        raise ClusterBusy(
            f"{topology.active_node_id} works on somebody's request; wait, or say --allow-busy (the figures "
            "then hold the other work too)"
        )


def _matched(topology: LegacyTopology, full: Scenario, options: MeasureOptions) -> dict[str, str]:
    """The node id of each device of the scenario; raises LiveError where one side has more than the other."""
    nodes = [StateNode(node.node_id, node.node_id, chip=node.chip) for node in topology.nodes]
    node_of = match_devices(list(full.devices), nodes, options.device_map)
    others = {node.node_id for node in nodes} - set(node_of.values())
    if others:
        raise LiveError(
            f"the cluster has {', '.join(sorted(others))}, which gets layers as well; add it to the "
            "scenario's devices, or stop EXO on it"
        )
    return node_of


def _placement(client: LegacyClient, full: Scenario, node_of: Mapping[str, str]) -> Placement:
    """Who holds which layers, in ring order, by the scenario's names: recomputed, for nobody tells.

    Raises PlacementError where the cluster would hang, LiveError where the scenario says otherwise.
    """
    name_of = {node: name for name, node in node_of.items()}
    held = client.partition(_layers(full)).placement()
    layers = {name_of[shard.device]: shard.layers for shard in held.shards}
    asked = full.placement.layers
    if asked is not None and {name: count for name, count in asked.items() if count} != layers:
        told = ", ".join(f"{count} on {name}" for name, count in layers.items())
        raise LiveError(
            f"{full.name}: placement.layers is not what legacy EXO does: it places by memory ({told}), and "
            "nobody can tell it otherwise; write these layers, or leave them out"
        )
    return Placement.from_layers(layers.items(), ENGINE_NAME)


@dataclass
class LegacyRuns:
    """The chats of one measurement; `done` and `failures` tell what became of them."""

    client: LegacyClient
    scenario: Scenario
    model_id: str
    options: MeasureOptions
    node_of: Mapping[str, str]
    """The node's id of each device of the scenario."""
    done: int = 0
    failures: list[str] = field(default_factory=list)
    started_ns: int = 0

    def __post_init__(self) -> None:
        self.prompts = PromptMaker(self.scenario.workload.prompt_tokens)
        for words in (FEW_WORDS, None):  # this generation counts the tokens of a prompt when asked
            prompt, count = self.prompts.make(words)
            self.prompts.learn(count, self.client.count_tokens(self.model_id, prompt))

    def warm_up(self) -> dict[str, float]:
        """One chat, which loads the model; a token's median time (s) on each node, if told."""
        self.options.say("warming up: legacy EXO ends a reply when it likes, so this may take minutes")
        prompt, _ = self.prompts.make()
        if not self.client.sends_fillers:
            self.client.chat(self.model_id, prompt)
            return {}
        # asking 120 times per second costs the node some time, so the runs that count are left alone
        with DwellPoller(self.client) as poller:
            self.client.chat(self.model_id, prompt)
        stays = dwell_times_s(poller.changes)
        return {node or "between nodes": median(times) for node, times in stays.items()}

    def run_all(self, writer: MeasurementWriter, on_loss: OnLoss | None) -> None:
        """All runs; a broken reply ends them, for the cluster hangs until somebody mends it."""
        work, self.started_ns = self.scenario.workload, time.monotonic_ns()
        for run in range(work.runs):
            self.options.say(f"run {run + 1} of {work.runs}")
            try:
                self.run(writer, run)
            except BrokenReply as error:
                kind = type(error).__name__
                self.failures.append(f"run {run}: {kind}: {error}")
                _result(writer, run, error.reply, self.started_ns, kind, str(error))
                writer.warn(f"stopped after run {run}: legacy EXO takes no lost request up again")
                if on_loss is not None:
                    on_loss(self, writer, error)
                return
            self.done += 1

    def run(self, writer: MeasurementWriter, run: int) -> StreamedReply:
        """One chat; its tokens go to the file as they arrive, as far as the scenario wants them."""
        work = self.scenario.workload

        def keep(token: int, t_ns: int) -> None:
            if token < work.output_tokens:
                writer.write("token", run=run, chat=0, token=token, t_ns=t_ns)
                if self.options.on_token is not None:
                    self.options.on_token(run, 0, token)

        prompt, _ = self.prompts.make()
        sent_ns = time.monotonic_ns() - self.started_ns
        writer.write("request", run=run, chat=0, prompt_tokens=work.prompt_tokens, sent_ns=sent_ns)
        reply = self.client.chat(self.model_id, prompt, on_token=keep)
        _result(writer, run, reply, self.started_ns, "complete", reply.finish_reason or "")
        self._doubts(writer, run, reply)
        return reply

    def _doubts(self, writer: MeasurementWriter, run: int, reply: StreamedReply) -> None:
        count, wanted = len(reply.tokens), self.scenario.workload.output_tokens
        if count < wanted:
            writer.warn(
                f"run {run}: only {count} of {wanted} tokens: the model ended its text, and this version "
                "cannot forbid that"
            )


OnLoss = Callable[[LegacyRuns, MeasurementWriter, BrokenReply], None]
"""Hears of the reply that broke, while the file is open; may run more chats."""


def _result(
    writer: MeasurementWriter, run: int, reply: StreamedReply, started_ns: int, outcome: str, detail: str
) -> None:
    writer.write(
        "result",
        run=run,
        chat=0,
        outcome=outcome,
        tokens=len(reply.tokens),
        detail=detail,
        sent_ns=reply.sent_ns - started_ns,
        headers_ns=reply.headers_ns,
        end_ns=reply.end_ns,
    )


def _layers(full: Scenario) -> int:
    assert full.model.layers is not None, "of a completed scenario"
    return full.model.layers


def _provenance(
    full: Scenario,
    client: LegacyClient,
    model_id: str,
    devices: tuple[DeviceProvenance, ...],
    placement: Placement,
) -> Provenance:
    """The header of the Measurement, but for what was seen of the cluster."""
    work = full.workload
    return Provenance(
        name=full.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        source="exo-legacy",
        engine=ENGINE_NAME,
        engine_version="0.0.12 or older" if client.sends_fillers else "0.0.13 or newer",
        model=model_id,
        model_layers=_layers(full),
        devices=devices,
        placement=tuple(
            ShardProvenance(device=shard.device, start_layer=shard.start_layer, end_layer=shard.end_layer)
            for shard in placement.shards
        ),
        prompt_tokens=work.prompt_tokens,
        output_tokens=work.output_tokens,
        runs=work.runs,
        warm_up_requests=1,
        clock="client, monotonic; a token's time is when its bytes left the socket",
        scenario_sha256=sha256(dumps(full).encode()).hexdigest(),
        scenario=full.model_dump(mode="json", exclude_none=True),
        software=client_software(),
    )


def _device(name: str, node: LegacyNode, options: MeasureOptions) -> DeviceProvenance:
    """A device by its name in the scenario; legacy EXO tells neither its system nor its link's kind."""
    return DeviceProvenance(
        name=name,
        chip=node.chip,
        os="unknown",
        memory_bytes=node.memory_bytes,
        power_source=options.power.get(name, "unknown"),
        details={"machine": node.model, "node_id": node.node_id},
    )
