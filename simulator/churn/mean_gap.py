"""The client's mean inter-token time: the same rule decides in a simulation and on a real cluster."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.result.bursts import SHORT

__all__ = ["MeanGap"]

NEWEST = 1 / 8  # weight of the newest gap, as TCP weighs round trips (RFC 6298, alpha)


@dataclass(slots=True)
class MeanGap:
    """Mean gap between tokens (s), in which each gap counts an eighth and what was before the rest.

    `mean += (gap - mean) / 8`; None until two tokens have come. A gap of 0 is a packet that held several
    tokens, and is no start for a mean; k tokens that came together after a wait W are k gaps of W / k, or
    the mean would fall to nothing at the end of each packet, and the next one be missed.

    >>> gap = MeanGap()
    >>> for at_s in (0.0, 1.0, 3.0):
    ...     gap.note(at_s)
    >>> gap.mean_s
    1.125
    """

    mean_s: float | None = None
    last_s: float | None = None
    """When the last token came."""
    _before_s: float = 0.0
    """The mean before the newest packet, which `_tokens` tokens share and `_wait_s` was waited for."""
    _wait_s: float = 0.0
    _tokens: int = 1

    def note(self, at_s: float) -> None:
        """A token came at `at_s`."""
        if self.last_s is not None:
            gap_s = at_s - self.last_s
            if not self.mean_s:
                self.mean_s, self._before_s, self._wait_s = gap_s, gap_s, gap_s
            elif gap_s < SHORT * self._before_s:
                self._take(self._wait_s + gap_s, self._tokens + 1)
            else:
                self._before_s = self.mean_s
                self._take(gap_s, 1)
        self.last_s = at_s

    def _take(self, wait_s: float, tokens: int) -> None:
        self._wait_s, self._tokens = wait_s, tokens
        weight = 1 - (1 - NEWEST) ** tokens
        self.mean_s = self._before_s + weight * (wait_s / tokens - self._before_s)
