"""A replayed reply as Chrome trace events, which https://ui.perfetto.dev and chrome://tracing open.

Format: "Trace Event Format" of the Chromium project; times in microseconds. One process holds a track per
device, one a track per hop, one the tokens. Messages of one hop overlap in flight; as complete events of one
track may not, each hop has as many lanes as it had messages under way at once.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Sequence
from typing import Any

from simulator.runtime.record import Recorder, Span
from simulator.units import TIME

__all__ = ["perfetto_json"]

DEVICES, HOPS, TOKENS = 1, 2, 3  # process ids
PROCESSES = {DEVICES: "devices", HOPS: "hops", TOKENS: "tokens"}


def perfetto_json(recorder: Recorder, ring: Sequence[str]) -> str:
    """The JSON text of a trace with all spans of a replay, devices in ring order, events sorted by time.

    Spans on the critical path say so in their args.
    """
    tracks = _tracks(recorder.spans, ring)
    critical = _critical(recorder)
    names = [_meta("process_name", pid, 0, {"name": name}) for pid, name in PROCESSES.items()]
    events = [_instant(*token[:3]) for token in recorder.tokens]
    # thread ids count on through all tracks, which keeps their order in the viewer
    number = 0
    for where, spans in tracks.items():
        pid = HOPS if " -> " in where else DEVICES
        for lane, members in enumerate(_lanes(spans)):
            number += 1
            label = where if lane == 0 else f"{where} ({lane + 1})"
            names.append(_meta("thread_name", pid, number, {"name": label}))
            names.append(_meta("thread_sort_index", pid, number, {"sort_index": number}))
            events += [_complete(span, pid, number, span in critical) for span in members]
    events.sort(key=lambda event: (event["ts"], -event.get("dur", 0.0), event["pid"], event["tid"]))
    return json.dumps({"displayTimeUnit": "ms", "traceEvents": names + events}, separators=(",", ":"))


def _critical(recorder: Recorder) -> set[Span]:
    """The spans that lead to any token."""
    on_path: set[Span] = set()
    for *_, last in recorder.tokens:
        for span in recorder.critical_path(last):
            if span in on_path:  # what led to this one was followed from an earlier token
                break
            on_path.add(span)
    return on_path


def _tracks(spans: Iterable[Span], ring: Sequence[str]) -> dict[str, list[Span]]:
    """Spans by place: the ring first, then all others in the order of their names."""
    tracks: dict[str, list[Span]] = {name: [] for name in ring}
    for span in spans:
        tracks.setdefault(span.where, []).append(span)
    return {name: tracks[name] for name in (*ring, *sorted(tracks.keys() - set(ring)))}


def _lanes(spans: Iterable[Span]) -> list[list[Span]]:
    """Spans in lanes without overlap, as few as possible: each goes where the last one ended first."""
    lanes: list[list[Span]] = []
    free: list[tuple[float, int]] = []
    for span in sorted(spans, key=lambda span: (span.start_s, span.end_s)):
        if free and free[0][0] <= span.start_s:
            lane = heapq.heappop(free)[1]
        else:
            lane = len(lanes)
            lanes.append([])
        lanes[lane].append(span)
        heapq.heappush(free, (span.end_s, lane))
    return lanes


def _microseconds(time_s: float) -> float:
    """Rounded to nanoseconds, so that ends and starts that touch stay equal."""
    return round(time_s / TIME["us"], 3)


def _complete(span: Span, pid: int, tid: int, is_critical: bool) -> dict[str, Any]:
    start = _microseconds(span.start_s)
    return {
        "ph": "X",
        "name": span.kind,
        "cat": span.kind,
        "pid": pid,
        "tid": tid,
        "ts": start,
        "dur": round(_microseconds(span.end_s) - start, 3),
        "args": {"step": span.step, "critical": is_critical},
    }


def _instant(stream: int, token: int, time_s: float) -> dict[str, Any]:
    return {
        "ph": "i",
        "s": "p",
        "name": "token",
        "cat": "token",
        "pid": TOKENS,
        "tid": stream,
        "ts": _microseconds(time_s),
        "args": {"token": token},
    }


def _meta(name: str, pid: int, tid: int, args: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "name": name, "pid": pid, "tid": tid, "args": args}
