"""What chats do alike on every engine that serves them one by one: be let in, and wait for a device."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import simpy

from simulator.runtime.record import Recorder

__all__ = ["FirstCome", "admit"]


def admit(
    env: simpy.Environment,
    admitted: simpy.Resource,
    arrival_s: float,
    story: Generator[simpy.Event, Any, None],
) -> Generator[simpy.Event, Any, None]:
    """A chat comes at `arrival_s`, waits to be let in, and is answered."""
    if arrival_s > 0:
        yield env.timeout(arrival_s)
    with admitted.request() as place:
        yield place
        yield from story


@dataclass
class FirstCome:
    """A device that works at one token at a time, in the order in which they come."""

    env: simpy.Environment
    recorder: Recorder
    name: str
    free_s: float = field(default=0.0, init=False)

    def work(self, duration_s: float, token: int, cause: int) -> Generator[simpy.Event, Any, int]:
        """Wait for the device, then keep it busy; the span that ends with it."""
        asked_s = self.env.now
        # when the device will be free is known already, so nobody has to tell
        start_s = max(asked_s, self.free_s)
        self.free_s = start_s + duration_s
        yield self.env.timeout(self.free_s - asked_s)
        cause = self.recorder.span("queue", self.name, token, asked_s, start_s, cause)
        kind = "compute" if token else "prefill"
        return self.recorder.span(kind, self.name, token, start_s, self.env.now, cause)
