"""Where a token's time goes: the critical path of decoding, added up by kind and place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from simulator.runtime.record import Recorder, Span
from simulator.spec import Spec

__all__ = ["PathShare", "TokenPath", "critical_shares", "token_paths"]


class PathShare(Spec):
    """One kind of span at one place, as a share of the time between first and last token."""

    kind: str
    """compute (layers), head (output head, sampling, host work), hop (a message) or
    queue (waiting for a port).
    """
    where: str
    share: float
    seconds_per_token: float


@dataclass(frozen=True, slots=True)
class TokenPath:
    """The critical path of one token: spans in time order that end with the token."""

    stream: int
    token: int
    start_s: float
    end_s: float
    spans: tuple[Span, ...]


def token_paths(recorder: Recorder) -> list[TokenPath]:
    """For each token but the first: the spans between the token before and this one, latest last.

    A span that began before the earlier token counts with the part after it, so lengths
    sum to the inter-token time.
    """
    paths: list[TokenPath] = []
    before: dict[int, float] = {}
    for stream, token, time_s, index in recorder.tokens:
        start_s = before.get(stream)
        before[stream] = time_s
        if start_s is not None:
            paths.append(TokenPath(stream, token, start_s, time_s, _between(recorder, index, start_s)))
    return paths


def _between(recorder: Recorder, index: int, start_s: float) -> tuple[Span, ...]:
    spans: list[Span] = []
    for span in recorder.critical_path(index):
        # walked backwards: from here on it is the path of the token before
        if span.end_s <= start_s:
            break
        spans.append(span._replace(start_s=max(span.start_s, start_s)))
    return tuple(reversed(spans))


def critical_shares(recorders: Iterable[Recorder]) -> tuple[PathShare, ...]:
    """Shares of decode time over some replications, the largest first; they sum to 1."""
    totals: dict[tuple[str, str], float] = {}
    time_s, tokens = 0.0, 0
    for recorder in recorders:
        for path in token_paths(recorder):
            tokens += 1
            time_s += path.end_s - path.start_s
            for span in path.spans:
                key = (span.kind, span.where)
                totals[key] = totals.get(key, 0.0) + span.end_s - span.start_s
    return tuple(
        PathShare(kind=kind, where=where, share=total / time_s, seconds_per_token=total / tokens)
        for (kind, where), total in sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    )
