"""Ask one host over HTTP which EXO it is and whom it knows;
nothing but GET, nothing that changes a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from live.discover.found import LEGACY, LIBP2P, ZENOH, FoundDevice, clean
from live.discover.get import Answer, get
from live.discover.state import departed, nodes_of_network, nodes_of_topology, one_way
from live.errors import ApiChanged, LiveError, NotListening, Unreachable
from live.exo.state import StateNetwork, parse_network

__all__ = ["API_PORT", "Probe", "probe", "probe_all"]

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
SUBTREES = ("topology", "nodeIdentities", "nodeMemory", "nodeNetwork")


@dataclass(frozen=True, slots=True)
class Probe:
    """What one host answered; `outcome` is exo, legacy, refused (host lives), silent, or other (no EXO)."""

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
    except Unreachable as error:
        return Probe(host, port, "silent", str(error))
    except LiveError as error:
        return Probe(host, port, "other", str(error))


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
    network = _network(host, port, get)
    nodes = [_here(node, node_id, host, port) for node in nodes_of_network(network, generation, version)]
    if node_id not in {node.node_id for node in nodes}:  # it has just started and does not know itself yet
        unknown = FoundDevice(
            name=host, node_id=node_id, generation=generation, version=version, seen_by=("EXO state",)
        )
        nodes.append(_here(unknown, node_id, host, port))
    names = {node.node_id: node.name for node in nodes}
    blind = tuple((names.get(a, a), names.get(b, b)) for a, b in one_way(network))
    gone = departed(network)
    return Probe(host, port, "exo", "", tuple(nodes), generation, version, reply.clock_offset_s, blind, gone)


def _here(node: FoundDevice, node_id: str, host: str, port: int) -> FoundDevice:
    """The row of the very node that answered gets the address that worked."""
    if node.node_id != node_id:
        return node
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return replace(node, api=where, addresses=tuple(dict.fromkeys((host, *node.addresses))))


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


def _network(host: str, port: int, get: Get) -> StateNetwork:
    """Of `/state`, or of only the parts that we need where it has grown too long; raises LiveError."""
    try:
        reply = get(host, port, "/state")
    except ApiChanged:
        return parse_network({name: get(host, port, f"/state/{name}").json() for name in SUBTREES})
    if reply.status != 200:
        raise ApiChanged(f"{host}:{port}/state answers {reply.status}; update EXO, or this program")
    return parse_network(reply.json())


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
