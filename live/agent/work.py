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
`sink`      `seconds`                                             `{"ready"}`, then swallows; count and time
                                                                  at the end
`trips`     `host`, `port`, `size_bytes`, `seconds`,              `{"rtt_ns": [...]}` as they are measured,
            `interval_s`, `loaded`                                then `{"done"}`
`rate`      `host`, `port`, `seconds`                             `{"bytes", "seconds"}`
==========  ====================================================  ==========================================
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from live.agent import facts, probe, speed
from live.agent.wire import VERSION, AgentConnection, WireError, ask

__all__ = ["OPERATIONS", "Duties", "OperationRefused", "number"]

MAX_SECONDS = 3600.0  # "minutes long if asked", and an end to it if the asker forgets


class OperationRefused(Exception):
    """A request that the agent will not do; the text goes back to the asker."""


@dataclass(frozen=True, slots=True)
class Duties:
    """What one agent needs to do its work; `alone` keeps two heavy measurements from measuring each other."""

    name: str
    token: bytes
    model_file: Path | None
    alone: threading.Lock


def number(request: dict[str, Any], key: str, default: float, low: float, high: float) -> float:
    """A finite number of the request within [low, high]; raises OperationRefused for anything else."""
    value = request.get(key, default)
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not isfinite(value)
        or not low <= value <= high
    ):
        raise OperationRefused(f"{key}={value!r:.40} must be a number from {low:g} to {high:g}")
    return float(value)


def _size(request: dict[str, Any]) -> int:
    return int(number(request, "size_bytes", 4, 1, probe.MAX_SIZE_BYTES))


def _peer(request: dict[str, Any]) -> tuple[str, int]:
    host = request.get("host")
    if not isinstance(host, str) or not 0 < len(host) <= 255:
        raise OperationRefused(f"host={host!r:.40} must be a name or an address")
    return host, int(number(request, "port", 0, 1, 65535))


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
    probe.sink(session.connection, seconds + 2 * probe.ANSWER_S)


def _open(duties: Duties, request: dict[str, Any], operation: dict[str, Any]) -> AgentConnection:
    """A session with the peer that the request names, ready for raw bytes."""
    host, port = _peer(request)
    try:
        session = ask(host, port, duties.token)
    except WireError as error:
        raise OperationRefused(f"the agent at {host}:{port}: {error}") from error
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
        received, elapsed_s = probe.receive_count(peer.connection)
    session.send({"bytes": received, "seconds": elapsed_s})


OPERATIONS: dict[str, Callable[[Duties, AgentConnection, dict[str, Any]], None]] = {
    "disk": _disk,
    "echo": _echo,
    "facts": _facts,
    "memory": _memory,
    "rate": _rate,
    "sink": _sink,
    "trips": _trips,
}
