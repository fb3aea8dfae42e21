"""How two agents talk: a token that never crosses the wire, then JSON messages that
cannot be forged or replayed.

Handshake (A asks, B answers; N random bytes, H = HMAC-SHA256 with the token as key)::

    A -> B   "LSA1"  Na  H("knock" Na)       B closes without a byte if this is wrong
    B -> A   Nb  H("agent" Na Nb)            A learns that B has the token
    A -> B   H("asker" Na Nb)                B learns that A has it now, not in an old recording

Both sides then use the key K = H("key" Na Nb). A message is `length(4) JSON HMAC(K, direction counter JSON)`:
a message of another session, direction or place in the order does not verify. Nothing is encrypted: whoever
listens on the LAN can read the figures, but neither ask for them nor change them.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socket
import struct
import time
from types import TracebackType
from typing import Any

__all__ = [
    "DEFAULT_PORT",
    "MIN_TOKEN_CHARS",
    "SERVICE",
    "VERSION",
    "AgentConnection",
    "NonceCache",
    "WireError",
    "answer",
    "ask",
    "check_token",
    "new_token",
    "recv_exact",
]

SERVICE = "_lansim-agent._tcp.local."
VERSION = 1
# ten above EXO's API, so that it is easy to remember and clashes with none of EXO's ports
DEFAULT_PORT = 52425
MAGIC = b"LSA1"
NONCE_BYTES = MAC_BYTES = 32
KNOCK_BYTES = len(MAGIC) + NONCE_BYTES + MAC_BYTES
REQUEST_LIMIT_BYTES = 64 << 10
REPLY_LIMIT_BYTES = 1 << 20
# a recorded knock can be guessed at offline, so a token must be long enough to make that hopeless
MIN_TOKEN_CHARS = 16
HANDSHAKE_S = 3.0


class WireError(Exception):
    """The other side is gone, silent, has another token, or sends what no agent sends."""


def new_token() -> str:
    """A fresh pairing token of 128 random bits."""
    return secrets.token_urlsafe(16)


def check_token(token: str) -> bytes:
    """The token as a key; raises WireError when there is none, or it is too short to keep guessers out.

    The way out differs (an agent can make a token, an asker needs the agent's), so the caller adds it.
    """
    if not token:
        raise WireError("no token was given")
    if len(token) < MIN_TOKEN_CHARS:
        raise WireError(f"the token has {len(token)} characters, at least {MIN_TOKEN_CHARS} are needed")
    return token.encode()


def _mac(key: bytes, *parts: bytes) -> bytes:
    return hmac.digest(key, b"".join(parts), "sha256")


def recv_exact(connection: socket.socket, size_bytes: int, deadline_s: float) -> bytes:
    """Read exactly `size_bytes`, at the latest at `deadline_s` on the monotonic clock;
    raises WireError otherwise.
    """
    buffer = bytearray(size_bytes)
    view, filled = memoryview(buffer), 0
    while filled < size_bytes:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise WireError("no answer in time")
        connection.settimeout(left_s)
        try:
            count = connection.recv_into(view[filled:])
        except OSError as error:
            raise WireError(f"connection lost: {error}") from error
        if count == 0:
            raise WireError("the other side closed the connection")
        filled += count
    return bytes(buffer)


def _send(connection: socket.socket, data: bytes, timeout_s: float) -> None:
    connection.settimeout(timeout_s)
    try:
        connection.sendall(data)
    except OSError as error:
        raise WireError(f"connection lost: {error}") from error


class AgentConnection:
    """An authenticated connection: numbered messages both ways, each with its code; a
    context manager that closes.
    """

    def __init__(self, connection: socket.socket, key: bytes, *, asking: bool) -> None:
        self.connection = connection
        self._key = key
        # the direction is part of the code: a message cannot be sent back to whoever made it
        self._out, self._in = (b"a", b"b") if asking else (b"b", b"a")
        # an asker gets batches of samples, an agent only short questions
        self._limit_bytes = REPLY_LIMIT_BYTES if asking else REQUEST_LIMIT_BYTES
        self._sent = self._received = 0

    def send(self, message: dict[str, Any], timeout_s: float = 10.0) -> None:
        """Send one message; raises WireError when the other side is gone."""
        payload = json.dumps(message, separators=(",", ":")).encode()
        code = _mac(self._key, self._out, struct.pack(">Q", self._sent), payload)
        self._sent += 1
        _send(self.connection, struct.pack(">I", len(payload)) + payload + code, timeout_s)

    def receive(self, timeout_s: float) -> dict[str, Any]:
        """Wait up to `timeout_s` for the next message; raises WireError for silence, forgery and nonsense."""
        deadline_s = time.monotonic() + timeout_s
        (length,) = struct.unpack(">I", recv_exact(self.connection, 4, deadline_s))
        # before a byte of it is taken: the length comes from whoever is at the other end
        if length > self._limit_bytes:
            raise WireError(f"a message of {length} bytes; at most {self._limit_bytes} are taken")
        payload = recv_exact(self.connection, length, deadline_s)
        code = recv_exact(self.connection, MAC_BYTES, deadline_s)
        if not hmac.compare_digest(
            code, _mac(self._key, self._in, struct.pack(">Q", self._received), payload)
        ):
            raise WireError("a message that was changed on the way or replayed")
        # counted only when it verified, so that a forged message does not shift the numbers
        self._received += 1
        try:
            message = json.loads(payload)
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
    try:
        connection = socket.create_connection((host, port), timeout=timeout_s)
    except OSError as error:
        raise WireError(f"nothing answers: {error}") from error
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        mine = secrets.token_bytes(NONCE_BYTES)
        _send(connection, MAGIC + mine + _mac(token, b"knock", mine), timeout_s)
        reply = recv_exact(connection, NONCE_BYTES + MAC_BYTES, time.monotonic() + timeout_s)
        theirs, code = reply[:NONCE_BYTES], reply[NONCE_BYTES:]
        if not hmac.compare_digest(code, _mac(token, b"agent", mine, theirs)):
            raise WireError("it does not know the token")
        _send(connection, _mac(token, b"asker", mine, theirs), timeout_s)
    except (WireError, OSError) as error:
        connection.close()
        raise WireError(f"no agent with this token: {error}") from error
    return AgentConnection(connection, _mac(token, b"key", mine, theirs), asking=True)


def answer(
    connection: socket.socket, token: bytes, seen: NonceCache, timeout_s: float = HANDSHAKE_S
) -> AgentConnection:
    """The listening side of `ask`; raises WireError, before a byte was sent, unless
    the knock shows the token.
    """
    deadline_s = time.monotonic() + timeout_s
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    knock = recv_exact(connection, KNOCK_BYTES, deadline_s)
    theirs, code = knock[len(MAGIC) : -MAC_BYTES], knock[-MAC_BYTES:]
    if not knock.startswith(MAGIC) or not hmac.compare_digest(code, _mac(token, b"knock", theirs)):
        raise WireError("a knock without the token")
    # after the code, or strangers could fill the memory of knocks
    if not seen.first_time(theirs):
        raise WireError("a knock that was heard before")
    mine = secrets.token_bytes(NONCE_BYTES)
    _send(connection, mine + _mac(token, b"agent", theirs, mine), timeout_s)
    code = recv_exact(connection, MAC_BYTES, deadline_s)
    if not hmac.compare_digest(code, _mac(token, b"asker", theirs, mine)):
        raise WireError("an asker without the token")
    return AgentConnection(connection, _mac(token, b"key", theirs, mine), asking=False)


class NonceCache:
    """The last knocks, so that a replayed one is not even answered; only right knocks get
    here, so 4096 are plenty.
    """

    def __init__(self, size: int = 4096) -> None:
        self._nonces: dict[bytes, None] = {}
        self._size = size

    def first_time(self, nonce: bytes) -> bool:
        """Whether this nonce is new; remembers it."""
        if nonce in self._nonces:
            return False
        self._nonces[nonce] = None
        if len(self._nonces) > self._size:
            # the oldest goes: a dictionary keeps the order of insertion
            self._nonces.pop(next(iter(self._nonces)), None)
        return True
