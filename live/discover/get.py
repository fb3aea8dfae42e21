"""One bounded HTTP GET: a deadline for the whole answer, a limit on its size, no redirects, no proxy.

Discovery asks hosts that may be anything, so the answer is read with the standard library from a socket that
counts bytes and seconds; whatever a broken or hostile server does ends within the deadline.
"""

from __future__ import annotations

import http.client
import io
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from simulator.errors import ApiChanged, Unreachable

__all__ = ["Refused", "Reply", "Silent", "get"]

DEADLINE_S = 5.0
# JSON of this size takes at most about 90 MB as Python objects; a /state has some 100 kB
LIMIT_BYTES = 4 << 20

PIECE_BYTES = 64 << 10

Connect = Callable[[str, int, float], socket.socket]


class Refused(Unreachable):
    """The host lives, but nothing listens on that port."""


class Silent(Unreachable):
    """No answer at all: no such host, a firewall that drops, or a server that hangs."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    sent_s: float
    received_s: float
    """Unix times by the local clock"""

    def json(self) -> Any:
        """The body as JSON; raises ApiChanged."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise ApiChanged(f"the answer is not JSON: {self.body[:60]!r}") from error

    @property
    def clock_offset_s(self) -> float | None:
        """How far the server's clock is ahead of ours (s), by
        its Date header: whole seconds, so right within 1 s.

        offset = Date + 0.5 - (sent + received) / 2, since Date is cut to full seconds.
        """
        try:
            date_s = parsedate_to_datetime(self.headers["date"]).timestamp()
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        return date_s + 0.5 - (self.sent_s + self.received_s) / 2


class _Bounded(io.RawIOBase):
    """The receiving side of a socket that ends at a deadline and at a number of bytes."""

    def __init__(self, connection: socket.socket, deadline_s: float, limit_bytes: int) -> None:
        self._connection, self._deadline_s, self._left_bytes = connection, deadline_s, limit_bytes

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Receive into `buffer`; raises TimeoutError at the deadline and ApiChanged beyond the limit."""
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("no complete answer in time")
        self._connection.settimeout(left_s)
        count = self._connection.recv_into(buffer)
        self._left_bytes -= count
        if self._left_bytes < 0:
            raise ApiChanged("the answer is longer than anything EXO sends")
        return count

    def makefile(self, *_: object, **__: object) -> io.BufferedReader:
        """What http.client asks a socket for."""
        return io.BufferedReader(self)


def _connect(host: str, port: int, timeout_s: float) -> socket.socket:
    return socket.create_connection((host, port), timeout=timeout_s)


def get(
    host: str,
    port: int,
    path: str,
    deadline_s: float = DEADLINE_S,
    limit_bytes: int = LIMIT_BYTES,
    connect: Connect = _connect,
) -> Reply:
    """`GET http://host:port/path`, at most `limit_bytes` within `deadline_s`; the status is not judged.

    Raises Refused when nothing listens, Silent when no complete
    answer comes in time, ApiChanged when it is not HTTP or too long.
    """
    where = f"http://{f'[{host}]' if ':' in host else host}:{port}{path}"
    end_s, sent_s = time.monotonic() + deadline_s, time.time()
    try:
        connection = connect(host, port, deadline_s)
    except ConnectionRefusedError as error:
        raise Refused(f"{where}: connection refused, nothing listens there") from error
    except (OSError, UnicodeError) as error:
        raise Silent(f"{where}: no connection: {error}") from error
    with connection:
        try:
            connection.settimeout(max(end_s - time.monotonic(), 0.001))
            connection.sendall(_request(host, port, path))
            status, headers, body = _read(_Bounded(connection, end_s, limit_bytes))
        except (TimeoutError, ConnectionError, OSError) as error:
            raise Silent(f"{where}: {error}") from error
        except http.client.HTTPException as error:
            raise ApiChanged(
                f"{where}: not an HTTP answer: {str(error) or type(error).__name__:.60}"
            ) from error
        except ApiChanged as error:
            raise ApiChanged(f"{where}: {error}") from error
    return Reply(status, headers, body, sent_s, time.time())


def _request(host: str, port: int, path: str) -> bytes:
    name = f"[{host}]" if ":" in host else host
    lines = (
        f"GET {path} HTTP/1.1",
        f"Host: {name}:{port}",
        "Accept: application/json",
        "Connection: close",
        "",
        "",
    )
    return "\r\n".join(lines).encode("ascii", errors="replace")


def _read(stream: _Bounded) -> tuple[int, dict[str, str], bytes]:
    with http.client.HTTPResponse(stream, method="GET") as response:  # type: ignore[arg-type]
        try:
            response.begin()
            # In pieces: asked for all at once, http.client allocates whatever length the server claims.
            body = b"".join(iter(lambda: response.read(PIECE_BYTES), b""))
        except ValueError as error:  # a chunk size or length that is no number
            raise http.client.HTTPException(str(error)) from error
        return response.status, {name.lower(): value for name, value in response.getheaders()}, body
