"""The instances that this program made: they go when it goes, and nothing else does."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any

from live.errors import LiveError, RequestRefused
from live.exo.reader import ExoReader

__all__ = ["Owned"]

# a new instance is in the state 0.02 to 0.2 s after the request (recordings); an election pauses 3 s
IN_FLIGHT_S = 3.0
DELETE_S = 5.0


class Owned:
    """A register of instances, with signals turned into exceptions so that leaving cleans up."""

    def __init__(self, client: ExoReader) -> None:
        self._client = client
        self._ids: dict[str, float] = {}
        self._expected: tuple[str, set[str]] | None = None
        self._handlers: dict[int, Any] = {}

    def add(self, instance_id: str) -> None:
        """This instance is ours."""
        # when it was made: how long a 404 may still mean that it is on its way
        self._ids[instance_id] = time.monotonic()

    def forget(self, instance_id: str) -> None:
        """It is not, or no more."""
        self._ids.pop(instance_id, None)

    def has(self, instance_id: str) -> bool:
        """Whether it is ours."""
        return instance_id in self._ids

    def expect(self, model_id: str | None, before: set[str]) -> None:
        """An instance of `model_id` beside those `before` is on its way; None: no more."""
        self._expected = (model_id, before) if model_id else None

    def delete(self, instance_id: str) -> None:
        """Delete one of ours.

        A 404 right after creation may mean that the creation is still on its way, so it
        is asked again for a while.
        """
        deadline = self._ids[instance_id] + IN_FLIGHT_S
        while True:
            try:
                self._client.http.json("DELETE", f"/instance/{instance_id}", within_s=DELETE_S)
            except RequestRefused as error:
                if error.status != 404:
                    raise
                if time.monotonic() < deadline:
                    time.sleep(0.1)
                    continue
            self.forget(instance_id)
            return

    def release(self) -> tuple[str, ...]:
        """Delete all of ours and give the signals back; the ids of what was deleted.

        Raises LiveError naming what could not be deleted.
        """
        self._ignore_interrupts()
        self._adopt_expected()
        left, gone = [], []
        for instance_id in list(self._ids):
            try:
                self.delete(instance_id)
                gone.append(instance_id)
            except LiveError as error:
                left.append(f"{instance_id} ({error})")
        self._restore_signals()
        if left:
            raise LiveError(
                f"could not delete what this run made: {'; '.join(left)}; delete it in EXO's dashboard"
            )
        return tuple(gone)

    def _adopt_expected(self) -> None:
        """An interrupt came between asking EXO to place and seeing the instance: the
        one new one must be ours.
        """
        if self._expected is None:
            return
        model_id, before = self._expected
        self._expected = None
        deadline = time.monotonic() + IN_FLIGHT_S
        with suppress(LiveError):
            while time.monotonic() < deadline:
                found = self._client.state().instances.values()
                new = [one for one in found if one.instance_id not in before and one.model_id == model_id]
                if new:
                    # two new ones: one may belong to somebody else, and is left alone
                    if len(new) == 1:
                        self.add(new[0].instance_id)
                    return
                time.sleep(0.1)

    def watch_signals(self) -> None:
        """Turn SIGTERM and SIGHUP into KeyboardInterrupt;
        only the main thread may, elsewhere nothing happens.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None:
                self._handlers[number] = signal.signal(number, _interrupt)

    def _ignore_interrupts(self) -> None:
        """A second Ctrl-C must not leave instances behind; what follows takes seconds at most."""
        if threading.current_thread() is threading.main_thread():
            for number in {signal.SIGINT, *self._handlers}:
                former = signal.signal(number, signal.SIG_IGN)
                self._handlers.setdefault(number, former)

    def _restore_signals(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
