"""Measure a scenario on a real EXO cluster; every token is in the file as soon as it has arrived."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from live.discover.rpc import greet
from live.errors import (
    ApiChanged,
    ClusterBusy,
    LiveError,
    NoRoute,
    NotListening,
    NotOffered,
    Unanswered,
    Unreachable,
)
from live.exo.client import ExoClient, Timeouts
from live.exo.lease import host_lock, who
from live.exo.match import device_names, match_devices, match_model
from live.exo.mend import Mender
from live.exo.others import look_current, require_first
from live.exo.placing import METAS, beyond_memory, chosen_by_client, exos_words, is_tensor, otherwise
from live.exo.provenance import provenance_of
from live.exo.state import ClusterState, StateInstance, parse_instance
from live.exo_legacy.client import LegacyClient
from live.recovery import ObservedRecovery
from live.session import MeasurementSession
from live.steady import SteadyState, steady_state
from live.url import API_PORT
from simulator.placement.shard import Placement
from simulator.result.measurement import Measurement, MeasurementWriter, Provenance, read_measurement
from simulator.scenario import Scenario

__all__ = ["MeasureOptions", "MeasureResult", "connect", "measure_exo", "require_new"]


def _silent(_: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """What a scenario does not say about measuring it."""

    placement: Placement | None = None
    """Layers by device of the scenario, in ring order; None:
    the scenario's manual layers or those of its rule, else EXO's own placement.
    """
    model_id: str | None = None
    device_map: Mapping[str, str] = field(default_factory=dict)
    """Device of the scenario -> name or id of a node, where their names differ."""
    allow_busy: bool = False
    reuse_instance: bool = False
    """Measure an instance of the model that is there already, and leave it there."""
    power: Mapping[str, str] = field(default_factory=dict)
    links: Sequence[Mapping[str, Any]] = ()
    """Samples of `sim live links`, kept with the measurement."""
    temperature: float = 0.0
    say: Callable[[str], None] = _silent
    on_token: Callable[[int, int, int], None] | None = None
    """Hears (run, chat, token) of each token."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More about the cluster for the header of the file."""
    remarks: Callable[[], Iterable[str]] = tuple
    """Asked when all runs are over; the answers are warnings of the file."""


@dataclass(frozen=True, slots=True)
class MeasureResult:
    """What came of it."""

    path: Path
    runs_done: int
    failures: tuple[str, ...]
    steady: SteadyState | None
    warnings: tuple[str, ...]
    recoveries: tuple[ObservedRecovery, ...] = ()
    """Of replies that broke off and were mended; their runs have `phase` lines."""


def connect(
    urls: Sequence[str], transport: httpx.BaseTransport | None = None, timeouts: Timeouts | None = None
) -> tuple[ExoClient, ClusterState]:
    """A client for the first address that answers, and its state; raises
    Unreachable naming all that do not.
    """
    failures = []
    for url in urls:
        client = ExoClient(url, transport, timeouts)
        try:
            return client, client.state()
        except (NotListening, NoRoute, Unanswered) as error:
            failures.append(str(error))
        except (Unreachable, ApiChanged) as error:
            told = httpx.URL(url)
            # something answers that is no EXO: perhaps a port of llama.cpp's
            rpc = greet(told.host, told.port or API_PORT) if transport is None else None
            if rpc is not None:
                raise LiveError(
                    f"{url} is {rpc}, and no EXO; write llama-rpc://{told.host}:{told.port} for it"
                ) from None
            if isinstance(error, ApiChanged):
                raise
            failures.append(str(error))
        except NotOffered:
            if LegacyClient(url, transport, timeouts).is_legacy():
                raise LiveError(
                    f"{url} is legacy EXO (0.0.x), which is measured otherwise: write exo-legacy:// for "
                    "exo://"
                ) from None
            raise LiveError(
                f"{url} is a web server, and no EXO: it has no /state; write the port of EXO's API "
                f"({API_PORT}), or openai://{httpx.URL(url).netloc.decode()} where an OpenAI-compatible "
                "server listens there"
            ) from None
    raise Unreachable("; ".join(failures))


def require_new(out_path: str | Path) -> None:
    """Raise LiveError for a file that is there already."""
    if Path(out_path).exists():
        raise LiveError(f"{out_path} exists; measurements are never overwritten, choose another name")


