"""The client's mean inter-token time: the same rule decides in a simulation and on a real cluster."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MeanGap"]

NEWEST = 1 / 8  # weight of the newest gap, as TCP weighs round trips (RFC 6298, alpha)


@dataclass(slots=True)
class MeanGap:
    """Mean gap between tokens (s), in which each gap counts an eighth and what was before the rest.

    `mean += (gap - mean) / 8`; None until two tokens have come. A gap of 0 is a packet that held several
    tokens, and is no start for a mean.

    >>> gap = MeanGap()
    >>> for at_s in (0.0, 1.0, 3.0):
    ...     gap.note(at_s)
    >>> gap.mean_s
    1.125
    """

    mean_s: float | None = None
    last_s: float | None = None
    """When the last token came."""

    def note(self, at_s: float) -> None:
        """A token came at `at_s`."""
        if self.last_s is not None:
            gap_s = at_s - self.last_s
            self.mean_s = self.mean_s + NEWEST * (gap_s - self.mean_s) if self.mean_s else gap_s
        self.last_s = at_s
