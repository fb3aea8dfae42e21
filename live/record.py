"""Keep the raw HTTP exchange with times, secrets removed, so that it can be replayed.

JSON Lines, one object per line, `t_ns` on the monotonic clock since the recording began:

==========  ==================================================================================
type        fields
==========  ==================================================================================
`session`   `format started` (ISO time)
`request`   `n t_ns method path headers body`: exchange number n
`response`  `n t_ns status headers`
`data`      `n t_ns text`: one line of an event stream with its end, or a whole other body
`end`       `n t_ns error`: the body ended, `error` names what broke it
==========  ==================================================================================
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from simulator.errors import LiveError

__all__ = ["ExchangeRecorder", "RecordingTransport", "redact"]

FORMAT = 1
MAX_FILE_BYTES = 2**30  # hours of streaming; a hostile server must not fill the disk
MAX_BODY_BYTES = 16 * 2**20
SECRET_HEADERS = re.compile(r"auth|cookie|token|secret|api-?key|password", re.IGNORECASE)
SECRETS = (
    (re.compile(r"\bhf_[A-Za-z0-9]{16,}"), "hf_REMOVED"),
    (re.compile(r"\bsk-[A-Za-z0-9_-]{16,}"), "sk-REMOVED"),
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 REMOVED"),
    (
        re.compile(
            r'("[^"]*(?:api_?key|password|secret|auth_?token|access_?token)[^"]*"\s*:\s*)"[^"]*"',
            re.IGNORECASE,
        ),
        r'\1"REMOVED"',
    ),
    (
        re.compile(r"([?&][^=&\s]*(?:key|token|secret|password)[^=&\s]*=)[^&\s\"]+", re.IGNORECASE),
        r"\1REMOVED",
    ),
    (re.compile(r"(/Users/|/home/)[^/\"\s]+"), r"\1somebody"),
)


def redact(text: str) -> str:
    """`text` without keys, passwords, bearer tokens and the names in home folders.

    >>> redact('{"api_key": "abc", "dir": "/Users/ada/models"}')
    '{"api_key": "REMOVED", "dir": "/Users/somebody/models"}'
    """
    for pattern, replacement in SECRETS:
        text = pattern.sub(replacement, text)
    return text


class ExchangeRecorder:
    """Appends exchanges to a new file; thread-safe."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            # "x": never over an older recording
            self._file = self.path.open("x", encoding="utf-8")
        except OSError as error:
            raise LiveError(f"{path}: cannot be recorded to ({error.strerror}); name a new file") from None
        self._lock = threading.Lock()
        self._start_ns = time.monotonic_ns()
        self._exchanges = 0
        self._written = 0
        self._line({"type": "session", "format": FORMAT, "started": datetime.now(UTC).isoformat()})

    def begin(self) -> int:
        """The number of a new exchange."""
        with self._lock:
            self._exchanges += 1
            return self._exchanges

    def write(self, kind: str, n: int, at_ns: int | None = None, **fields: Any) -> None:
        """Append one line; `at_ns` is a monotonic clock reading (default: now)."""
        t_ns = (time.monotonic_ns() if at_ns is None else at_ns) - self._start_ns
        self._line({"type": kind, "n": n, "t_ns": t_ns, **fields})

    def _line(self, event: dict[str, Any]) -> None:
        text = json.dumps(event, separators=(",", ":"), ensure_ascii=True) + "\n"
        with self._lock:
            # a thread may still be reading when the file is closed; that is no error of the measurement
            if self._file.closed or self._written + len(text) > MAX_FILE_BYTES:
                return
            self._written += len(text)
            self._file.write(text)
            self._file.flush()

    def close(self) -> None:
        """End the file."""
        with self._lock:
            self._file.close()


class RecordingTransport(httpx.BaseTransport):
    """Passes everything on to `inner` and writes it down."""

    def __init__(self, inner: httpx.BaseTransport, recorder: ExchangeRecorder) -> None:
        self._inner, self._recorder = inner, recorder

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange."""
        n = self._recorder.begin()
        self._recorder.write(
            "request",
            n,
            method=request.method,
            path=redact(request.url.raw_path.decode("ascii", "replace")),
            headers=_headers(request.headers),
            body=redact(request.read().decode("utf-8", "replace")),
        )
        try:
            response = self._inner.handle_request(request)
        except BaseException as error:
            self._recorder.write("end", n, error=f"{type(error).__name__}: {error}"[:500])
            raise
        self._recorder.write("response", n, status=response.status_code, headers=_headers(response.headers))
        watch = request.extensions.get("watch")
        response.stream = _RecordedBody(response, self._recorder, n, watch)
        return response


class _RecordedBody(httpx.SyncByteStream):
    """A body that is written down as it is read."""

    def __init__(self, response: httpx.Response, recorder: ExchangeRecorder, n: int, watch: Any) -> None:
        self._inner, self._recorder, self._n, self._watch = response.stream, recorder, n, watch
        self._by_line = "event-stream" in response.headers.get("content-type", "")
        self._rest = b""
        self._error: str | None = None
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._inner:  # type: ignore[union-attr]  # our transports are never asynchronous
                self._take(chunk)
                yield chunk
        except BaseException as error:
            self._error = (
                None if isinstance(error, GeneratorExit) else f"{type(error).__name__}: {error}"[:500]
            )
            raise

    def _take(self, chunk: bytes) -> None:
        """Lines are written whole, so that a secret split over two packets is still seen."""
        self._rest += chunk
        if self._by_line and b"\n" in chunk:
            whole, _, self._rest = self._rest.rpartition(b"\n")
            self._flush(whole + b"\n")
        if len(self._rest) > MAX_BODY_BYTES:
            self._rest = self._rest[-MAX_BODY_BYTES // 2 :]  # only a hostile server gets here

    def _flush(self, data: bytes) -> None:
        at_ns = getattr(self._watch, "read_ns", 0) or None
        self._recorder.write("data", self._n, at_ns, text=redact(data.decode("utf-8", "replace")))

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            if self._rest:
                self._flush(self._rest)
            self._recorder.write("end", self._n, error=self._error)
        self._inner.close()  # type: ignore[union-attr]


def _headers(headers: httpx.Headers) -> dict[str, str]:
    return {key: "REMOVED" if SECRET_HEADERS.search(key) else redact(value) for key, value in headers.items()}