def measure_exo(
    scenario: Scenario,
    cluster_urls: Sequence[str],
    out_path: str | Path,
    options: MeasureOptions | None = None,
    *,
    transport: httpx.BaseTransport | None = None,
    timeouts: Timeouts | None = None,
) -> MeasureResult:
    """Place the scenario's model, warm up, run its workload, and append every token to a
    Measurement at `out_path`.

    Instances made here are deleted at the end, whatever that is; a Ctrl-C leaves
    everything measured so far in the file, marked as interrupted. Raises ClusterBusy when
    others use the cluster, and what `ExoClient` raises; a reply that breaks is mended
    where devices are left that hold the model, else kept as far as it came.
    """
    chosen = options or MeasureOptions()
    require_new(out_path)
    client, state = connect(cluster_urls, transport, timeouts)
    ids = () if chosen.allow_busy else [node.node_id for node in state.nodes]
    with client, host_lock(ids):
        model_id = chosen.model_id or match_model(
            scenario.model.name, scenario.model.quantisation, client.models()
        )
        # before anything is placed: an instance of ours would be in the way of the others too
        state = _unused(client, state, model_id, chosen, expected=len(scenario.devices))
        instance, ready_s, doubts = _place(client, state, scenario, model_id, chosen)
        mender = Mender(
            client,
            scenario,
            instance,
            partial(_names, scenario=scenario, options=chosen),
            urls=cluster_urls,
            say=chosen.say,
        )
        session = MeasurementSession(
            client,
            scenario.workload,
            mender,
            temperature=chosen.temperature,
            say=chosen.say,
            on_token=chosen.on_token,
            known=state.instances,
            allow_busy=chosen.allow_busy,
        )
        for text in otherwise(scenario, instance, _names(state, scenario, chosen)):
            doubts.append(text)
            chosen.say(f"doubt: {text}")
        # before the header is written, which says to which endpoint the chats go
        session.warm_up()
        header = _header(client, scenario, instance, session, chosen, ready_s)
        with MeasurementWriter(out_path, header) as writer:
            for text in doubts:
                writer.warn(text)
            session.run_all(writer)
            # asked at the end, when whoever took a device away knows how that went
            for text in chosen.remarks():
                writer.warn(text)
    # from the file and not from memory: what is reported is what is on disk
    measurement = read_measurement(out_path)
    return MeasureResult(
        Path(out_path),
        session.runs_done,
        tuple(session.failures),
        steady_state(_undisturbed(measurement)),
        measurement.warnings,
        tuple(session.recoveries),
    )


def _header(
    client: ExoClient,
    scenario: Scenario,
    instance: StateInstance,
    session: MeasurementSession,
    options: MeasureOptions,
    ready_s: float,
) -> Provenance:
    # asked once more: a node may have left and come back under a new id while the model was loaded
    state = client.state()
    return provenance_of(
        scenario,
        state,
        instance,
        _names(state, scenario, options),
        features=client.features(),
        power=options.power,
        warm_up_requests=session.warm_up_requests,
        extra={
            "ready_s": ready_s,
            "endpoint": session.endpoint,
            "links": [dict(link) for link in options.links],
            "address": client.base_url,
            **options.extra,
        },
    )


def _undisturbed(measurement: Measurement) -> Measurement:
    """The runs in which nothing was lost and nobody else worked."""
    # mended runs are whole, but hold the time of a recovery
    lost = measurement.mended_runs | measurement.disturbed_runs
    return replace(
        measurement, events=tuple(event for event in measurement.events if event.get("run") not in lost)
    )


def _unused(
    client: ExoClient, state: ClusterState, model_id: str, options: MeasureOptions, *, expected: int
) -> ClusterState:
    """The state of a cluster that nobody else uses; raises ClusterBusy, with the way out.

    Looked at again before anything is believed that a node which has just started may show.
    """
    if _users(state, model_id, options) or len(state.nodes) < expected:
        options.say("looking again: a node that has just started shows what was there before")
        state = look_current(client, state, client.timeouts.appear_s)
    _refuse_busy(state, model_id, options)
    return state


def _users(state: ClusterState, model_id: str, options: MeasureOptions) -> list[str]:
    others = [
        one for one in state.instances.values() if not (options.reuse_instance and one.model_id == model_id)
    ]
    return [*map(who, others), *(f"task {task}" for task in state.busy_tasks)]


