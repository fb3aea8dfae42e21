"""EXO's `/state` as typed, frozen views; unknown fields and both casings are fine, whatever the version.

Versions up to 1.0.63 keep everything of a node in `node_profiles` and edges in a list; later ones have one
mapping per aspect and edges by source and sink. Runners, tasks and identities of dead things stay in the
state for ever, so views start from `instances` and `topology`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any

from pydantic import Field, StrictInt, ValidationError, model_validator

from live.errors import ApiChanged
from live.exo.casing import either, mapping_in, snake, tagged
from live.number import finite
from simulator.catalog.config_keys import MAX_LAYERS
from simulator.files.explain import in_words
from simulator.spec import Spec

__all__ = [
    "BusyTask",
    "ClusterState",
    "Interface",
    "NodeShard",
    "Runner",
    "StateEdge",
    "StateInstance",
    "StateNetwork",
    "StateNode",
    "names_of",
    "parse_instance",
    "parse_network",
    "parse_state",
]

READY = ("RunnerReady", "RunnerRunning")
ENDED_TASKS = ("Complete", "TimedOut", "Failed", "Cancelled")
# ChatCompletion: <= 1.0.66
GENERATION_TASKS = ("TextGeneration", "ChatCompletion", "ImageGeneration", "ImageEdits")
MOST_NODES = 256  # EXO is made for a desk; a state that names more is not believed
MOST_BYTES = 1e16
MULTIADDRESS = re.compile(r"/(?:ip4|ip6|dns[46]?)/([^/]+)")


@dataclass(frozen=True, slots=True)
class Interface:
    """A network address of a node; `kind` is wifi, ethernet, maybe_ethernet, thunderbolt or unknown."""

    name: str
    ip: str
    kind: str = "unknown"


@dataclass(frozen=True, slots=True)
class StateNode:
    """A living node. Its id is new with every process start; its name may not be unique."""

    node_id: str
    name: str
    model: str = "unknown"
    chip: str = "unknown"
    os: str = "unknown"
    memory_bytes: float | None = None
    free_bytes: float | None = None
    interfaces: tuple[Interface, ...] = ()
    backends: tuple[str, ...] = ()
    system: Mapping[str, Any] = field(default_factory=dict)
    """GPU use, temperature and power where macmon runs (macOS)."""
    last_seen: datetime | None = None


@dataclass(frozen=True, slots=True)
class StateEdge:
    """`source` reached `sink` at `ip`; `rdma` edges have interfaces in place of an address."""

    source: str
    sink: str
    ip: str | None
    rdma: bool = False


@dataclass(frozen=True, slots=True)
class StateNetwork:
    """The part of a state that discovery needs."""

    nodes: tuple[StateNode, ...]
    """In the order in which the master heard of them."""
    edges: tuple[StateEdge, ...]
    names: Mapping[str, str]
    """By node id, of the dead too: identities stay in the state for ever."""


Count = Annotated[StrictInt, Field(ge=0, le=MAX_LAYERS)]


class NodeShard(Spec):
    """Layers [start_layer, end_layer) on one node."""

    node_id: str
    runner_id: str
    rank: Count
    start_layer: Count
    end_layer: Count
    n_layers: Count
    sharding: str

    @model_validator(mode="after")
    def _forward(self) -> NodeShard:
        if self.end_layer < self.start_layer:
            raise ValueError(f"layers {self.start_layer} to {self.end_layer} run backward")
        return self


@dataclass(frozen=True, slots=True)
class StateInstance:
    """A placed model; `shards` in rank order, `raw` as EXO said it, fit for `POST /instance`."""

    instance_id: str
    model_id: str
    meta: str
    shards: tuple[NodeShard, ...]
    card: Mapping[str, Any]
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BusyTask:
    """A generation that waits or runs; `command_id` is the `id` in the chunks of its stream."""

    kind: str
    task_id: str
    command_id: str = ""
    instance_id: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.task_id[:8]}"


@dataclass(frozen=True, slots=True)
class Runner:
    """What a runner says of itself; `error` in EXO's own words, with its diagnosis where it has one."""

    status: str
    error: str | None = None
    details: str = ""


