"""The rate of the measurement that another process is writing, read from its file as it grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from live.errors import LiveError
from simulator.errors import SimulatorError
from simulator.files import json_line
from simulator.files.explain import in_words
from simulator.result.events import checked_event
from simulator.scenario import Scenario

__all__ = ["ENOUGH", "Followed"]

ENOUGH = 16
"""Tokens below which a rate is not held against an interval."""
MOST_BYTES = 8 * 2**20  # read at once; a header with a large state has some 100 kB


class Followed:
    """A Measurement file that grows; `rate` is of the newest reply."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.scenario: Scenario | None = None
        self.tokens = 0
        self.has_ended = False
        self._at = 0
        self._reply: tuple[Any, ...] | None = None
        self._span: tuple[int, int] = (0, 0)
        self._lines = 0

    def read(self) -> None:
        """Take in what was added; raises LiveError for a file that cannot be read or is no Measurement."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._at)
                added = file.read(MOST_BYTES)
        except OSError as error:
            raise LiveError(
                f"{self.path}: {error.strerror}; name the file that `sim live run` writes"
            ) from None
        # the last line may still be written
        whole, _, _ = added.rpartition(b"\n")
        self._at += len(whole) + 1 if whole else 0
        if not whole and len(added) == MOST_BYTES:
            raise LiveError(
                f"{self.path}:{self._lines + 1}: no line of a measurement (more than {MOST_BYTES >> 20} MiB)"
            )
        for line in whole.split(b"\n") if whole else ():
            self._lines += 1
            self._take(line)

    def _take(self, line: bytes) -> None:
        found = json_line(line)
        event = checked_event(found) if isinstance(found, dict) else found
        if isinstance(event, str):
            raise LiveError(f"{self.path}:{self._lines}: no line of a measurement ({event})")
        kind = event["type"]
        if kind == "header":
            self.scenario = self._scenario(event.get("scenario"))
        elif kind == "end":
            self.has_ended = True
        elif kind in ("token", "chunk"):
            self._note((event.get("run"), event.get("chat"), kind), event["t_ns"])

    def _scenario(self, given: Any) -> Scenario | None:
        try:
            return Scenario.model_validate(given) if given else None
        except (ValidationError, SimulatorError) as error:
            why = in_words(error) if isinstance(error, ValidationError) else str(error)
            raise LiveError(f"{self.path}:{self._lines}: scenario: {why}") from None

    def _note(self, reply: tuple[Any, ...], t_ns: int) -> None:
        """Tokens of one reply have its clock; where tokens come at its end, its chunks stand in for them."""
        if reply != self._reply:
            self._reply, self.tokens, self._span = reply, 0, (t_ns, t_ns)
        self.tokens += 1
        self._span = (self._span[0], t_ns)

    @property
    def rate(self) -> float | None:
        """Tokens per second of the newest reply, of one chat; None below two tokens."""
        begin, end = self._span
        return 1e9 * (self.tokens - 1) / (end - begin) if self.tokens > 1 and end > begin else None
