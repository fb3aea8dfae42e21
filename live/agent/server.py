"""The listener: strangers get a closed connection, holders of the token get measurements."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live.agent.guard import Guard
from live.agent.wire import AgentConnection, NonceCache, WireError, answer, check_token
from live.agent.work import OPERATIONS, Duties, OperationRefused

__all__ = ["Agent", "Settings", "is_loopback"]

HANDSHAKES = 32  # more than the burst of one source, so that a single stranger cannot take all places
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


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach that address."""
    return address.startswith("127.") or address in ("::1", "localhost")


class Agent:
    """A listening agent; a context manager. `address` tells where, once it runs.

    Raises WireError for a short token or an address that cannot be bound.
    """

    def __init__(self, settings: Settings, guard: Guard | None = None) -> None:
        try:
            token = check_token(settings.token)
        except WireError as error:
            raise WireError(f"{error}; an agent that is started without a token makes a fresh one") from error
        self.settings = settings
        self._duties = Duties(settings.name, token, settings.model_file, threading.Lock())
        self._guard, self._seen = guard or Guard(), NonceCache()
        self._handshakes = threading.BoundedSemaphore(HANDSHAKES)
        self._sessions = threading.BoundedSemaphore(SESSIONS)
        self._closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._socket = _listen(settings.listen, settings.port)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._thread = threading.Thread(target=self._accept, name=f"agent {settings.name}", daemon=True)

    def __enter__(self) -> Agent:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        # Closing alone does not wake a thread that waits in accept on Linux; shutting down
        # does, where it is allowed.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def wait(self) -> None:
        """Serve until interrupted."""
        while not self._closing.wait(3600):
            pass

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, source = self._socket.accept()
            except TimeoutError:
                continue
            except OSError:
                # Out of file descriptors or interrupted: the listener must outlive a flood.
                if self._closing.wait(0.05):
                    return
                continue
            # before a thread is started: a flood must cost next to nothing
            if not self._guard.admit(source[0]) or not self._handshakes.acquire(blocking=False):
                connection.close()
                continue
            try:
                threading.Thread(target=self._serve, args=(connection, source[0]), daemon=True).start()
            except RuntimeError:  # no more threads on this device
                self._handshakes.release()
                connection.close()

    def _serve(self, connection: socket.socket, source: str) -> None:
        """One connection from knock to close; nothing that a stranger sends gets out of here as an error."""
        with connection, contextlib.suppress(WireError, OSError):
            try:
                session = answer(connection, self._duties.token, self._seen)
            finally:
                self._handshakes.release()
            # whoever has the token may come as often as it likes
            self._guard.forgive(source)
            if not self._sessions.acquire(blocking=False):
                # only now, to somebody with the token: strangers hear nothing at all
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
        listener.bind(target)
        listener.listen(128)
        listener.settimeout(1.0)  # so that closing is noticed on every platform
    except OSError as error:
        listener.close()
        raise WireError(
            f"{address}:{port} cannot be used: {error.strerror}; another agent may have the port, "
            "or the address is none of this device"
        ) from error
    return listener
