"""Collectives: who sends how many bytes to whom, round by round.

An all-reduce leaves the sum of all ranks' values with every rank, an all-gather all values, an all-to-all
brings each rank its part of every other's. In a round each rank sends to the same relative ranks, and goes on
when it has what is sent to it. As read from MLX 0.32 (`mlx/distributed/ring/ring.cpp`, `jaccl/mesh.cpp`) and
distributed-llama 0.16 (`src/nn/nn-network.cpp`).

============ =========================================================================================
algorithm    rounds of an all-reduce of S bytes among N ranks
============ =========================================================================================
`ring`       2 (N - 1), each S / N to the right neighbour: reduce-scatter, then gather
`mesh`       1, S to every other rank; above `MESH_SMALL_BYTES` with N > 2 two, S / N each
`exchange`   1, S to every other rank, however large
============ =========================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

__all__ = ["MESH_SMALL_BYTES", "Algorithm", "Operation", "Round", "alone_s", "rounds"]

Algorithm = Literal["ring", "mesh", "exchange"]
Operation = Literal["all_reduce", "all_gather", "all_to_all"]
MESH_SMALL_BYTES = 32 * 1024
"""Up to here JACCL's mesh sends everything to everybody (`jaccl/mesh.cpp` of MLX 0.32)."""


class Round(NamedTuple):
    """Each rank r sends `size_bytes` to rank r + offset, one offset after the other."""

    offsets: tuple[int, ...]
    size_bytes: float


def rounds(operation: Operation, algorithm: Algorithm, ranks: int, size_bytes: float) -> tuple[Round, ...]:
    """The rounds of a collective among `ranks`; none for one rank.

    `size_bytes` is all that a rank has to give: the vector of an all-reduce, its own part of an all-gather.
    """
    if ranks == 1:
        return ()
    others = tuple(range(1, ranks))
    if operation == "all_to_all":
        return (Round(others, size_bytes / ranks),)
    if algorithm == "ring":
        if operation == "all_gather":
            return (Round((-1,), size_bytes),) * (ranks - 1)
        return (Round((1,), size_bytes / ranks),) * (2 * (ranks - 1))
    if operation == "all_reduce" and algorithm == "mesh" and ranks > 2 and size_bytes > MESH_SMALL_BYTES:
        return (Round(others, size_bytes / ranks),) * 2
    return (Round(others, size_bytes),)


def alone_s(of: Sequence[Round], delay_s: float, seconds_per_byte: float) -> float:
    """Seconds of a collective that all ranks begin together, with equal constant links: the closed form
    `sum over rounds of (len(offsets) size_bytes seconds_per_byte + delay_s)`.
    """
    return sum(len(one.offsets) * one.size_bytes * seconds_per_byte + delay_s for one in of)
