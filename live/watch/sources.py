"""One look at a cluster: a single request, whatever the cluster is."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle

from live.errors import LiveError
from live.exo.reader import ExoReader
from live.exo.state import ClusterState
from live.http import Http
from live.openai.client import OpenAiClient
from live.openai.key import KeyTransport, key_here

__all__ = ["DeviceRow", "Look", "View", "exo_look", "inert", "rpc_look", "server_look"]

CONNECT_S = 2.0
LONGEST = 60


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One device; texts are inert (see `inert`)."""

    name: str
    layers: str = "-"
    status: str = "-"
    free_bytes: float | None = None
    chip: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """The cluster at one moment; `alarms` are what is wrong with it already without any measurement."""

    devices: tuple[DeviceRow, ...] = ()
    models: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()


Look = Callable[[], View]


def inert(text: str) -> str:
    r"""A name from the network as text that does nothing to a terminal, at most 60 characters.

    >>> inert("mac\x1b[2J\u202e")
    'mac\\x1b[2J\\u202e'
    """
    shown = "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text[:LONGEST]
    )
    return shown if len(shown) <= LONGEST else shown[:LONGEST] + "..."


def exo_look(urls: Sequence[str]) -> Look:
    """Looks at the state of an EXO 1.x cluster; after a failure the next address is asked."""
    turns = cycle(urls)
    reader = ExoReader(next(turns))

    def look() -> View:
        try:
            return _of_state(reader.state())
        except LiveError:
            reader.turn_to(next(turns))
            raise

    return look


def _of_state(state: ClusterState) -> View:
    held: dict[str, list[str]] = {}
    status: dict[str, list[str]] = {}
    alarms = []
    for instance in state.instances.values():
        for shard, runner in state.runners_of(instance):
            held.setdefault(shard.node_id, []).append(f"{shard.start_layer}-{shard.end_layer - 1}")
            status.setdefault(shard.node_id, []).append(inert(runner.status.removeprefix("Runner")))
            if runner.error or runner.status == "RunnerFailed":
                alarms.append(f"{inert(state.name_of(shard.node_id))} failed: {inert(runner.error or '')}")
            if state.node(shard.node_id) is None:
                alarms.append(f"{inert(shard.node_id)} holds layers and has left")
    busy = len(state.busy_tasks)
    return View(
        tuple(
            DeviceRow(
                inert(node.name),
                ", ".join(held.get(node.node_id, ["-"])),
                ", ".join(status.get(node.node_id, ["idle"])),
                node.free_bytes,
                inert(node.chip),
            )
            for node in state.nodes
        ),
        tuple(inert(one.model_id) for one in state.instances.values()),
        (f"{busy} generation{'' if busy == 1 else 's'} under way",),
        tuple(alarms),
    )


def server_look(base_url: str) -> Look:
    """Looks at the list of models of an OpenAI-compatible server, which is all that every one of them has."""
    key = key_here()
    client = OpenAiClient(base_url, KeyTransport(Http.network(), key) if key else None)

    def look() -> View:
        begun_s = time.monotonic()
        # not patiently: a busy server is what this shows, and asking again would be a second request
        models = client.models(is_patient=False)
        answered = f"answered in {1e3 * (time.monotonic() - begun_s):.0f} ms"
        names = tuple(inert(one.model_id) for one in models or ())
        return View((DeviceRow(inert(base_url), status=answered),), names[:5])

    return look


def rpc_look(endpoints: Sequence[str]) -> Look:
    """Knocks at one llama.cpp RPC server after the other: it serves one client, and tells others nothing."""
    known = {endpoint: DeviceRow(inert(endpoint), status="not asked yet") for endpoint in endpoints}
    turns = cycle(endpoints)

    def look() -> View:
        endpoint = next(turns)
        host, _, port = endpoint.rpartition(":")
        begun_s = time.monotonic()
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
            status = f"open, {1e3 * (time.monotonic() - begun_s):.1f} ms"
        except OSError as error:
            status = f"closed ({inert(error.strerror or str(error))})"
        known[endpoint] = DeviceRow(inert(endpoint), status=status)
        alarms = [f"{row.name} is {row.status}" for row in known.values() if row.status.startswith("closed")]
        return View(tuple(known.values()), alarms=tuple(alarms))

    return look
