"""How two agents talk: a knock that shows the token to nobody, then JSON messages inside TLS.

A asks, B answers; Na are random bytes, H = HMAC-SHA256 with the knock key of the pairing::

    A -> B   "LSA2"  Na  H("knock" Na)       B closes without a byte if this is wrong or was heard before
    A <-> B  TLS 1.3, each side with the certificate of the pairing
    A <-> B  length(4) JSON, inside TLS

What is timed are zeros, and they go beside TLS on the same connection, because encrypting them would be what
is measured; whatever is learnt from them is a message again.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from live.agent.pairing import WireError, pairing

__all__ = [
    "DEFAULT_PORT",
    "KNOCK_BYTES",
    "SERVICE",
    "VERSION",
    "AgentConnection",
    "NonceCache",
    "answer",
    "ask",
    "make_knock",
    "recv_exact",
]

SERVICE = "_lansim-agent._tcp.local."
VERSION = 2
# ten above EXO's API, so that it is easy to remember and clashes with none of EXO's ports
DEFAULT_PORT = 52425
MAGIC = b"LSA2"
NONCE_BYTES = MAC_BYTES = 32
KNOCK_BYTES = len(MAGIC) + NONCE_BYTES + MAC_BYTES
REQUEST_LIMIT_BYTES = 64 << 10
REPLY_LIMIT_BYTES = 1 << 20
HANDSHAKE_S = 3.0
PIECE_BYTES = 64 << 10

Done = TypeVar("Done")


def make_knock(token: bytes, nonce: bytes) -> bytes:
    """What an asker sends first; `nonce` are 32 fresh random bytes."""
    return MAGIC + nonce + hmac.digest(pairing(token).knock_key, b"knock" + nonce, "sha256")


def recv_exact(connection: socket.socket, size_bytes: int, deadline_s: float) -> bytes:
    """Read exactly `size_bytes`, at the latest at `deadline_s` on the monotonic clock;
    raises WireError otherwise.
    """
    buffer = bytearray(size_bytes)
    view, filled = memoryview(buffer), 0
    while filled < size_bytes:
        filled += _recv_into(connection, view[filled:], deadline_s)
    return bytes(buffer)


def _recv_into(connection: socket.socket, view: memoryview, deadline_s: float) -> int:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise WireError("no answer in time")
    connection.settimeout(left_s)
    try:
        count = connection.recv_into(view)
    except OSError as error:
        raise WireError(f"connection lost: {error}") from error
    if count == 0:
        raise WireError("the other side closed the connection")
    return count


def _send(connection: socket.socket, data: bytes, deadline_s: float) -> None:
    connection.settimeout(max(deadline_s - time.monotonic(), 0.001))
    try:
        connection.sendall(data)
    except OSError as error:
        raise WireError(f"connection lost: {error}") from error


class AgentConnection:
    """A connection to somebody with the token: messages both ways inside TLS, and `connection` for the zeros
    that are timed; a context manager that closes.

    Raises WireError unless the other side shows the pairing's key until `deadline_s`.
    """

    def __init__(self, connection: socket.socket, token: bytes, deadline_s: float, *, asking: bool) -> None:
        self.connection = connection
        # TLS is kept beside the socket and not around it: what is timed passes on the bare socket
        self._arrived, self._leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = pairing(token).asking if asking else pairing(token).answering
        self._tls = context.wrap_bio(self._arrived, self._leaving, server_side=not asking)
        # an asker gets batches of samples, an agent only short questions
        self._limit_bytes = REPLY_LIMIT_BYTES if asking else REQUEST_LIMIT_BYTES
        self._until_done(self._tls.do_handshake, deadline_s)

    def _until_done(self, step: Callable[[], Done], deadline_s: float) -> Done:
        """What `step` gives, once enough records have arrived for it; those that it makes are sent."""
        view = memoryview(bytearray(PIECE_BYTES))
        while True:
            try:
                done = step()
            except ssl.SSLWantReadError:
                self._flush(deadline_s)
                self._arrived.write(view[: _recv_into(self.connection, view, deadline_s)])
            except ssl.SSLError as error:
                with suppress(WireError):
                    self._flush(deadline_s)  # so that the other side learns it too
                raise WireError(
                    f"not with this pairing's key, or changed on the way ({error.reason})"
                ) from error
            else:
                self._flush(deadline_s)
                return done

    def _flush(self, deadline_s: float) -> None:
        if self._leaving.pending:
            _send(self.connection, self._leaving.read(), deadline_s)

    def _read(self, size_bytes: int, deadline_s: float) -> bytes:
        found = bytearray()
        while len(found) < size_bytes:
            piece = self._until_done(partial(self._tls.read, size_bytes - len(found)), deadline_s)
            if not piece:
                raise WireError("the other side closed the connection")
            found += piece
        return bytes(found)

    def send(self, message: dict[str, Any], timeout_s: float = 10.0) -> None:
        """Send one message; raises WireError when the other side is gone."""
        payload = json.dumps(message, separators=(",", ":")).encode()
        left = memoryview(struct.pack(">I", len(payload)) + payload)
        while left:  # one record at a time is taken
            left = left[self._until_done(partial(self._tls.write, left), time.monotonic() + timeout_s) :]

    def receive(self, timeout_s: float) -> dict[str, Any]:
        """Wait up to `timeout_s` for the next message; raises WireError for silence, forgery and nonsense."""
        deadline_s = time.monotonic() + timeout_s
        (length,) = struct.unpack(">I", self._read(4, deadline_s))
        # before a byte of it is taken: the length comes from whoever is at the other end
        if length > self._limit_bytes:
            raise WireError(f"a message of {length} bytes; at most {self._limit_bytes} are taken")
        try:
            message = json.loads(self._read(length, deadline_s))
        except (ValueError, RecursionError) as error:
            raise WireError("a message that is not JSON") from error
        if not isinstance(message, dict):
            raise WireError("a message that is no JSON object")
        return message

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def __enter__(self) -> AgentConnection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()


def ask(host: str, port: int, token: bytes, timeout_s: float = 5.0) -> AgentConnection:
    """Connect to an agent and prove to each other that both have the token.

    Raises WireError when nothing listens there, or when it is no agent with this token.
    """
    knock = make_knock(token, secrets.token_bytes(NONCE_BYTES))
    deadline_s = time.monotonic() + timeout_s
    try:
        connection = socket.create_connection((host, port), timeout=timeout_s)
    except OSError as error:
        raise WireError(f"nothing answers: {error}") from error
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _send(connection, knock, deadline_s)
        return AgentConnection(connection, token, deadline_s, asking=True)
    except (WireError, OSError) as error:
        connection.close()
        raise WireError(f"no agent with this token: {error}") from error


def answer(connection: socket.socket, token: bytes, timeout_s: float = HANDSHAKE_S) -> AgentConnection:
    """The listening side of `ask` after a right knock; raises WireError unless the asker has the key."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return AgentConnection(connection, token, time.monotonic() + timeout_s, asking=False)


class NonceCache:
    """The last knocks, so that a replayed one is not even answered; only right knocks get
    in, so 4096 are plenty.
    """

    def __init__(self, size: int = 4096) -> None:
        self._nonces: dict[bytes, None] = {}
        self._size = size

    def is_right(self, knock: bytes, token: bytes) -> bool:
        """Whether `knock` shows the token and is new; remembers it."""
        nonce = knock[len(MAGIC) : -MAC_BYTES]
        if not hmac.compare_digest(knock, make_knock(token, nonce)) or nonce in self._nonces:
            return False
        self._nonces[nonce] = None
        if len(self._nonces) > self._size:
            # the oldest goes: a dictionary keeps the order of insertion
            self._nonces.pop(next(iter(self._nonces)), None)
        return True
