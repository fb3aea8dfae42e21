"""RingCosts: the mean cost of any placement of an engine, as arrays over devices and pairs of devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from simulator.laws.law import Floats

__all__ = ["ROLES", "Ints", "RingCosts"]

Ints = NDArray[np.int64]
ROLES = {"middle": 0, "first": 1, "last": 2, "alone": 3}
"""Rows of `RingCosts.caps`."""


@dataclass(frozen=True)
class RingCosts:
    """Mean seconds of one decode step, in arrays over D devices; what a part is not there for is 0.

    `caps` is (4, D): whole layers that a device has room for in the middle, first,
    last, or alone in the ring.
    """

    layers: int
    layer_s: Floats
    """Of one more layer on each device."""
    caps: Ints
    each_s: Floats
    """Of every device that takes part."""
    first_s: Floats
    last_s: Floats
    most_s: Floats
    """Done by all at once, so that only the slowest counts (EXO's head)."""
    walk_s: Floats
    """(D, D): of the neighbours a, b in the ring, both ways where the engine sends both ways."""
    close_s: Floats
    """(D, D): from the last to the first."""
    star_s: Floats
    """(D, D): of the first with each other one."""
    contention: float = 0.0
    """Slow-down of all devices by each further one (one machine plays them all)."""
    embedding: int | None = None
    head: int | None = None
    """Devices that hold no layer and are first or last."""
    least_devices: int = 1

    @property
    def devices(self) -> int:
        """D."""
        return len(self.layer_s)

    @cached_property
    def holds_layers(self) -> NDArray[np.bool_]:
        """Which devices may hold layers."""
        free = np.ones(self.devices, dtype=bool)
        free[[at for at in (self.embedding, self.head) if at is not None]] = False
        return free

    def only(self, chosen: Sequence[int]) -> RingCosts:
        """The same for these devices alone, which must include the pinned ones."""
        # arrays of devices lose rows, tables of pairs rows and columns, caps columns
        at = list(chosen)
        alone = {
            name: getattr(self, name)[at] for name in ("layer_s", "each_s", "first_s", "last_s", "most_s")
        }
        pairs = {name: getattr(self, name)[np.ix_(at, at)] for name in ("walk_s", "close_s", "star_s")}
        embedding, head = (None if pin is None else at.index(pin) for pin in (self.embedding, self.head))
        return replace(self, caps=self.caps[:, at], embedding=embedding, head=head, **alone, **pairs)

    def plus(self, other: RingCosts, times: float = 1.0) -> RingCosts:
        """These costs and `times` the other's; caps and pins are kept."""
        names = ("layer_s", "each_s", "first_s", "last_s", "most_s", "walk_s", "close_s", "star_s")
        return replace(self, **{name: getattr(self, name) + times * getattr(other, name) for name in names})
