"""HTTP with bounds: on memory, on time, and on where anything is sent.

Each exchange has its own connection and its own `Watch`, whose deadline holds whatever the server does (drips
bytes, sends endless headers or keep-alives); a time-out per read, as httpx has it, never ends a slow drip.
The watch also notes when bytes left the socket, so that the time of parsing them does not count as network
time. Redirects are not followed, proxies of the environment are not used, compressed bodies are refused.
"""

from __future__ import annotations

import errno
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

from live.errors import (
    ApiChanged,
    LiveError,
    NoRoute,
    NotListening,
    NotOffered,
    RequestRefused,
    Unanswered,
    Unreachable,
)
from live.exo.words import is_missing_endpoint

__all__ = ["Aborted", "Http", "Watch", "body_of", "parse_json", "translated"]

MAX_BODY_BYTES = 12 * 2**20  # a whole /state of a large cluster stays below 2 MB (recordings: 16 to 161 kB)
# commas and brackets: bounds the Python objects that a body can become to about 60 MB
MAX_JSON_PARTS = 500_000
NO_WAY = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN)
SLICE_S = 0.25  # how long a wait for bytes may overlook that somebody called it off


class Aborted(Exception):
    """Somebody set the watch's `abort`."""


class Watch:
    """Deadline, clock and off-switch of one exchange.

    `on_deadline` is asked when the deadline passes: it returns more seconds, or None (or raises) to give up.
    """

    def __init__(self, within_s: float, abort: threading.Event | None = None) -> None:
        self.abort = abort
        self.on_deadline: Callable[[], float | None] | None = None
        self.read_ns = 0
        self.tail = b""
        self.has_peer_closed = False
        self.extend(within_s)

    def extend(self, seconds: float) -> None:
        """Put the deadline `seconds` from now."""
        self.deadline_ns = time.monotonic_ns() + int(seconds * 1e9)

    def left_s(self) -> float:
        """Seconds until the deadline; raises Aborted when called off, ReadTimeout
        when it has passed for good.
        """
        if self.abort is not None and self.abort.is_set():
            raise Aborted
        left = (self.deadline_ns - time.monotonic_ns()) / 1e9
        if left > 0:
            return left
        more = self.on_deadline() if self.on_deadline else None
        if more is None:
            raise httpcore.ReadTimeout("deadline")
        self.extend(more)
        return more


class _WatchedStream(httpcore.NetworkStream):
    """A socket that keeps to its watch."""

    def __init__(self, inner: httpcore.NetworkStream, watch: Watch) -> None:
        self._inner, self._watch = inner, watch

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        while True:
            wait_s = min(self._watch.left_s(), SLICE_S)
            try:
                data = self._inner.read(max_bytes, wait_s)
            # only this slice is over; `left_s` decides whether the exchange is
            except httpcore.ReadTimeout:
                continue
            # at the socket, before anything is parsed: this is the time that a token gets
            self._watch.read_ns = time.monotonic_ns()
            self._watch.tail = (self._watch.tail + data)[-400:]
            # a peer that hangs up and bytes that are no HTTP both become a ProtocolError; here they differ
            self._watch.has_peer_closed = not data
            return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._watch.left_s())

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _WatchedStream(
            self._inner.start_tls(ssl_context, server_hostname, self._watch.left_s()), self._watch
        )

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    """Opens watched sockets."""

    def __init__(self, watch: Watch, connect_s: float) -> None:
        self._watch, self._connect_s = watch, connect_s

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        # the whole exchange has one deadline, of which connecting may take its own share at most
        wait_s = min(self._connect_s, self._watch.left_s())
        inner = httpcore.SyncBackend().connect_tcp(host, port, wait_s, local_address, socket_options)
        return _WatchedStream(inner, self._watch)


class _Body(httpx.SyncByteStream):
    """The raw body of a response; closing it closes the connection."""

    def __init__(self, response: httpcore.Response, connection: httpcore.HTTPConnection) -> None:
        self._response, self._connection = response, connection

    def __iter__(self) -> Iterator[bytes]:
        yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()
        self._connection.close()