def _refuse_busy(state: ClusterState, model_id: str, options: MeasureOptions) -> None:
    """Raise ClusterBusy when a measurement would measure more than itself."""
    found = _users(state, model_id, options)
    same = [one for one in state.instances.values() if one.model_id == model_id]
    # other work is the greater trouble, and is told first
    if found and not options.allow_busy and len(found) > len(same):
        raise ClusterBusy(
            f"the cluster is in use: {', '.join(found[:6])}; wait, delete the instances in EXO's "
            "dashboard, or say --allow-busy (the figures then hold the other work too)"
        )
    if same and not options.reuse_instance:
        idle = "idle " if state.is_ready(same[0]) and not state.busy_tasks else ""
        nodes = ", ".join(state.name_of(shard.node_id) for shard in same[0].shards)
        raise ClusterBusy(
            f"there is an {idle}instance of {model_id} already ({who(same[0])}, on {nodes}), and EXO may "
            "send our requests to it; delete it in EXO's dashboard, or measure it with --reuse-instance"
        )
    if found and not options.allow_busy:
        raise ClusterBusy(f"the cluster is in use: {', '.join(found)}; wait, or say --allow-busy")


def _place(
    client: ExoClient, state: ClusterState, scenario: Scenario, model_id: str, options: MeasureOptions
) -> tuple[StateInstance, float, list[str]]:
    """The instance to measure, ready, the seconds that took, and doubts about what its nodes hold."""
    started, doubts = time.monotonic(), list[str]()
    if options.reuse_instance:
        mine = [one for one in state.instances.values() if one.model_id == model_id]
        if len(mine) != 1:
            raise LiveError(
                f"{len(mine)} instances of {model_id} are there; --reuse-instance needs exactly one"
            )
        client.wait_ready(mine[0], on_change=options.say)
        return mine[0], 0.0, doubts
    raw = client.when_linked(partial(_wanted, client, state, scenario, model_id, options), options.say)
    if options.placement or chosen_by_client(scenario) or is_tensor(parse_instance(raw)):
        doubts = beyond_memory(parse_instance(raw), state, _names(state, scenario, options))
        # before it is loaded: a node that is killed takes its cluster's other work along
        for text in doubts:
            options.say(f"doubt: {text}")
    instance = client.create_instance(raw)
    # twice: whoever comes at the same moment shows at once, and others may come while the model is loaded
    for _ in range(2):
        if not options.allow_busy:
            require_first(client, instance.instance_id, state.instances, options.say)
        client.wait_ready(instance, on_change=options.say)
    return instance, time.monotonic() - started, doubts


def _wanted(
    client: ExoClient, state: ClusterState, scenario: Scenario, model_id: str, options: MeasureOptions
) -> Mapping[str, Any]:
    """The instance to ask for: the layers that the scenario or its rule says, else EXO's own choice."""
    placement = options.placement or chosen_by_client(scenario)
    sharding, meta = exos_words(scenario)
    if sharding == "Tensor" and (order := scenario.placement.order):
        if meta != METAS["ring"]:
            raise LiveError(
                f"{scenario.name}: who comes after whom in an RDMA instance is EXO's choice alone, for only "
                "EXO knows the ports; leave placement.order out, or take backend: ring"
            )
        node_of = match_devices(order, state.nodes, options.device_map)
        return client.instance_split(model_id, [node_of[name] for name in order])
    if placement is None:
        # EXO takes the fewest nodes that hold the model unless it is asked for more
        nodes = scenario.placement.min_devices or len(scenario.devices)
        return client.placement(model_id, min_nodes=nodes, sharding=sharding, meta=meta).raw
    node_of = match_devices([shard.device for shard in placement.shards], state.nodes, options.device_map)
    layers = [(node_of[shard.device], shard.start_layer, shard.end_layer) for shard in placement.shards]
    return client.instance_with(model_id, layers)


def _names(state: ClusterState, scenario: Scenario, options: MeasureOptions) -> dict[str, str]:
    """What to call each node: like the scenario's device where that is clear, else by its own name."""
    names = device_names(state.nodes)
    for device in scenario.devices:
        try:
            names[match_devices([device], state.nodes, options.device_map)[device]] = device
        except LiveError:
            continue
    return names
