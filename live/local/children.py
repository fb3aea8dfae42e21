"""Child processes that never outlive the command: both ends of the pipe between `sim` and its workers.

Parent and child speak JSON lines over the child's standard input and output. The
input doubles as a lifeline: when the parent is gone, however it went, the child
reads its end and leaves at once; on Linux the kernel kills it as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from simulator.errors import LiveError

__all__ = [
    "Child",
    "Event",
    "Lifeline",
    "be_punctual",
    "die_with_parent",
    "module_command",
    "module_environment",
]

Event = dict[str, Any]
PR_SET_PDEATHSIG, PR_SET_TIMERSLACK = 1, 29  # <linux/prctl.h>; by default a sleeper may be 50 us late
GOODBYE_S = 2.0
LOG_TAIL_BYTES = 4096
ENVIRONMENT = {"GGML_NO_BACKTRACE": "1"}  # else an abort of llama.cpp starts a debugger, which takes seconds


def module_command(module: str, *arguments: str) -> list[str]:
    """The command line of one of our modules in a process of its own; see `module_environment`."""
    # -P: `-m` alone looks into the working directory first, and runs any folder called `live` that lies there
    return [sys.executable, "-P", "-m", module, *arguments]


def module_environment() -> dict[str, str]:
    """Environment in which a child imports what this process imports, in the same order.

    The folder of this very package comes last, for a clone that is run without being installed.
    """
    own = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(dict.fromkeys([*filter(None, sys.path), own]))
    return os.environ | {"PYTHONPATH": path}


def die_with_parent() -> None:
    """Ask the Linux kernel to kill this process when its parent thread ends; elsewhere
    the lifeline alone must do.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def be_punctual() -> None:
    """Ask for what makes this process wake up on time; whatever is not permitted is left."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    try:  # before all that computes: waiting for a turn would add milliseconds to every hop
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except (OSError, AttributeError):
        with contextlib.suppress(OSError):
            os.nice(-10)


class Lifeline:
    """The child's end: tells events to the parent, hands its commands to a
    function, dies when the pipe ends.
    """

    def __init__(self) -> None:
        die_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
        self._out: IO[str] = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
        os.dup2(2, 1)  # what the C++ library prints must not mix with our lines

    def tell(self, event: str, **fields: Any) -> None:
        """Send one event to the parent."""
        self._out.write(json.dumps({"event": event, **fields}, separators=(",", ":")) + "\n")

    def obey(self, handle: Callable[[Event], None]) -> None:
        """Handle commands until the pipe ends, then leave;
        call it in the main thread or through `obey_aside`.
        """
        for line in sys.stdin:
            handle(json.loads(line))
        # not sys.exit, which would end this thread alone while the main one computes in C++
        os._exit(0)

    def obey_aside(self, handle: Callable[[Event], None]) -> None:
        """Handle commands in a thread of their own, for a main thread that is busy in C++."""
        threading.Thread(target=self.obey, args=(handle,), daemon=True).start()


class Child:
    """The parent's end of one worker; `name` is what a person calls it."""

    def __init__(
        self,
        name: str,
        module: str,
        *arguments: str,
        command: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start a module of ours, or `command` where its program runs in another Python."""
        self.name = name
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (no name, so nothing is left behind; closed by `end`)
        self.process = self._start(command or module_command(module, *arguments), environment)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _start(
        self, command: Sequence[str], environment: Mapping[str, str] | None
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env=(module_environment() | ENVIRONMENT) if environment is None else dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # a Ctrl-C in the terminal goes to the whole group: the parent alone decides what stops, and in
            # which order
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._events.put(json.loads(line))
        # the end of its output, whatever the reason: whoever waits must not wait for ever
        self._events.put(None)

    def command(self, do: str, **fields: Any) -> None:
        """Send one command; a child that is gone is noticed when its answer is awaited."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass

    def wait_for(self, event: str, timeout_s: float, watch: Callable[[], None] = lambda: None) -> Event:
        """The next event of that name; `watch` is called while waiting and may raise.

        Raises LiveError when the child ends, reports an error, or says nothing for `timeout_s`.
        """
        while (found := self.next_event(timeout_s, watch))["event"] != event:
            pass
        return found

    def next_event(self, timeout_s: float, watch: Callable[[], None] = lambda: None) -> Event:
        """The next event, whatever it is; see `wait_for`."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            watch()
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise LiveError(
                    f"{self.name} (process {self.pid}) has said nothing for {timeout_s:.0f} s"
                    f"{self.last_words()}"
                )
            try:
                # in slices, so that `watch` notices another process that has died
                event = self._events.get(timeout=min(0.2, left_s))
            except queue.Empty:
                continue
            if event is None:
                self.process.wait(GOODBYE_S)
                watch()  # the true cause may be another process
                raise LiveError(f"{self.name} {self.how_it_ended()}{self.last_words()}")
            if event["event"] == "error":
                raise LiveError(
                    f"{self.name}: {event['text']}{self.last_words() if event.get('see_log') else ''}"
                )
            return event

    def ask(self, do: str, event: str, timeout_s: float = 10.0, **fields: Any) -> Event:
        """Send a command and wait for its answer."""
        self.command(do, **fields)
        return self.wait_for(event, timeout_s)

    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self.process.poll() is not None

    def how_it_ended(self) -> str:
        """For a message: 'was killed by SIGKILL', 'ended with status 3'."""
        status = self.process.poll()
        if status is None:
            return "closed its pipe"
        if status < 0:
            return f"(process {self.pid}) was killed by {signal.Signals(-status).name}"
        return f"(process {self.pid}) ended with status {status}"

    def last_words(self) -> str:
        """The last line of its log, for a message; nothing when it was killed, for then it had no say."""
        if self._log.closed or self.process.poll() == -signal.SIGKILL:
            return ""
        return self._tail()

    def _tail(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        tail = os.pread(self._log.fileno(), LOG_TAIL_BYTES, max(0, size - LOG_TAIL_BYTES))
        lines = tail.decode(errors="replace").strip().splitlines()
        return f"; the last it said: {lines[-1][:300]}" if lines else ""

    def end(self) -> None:
        """Close the lifeline, then make sure; returns when the process is gone."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            os.kill(self.pid, signal.SIGCONT)  # a throttled child may stand still
            self.process.wait(GOODBYE_S)
        except ProcessLookupError:
            pass
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.process.wait()
        # a grandchild may still hold the pipe, so the wait has an end
        self._listener.join(GOODBYE_S)
        self._log.close()
