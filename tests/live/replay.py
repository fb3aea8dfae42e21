"""Serve recordings over a real socket, at the recorded or at shortened times.

A `Script` is what one connection gets: bytes at times after the request, then the end. `scripts_of_*` make scripts from
the recordings in tests/data and from files of `live.record`; a `ReplayServer` serves them by method and path.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal, Self

__all__ = [
    "DATA",
    "SSE_HEADERS",
    "ReplayServer",
    "Request",
    "Script",
    "chunked",
    "exo_stream",
    "head",
    "json_answer",
    "legacy_exchange",
    "session",
]

DATA = Path(__file__).parents[1] / "data"
End = Literal["close", "hold", "reset"]


@dataclass(frozen=True)
class Script:
    """Bytes at seconds after the request, and how the connection ends."""

    sends: tuple[tuple[float, bytes], ...]
    end: End = "close"

    def faster(self, speed: float) -> Script:
        """The same in 1 / speed of the time."""
        return Script(tuple((t_s / speed, data) for t_s, data in self.sends), self.end)


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    body: bytes
    head: bytes = b""

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body) if self.body else None


Answer = Script | Callable[[Request], Script | None]


@dataclass
class ReplayServer:
    """A server on loopback; `routes` maps "METHOD /path" (without query), or "*", to a script or a maker of one.

    `requests` and `sent_ns` (monotonic clock after each send, by connection) tell afterwards what happened.
    """

    routes: Mapping[str, Answer]
    speed: float = 1.0
    requests: list[Request] = field(default_factory=list)
    sent_ns: list[list[int]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept; close alone does not
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            request = _read_request(connection)
            started = time.monotonic()
            if request is None:
                return
            self.requests.append(request)
            script = self._script(request)
            self._play(connection, script.faster(self.speed), started)

    def _script(self, request: Request) -> Script:
        answer = self.routes.get(f"{request.method} {request.path.partition('?')[0]}", self.routes.get("*"))
        made = answer(request) if callable(answer) else answer
        return made or json_answer({"detail": "Not Found"}, 404)

    def _play(self, connection: socket.socket, script: Script, started: float) -> None:
        sent: list[int] = []
        self.sent_ns.append(sent)
        for t_s, data in script.sends:
            if self._stop.wait(max(0.0, started + t_s - time.monotonic())):
                return
            connection.sendall(data)
            sent.append(time.monotonic_ns())
        if script.end == "hold":
            self._stop.wait()
        elif script.end == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def _read_request(connection: socket.socket) -> Request | None:
    """One request; None when the client closed before it was complete."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return None
        data += more
    start, _, body = data.partition(b"\r\n\r\n")
    line, *headers = start.decode("latin-1").split("\r\n")
    length = next((int(h.partition(":")[2]) for h in headers if h.lower().startswith("content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    method, path, _ = line.split(" ")
    return Request(method, path, body, start)


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """A response head."""
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *(f"{key}: {value}" for key, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunked(data: bytes) -> bytes:
    """One chunk of a chunked body; of no bytes: the last one."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def json_answer(body: Any, status: int = 200) -> Script:
    """A whole JSON answer at once."""
    raw = json.dumps(body).encode()
    headers = {"content-type": "application/json", "content-length": str(len(raw)), "connection": "close"}
    return Script(((0.0, head(status, headers) + raw),))


SSE_HEADERS = {"content-type": "text/event-stream", "Transfer-Encoding": "chunked", "connection": "close"}


def exo_stream(path: Path) -> tuple[dict[str, Any], Script]:
    """Header line and script of a `*.sse.jsonl` recording of EXO 1.x."""
    header, *lines = (json.loads(line) for line in path.read_text().splitlines())
    sends = [(header["t_headers_ns"] / 1e9, head(header["status"], header["headers"]))]
    for line in lines:
        text = line["line"]
        data = b"0\r\n\r\n" if text == "<EOF>" else chunked(f"{text}\n\n".encode())
        sends.append((line["t_ns"] / 1e9, data))
    return header, Script(tuple(sends))


def legacy_exchange(path: Path) -> tuple[dict[str, Any], Script]:
    """Record and script of an HTTP recording of legacy EXO: a stream, a whole body, or a raw socket."""
    record = json.loads(path.read_text())
    if "events" in record:
        sends = [(event["t"], _mended(event["bytes"].encode())) for event in record["events"]]
        return record, Script(tuple(sends), "hold" if record["socket_open_at_end"] else "close")
    headers = dict(record["headers"])
    if "chunks" not in record:
        text = record.get("body_text")
        raw = text.encode() if text is not None else json.dumps(record["body"]).encode()
        headers["Content-Length"] = str(len(raw))
        return record, Script(
            ((record["t_headers"], head(record["status"], headers)), (record["t_end"], raw))
        )
    sends = [(record["t_headers"], head(record["status"], headers))]
    sends += [(chunk["t"], chunked(chunk["data"].encode())) for chunk in record["chunks"] if chunk["data"]]
    if "client_error" in record:
        return record, Script(tuple(sends), "hold")
    return record, Script((*sends, (record["t_end"], b"0\r\n\r\n")))


CUT_AT = 700  # the recorder of the raw sockets kept no more of one packet


def _mended(packet: bytes) -> bytes:
    """A packet of chunks whose recording was cut: the end of its last chunk put back."""
    if len(packet) < CUT_AT:
        return packet
    at = 0
    while at < len(packet):
        size, _, rest = packet[at:].partition(b"\r\n")
        body = rest[: int(size, 16)]
        at += len(size) + 2 + int(size, 16) + 2
        missing = int(size, 16) - len(body)
    return packet.rstrip(b"\r\n") + b"\n\n\r\n" if missing >= 0 else packet


def session(path: Path) -> Iterator[tuple[dict[str, Any], Script]]:
    """Request and script of each exchange in a file of `live.record`, in the order of the requests."""
    events = [json.loads(line) for line in path.read_text().splitlines()]
    for request in (event for event in events if event["type"] == "request"):
        mine = [event for event in events if event.get("n") == request["n"]]
        response = next((event for event in mine if event["type"] == "response"), None)
        if response is None:
            continue
        headers = {
            key: value for key, value in response["headers"].items() if key.lower() != "content-length"
        }
        headers["transfer-encoding"] = "chunked"
        sends = [((response["t_ns"] - request["t_ns"]) / 1e9, head(response["status"], headers))]
        sends += [
            ((event["t_ns"] - request["t_ns"]) / 1e9, chunked(event["text"].encode()))
            for event in mine
            if event["type"] == "data"
        ]
        yield request, Script((*sends, (sends[-1][0], b"0\r\n\r\n")))