class _Transport(httpx.BaseTransport):
    """One watched connection per exchange."""

    def __init__(self, connect_s: float) -> None:
        self._connect_s = connect_s

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        watch = request.extensions["watch"]
        connection = httpcore.HTTPConnection(
            url.origin,
            # neither proxies nor certificates of the environment: an address means what the user wrote
            ssl_context=httpx.create_ssl_context(trust_env=False) if url.scheme == b"https" else None,
            http1=True,
            http2=False,
            network_backend=_Backend(watch, self._connect_s),
        )
        content = b"".join(request.stream)  # type: ignore[arg-type]  # our requests are never asynchronous
        inner = httpcore.Request(request.method, url, headers=request.headers.raw, content=content)
        try:
            response = connection.handle_request(inner)
        except BaseException:
            connection.close()
            raise
        # the body is not read here: a stream hands on each packet as it comes
        return httpx.Response(response.status, headers=response.headers, stream=_Body(response, connection))


class Http:
    """Requests to one address; `transport` replaces the network (tests, recording).

    `who` is expected there, for messages. Thread-safe: every exchange has its own connection.
    """

    def __init__(
        self,
        base_url: str,
        transport: httpx.BaseTransport | None = None,
        connect_s: float = 5.0,
        *,
        who: str = "EXO",
    ) -> None:
        self.base_url, self.who = base_url, who
        self.client = httpx.Client(
            base_url=base_url,
            transport=transport or self.network(connect_s),
            follow_redirects=False,
            trust_env=False,
            # no compression: a body of a few kB may unpack to gigabytes, and stamps would be those of the
            # unpacking
            headers={"accept-encoding": "identity", "user-agent": "sim-live"},
            timeout=None,
        )

    @staticmethod
    def network(connect_s: float = 5.0) -> httpx.BaseTransport:
        """The transport that really talks."""
        return _Transport(connect_s)

    def json(
        self,
        method: str,
        path: str,
        *,
        within_s: float,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
    ) -> Any:
        """The JSON answer to one request, complete within `within_s`.

        Raises Unreachable, RequestRefused, NotOffered or ApiChanged; the message names address and path.
        """
        with self.exchange(method, path, Watch(within_s), params=params, body=body) as response:
            raw = body_of(response)
            self.check(response, raw)
            kind = response.headers.get("content-type", "")
            if kind and "json" not in kind:
                raise ApiChanged(
                    f"{self.base_url}{path} answers {kind[:60]!r} where JSON was expected; is {self.who} "
                    "there?"
                )
            return parse_json(raw, f"{self.base_url}{path}", self.who)

    @contextmanager
    def exchange(
        self,
        method: str,
        path: str,
        watch: Watch,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
    ) -> Iterator[httpx.Response]:
        """One open response; errors of the network become ours until the block ends."""
        content = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"content-type": "application/json"}
        request = self.client.build_request(
            method, path, params=params, content=content, headers=headers, extensions={"watch": watch}
        )
        # around the use of the answer too: a body breaks while it is read, long after the head came
        with translated(f"{self.base_url}{path}", self.who):
            response = self.client.send(request, stream=True)
            try:
                yield response
            finally:
                response.close()

    def check(self, response: httpx.Response, raw: bytes) -> None:
        """Raise what a status other than 200 means: RequestRefused or NotOffered in the server's
        own words, or ApiChanged.
        """
        status, where = response.status_code, str(response.request.url.copy_with(query=None))
        if status == 200:
            return
        if 300 <= status < 400:
            target = response.headers.get("location", "")[:200]
            raise ApiChanged(
                f"{where} redirects to {target!r}, which is not followed: give that address if right"
            )
        reason = _reason(raw)
        kind = NotOffered if is_missing_endpoint(status, reason) else RequestRefused
        retry_after = response.headers.get("retry-after", "")[:60]
        raise kind(f"{where} answers {status}: {reason or response.reason_phrase}", status, retry_after)


