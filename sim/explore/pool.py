"""A few processes that compute, so that the server stays awake and what nobody waits for any more is dropped.

A request may belong to a topic of a browser: of one topic the newest alone counts. What waits is forgotten,
what runs is left to end where that is a moment, and its process killed where it is long. A process that
computes longer than it may is killed too; a new one takes its place.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from simulator.errors import SimulatorError

__all__ = ["Busy", "Job", "Pool", "Refused", "Superseded"]

WORKERS = 2
MOST_WAITING = 64
ANSWER_S = 30.0
"""Of one answer; plans and swarms say their own."""
PATIENCE_S = 0.3
"""A job that is replaced and has run longer is killed: to start a process costs about as much."""
KEY_VARIABLE = "SIM_OPENAI_KEY"  # as live.openai.key reads it, whose import takes the HTTP client along
PRELOAD = ["sim.explore.answers", "sim.explore.planning"]


class Superseded(Exception):
    """A newer request of the same topic has come."""


class Refused(Exception):
    """The simulator refuses what was asked; `beside` has the scenario with its edits, if there is one."""

    def __init__(self, error: SimulatorError, beside: dict[str, Any]) -> None:
        super().__init__(str(error))
        self.error, self.beside = error, beside


class Busy(Exception):
    """Too many requests wait already."""


@dataclass(slots=True, eq=False)
class Job:
    """One call: the name of a function of `answers` or `planning`, and what it is asked."""

    function: str
    asked: dict[str, Any]
    topic: str
    is_quick: bool
    most_s: float
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[bytes]
    is_replaced: bool = field(default=False)

    def end(self, result: bytes | BaseException) -> None:
        """Hand the result to who waits, from any thread."""
        self.loop.call_soon_threadsafe(self._set, result)

    def _set(self, result: bytes | BaseException) -> None:
        if self.future.done():
            return
        if isinstance(result, BaseException):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class Pool:
    """Hands jobs to processes; one takes quick ones alone, so that dragging never waits for a plan."""

    def __init__(self, folder: str | None, workers: int = WORKERS, first: str = "") -> None:
        self.folder, self.first = folder, first
        self._context = _context()
        self._changed = threading.Condition()
        self._waiting: list[Job] = []
        self._running: dict[str, tuple[Job, float, Any]] = {}
        self._is_closed = False
        self._threads = [
            threading.Thread(target=self._serve, args=(number == 0 and workers > 1,), daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    async def ask(
        self,
        function: str,
        asked: dict[str, Any],
        *,
        topic: str = "",
        is_quick: bool = False,
        most_s: float = ANSWER_S,
    ) -> bytes:
        """The answer as JSON; raises Superseded, Busy, or Refused in the words of the command line."""
        loop = asyncio.get_running_loop()
        job = Job(function, asked, topic, is_quick, most_s, loop, loop.create_future())
        with self._changed:
            if topic:
                self._replace(topic)
            if len(self._waiting) >= MOST_WAITING:
                raise Busy
            self._waiting.append(job)
            self._changed.notify_all()
        return await job.future

    def close(self) -> None:
        """End all processes."""
        with self._changed:
            self._is_closed = True
            for job in self._waiting:
                job.end(Superseded())
            self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=2)

    def _replace(self, topic: str) -> None:
        """Forget older jobs of a topic; the lock is held."""
        for old in [job for job in self._waiting if job.topic == topic]:
            self._waiting.remove(old)
            old.end(Superseded())
        if topic in self._running:
            self._running[topic][0].is_replaced = True
            self._running[topic][0].end(Superseded())

    def _serve(self, is_quick_only: bool) -> None:
        """One thread and its process."""
        worker = _Worker(self._context, self.folder, self.first)
        while (job := self._next(is_quick_only)) is not None:
            job.end(worker.answer(job, self._is_pointless))
            with self._changed:
                self._running.pop(job.topic or str(id(job)), None)
        worker.stop()

    def _next(self, is_quick_only: bool) -> Job | None:
        """The next job, quick ones first; None when all is over."""
        with self._changed:
            while True:
                if self._is_closed:
                    return None
                mine = [job for job in self._waiting if job.is_quick or not is_quick_only]
                if mine:
                    job = next((one for one in mine if one.is_quick), mine[0])
                    self._waiting.remove(job)
                    self._running[job.topic or str(id(job))] = (job, time.monotonic(), None)
                    return job
                self._changed.wait()

    def _is_pointless(self, job: Job) -> bool:
        return self._is_closed or (job.is_replaced and not job.is_quick)


class _Worker:
    """A process, started again whenever it had to be killed."""

    def __init__(self, context: Any, folder: str | None, first: str) -> None:
        self.context, self.folder, self.first = context, folder, first
        self.start()

    def start(self) -> None:
        self.pipe, theirs = self.context.Pipe()
        self.process = self.context.Process(target=_work, args=(theirs, self.folder, self.first), daemon=True)
        self.process.start()
        theirs.close()

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def answer(self, job: Job, is_pointless: Callable[[Job], bool]) -> bytes | BaseException:
        """The answer, or why there is none."""
        begun_s = time.monotonic()
        try:
            self.pipe.send((job.function, job.asked))
            while not self.pipe.poll(0.05):
                spent_s = time.monotonic() - begun_s
                if spent_s > job.most_s or (spent_s > PATIENCE_S and is_pointless(job)):
                    return self._killed(job)
            is_good, found = self.pipe.recv()
        except (EOFError, OSError):
            self.stop()
            self.start()
            return _refused("the process that computed this ended; ask for less, or use the command line")
        return found if is_good else Refused(*found)

    def _killed(self, job: Job) -> BaseException:
        self.stop()
        self.start()
        if job.is_replaced:
            return Superseded()
        return _refused(
            f"this took longer than the {job.most_s:.0f} s that the page gives; ask for less, or use the "
            "command line"
        )


def _refused(words: str) -> Refused:
    return Refused(SimulatorError(words), {})


def _context() -> Any:
    """How processes are made: forked from one that has all modules, where a system can do that."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def _finite(value: Any) -> Any:
    """Plain data without numbers that JSON has not."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def _beside(asked: dict[str, Any]) -> dict[str, Any]:
    """The scenario with the edits made, as text and as plain data, to be shown beside what is wrong."""
    from sim.explore.answers import text_of, written

    try:
        text = text_of(asked) if "scenario" in asked else None
    except SimulatorError:
        text = None
    return {} if text is None else {"yaml": text, "written": _finite(written(text))}


def _work(pipe: Any, folder: str | None, first: str) -> None:
    """The life of a process: answers until the pipe is closed."""
    import signal

    from sim.explore import answers, planning

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # whoever may ask names the server that is looked at, and must not be sent the key of another one
    os.environ.pop(KEY_VARIABLE, None)
    with suppress(SimulatorError):
        # tables are filled by the first answer, which then nobody waits for
        answers.predict({"scenario": first, "quick": True}, folder)
    while True:
        try:
            function, asked = pipe.recv()
        except (EOFError, OSError):
            return
        found = getattr(answers, function, None) or getattr(planning, function)
        try:
            answer: tuple[bool, Any] = (True, json.dumps(_finite(found(asked, folder))).encode())
        except SimulatorError as error:
            answer = (False, (error, _beside(asked)))
        except MemoryError:
            answer = (False, (SimulatorError("there is no memory for this; ask for less"), {}))
        pipe.send(answer)
