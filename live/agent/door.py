"""Where strangers wait: one thread reads all knocks, so that who holds connections locks nobody out.

A right asker sends its knock at once. So every new connection gets a place, if need be the oldest one of
whoever holds most; without a whole knock it is closed after `HANDSHAKE_S`.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from live.agent.guard import Guard
from live.agent.wire import HANDSHAKE_S, KNOCK_BYTES

__all__ = ["Door"]

# with the sessions behind it below the 256 open files that macOS allows a process
PLACES = 128
ACCEPTED_AT_ONCE = 32
NEVER_S = 3600.0


@dataclass(slots=True, eq=False)
class _Waiting:
    """A connection whose knock is not whole yet."""

    connection: socket.socket
    source: str
    deadline_s: float
    knock: bytes = b""


class Door:
    """Lets those in who knock rightly: `enter` gets their connections; a context manager."""

    def __init__(
        self,
        listener: socket.socket,
        guard: Guard,
        is_right: Callable[[bytes], bool],
        enter: Callable[[socket.socket], None],
        places: int = PLACES,
    ) -> None:
        self._listener, self._guard, self._is_right, self._enter = listener, guard, is_right, enter
        self._places = places
        # the oldest first: a dictionary keeps the order of insertion
        self._waiting: dict[_Waiting, None] = {}
        self._ready = selectors.DefaultSelector()
        # closing a socket wakes no selector; a byte on this pair does
        self._woken, self._wake = socket.socketpair()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="door", daemon=True)

    def __enter__(self) -> Door:
        self._listener.setblocking(False)
        self._ready.register(self._listener, selectors.EVENT_READ)
        self._ready.register(self._woken, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        self._wake.send(b"x")
        self._thread.join(5)
        self._ready.close()
        for one in (self._listener, self._woken, self._wake, *(each.connection for each in self._waiting)):
            one.close()

    def _serve(self) -> None:
        while not self._closing.is_set():
            now_s = time.monotonic()
            for waiting in [one for one in self._waiting if one.deadline_s <= now_s]:
                self._drop(waiting)
            first_s = min((one.deadline_s for one in self._waiting), default=now_s + NEVER_S)
            ready = [key.data for key, _ in self._ready.select(first_s - now_s)]
            # knocks before newcomers, so that none is put out whose knock is here
            for waiting in filter(None, ready):
                self._hear(waiting)
            if None in ready:
                self._accept()

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, (host, _, *rest) = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:
                # out of file descriptors: the door must outlive a flood
                self._closing.wait(0.05)
                return
            # the number of the interface makes a link-local address one device's
            source = f"{host}%{rest[1]}" if rest and rest[1] else host
            if not self._guard.admit(source):
                connection.close()
                continue
            self._seat(_Waiting(connection, source, time.monotonic() + HANDSHAKE_S))

    def _seat(self, waiting: _Waiting) -> None:
        if len(self._waiting) >= self._places:
            held = Counter(one.source for one in self._waiting)
            most = max(held.values())
            self._drop(next(one for one in self._waiting if held[one.source] == most))
        waiting.connection.setblocking(False)
        self._waiting[waiting] = None
        self._ready.register(waiting.connection, selectors.EVENT_READ, waiting)
        self._hear(waiting)

    def _hear(self, waiting: _Waiting) -> None:
        """Take what has come of the knock, and not a byte more: TLS follows."""
        if waiting not in self._waiting:
            return
        try:
            piece = waiting.connection.recv(KNOCK_BYTES - len(waiting.knock))
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        waiting.knock += piece
        if piece and len(waiting.knock) < KNOCK_BYTES:
            return
        if not piece or not self._is_right(waiting.knock):
            self._drop(waiting)
            return
        self._leave(waiting)
        # whoever has the token may come as often as it likes
        self._guard.forgive(waiting.source)
        self._enter(waiting.connection)

    def _drop(self, waiting: _Waiting) -> None:
        self._leave(waiting)
        waiting.connection.close()

    def _leave(self, waiting: _Waiting) -> None:
        del self._waiting[waiting]
        with suppress(KeyError, ValueError):
            self._ready.unregister(waiting.connection)
