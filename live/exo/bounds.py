"""How long a recovery may last."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from live.http import Aborted

__all__ = ["Bounds", "GivenUp"]


class GivenUp(Exception):
    """The reply got no token for as long as its user wants to wait."""


@dataclass
class Bounds:
    """The end of a recovery's time (`time.monotonic_ns`), the switch that calls it
    off, and what it waits for.
    """

    until_ns: int
    give_up_s: float
    abort: threading.Event
    waiting_for: str = "the cluster"

    def pause(self, seconds: float) -> None:
        """Wait; raises Aborted when called off, GivenUp when time is over."""
        if self.abort.wait(seconds):
            raise Aborted
        if time.monotonic_ns() > self.until_ns:
            raise GivenUp(
                f"given up after {self.give_up_s:g} s without a token, waiting for {self.waiting_for}; "
                "recovery.give_up sets how long"
            )
