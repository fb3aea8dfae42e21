"""Ask one host over HTTP which EXO it is and whom it knows;
nothing but GET, nothing that changes a cluster.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from live.discover.found import LEGACY, LIBP2P, ZENOH, FoundDevice, clean
from live.discover.get import Answer, get
from live.discover.rpc import RPC_PORT, RpcServer, greet
from live.discover.state import departed, nodes_of_network, nodes_of_topology, one_way
from live.errors import ApiChanged, LiveError, NoRoute, NotListening, Unanswered, Unreachable
from live.exo.health import ClusterHealth, health_of
from live.exo.state import parse_network

__all__ = ["API_PORT", "Probe", "look_again", "probe", "probe_all"]

API_PORT = 52415

# The first version that has a path, by the recorded table of EXO's versions; the newest comes first.
SINCE = (
    ("/v1/feature-flags", ""),
    ("/state/{path}", ">= 1.0.70"),
    ("/v1/cancel/{command_id}", "1.0.69"),
    ("/v1/traces", "1.0.68"),
    ("/bench/chat/completions", "1.0.64 to 1.0.67"),
    ("/node_id", "1.0.60 to 1.0.63"),
)
SUBTREES = (
    "topology",
    "nodeIdentities",
    "nodeMemory",
    "nodeNetwork",
    "instances",
    "runners",
    "lastSeen",
    "nodeDisk",
    "nodeThunderbolt",
    "nodeThunderboltBridge",
    "nodeRdmaCtl",
)
NO_GREETING = (
    "accepts connections and greets nobody: a llama.cpp rpc-server that serves another client, or one that "
    "died or hangs after its last client; end that client, or start `rpc-server` there again"
)
ALIVE_S = 1.0  # a machine in the LAN answers within milliseconds, also one that refuses
NO_SERVICE = 9  # TCP discard: nobody listens there, so a machine without a firewall refuses


@dataclass(frozen=True, slots=True)
class Probe:
    """What one host answered.

    `outcome` is exo, legacy, rpc (a llama.cpp rpc-server), other (no EXO), refused (the host lives, nothing
    listens), filtered (the host lives, the port is dropped), absent (no such host or way), or silent.
    """

    host: str
    port: int
    outcome: str
    detail: str = ""
    found: tuple[FoundDevice, ...] = ()
    generation: str = ""
    version: str = ""
    clock_offset_s: float | None = None
    one_way: tuple[tuple[str, str], ...] = ()
    departed: tuple[str, ...] = ()
    """names of devices that the cluster knew and lost"""
    health: ClusterHealth | None = None
    """what an EXO 1.x cluster says of itself"""
    rpc: RpcServer | None = None
    """what a llama.cpp rpc-server says of itself"""
    asked_s: float = 0.0
    """when it said so (s, monotonic)"""

    @property
    def where(self) -> str:
        """Where it was asked, as host:port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Get = Callable[[str, int, str], Answer]


def probe(host: str, port: int = API_PORT, get: Get = get) -> Probe:
    """Find out what runs at host:port. Never raises: the outcome tells."""
    try:
        reply = get(host, port, "/node_id")
        # the one path that all of 1.x has and legacy has not
        node_id = _node_id(reply)
        if node_id:
            return _exo(host, port, node_id, reply, get)
        return _legacy(host, port, get)
    except NotListening as error:
        return Probe(host, port, "refused", str(error))
    except NoRoute as error:
        return Probe(host, port, "absent", str(error))
    except Unanswered as error:
        return Probe(host, port, "filtered" if _lives(host) else "silent", str(error))
    except LiveError as error:
        # a connection came about, and what answered is no HTTP
        rpc = greet(host, port)
        if rpc is not None:
            return Probe(
                host, port, "rpc", f"{host}:{port} is {rpc}: use it as llama-rpc://{host}:{port}", rpc=rpc
            )
        if port == RPC_PORT:
            return Probe(host, port, "silent", f"{host}:{port} {NO_GREETING}")
        return Probe(host, port, "silent" if isinstance(error, Unreachable) else "other", str(error))


def _lives(host: str) -> bool:
    """Whether the machine answers at all: a port without a service is refused unless packets are dropped."""
    try:
        socket.create_connection((host, NO_SERVICE), timeout=ALIVE_S).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True


def _node_id(reply: Answer) -> str:
    """The id that `/node_id` gives, empty when this is not EXO 1.x (legacy nodes
    answer 404, or their web page).
    """
    if reply.status != 200:
        return ""
    try:
        answer = reply.json()
    except ApiChanged:
        return ""
    return clean(answer, 100)


