"""What limits a chat in each world: the part of a token's time that a longer part would lengthen most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from simulator.engine.base import engine
from simulator.laws.law import Floats
from simulator.result.bottleneck import bottleneck
from simulator.result.critical import PathShare
from simulator.result.estimate import rounded
from simulator.run.evaluate import excerpt
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job

__all__ = ["limits", "path_shares"]

TOKENS = 8
"""Of one world, at the middle of the reply: enough to average its fast noise."""
STRETCH = 1 + 1e-6
"""Small enough that another path seldom becomes the critical one, far above a rounding error."""
LEAST_SHARE = 0.02
"""A hop with less of the replayed replies' time is not looked at: no world will make it the largest part."""


def limits(job: Job, worlds: int, parts: Iterable[PathShare]) -> dict[str, float]:
    """Share of the worlds in which each part is the bottleneck, the most frequent first.

    Counted are the parts of `result.bottleneck`: a device with all that it computes, one direction of a
    connection, or `all hops`, by the same rule in each world. `parts` says which hops are looked at. Waits
    for a dozing radio and for a device that other chats keep busy are not seen: the recursion knows none.
    """
    hops = [part.where for part in parts if " -> " in part.where and part.share >= LEAST_SHARE]
    # every device: one that four replays never showed may be the slowest elsewhere
    places = list(dict.fromkeys((*job.placement.devices, *hops)))
    shares = path_shares(replace(job, workload=excerpt(job.workload, TOKENS)), worlds, places)
    counts = Counter(
        bottleneck(
            [
                PathShare(kind="all", where=place, share=share, seconds_per_token=0.0)
                for place, share in zip(places, world, strict=True)
            ],
            job.cluster,
        ).where
        for world in shares.T.tolist()
    )
    return {place: rounded(count / worlds) for place, count in counts.most_common()}


def path_shares(job: Job, rows: int, places: Iterable[str]) -> Floats:
    """Share of decode time that each place (a device, or `source -> sink`) has on each row's critical path.

    Shape (places, rows). A token's time is a maximum over sums of durations, so its derivative by the
    logarithm of one place's durations is what that place adds to the longest sum: `d log t / d log place`.
    That is the path of the last token less the path of the first. `result.critical` cuts each token's path at
    the token before instead, so the two differ where the next token is begun before the last has arrived.
    """
    # both with the same random numbers, so that so small a stretch is seen at all
    plain_s = _decode_s(job, rows)
    stretched_s = [_decode_s(job, rows, place) for place in places]
    return np.array([(longer_s / plain_s - 1) / (STRETCH - 1) for longer_s in stretched_s])


def _decode_s(job: Job, rows: int, place: str = "") -> Floats:
    times_s = engine(job.engine.name).token_times_s(job, Draws(job, 0, rows, stretched=(place, STRETCH)))
    return np.asarray((times_s[:, -1] - times_s[:, 0]).mean(axis=0))
