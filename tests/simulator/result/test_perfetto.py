"""A Perfetto trace has named tracks, sorted events, and no overlap within a track."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.result.perfetto import perfetto_json
from simulator.runtime.record import Recorder, Span


def events(text: str, phase: str) -> list[dict]:
    return [event for event in json.loads(text)["traceEvents"] if event["ph"] == phase]


def by_track(text: str) -> dict[str, list[dict]]:
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events(text, "M") if e["name"] == "thread_name"}
    tracks: dict[str, list[dict]] = {}
    for event in events(text, "X"):
        tracks.setdefault(names[event["pid"], event["tid"]], []).append(event)
    return tracks


@pytest.fixture(scope="module")
def text(prediction):
    return perfetto_json(prediction.replay, ["fast", "middle", "slow"])


def test_every_span_and_token_is_there_in_order(prediction, text):
    assert len(events(text, "X")) == len(prediction.replay.spans)
    assert len(events(text, "i")) == 24
    timed = [event for event in json.loads(text)["traceEvents"] if event["ph"] != "M"]
    assert all(a["ts"] <= b["ts"] for a, b in pairwise(timed))
    assert all(event["ts"] >= 0 and event.get("dur", 0) >= 0 for event in timed)


def test_devices_have_a_track_each_and_come_first_in_ring_order(text):
    names = [event["args"]["name"] for event in events(text, "M") if event["name"] == "thread_name"]
    assert names[:3] == ["fast", "middle", "slow"]
    assert all(" -> " in name for name in names[3:])
    processes = {event["args"]["name"] for event in events(text, "M") if event["name"] == "process_name"}
    assert processes == {"devices", "hops", "tokens"}


def test_times_are_microseconds(prediction, text):
    last = events(text, "i")[-1]
    assert last["ts"] == pytest.approx(prediction.times_s[0, -1, prediction.replayed_row] * 1e6, abs=1e-2)


def test_critical_spans_cover_the_reply_without_a_gap(prediction, text):
    """Spans that follow each other by cause leave no time between request and last token unexplained."""
    critical = [event for event in events(text, "X") if event["args"]["critical"]]
    until = 0.0
    for event in critical:
        assert event["ts"] <= until + 2e-3
        until = max(until, event["ts"] + event["dur"])
    assert until == pytest.approx(prediction.replay.tokens[-1][2] * 1e6, abs=1e-2)
    assert 0 < len(critical) < len(prediction.replay.spans)


def test_a_span_that_nothing_waited_for_is_not_critical():
    recorder = Recorder(True, [Span("compute", "a", 0, 0.0, 0.1, -1), Span("compute", "b", 0, 0.0, 0.3, -1)])
    recorder.token(0, 0, 0.1, 0)
    marked = {
        event["tid"]: event["args"]["critical"] for event in events(perfetto_json(recorder, ["a", "b"]), "X")
    }
    assert marked == {1: True, 2: False}


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 300)), min_size=1, max_size=40))
def test_messages_under_way_at_once_get_lanes_without_overlap(messages):
    recorder = Recorder(True, [Span("hop", "a -> b", 0, s / 1e3, (s + d) / 1e3, -1) for s, d in messages])
    tracks = by_track(perfetto_json(recorder, ["a", "b"]))
    for track in tracks.values():
        assert all(a["ts"] + a["dur"] <= b["ts"] + 1e-6 for a, b in pairwise(track))
    most = max(sum(s <= at < s + d for s, d in messages) for at, _ in messages)
    assert len(tracks) == most
    assert sum(map(len, tracks.values())) == len(messages)
