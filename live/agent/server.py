"""The listener: strangers get a closed connection, holders of the token get measurements."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live.agent.addresses import is_loopback
from live.agent.door import Door
from live.agent.guard import Guard
from live.agent.pairing import WireError, check_token, pairing
from live.agent.wire import AgentConnection, NonceCache, answer
from live.agent.work import OPERATIONS, Duties, OperationRefused

__all__ = ["Agent", "Settings"]

HANDSHAKES = 32  # a right knock that was recorded elsewhere may hold one for 3 s, and gets no further
SESSIONS = 32
IDLE_S = 60.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How one agent runs; `port` 0 takes a free one."""

    name: str
    token: str
    listen: str = "127.0.0.1"
    port: int = 0
    model_file: Path | None = None


class Agent:
    """A listening agent; a context manager. `address` tells where, once it runs.

    Raises WireError for a short token or an address that cannot be bound.
    """

    def __init__(self, settings: Settings, guard: Guard | None = None) -> None:
        try:
            token = check_token(settings.token)
        except WireError as error:
            raise WireError(f"{error}; an agent that is started without a token makes a fresh one") from error
        pairing(token)  # now and not at the first knock: it takes a moment, or cannot be made here
        self.settings = settings
        self._handshakes = threading.BoundedSemaphore(HANDSHAKES)
        self._sessions = threading.BoundedSemaphore(SESSIONS)
        self._closing = threading.Event()
        self._open: set[socket.socket] = set()
        listener = _listen(settings.listen, settings.port)
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self._duties = Duties(
            settings.name, token, settings.model_file, threading.Lock(), is_loopback(self.address[0])
        )
        knocks = NonceCache()
        self._door = Door(
            listener, guard or Guard(), lambda knock: knocks.is_right(knock, token), self._enter
        )

    def __enter__(self) -> Agent:
        self._door.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._door.__exit__()
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def wait(self) -> None:
        """Serve until interrupted."""
        while not self._closing.wait(3600):
            pass

    def _enter(self, connection: socket.socket) -> None:
        """Give a thread to somebody who knocked rightly."""
        if not self._handshakes.acquire(blocking=False):
            connection.close()
            return
        try:
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
        except RuntimeError:  # no more threads on this device
            self._handshakes.release()
            connection.close()

    def _serve(self, connection: socket.socket) -> None:
        """One connection from the right knock to its end; nothing that comes gets out of here as an error."""
        with connection, contextlib.suppress(WireError, OSError):
            try:
                session = answer(connection, self._duties.token)
            finally:
                self._handshakes.release()
            if not self._sessions.acquire(blocking=False):
                session.send({"error": f"busy: {SESSIONS} sessions are open"})
                return
            self._open.add(connection)
            try:
                self._talk(session)
            finally:
                self._open.discard(connection)
                self._sessions.release()

    def _talk(self, session: AgentConnection) -> None:
        while not self._closing.is_set():
            request = session.receive(IDLE_S)
            try:
                self._work(session, request)
            except OperationRefused as refusal:
                session.send({"error": str(refusal)})
            if request.get("op") in ("echo", "sink"):
                return  # raw bytes were sent: no further message can follow

    def _work(self, session: AgentConnection, request: dict[str, Any]) -> None:
        name = request.get("op")
        operation = OPERATIONS.get(name) if isinstance(name, str) else None
        if operation is None:
            raise OperationRefused(f"op={name!r:.40} is none of {', '.join(OPERATIONS)}")
        operation(self._duties, session, request)


def _listen(address: str, port: int) -> socket.socket:
    """A listening socket on that address; raises WireError with the way out."""
    try:
        family, _, _, _, target = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise WireError(
            f"{address}:{port} cannot be used: {error}; name an address of this device"
        ) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # "::" is IPv4 too, everywhere
        listener.bind(target)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise WireError(
            f"{address}:{port} cannot be used: {error.strerror}; another agent may have the port, "
            "or the address is none of this device"
        ) from error
    return listener
