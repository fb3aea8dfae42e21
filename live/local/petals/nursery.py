"""The process that forks all others of local swarms, and what it forked as children like any other.

One for each command, made when the first swarm starts: importing Petals takes a core five seconds and a
process 400 MB, most of which those that are forked share.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from typing import IO, Any

from live.local.children import Child
from live.local.petals.environment import LAUNCH, PETALS
from simulator.errors import EngineUnavailable

__all__ = ["Nestling", "Nursery", "nursery"]

IMPORT_S = 120.0
POLL_S = 0.01
ENVIRONMENT = {
    # nobody is asked for models, and nobody told what is loaded
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # no GPU is looked for: all devices of a local swarm are processors
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONWARNINGS": "ignore",
}


class Nursery:
    """The parent's end of it."""

    def __init__(self) -> None:
        PETALS.require()
        self._asking, theirs = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (no name, so nothing is left behind)
        with theirs:
            self.process = subprocess.Popen(
                [str(PETALS.python), "-P", str(LAUNCH), "nursery"],
                env=os.environ | ENVIRONMENT,
                stdin=theirs.fileno(),
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
            )
        self._asking.settimeout(IMPORT_S)

    def fork(self, role: str, options: Mapping[str, Any], log: IO[bytes]) -> tuple[int, socket.socket]:
        """A new process: its id, and the parent's end of its input and output; raises EngineUnavailable."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                request = json.dumps([role, dict(options)]).encode()
                socket.send_fds(self._asking, [request], [theirs.fileno(), log.fileno()])
                told = self._asking.recv(64)
            return int(told), ours
        except (OSError, ValueError) as error:
            ours.close()
            raise EngineUnavailable(
                f"Petals does not start ({type(error).__name__}: {error}){self._last_words()}; remove "
                f"{PETALS.home} and run `sim live local install --engine petals` again"
            ) from error

    def _last_words(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        lines = os.pread(self._log.fileno(), 4096, max(0, size - 4096)).decode(errors="replace").strip()
        return f"; the last it said: {lines.splitlines()[-1][:300]}" if lines else ""

    def end(self) -> None:
        """Close its pipe, which ends it."""
        self._asking.close()
        self.process.wait()
        self._log.close()


@cache
def nursery() -> Nursery:
    """The one of this command; raises EngineUnavailable."""
    made = Nursery()
    atexit.register(made.end)
    return made


class _Forked:
    """A process that another one forked for us, in the words of `subprocess.Popen`."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self._connection = connection
        self.stdout = connection.makefile("rb")
        self.stdin = _Input(connection)

    def poll(self) -> int | None:
        """None while it lives; it ends by its own signal to all of its group, whatever the reason."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            # torch's keeper of shared memory goes only after 2 s, and has the other end until then
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
            return -signal.SIGKILL
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Until it has ended; raises subprocess.TimeoutExpired."""
        until_s = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if until_s is not None and time.monotonic() > until_s:
                assert timeout is not None
                raise subprocess.TimeoutExpired("petals", timeout)
            time.sleep(POLL_S)
        return status

    def kill(self) -> None:
        """It and all that it started: handlers, the table, p2pd."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


class _Input:
    """What is written to it; closing it says that there is no more, and leaves its output open."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def write(self, data: bytes) -> None:
        """Send all of it."""
        self._connection.sendall(data)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Nothing more comes."""
        try:
            self._connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise BrokenPipeError from error


class Nestling(Child):
    """A process of a swarm: `dht`, `server` or `client`."""

    def __init__(self, name: str, role: str, options: Mapping[str, Any]) -> None:
        self._role, self._options = role, options
        super().__init__(name, role)

    def last_words(self) -> str:
        """See `Child`; here all end by the same signal, who failed as well."""
        return "" if self._log.closed else self._tail()

    def _start(self, *_: Any) -> Any:
        pid, self._connection = nursery().fork(self._role, self._options, self._log)
        return _Forked(pid, self._connection)

    def end(self) -> None:
        """See `Child`."""
        super().end()
        self._connection.close()