def _exo(host: str, port: int, node_id: str, reply: Answer, get: Get) -> Probe:
    generation, version = _version(host, port, get)
    raw = _state(host, port, get)
    network, asked_s = parse_network(raw), time.monotonic()
    nodes = list(nodes_of_network(network, generation))
    if node_id not in {node.node_id for node in nodes}:  # it has just started and does not know itself yet
        nodes.append(FoundDevice(name=host, node_id=node_id, generation=generation, seen_by=("EXO state",)))
    rows = tuple(_here(node, version, host, port) if node.node_id == node_id else node for node in nodes)
    names = {node.node_id: node.name for node in nodes}
    return Probe(
        host,
        port,
        "exo",
        "",
        rows,
        generation,
        version,
        reply.clock_offset_s,
        tuple((names.get(a, a), names.get(b, b)) for a, b in one_way(network)),
        departed(network),
        _health(raw),
        asked_s=asked_s,
    )


def _health(raw: Any) -> ClusterHealth | None:
    """None for a state that is none: what discovery needs of it may be there all the same."""
    try:
        return health_of(raw)
    except ApiChanged:
        return None


def _here(node: FoundDevice, version: str, host: str, port: int) -> FoundDevice:
    """The row of the very node that answered gets the address that worked, and its version: what the
    others run, only they can tell.
    """
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    addresses = tuple(dict.fromkeys((host, *node.addresses)))
    return replace(node, version=version, api=where, addresses=addresses)


def look_again(probes: Sequence[Probe], get: Get = get) -> tuple[Probe, ...]:
    """The same with a second look at each cluster: what has not moved since stands still.

    One node speaks for its cluster. What cannot be looked at again stays as it was.
    """
    known: set[str] = set()
    found = []
    for first in probes:
        nodes = {node.node_id for node in first.found}
        is_new = first.health is not None and not nodes & known
        known |= nodes if is_new else set()
        found.append(_second_look(first, get) if is_new else first)
    return tuple(found)


def _second_look(first: Probe, get: Get) -> Probe:
    try:
        later = _health(_state(first.host, first.port, get))
    except LiveError:
        return first
    if first.health is None or later is None:
        return first
    waited_s = time.monotonic() - first.asked_s
    # all but the first state is as fresh as it can be
    health = replace(later, state=first.health.state, later=later.state, waited_s=waited_s)
    return replace(first, health=health)


def _version(host: str, port: int, get: Get) -> tuple[str, str]:
    """Generation and version by the paths that exist: the number in pyproject is the
    same in old and new ones.
    """
    try:
        described = get(host, port, "/openapi.json").json()
    except LiveError:
        described = None
    paths = described.get("paths") if isinstance(described, dict) else None
    if isinstance(paths, dict):
        path, version = next(((path, version) for path, version in SINCE if path in paths), ("", ""))
        return (ZENOH, "after 1.0.71") if path == "/v1/feature-flags" else (LIBP2P, version)
    return (ZENOH, "after 1.0.71") if get(host, port, "/v1/feature-flags").status == 200 else (LIBP2P, "")


def _state(host: str, port: int, get: Get) -> Any:
    """`/state`, or only the parts that we need where it has grown too long; raises LiveError."""
    try:
        reply = get(host, port, "/state")
    except ApiChanged:
        parts = {name: get(host, port, f"/state/{name}") for name in SUBTREES}
        # a version may lack one of the parts
        return {name: answer.json() for name, answer in parts.items() if answer.status == 200}
    if reply.status != 200:
        raise ApiChanged(f"{host}:{port}/state answers {reply.status}; update EXO, or this program")
    return reply.json()


def _legacy(host: str, port: int, get: Get) -> Probe:
    health = get(host, port, "/healthcheck")
    topology = get(host, port, "/topology")
    try:
        answer = topology.json() if (health.status, topology.status) == (200, 200) else None
    except ApiChanged:
        answer = None
    if not isinstance(answer, dict) or not {"nodes", "peer_graph"} <= answer.keys():
        return Probe(host, port, "other", f"{host}:{port} speaks HTTP, but it is no EXO that we know")
    version = ">= 0.0.13" if get(host, port, "/v1/topology").status == 200 else "<= 0.0.12"
    nodes = nodes_of_topology(answer, version)
    return Probe(host, port, "legacy", "", nodes, LEGACY, version, topology.clock_offset_s)


def probe_all(
    hosts: Sequence[tuple[str, int]], probe: Callable[[str, int], Probe] = probe
) -> tuple[Probe, ...]:
    """All hosts at the same time, answers in the order of `hosts`."""
    unique = list(dict.fromkeys(hosts))
    if not unique:
        return ()
    # a silent host takes its whole deadline, so they must not queue
    with ThreadPoolExecutor(max_workers=min(16, len(unique)), thread_name_prefix="probe") as pool:
        return tuple(pool.map(lambda host: probe(*host), unique))
