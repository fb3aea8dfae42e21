"""Layers that differ: runs of layers for devices in ring order, by what the layers weigh."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import inf

__all__ = ["partition"]


def partition(
    work: Sequence[float], sizes: Sequence[float], speeds: Sequence[float], caps: Sequence[float]
) -> tuple[int, ...] | None:
    """How many layers each device takes so that the slowest is as fast as can be; None where they do not fit.

    `work[l]` is what layer l costs on a device of speed 1, `sizes[l]` its bytes; device d has `speeds[d]` and room
    for `caps[d]` bytes. Each takes at least one layer, in order. Exact: dynamic programming over (devices,
    layers) of the least slowest device, `O(devices layers**2)`; among equals the earlier devices take fewer.

    >>> partition([1, 1, 4, 1, 1], [1] * 5, [1, 1], [9, 9])
    (2, 3)
    """
    layers = len(work)
    until = [0.0, *accumulate(work)]
    bytes_until = [0.0, *accumulate(sizes)]
    least = [[inf] * (layers + 1) for _ in range(len(speeds) + 1)]
    chosen = [[0] * (layers + 1) for _ in range(len(speeds) + 1)]
    least[0][0] = 0.0
    for d, (speed, cap) in enumerate(zip(speeds, caps, strict=True), 1):
        for end in range(d, layers + 1):
            for start in range(d - 1, end):
                if bytes_until[end] - bytes_until[start] > cap:
                    continue
                slowest = max(least[d - 1][start], (until[end] - until[start]) / speed)
                if slowest < least[d][end]:
                    least[d][end], chosen[d][end] = slowest, start
    if least[-1][layers] == inf:
        return None
    counts, end = [], layers
    for d in range(len(speeds), 0, -1):
        counts.append(end - chosen[d][end])
        end = chosen[d][end]
    return tuple(reversed(counts))
