"""Spans: what happened where and when in one replication, each with what it had waited for.

`cause` is the span that released this one. Walking the causes back from a token gives its critical path,
whose spans follow each other without gap, so their lengths sum to the token's time exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Recorder", "Span"]


class Span(NamedTuple):
    """One stretch of time; times in seconds from the request."""

    kind: str
    """prefill, compute, head, hop (a message on its way), queue (a message waiting for
    its port or medium), phase.
    """
    where: str
    """A device, or `source -> sink`."""
    step: int
    """Decode step; negative while the prompt is read."""
    start_s: float
    end_s: float
    cause: int
    """Index of the span that released this one, -1 for the request itself."""


@dataclass(slots=True)
class Recorder:
    """Token times always; spans when `spans` is asked for."""

    keep_spans: bool = False
    spans: list[Span] = field(default_factory=list)
    tokens: list[tuple[int, int, float, int]] = field(default_factory=list)
    """(session, token, time in s, span that made it)."""

    def span(self, kind: str, where: str, step: int, start_s: float, end_s: float, cause: int) -> int:
        """Add a span and return its index; one of no length, or none that is kept, passes on its cause."""
        if not self.keep_spans or end_s <= start_s:
            return cause
        self.spans.append(Span(kind, where, step, start_s, end_s, cause))
        return len(self.spans) - 1

    def token(self, session: int, token: int, time_s: float, cause: int) -> None:
        """A token has reached the client."""
        self.tokens.append((session, token, time_s, cause))

    def critical_path(self, index: int) -> Iterator[Span]:
        """The chain of spans that led to span `index`, latest first."""
        while index >= 0:
            span = self.spans[index]
            yield span
            index = span.cause