@dataclass(frozen=True, slots=True)
class ClusterState:
    """One node's replica of the state of the whole cluster."""

    nodes: tuple[StateNode, ...]
    """In the order in which the master heard of them."""
    edges: tuple[StateEdge, ...]
    instances: Mapping[str, StateInstance]
    runners: Mapping[str, Runner]
    busy_tasks: tuple[BusyTask, ...]
    """Generations that wait or run."""
    event_index: int
    raw: Mapping[str, Any]
    """The whole state as it came, in either casing."""

    def node(self, node_id: str) -> StateNode | None:
        """The living node of that id."""
        return next((node for node in self.nodes if node.node_id == node_id), None)

    def name_of(self, node_id: str) -> str:
        """The node's name, else the start of its id."""
        node = self.node(node_id)
        return node.name if node else node_id[:8]

    def runners_of(self, instance: StateInstance) -> tuple[tuple[NodeShard, Runner], ...]:
        """Each shard with what its runner says; a runner that is not there yet is 'absent'."""
        return tuple(
            (shard, self.runners.get(shard.runner_id, Runner("absent"))) for shard in instance.shards
        )

    def is_ready(self, instance: StateInstance) -> bool:
        """Every runner is ready or running."""
        return all(runner.status in READY for _, runner in self.runners_of(instance))

    def silences_s(self) -> dict[str, float]:
        """By how much each node's last report is older than the newest one (s); empty where none is told.

        Reports are compared with each other and not with our clock, which may differ by minutes. A living
        node reports about once per second (recordings).
        """
        told = {node.node_id: node.last_seen for node in self.nodes if node.last_seen}
        newest = max(told.values(), default=None)
        return {key: (newest - seen).total_seconds() for key, seen in told.items()} if newest else {}

    def addresses(self, source: str, sink: str) -> tuple[tuple[str, str], ...]:
        """(address, interface kind) at which `source` reached `sink`; kinds are the sink's."""
        node = self.node(sink)
        kinds = {_bare(interface.ip): interface.kind for interface in node.interfaces} if node else {}
        found = [edge.ip for edge in self.edges if edge.source == source and edge.sink == sink and edge.ip]
        return tuple((ip, kinds.get(_bare(ip), "unknown")) for ip in found)


def _bare(ip: str) -> str:
    return ip.partition("%")[0]


def parse_state(raw: Any) -> ClusterState:
    """The answer of `GET /state`; raises ApiChanged when it is none."""
    state = raw
    if not isinstance(state, dict) or not isinstance(state.get("instances"), dict) or "topology" not in state:
        raise ApiChanged(
            "/state holds no instances and topology: is this EXO 1.x? (legacy EXO has no /state)"
        )
    # the one number that moves as long as there is a master
    index = either(state, "last_event_applied_idx")
    return ClusterState(
        nodes=tuple(_nodes(state)),
        edges=tuple(_edges(mapping_in(state, "topology").get("connections"))),
        instances={
            # from the raw state: an instance is posted back in the very casing in which it came
            found.instance_id: found
            for found in map(parse_instance, mapping_in(state, "instances").values())
        },
        # dead runners stay in the state for ever; whoever asks goes by the shards of an instance
        runners={key: _runner(value) for key, value in mapping_in(state, "runners").items()},
        busy_tasks=tuple(_busy(mapping_in(state, "tasks"), mapping_in(state, "instances"))),
        event_index=index if isinstance(index, int) else -1,
        raw=state,
    )


def parse_network(raw: Any) -> StateNetwork:
    """The nodes and edges of a state, or of some of its parts; empty for anything that is none."""
    state = raw if isinstance(raw, dict) else {}
    return StateNetwork(
        tuple(_nodes(state)), tuple(_edges(mapping_in(state, "topology").get("connections"))), names_of(state)
    )


def names_of(raw: dict[str, Any]) -> dict[str, str]:
    """The names by node id, of the dead too."""
    identities = mapping_in(raw, "node_identities") or mapping_in(raw, "node_profiles")
    return {
        node_id: str(either(mapping_in(identities, node_id), "friendly_name") or "")
        for node_id in islice(identities, MOST_NODES)
    }


def parse_instance(raw: Any) -> StateInstance:
    """One tagged instance, `{"MlxRingInstance": {...}}`; raises ApiChanged for anything else."""
    meta, body = tagged(snake(raw))
    assigned = mapping_in(body, "shard_assignments")
    shards_of, runners = mapping_in(assigned, "runner_to_shard"), mapping_in(assigned, "node_to_runner")
    if not body.get("instance_id") or not runners:
        raise ApiChanged(f"an instance without id or runners: {str(raw)[:200]}")
    shards = [_shard(node, runner, shards_of.get(runner)) for node, runner in runners.items()]
    return StateInstance(
        instance_id=str(body["instance_id"]),
        model_id=str(assigned.get("model_id", "")),
        meta=meta.removesuffix("Instance"),
        # a mapping has no order, and the ring has: by rank
        shards=tuple(sorted(shards, key=lambda shard: shard.rank)),
        card=next((card for shard in shards_of.values() if (card := _card(shard))), {}),
        raw=raw,
    )


def _card(shard: Any) -> Mapping[str, Any]:
    body = tagged(shard)[1]
    card = body.get("model_card", body.get("model_meta"))  # model_meta: up to 1.0.63
    return card if isinstance(card, dict) else {}


def _shard(node_id: str, runner_id: str, raw: Any) -> NodeShard:
    tag, body = tagged(raw)
    layers = {key: body.get(key) for key in ("start_layer", "end_layer", "n_layers")}
    kind = tag.removesuffix("ShardMetadata")
    told = {
        "node_id": node_id,
        "runner_id": str(runner_id),
        "rank": body.get("device_rank"),
        "sharding": kind,
    }
    try:
        return NodeShard.model_validate(told | layers)
    except ValidationError as error:
        raise ApiChanged(f"a shard without rank and layers ({in_words(error)}): {str(raw)[:200]}") from None


