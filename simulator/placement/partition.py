"""Layers that differ: runs of layers for devices in ring order, by what the layers weigh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from math import inf

__all__ = ["partition"]


def partition(
    work: Sequence[float],
    sizes: Sequence[float],
    speeds: Sequence[float],
    caps: Sequence[float],
    *,
    of: Callable[[float, float], float] = max,
) -> tuple[int, ...] | None:
    """How many layers each device takes so that the slowest is as fast as can be; None where they do not fit.

    `work[l]` is what layer l costs on a device of speed 1, `sizes[l]` its bytes; device d has `speeds[d]` and
    room for `caps[d]` bytes. Each takes at least one layer, in order. With `of=operator.add` the sum of all
    devices' times is least instead. Exact: dynamic programming over (devices, layers), `O(devices
    layers**2)`; among equals the earlier devices take fewer layers.

    >>> partition([1, 1, 4, 1, 1], [1] * 5, [1, 1], [9, 9])
    (2, 3)
    """
    layers = len(work)
    until, bytes_until = [0.0, *accumulate(work)], [0.0, *accumulate(sizes)]
    least = [0.0, *[inf] * layers]
    starts = []
    for d, (speed, cap) in enumerate(zip(speeds, caps, strict=True), 1):
        before, least, start_of = least, [inf] * (layers + 1), [0] * (layers + 1)
        for end in range(d, layers + 1):
            # each of the d - 1 devices before has one layer at least
            for start in range(d - 1, end):
                if bytes_until[end] - bytes_until[start] <= cap:
                    value = of(before[start], (until[end] - until[start]) / speed)
                    # strictly: of equals the least start stays, so that earlier devices take fewer
                    if value < least[end]:
                        least[end], start_of[end] = value, start
        starts.append(start_of)
    if least[layers] == inf:
        return None
    ends = [layers]
    for start_of in reversed(starts):
        ends.append(start_of[ends[-1]])
    return tuple(end - start for start, end in pairwise(reversed(ends)))
