"""What an agent does when an asker with the token wants something: one function per operation.

==========  ====================================================  ==========================================
operation   asks                                                  answers
==========  ====================================================  ==========================================
`facts`     -                                                     one message: `AgentFacts` and the
                                                                  agent's version
`memory`    `seconds`                                             copy bandwidth, see `speed.memory_copy`
`disk`      `seconds`                                             read rate of the file named on the command
                                                                  line
`echo`      `size_bytes`, `seconds`                               `{"ready"}`, then every payload back as it
                                                                  came
`sink`      `seconds`                                             `{"ready"}`, then swallows; at the end
                                                                  `{"bytes", "seconds"}`
`trips`     `host`, `port`, `size_bytes`, `seconds`,              `{"rtt_ns": [...]}` as they are measured,
            `interval_s`, `loaded`                                then `{"done"}`
`rate`      `host`, `port`, `seconds`                             `{"bytes", "seconds"}`
==========  ====================================================  ==========================================

`host` is the address of another agent with the token. What is there instead stays hidden: a port that
refuses, is filtered, or belongs to another program gets the same answer after the same time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from live.agent import facts, probe, speed
from live.agent.addresses import is_local, is_loopback, networks_of, parse
from live.agent.guard import Guard
from live.agent.pairing import WireError
from live.agent.wire import VERSION, AgentConnection, ask

__all__ = ["OPERATIONS", "Duties", "OperationRefused", "number"]

MAX_SECONDS = 3600.0  # "minutes long if asked", and an end to it if the asker forgets
MEET_S = 3.0  # for TCP, knock and TLS with a peer, and for saying that it is none
TARGETS = "targets"  # one bucket for all of them, or a scan would have one for each


class OperationRefused(Exception):
    """A request that the agent will not do; the text goes back to the asker."""


@dataclass(frozen=True, slots=True)
class Duties:
    """What one agent needs to do its work; `alone` keeps two heavy measurements from measuring each other."""

    name: str
    token: bytes
    model_file: Path | None
    alone: threading.Lock
    on_loopback: bool
    """whether this agent itself can be reached from this machine only"""
    targets: Guard = field(default_factory=lambda: Guard(common_per_s=0))
    """how often a peer may turn out to be none"""


def number(request: dict[str, Any], key: str, default: float, low: float, high: float) -> float:
    """A finite number of the request within [low, high]; raises OperationRefused for anything else."""
    value = request.get(key, default)
    # neither NaN nor an integer beyond all floats passes the comparison
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise OperationRefused(f"{key}={value!r:.40} must be a number from {low:g} to {high:g}")
    return float(value)


def _size(request: dict[str, Any]) -> int:
    return int(number(request, "size_bytes", 4, 1, probe.MAX_SIZE_BYTES))


def _peer(duties: Duties, request: dict[str, Any]) -> tuple[str, int]:
    """Where another agent may be: on this LAN, and on this machine only for an agent that stays there too,
    or whoever has the token could reach what listens on loopback here.
    """
    host = request.get("host")
    address = parse(host) if isinstance(host, str) else None
    if address is None:
        raise OperationRefused(f"host={host!r:.40} must be an address")
    near = is_local(str(address)) or any(address in one for one in networks_of(facts.own_addresses()))
    if not near or (is_loopback(str(address)) and not duties.on_loopback):
        raise OperationRefused(
            f"host={host!r:.40} is no address of another device on this LAN; name each agent by the address "
            "that it has there"
        )
    return str(host), int(number(request, "port", 0, 1, 65535))


@contextmanager
def _alone(duties: Duties) -> Iterator[None]:
    # refused and not queued: the asker would measure its own waiting
    if not duties.alone.acquire(blocking=False):
        raise OperationRefused("busy with another measurement; ask again when it is over")
    try:
        yield
    finally:
        duties.alone.release()


def _facts(duties: Duties, session: AgentConnection, _: dict[str, Any]) -> None:
    found = facts.collect(name=duties.name)
    session.send({"facts": found.as_dict(), "version": VERSION})


def _memory(duties: Duties, session: AgentConnection, request: dict[str, Any]) -> None:
    seconds = number(request, "seconds", 2, 0.05, 60)
    with _alone(duties):
        session.send(dict(speed.memory_copy(seconds)))


def _disk(duties: Duties, session: AgentConnection, request: dict[str, Any]) -> None:
    seconds = number(request, "seconds", 5, 0.05, 60)
    if duties.model_file is None:
        raise OperationRefused("no file to read; start this agent with --model-file PATH")
    with _alone(duties):
        try:
            session.send(dict(speed.disk_read(duties.model_file, seconds)))
        except OSError as error:  # its path stays here: it is the user's
            raise OperationRefused(f"the model file cannot be read: {error.strerror}") from error


def _echo(_: Duties, session: AgentConnection, request: dict[str, Any]) -> None:
    size, seconds = _size(request), number(request, "seconds", 60, 0, MAX_SECONDS)
    session.send({"ready": True})
    probe.echo(session.connection, size, seconds + 2 * probe.ANSWER_S)


def _sink(_: Duties, session: AgentConnection, request: dict[str, Any]) -> None:
    seconds = number(request, "seconds", 60, 0, MAX_SECONDS)
    session.send({"ready": True})
    received, elapsed_s = probe.sink(session.connection, seconds + 2 * probe.ANSWER_S)
    session.send({"bytes": received, "seconds": elapsed_s})


def _open(duties: Duties, request: dict[str, Any], operation: dict[str, Any]) -> AgentConnection:
    """A session with the peer that the request names, ready for raw bytes."""
    host, port = _peer(duties, request)
    session = _met(duties, host, port)
    try:
        session.send(operation)
        answer = session.receive(probe.ANSWER_S)
    except WireError as error:
        session.close()
        raise OperationRefused(f"the agent at {host}:{port}: {error}") from error
    if "ready" not in answer:
        session.close()
        raise OperationRefused(f"the agent at {host}:{port}: {answer.get('error', 'is not ready')}")
    return session


def _met(duties: Duties, host: str, port: int) -> AgentConnection:
    """A session with the agent there; neither words nor time of a refusal say what is there instead."""
    begin_s = time.monotonic()
    if not duties.targets.admit(TARGETS):
        raise OperationRefused("too many peers that were no agents; ask again in some seconds")
    try:
        session = ask(host, port, duties.token, MEET_S)
    except WireError:
        time.sleep(max(begin_s + MEET_S - time.monotonic(), 0))
        raise OperationRefused(
            f"no agent with this token at {host}:{port} answers this device within {MEET_S:g} s; does a "
            "firewall or another network stand between the two?"
        ) from None
    duties.targets.forgive(TARGETS)
    return session


def _trips(duties: Duties, session: AgentConnection, request: dict[str, Any]) -> None:
    size, seconds = _size(request), number(request, "seconds", 5, 0.05, MAX_SECONDS)
    interval_s = number(request, "interval_s", 0.01, 0, 60)
    loaded = request.get("loaded") is True
    echoing = {"op": "echo", "size_bytes": size, "seconds": seconds}
    load: AbstractContextManager[None] = _load(duties, request, seconds) if loaded else nullcontext()
    with _open(duties, request, echoing) as peer, load:
        for batch in probe.round_trips(peer.connection, size, seconds, interval_s):
            for start in range(0, len(batch), 5000):  # a message of 5000 times stays far below the limit
                session.send({"rtt_ns": batch[start : start + 5000]})
    session.send({"done": True})


@contextmanager
def _load(duties: Duties, request: dict[str, Any], seconds: float) -> Iterator[None]:
    """Fill the link to the peer while the caller measures; what bufferbloat does to a token is to be seen."""
    over = threading.Event()
    with _open(duties, request, {"op": "sink", "seconds": seconds}) as peer:
        # in a thread of its own, while round trips run over the same link
        worker = threading.Thread(
            target=_push_quietly, args=(peer, seconds + probe.ANSWER_S, over), daemon=True
        )
        worker.start()
        try:
            yield
        finally:
            over.set()
            worker.join(probe.ANSWER_S)


def _push_quietly(peer: AgentConnection, seconds: float, over: threading.Event) -> None:
    try:
        probe.push(peer.connection, seconds, over.is_set)
    except WireError:  # the round trips over the same link will tell
        return


def _rate(duties: Duties, session: AgentConnection, request: dict[str, Any]) -> None:
    seconds = number(request, "seconds", 2, 0.05, MAX_SECONDS)
    with _open(duties, request, {"op": "sink", "seconds": seconds}) as peer:
        probe.push(peer.connection, seconds)
        counted = peer.receive(probe.ANSWER_S)
    session.send({"bytes": counted.get("bytes"), "seconds": counted.get("seconds")})


OPERATIONS: dict[str, Callable[[Duties, AgentConnection, dict[str, Any]], None]] = {
    "disk": _disk,
    "echo": _echo,
    "facts": _facts,
    "memory": _memory,
    "rate": _rate,
    "sink": _sink,
    "trips": _trips,
}