def _nodes(state: dict[str, Any]) -> Iterator[StateNode]:
    """The living nodes: those of the topology."""
    listed = mapping_in(state, "topology").get("nodes")
    for entry in listed[:MOST_NODES] if isinstance(listed, list) else ():
        # up to 1.0.63 an object, with or without the profile in it; an id since
        node_id = either(entry, "node_id") if isinstance(entry, dict) else entry
        if isinstance(node_id, str):
            profile = mapping_in(entry, "node_profile") or mapping_in(
                mapping_in(state, "node_profiles"), node_id
            )
            yield _node(node_id, state, profile)


def _node(node_id: str, state: dict[str, Any], profile: dict[str, Any]) -> StateNode:
    """One node from whichever mappings this version has."""

    def part(key: str) -> dict[str, Any]:
        return mapping_in(mapping_in(state, key), node_id)

    # the newer mapping wins where a version in between has both
    who = {**profile, **part("node_identities")}
    memory = part("node_memory") or mapping_in(profile, "memory")
    network = part("node_network").get("interfaces", either(profile, "network_interfaces"))
    backends = mapping_in(state, "node_backends").get(node_id)
    seen = mapping_in(state, "last_seen").get(node_id)
    return StateNode(
        node_id=node_id,
        name=str(either(who, "friendly_name") or node_id[:8]),
        model=str(either(who, "model_id") or "unknown"),
        chip=str(either(who, "chip_id") or "unknown"),
        os=str(either(who, "os_version") or "unknown"),
        memory_bytes=_bytes(either(memory, "ram_total")),
        free_bytes=_bytes(either(memory, "ram_available")),
        interfaces=tuple(_interfaces(network)),
        backends=tuple(map(str, backends)) if isinstance(backends, list) else (),
        system=snake(part("node_system") or mapping_in(profile, "system")),
        last_seen=_time(seen),
    )


def _interfaces(raw: Any) -> Iterator[Interface]:
    for entry in raw[:MOST_NODES] if isinstance(raw, list) else ():
        ip = either(entry, "ip_address") if isinstance(entry, dict) else None
        if ip:
            kind = str(either(entry, "interface_type") or "unknown")
            yield Interface(str(entry.get("name", "")), str(ip), kind)


def _edges(raw: Any) -> Iterator[StateEdge]:
    """Edges of either form: a list (up to 1.0.63), or mappings by source and sink."""
    for entry in raw if isinstance(raw, list) else ():
        if isinstance(entry, dict):
            address = mapping_in(entry, "send_back_multiaddr")
            source, sink = either(entry, "local_node_id"), either(entry, "send_back_node_id")
            yield StateEdge(str(source), str(sink), _ip(address))
    for source, sinks in raw.items() if isinstance(raw, dict) else ():
        for sink, edges in sinks.items() if isinstance(sinks, dict) else ():
            for edge in edges if isinstance(edges, list) else ():
                if isinstance(edge, dict):
                    is_rdma = either(edge, "source_rdma_iface") is not None
                    yield StateEdge(source, sink, _ip(mapping_in(edge, "sink_multiaddr")), is_rdma)


def _ip(address: dict[str, Any]) -> str | None:
    """The address of a multiaddress; its text is the one part that every version sends."""
    ip = either(address, "ip_address")
    if not ip and (found := MULTIADDRESS.match(str(address.get("address", "")))):
        ip = found.group(1)
    return str(ip) if ip else None


def _runner(raw: Any) -> Runner:
    tag, body = tagged(raw)
    shown = ", ".join(f"{key} {value}" for key, value in snake(body).items() if isinstance(value, int))
    # EXO recognises some faults in what the runner wrote: a GPU time-out, a ring that broke
    known = either(body, "diagnostics")
    reasons = [either(body, "error_message")]
    reasons += [tagged(one)[1].get("message") for one in known] if isinstance(known, list) else []
    error = "; ".join(dict.fromkeys(str(reason)[:500] for reason in reasons if reason))
    return Runner(tag, error or None, shown)


def _busy(tasks: dict[str, Any], instances: dict[str, Any]) -> Iterator[BusyTask]:
    """Those of instances that are there: of a deleted one nothing runs any more, whatever its task says."""
    for task_id, raw in tasks.items():
        tag, body = tagged(raw)
        command, instance = (str(either(body, key) or "") for key in ("command_id", "instance_id"))
        is_open = tag in GENERATION_TASKS and either(body, "task_status") not in ENDED_TASKS
        if is_open and (not instance or instance in instances):
            yield BusyTask(tag, task_id, command, instance)


def _bytes(raw: Any) -> float | None:
    value = either(raw, "in_bytes") if isinstance(raw, dict) else raw
    number = finite(value)
    # a part of a byte is nothing that was measured, and no scenario takes it
    return number if number is not None and (number == 0 or 1 <= number < MOST_BYTES) else None


def _time(raw: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(raw)) if raw else None
    except ValueError:
        return None
    # EXO stamps in UTC; a time without a zone could not be compared with the others
    return found.replace(tzinfo=UTC) if found and found.tzinfo is None else found
