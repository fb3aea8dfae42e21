"""Ports and hops as arithmetic on arrays: what `network` does for one row, for all rows at once."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from simulator.laws.law import Floats

__all__ = ["Lane", "SendQueue"]


@dataclass
class SendQueue:
    """A device's network interface for all rows; the arithmetic twin of `network.Port`."""

    free_s: Floats | float = 0.0


@dataclass
class Lane:
    """One direction of one link for all rows; the arithmetic twin of `network.Hop`."""

    seconds_per_byte: Floats
    port: SendQueue = field(default_factory=SendQueue)
    last_s: Floats | float = 0.0

    def send(self, now_s: Floats, size_bytes: float, delay_s: Floats) -> Floats:
        """When a message sent at `now_s` arrives (s): after its turn at the port, and in order."""
        self.port.free_s = np.maximum(now_s, self.port.free_s) + size_bytes * self.seconds_per_byte
        self.last_s = arrival_s = np.maximum(self.port.free_s + delay_s, self.last_s)
        return arrival_s
