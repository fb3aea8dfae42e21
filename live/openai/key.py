"""The server's key: from the environment into one request header, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterator

import httpx

from simulator.errors import LiveError

__all__ = ["KEY_VARIABLE", "KeyTransport", "key_here"]

# not OPENAI_API_KEY: who has that one set has it for a service far away, and the address on the command line
# may be anybody's machine, reached without encryption
KEY_VARIABLE = "SIM_OPENAI_KEY"
REMOVED = b"REMOVED"


def key_here() -> str | None:
    """The key that the environment holds; raises LiveError for one that no header can hold."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise LiveError(f"{KEY_VARIABLE} holds characters that no key has; set it again (it is not shown)")
    return key or None


class KeyTransport(httpx.BaseTransport):
    """Adds the key on the way out and removes it from all that comes back.

    What lies above (messages, recordings, measurements) never sees it, even where a server repeats it.
    """

    def __init__(self, inner: httpx.BaseTransport, key: str) -> None:
        self._inner, self._key = inner, key.encode()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange; only a copy of the request holds the key."""
        headers = httpx.Headers(request.headers)
        headers["authorization"] = f"Bearer {self._key.decode()}"
        inner = httpx.Request(
            request.method,
            request.url,
            headers=headers,
            stream=request.stream,
            extensions=dict(request.extensions),
        )
        response = self._inner.handle_request(inner)
        response.headers = httpx.Headers(
            [(name, value.replace(self._key, REMOVED)) for name, value in response.headers.raw]
        )
        response.stream = _Cleaned(response.stream, self._key)  # type: ignore[arg-type]  # never asynchronous
        return response


class _Cleaned(httpx.SyncByteStream):
    """A body without the key, handed on as it comes."""

    def __init__(self, inner: httpx.SyncByteStream, key: bytes) -> None:
        self._inner, self._key = inner, key

    def __iter__(self) -> Iterator[bytes]:
        held = b""
        for chunk in self._inner:
            whole = (held + chunk).replace(self._key, REMOVED)
            # the key may be cut in two by a packet: what could be its beginning waits, all else goes on
            length = next(n for n in range(len(self._key) - 1, -1, -1) if whole.endswith(self._key[:n]))
            held = whole[len(whole) - length :]
            if len(whole) > length:
                yield whole[: len(whole) - length]
        if held:
            yield held

    def close(self) -> None:
        self._inner.close()
