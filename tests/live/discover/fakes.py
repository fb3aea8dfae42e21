"""Small real servers on loopback that speak like EXO, or like nothing on earth."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "data" / "discovery"
HTTP: dict[str, Any] = json.loads((DATA / "http.json").read_text(encoding="utf-8"))
DATE = "Sun, 22 Nov 2026 10:08:38 GMT"


def answer(body: object, status: int = 200, extra: str = "") -> bytes:
    """A complete HTTP answer with a JSON body."""
    text = json.dumps(body).encode()
    head = (
        f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n{extra}\r\n"
    )
    return head.encode() + text


NOT_FOUND = answer({"detail": "Not Found"}, 404)

Handler = Callable[[socket.socket, str], None]


def pages(by_path: dict[str, bytes]) -> Handler:
    """Serves prepared answers by path, 404 for the rest."""

    def handle(connection: socket.socket, path: str) -> None:
        connection.sendall(by_path.get(path, NOT_FOUND))

    return handle


@contextmanager
def server(handler: Handler, address: str = "127.0.0.1"):
    """Accepts connections, reads a request's first line, lets `handler` answer; yields the port."""
    with socket.create_server((address, 0)) as listener:
        listener.settimeout(0.1)
        over = threading.Event()

        def one(connection: socket.socket) -> None:
            with connection, suppress(OSError, IndexError):
                request = connection.recv(4096).decode("latin-1")
                handler(connection, request.split()[1])

        def accept() -> None:
            while not over.is_set():
                with suppress(TimeoutError):
                    connection, _ = listener.accept()
                    connection.settimeout(5)
                    threading.Thread(target=one, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            thread.join()


def head_pages(**changes: bytes) -> dict[str, bytes]:
    """What node-a of the recorded HEAD cluster answers."""
    return {
        "/node_id": answer(HTTP["node_id_a"], extra=f"Date: {DATE}\r\n"),
        "/state": answer(HTTP["state_idle_3nodes"]),
        "/openapi.json": answer(HTTP["openapi_paths"]),
        "/v1/feature-flags": answer(HTTP["feature_flags"]),
        "/models": answer(HTTP["models"]),
        **changes,
    }


def legacy_pages(new: bool = True) -> dict[str, bytes]:
    """What a recorded legacy node answers; the older ones lack /v1/topology."""
    topology = answer(HTTP["legacy_topology_idle_3nodes"], extra=f"Date: {DATE}\r\n")
    found = {"/healthcheck": answer(HTTP["legacy_healthcheck"]), "/topology": topology}
    return {**found, "/v1/topology": topology} if new else found
