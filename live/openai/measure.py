"""Measure a scenario on a server that others have set up: the scenario says what stands behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import httpx

from live.errors import LiveError
from live.exo.chat import Timeouts
from live.exo.provenance import client_software
from live.measure import MeasureOptions, MeasureResult, require_new
from live.openai.client import SERVER_TIMEOUTS, OpenAiClient, ServerFacts
from live.openai.models import Offered, match_id
from live.openai.session import ServerSession
from live.steady import steady_state
from simulator.files import dumps
from simulator.prepare import Prepared, prepare
from simulator.result.measurement import (
    DeviceProvenance,
    MeasurementWriter,
    Provenance,
    ShardProvenance,
    read_measurement,
)
from simulator.scenario import Scenario
from simulator.units import format_bytes

__all__ = ["measure_server", "open_server"]

SIZE_TOLERANCE = 0.05  # of the model as the scenario has it, against what the server says it has loaded
# engines of ours that a server can honestly stand for; what says another name is asked about
BEHIND = {"llama-server": "llama-rpc", "EXO": "exo"}


def measure_server(
    scenario: Scenario,
    base_url: str,
    out_path: str | Path,
    options: MeasureOptions | None = None,
    *,
    transport: httpx.BaseTransport | None = None,
    timeouts: Timeouts = SERVER_TIMEOUTS,
) -> MeasureResult:
    """Warm up, run the scenario's workload on the server at `base_url`, and append all to `out_path`.

    Nothing is placed. Raises LiveError for a model that the server does not have or a context too short for
    the workload, and what `OpenAiClient` raises; replies that break are kept as far as they came.
    """
    chosen = options or MeasureOptions()
    require_new(out_path)
    prepared = prepare(scenario)
    if prepared.scenario.workload.arrivals is not None:
        raise LiveError(f"{scenario.name}: workload.arrivals is not measured; chats are sent all at once")
    client, model, doubts = open_server(prepared, base_url, chosen.model_id, transport, timeouts, chosen.say)
    facts = client.facts(model)
    doubts += _mismatches(prepared, model, facts)
    chosen.say(_nothing_placed(prepared))
    session = ServerSession(
        client, model.model_id, prepared.scenario.workload, say=chosen.say, on_token=chosen.on_token
    )
    session.warm_up()
    header = _provenance(prepared, client, model, facts, session, chosen)
    with MeasurementWriter(out_path, header) as writer:
        for text in doubts:
            writer.warn(text)
        session.run_all(writer)
        for text in chosen.remarks():
            writer.warn(text)
    found = read_measurement(out_path)
    return MeasureResult(
        Path(out_path), session.runs_done, tuple(session.failures), steady_state(found), found.warnings
    )


def open_server(
    prepared: Prepared,
    base_url: str,
    model_id: str | None,
    transport: httpx.BaseTransport | None,
    timeouts: Timeouts,
    say: Callable[[str], None],
) -> tuple[OpenAiClient, Offered, list[str]]:
    """A client, the model to ask for, and doubts about it; raises LiveError for a model that is not there."""
    client = OpenAiClient(base_url, transport, timeouts, say)
    models, said = client.models(), prepared.scenario.model
    if models is None:
        doubt = "the server lists no models, so nobody checked which one answers"
        return client, Offered(model_id or said.name), [doubt]
    ids = [one.model_id for one in models]
    wanted = match_id(model_id or said.name, None if model_id else said.quantisation, ids)
    return client, next(one for one in models if one.model_id == wanted), []


def _nothing_placed(prepared: Prepared) -> str:
    layers = ", ".join(f"{shard.layers} on {shard.device}" for shard in prepared.job.shards)
    return (
        f"nothing is placed on such a server: the file will say {prepared.scenario.engine.name} with "
        f"{layers}, as the scenario does; make sure that it was started so"
    )


def _mismatches(prepared: Prepared, model: Offered, facts: ServerFacts) -> list[str]:
    """Where the server says something else than the scenario; raises LiveError for a context too short."""
    full, doubts = prepared.scenario, []
    needed = full.workload.prompt_tokens + full.workload.output_tokens
    if facts.context_tokens is not None and facts.context_tokens < needed:
        raise LiveError(
            f"{full.name}: {full.workload.prompt_tokens} + {full.workload.output_tokens} tokens do not fit "
            f"the server's context of {facts.context_tokens}; start it with a longer one, or shorten the "
            "workload"
        )
    expected = prepared.job.model.total_bytes
    if model.size_bytes and abs(model.size_bytes - expected) > SIZE_TOLERANCE * expected:
        doubts.append(
            f"the server's model has {format_bytes(model.size_bytes)}, the scenario's "
            f"{format_bytes(expected)}: another quantisation, or another model"
        )
    if facts.server is not None and BEHIND.get(facts.server) != full.engine.name:
        doubts.append(
            f"the server says that it is {facts.server}, and the scenario that {full.engine.name} stands "
            "behind it; a calibration is of the scenario's engine"
        )
    return doubts


def _provenance(
    prepared: Prepared,
    client: OpenAiClient,
    model: Offered,
    facts: ServerFacts,
    session: ServerSession,
    options: MeasureOptions,
) -> Provenance:
    """The header: engine, devices and layers as the scenario says, the rest as the server does."""
    full, job = prepared.scenario, prepared.job
    work = full.workload
    told = " ".join(filter(None, (facts.server, facts.version))) or session.fingerprint
    return Provenance(
        name=full.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        source="openai",
        engine=full.engine.name,
        engine_version=told or "unknown: the server does not say",
        model=model.model_id,
        model_layers=job.model.layers,
        model_bytes=model.size_bytes,
        hidden_bytes=job.model.activation_bytes,
        devices=tuple(
            DeviceProvenance(
                name=device.name,
                chip=full.devices[device.name].kind or "unknown",
                os="unknown",
                link_kind=full.devices[device.name].link.kind or "unknown",
                power_source=options.power.get(device.name, "unknown"),
                details={"told_by": "the scenario"},
            )
            for device in job.ring
        ),
        placement=tuple(
            ShardProvenance(device=shard.device, start_layer=shard.start_layer, end_layer=shard.end_layer)
            for shard in job.shards
        ),
        prompt_tokens=work.prompt_tokens,
        output_tokens=work.output_tokens,
        runs=work.runs,
        concurrency=work.concurrency,
        warm_up_requests=session.warm_up_requests,
        clock="client, monotonic; a chunk's time is when its bytes left the socket",
        scenario_sha256=sha256(dumps(full).encode()).hexdigest(),
        scenario=full.model_dump(mode="json", exclude_none=True),
        cluster={
            "address": client.base_url,
            "placement_told_by": "the scenario",
            "server": asdict(facts),
            "fingerprint": session.fingerprint,
            "counting": session.counting,
            "asked_for": sorted(client.extras),
            **options.extra,
        },
        software=client_software(),
    )