def _reason(raw: bytes) -> str:
    """The words of an error body: EXO 1.x says {error:
    {message}}, older ones and legacy {detail}, or plain text.
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return " ".join(raw[:300].decode("utf-8", "replace").split())
    if not isinstance(body, dict):
        return str(body)[:300]
    error = body.get("error", body.get("detail", body))
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)[:1000]


def body_of(response: httpx.Response, limit: int = MAX_BODY_BYTES) -> bytes:
    """The whole body, at most `limit` bytes; raises ApiChanged for a larger or a compressed one."""
    encoding = response.headers.get("content-encoding", "identity")
    where = str(response.request.url)
    if encoding != "identity":
        raise ApiChanged(
            f"{where} answers compressed ({encoding[:40]}), which was not accepted; is a proxy between?"
        )
    body = bytearray()
    for chunk in response.iter_bytes():  # nothing is decoded, as encodings were refused
        body += chunk
        if len(body) > limit:
            raise ApiChanged(f"{where} answers more than {limit} bytes; no engine does that")
    return bytes(body)


def parse_json(raw: bytes, where: str, who: str = "EXO") -> Any:
    """`raw` as JSON; raises ApiChanged for anything else, and for what would blow up in memory."""
    # counted before it is parsed: afterwards the memory is gone
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > MAX_JSON_PARTS:
        raise ApiChanged(f"{where} answers JSON with more than {MAX_JSON_PARTS} parts; no {who} does that")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        start = raw[:60].decode("utf-8", "replace")
        raise ApiChanged(f"{where} answers no JSON ({error}): {start!r}; is {who} there?") from None


def _unconnected(where: str, error: Exception) -> Unreachable:
    """What it means that no connection came about; httpcore keeps what the socket said as the cause."""
    cause = error.__cause__
    if isinstance(cause, ConnectionRefusedError):  # proves that the machine lives
        return NotListening(
            f"{where}: the machine is there and refuses the connection ({error}): nothing listens on that "
            "port; start the server there, or give the port that it has"
        )
    if isinstance(cause, socket.gaierror):
        return NoRoute(
            f"{where}: no machine of that name is known ({error}); check the name, or give its address"
        )
    if isinstance(cause, OSError) and cause.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN):
        return NoRoute(
            f"{where}: no machine answers at that address ({error}): it is off or asleep, has another "
            "address, or is in another network; wake it, or check the address"
        )
    if isinstance(cause, TimeoutError):
        return Unanswered(
            f"{where}: no connection and no refusal either ({error}): a firewall drops packets to that port, "
            "or the machine is off; let the port through there, or wake the machine"
        )
    return Unreachable(f"{where}: no connection ({error}); is a server running there, and the port right?")


@contextmanager
def translated(where: str, who: str = "EXO") -> Iterator[None]:
    """Turn what httpx and httpcore raise into Unreachable or ApiChanged, with the way out."""
    try:
        yield
    except (
        httpcore.ConnectTimeout,
        httpcore.ConnectError,
        httpx.ConnectError,
        httpx.ConnectTimeout,
    ) as error:
        raise _unconnected(where, error) from None
    except (
        UnicodeError
    ) as error:  # what the look-up of a name says of 'a..b', or of a label beyond 63 characters
        raise Unreachable(f"{where}: that is no name of a host ({error})") from None
    except (httpcore.TimeoutException, httpx.TimeoutException):
        raise Unreachable(
            f"{where}: no complete answer in time; is the machine asleep or overloaded?"
        ) from None
    except (httpcore.ProtocolError, httpx.ProtocolError) as error:
        raise ApiChanged(
            f"{where} speaks no HTTP ({error}); is the port that of {who}, is TLS (https://) meant?"
        ) from None
    except (httpcore.NetworkError, httpx.NetworkError) as error:
        raise Unreachable(f"{where}: the connection broke ({error}); is the machine still there?") from None
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise LiveError(f"{where}: {error}") from None
