"""Tokens that arrive in bursts: what of their times is true, and token times made of that alone.

Where the process that hands tokens out gets no turn on a busy machine, it delivers what has gathered at
once: many gaps of nothing, then one of a second. The time from one packet to the next is still that of its
tokens, so sums over packets are true and single gaps are not. (Of a real EXO cluster's replies in
bursts the mean gap was the engine's own count within 5 %, what came with the first token aside.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from simulator.laws.law import Floats

__all__ = ["BURSTING", "SHORT", "Arrivals", "arrivals", "in_words"]

SHORT = 0.15
"""A gap below this share of the mean gap is none: each token goes through all layers, and no machine does
that seven times as fast as it does on average.
"""
BURSTING = 0.1
"""A reply with more than this share of short gaps arrives in bursts; a late token now and then is none. Of
358 replies recorded on quiet machines (`results/exo`, `results/local`) the most had 6%.
"""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """The token times of one reply (s), and the share of its gaps that are short."""

    times_s: Floats
    """As they arrived; in a reply that arrives in bursts, tokens evenly over the wait for their packet."""
    short_share: float

    @property
    def bursts(self) -> bool:
        """Whether the reply arrives in bursts."""
        return self.short_share > BURSTING


def arrivals(times_s: Floats) -> Arrivals:
    """Token times (s) as estimates are to take them; every packet's last token stays where it is.

    Times are positive and run forward. Where all tokens came at once there is nothing to spread them over.
    """
    gaps = np.diff(times_s)
    short = gaps < SHORT * gaps.mean() if len(gaps) else gaps > 0
    share = float(np.mean(short)) if len(short) else 0.0
    if share <= BURSTING or times_s[-1] <= times_s[0]:
        return Arrivals(times_s, share)
    # the last token of each packet: what comes next was waited for from there
    ends = np.append(np.flatnonzero(~short), len(times_s) - 1)
    placed = np.interp(np.arange(len(times_s)), ends, times_s[ends])
    # what came with the first token was waited for with the prompt: one mean gap apart, after the request
    head = ends[0]
    mean_s = (times_s[-1] - times_s[head]) / (len(times_s) - 1 - head)
    placed[:head] -= min(mean_s, times_s[head] / (head + 1)) * np.arange(head, 0, -1)
    return Arrivals(placed, share)


def in_words(found: Mapping[tuple[int, int], Arrivals]) -> list[str]:
    """A doubt about the replies, by run and chat, that arrive in bursts; none where none does."""
    bursts = {key: one for key, one in found.items() if one.bursts}
    if not bursts:
        return []
    runs = ", ".join(str(run) for run in sorted({run for run, _ in bursts}))
    most = max(one.short_share for one in bursts.values())
    return [
        f"{len(bursts)} of {len(found)} replies arrive in bursts (run {runs}; up to {most:.0%} of their "
        "tokens come with the one before): each packet's tokens are spread over the wait for it, so rates "
        "are true and single gaps are estimates"
    ]
