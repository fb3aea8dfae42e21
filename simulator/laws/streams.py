"""Named random streams: the same (seed, name) gives the same numbers, whatever else is drawn.

Each name has a generator of its own (PCG64, O'Neill 2014), so adding a device moves no other device's draws.
A stream is cut into rows, one per replication and each of the same length; row i can be had alone, because
PCG64 can be advanced in constant time. The numbers are 16-bit cells of a quantile table (`law.table`).
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.laws.law import TABLE_SIZE, Floats, Law, standard_normal_table, student_scale_table, table

__all__ = ["Room", "Streams"]

Cells = NDArray[np.uint16]
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""The golden section of 2**64: multiples of it, modulo that, lie as evenly as any sequence's."""


class Room(NamedTuple):
    """Memory for draws, each overwriting the last.

    Fresh memory costs the system more than it costs to draw what comes into it: with room made once, draws of
    a hundred thousand numbers are three times as fast.
    """

    cells: NDArray[np.intp]
    """In the type that `take` looks up by; it would convert any other in a pass of its own."""
    values: Floats

    @classmethod
    def of(cls, n: int, rows: int) -> Room:
        """Room for draws of that shape."""
        return cls(np.empty((n, rows), np.intp), np.empty((n, rows)))


@dataclass(frozen=True, slots=True)
class Streams:
    """All random numbers of rows `first` to `first + rows` of a study with this seed."""

    seed: int
    first: int = 0
    rows: int = 1

    def cells(self, name: str, n: int) -> Cells:
        """Uniform cells of the stream `name`, shape (rows, n)."""
        # four cells to a word of 64 bits; a row begins with a word of its own, so that `advance` finds it
        words = -(-n // 4)
        generator = np.random.PCG64(np.random.SeedSequence((self.seed, _key(name))))
        generator.advance(self.first * words)
        raw = generator.random_raw(self.rows * words)
        # little-endian on every machine, so that the order of the four cells in a word is the same everywhere
        return raw.astype("<u8", copy=False).view("<u2").reshape(self.rows, 4 * words)[:, :n]

    def draws(self, name: str, law: Law, n: int, room: Room | None = None) -> Floats:
        """Draws of `law` (seconds), shape (n, rows); in `room`, if one is given."""
        room = room or Room.of(n, self.rows)
        drawn = self._looked_up(table(law), name, n, room)
        # one draw in 65,536 lies in the last cell, where a tail goes on as far as chance takes it
        for step, row in np.argwhere(room.cells == TABLE_SIZE - 1).tolist():
            beyond = self._share(f"{name}/{self.first + row}/{step}") / TABLE_SIZE
            drawn[step, row] = law.quantile(np.array([1 - beyond]))[0]
        return drawn

    def _share(self, name: str) -> float:
        """A number above 0 and up to 1 that is the same wherever this one draw is made."""
        return (_key(f"{self.seed}/{name}") + 1) / 2**64

    def normals(self, name: str, n: int) -> Floats:
        """Standard normal draws, shape (n, rows)."""
        return self._looked_up(standard_normal_table(), name, n, None)

    def student_scales(self, name: str, degrees_of_freedom: float) -> Floats:
        """What makes normal draws ones of Student's t, one per row, shape (rows,).

        Rows take turns evenly (a Kronecker sequence: golden sections from a random start), so that two
        hundred have as many odd ones as they should.
        """
        rows = np.arange(self.first, self.first + self.rows, dtype=np.uint64)
        turns = (rows * GOLDEN + np.uint64(_key(f"{self.seed}/{name}"))) >> np.uint64(48)
        scales: Floats = student_scale_table(degrees_of_freedom)[turns]
        return scales

    def factors(self, name: str, log_sd: float | Floats) -> Floats:
        """One lognormal factor with median 1 per row, `exp(log_sd z)`, shape (rows,)."""
        return np.asarray(np.exp(log_sd * self.normals(name, 1)[0]))

    def _looked_up(self, quantiles: Floats, name: str, n: int, room: Room | None) -> Floats:
        room = room or Room.of(n, self.rows)
        # turned round, so that all rows of one step lie side by side in memory
        np.copyto(room.cells, self.cells(name, n).T)
        # no cell is out of range: "clip" only spares a check, and a copy of what is written to `out`
        return np.take(quantiles, room.cells, out=room.values, mode="clip")


def _key(name: str) -> int:
    # not hash(): that of a text differs from process to process
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")
