"""Who may ask: nobody from another page, by a name that is not ours, or without the token.

A page in another tab can make the browser send requests to this machine. It cannot read the answers (no
CORS), and here it does not even get one: its Origin is not ours, and a name that was bent to this machine
(DNS rebinding) is not our Host. Beyond loopback every question needs the token as well.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Guard", "Rules", "is_loopback", "own_names"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

MOST_BODY_BYTES = 2_000_000
MOST_MEASURED_BYTES = 24_000_000
"""Of a measurement, which is text in JSON: quotes are escaped there."""
BODY_S = 15.0
"""For a body to arrive: who sends one byte a minute holds nothing for long."""
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' "
    "data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Rules:
    """What is let in: `token` where one is asked for, `names` that Host may have besides addresses."""

    port: int
    token: str | None = None
    names: tuple[str, ...] = ("localhost",)

    def knows(self, host: str) -> bool:
        """Whether a Host header (or the rest of an Origin) is ours: a rebound name never is."""
        try:
            parts = urlsplit(f"//{host}")
            name, port = parts.hostname or "", parts.port or 80
        except ValueError:
            return False
        if port != self.port or "@" in host or "/" in host:
            return False
        if name.lower() in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # beyond loopback any address may be ours, as a machine has several; the token decides
        return address.is_loopback or self.token is not None


def is_loopback(host: str) -> bool:
    """Whether what is listened on is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def own_names(host: str) -> tuple[str, ...]:
    """Names under which this machine may be called where it listens on `host`."""
    here = socket.gethostname().lower()
    return tuple(dict.fromkeys(("localhost", host.lower(), here, f"{here.partition('.')[0]}.local")))


class Guard:
    """The outermost layer of the server."""

    def __init__(self, app: App, rules: Rules) -> None:
        self.app, self.rules = app, rules

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it in one sentence."""
        if scope["type"] != "http":
            await (self.app(scope, receive, send) if scope["type"] == "lifespan" else _closed(send))
            return
        # files take no POST, so that a question may leave out what sets it apart from them
        if scope["method"] == "POST" and not scope["path"].startswith("/api/"):
            scope = {**scope, "path": f"/api{scope['path']}"}
        send = _with_headers(send)
        heads = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if refusal := self._refusal(scope, heads):
            await _refuse(send, *refusal)
            return
        try:
            body = await asyncio.wait_for(_body(receive, _most(scope["path"])), BODY_S)
        except TimeoutError:
            await _refuse(send, 408, f"the request took longer than {BODY_S:.0f} s to arrive")
            return
        if body is None:
            await _refuse(send, 413, f"the request is larger than {_most(scope['path']):,} bytes; send less")
            return
        await self.app(scope, _once(body, receive), send)

    def _refusal(self, scope: Message, heads: dict[str, str]) -> tuple[int, str] | None:
        if not self.rules.knows(heads.get("host", "")):
            return (
                421,
                "the request names another host; open the page by the address that `sim explore` printed",
            )
        origin = heads.get("origin")
        if origin is not None and not (origin.startswith("http://") and self.rules.knows(origin[7:])):
            return 403, "the request comes from another page, which may ask nothing here"
        if heads.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return 403, "the request comes from another page, which may ask nothing here"
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "only GET and POST are answered"
        if (
            scope["method"] == "POST"
            and heads.get("content-type", "").partition(";")[0] != "application/json"
        ):
            return 415, "the body must be JSON (content-type: application/json)"
        if scope["path"].startswith("/api/") and not self._has_token(heads):
            return 401, "the token is missing or wrong; open the whole address that `sim explore` printed"
        if heads.get("content-length", "0").isdigit() and int(heads.get("content-length", "0")) > _most(
            scope["path"]
        ):
            return 413, f"the request is larger than {_most(scope['path']):,} bytes; send less"
        return None

    def _has_token(self, heads: dict[str, str]) -> bool:
        if self.rules.token is None:
            return True
        given = heads.get("authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(given.encode(), self.rules.token.encode())


def _most(path: str) -> int:
    return MOST_MEASURED_BYTES if path == "/api/measured" else MOST_BODY_BYTES


async def _body(receive: Receive, most: int) -> bytes | None:
    """The whole body; None where it is larger than `most` bytes."""
    parts, size, more = list[bytes](), 0, True
    while more:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            return None
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def _once(body: bytes, receive: Receive) -> Receive:
    """Hands the body over once, and then what the connection says."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return waiting.pop() if waiting else await receive()

    return give


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            ours = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *ours]}
        await send(message)

    return sent


async def _refuse(send: Send, status: int, why: str) -> None:
    heads = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": heads})
    await send({"type": "http.response.body", "body": json.dumps({"error": why, "faults": []}).encode()})


async def _closed(send: Send) -> None:
    await send({"type": "websocket.close", "code": 1008})
