"""Who counts as being there, state by state."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from live.exo.presence import Presence
from live.exo.state import ClusterState, StateNode

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Clock:
    """Time as the test says."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("live.exo.presence.time.monotonic", made)
    return made


def state(index: int, **reports_s: float | None) -> ClusterState:
    """A state in which nodes last reported so many seconds after noon."""
    nodes = tuple(
        StateNode(name, name, last_seen=None if at is None else NOON + timedelta(seconds=at))
        for name, at in reports_s.items()
    )
    return ClusterState(nodes, (), {}, {}, (), index, {})


def told(presence: Presence, now: ClusterState) -> tuple[bool, set[str]]:
    presence.note(now)
    return presence.is_settled(now), {node.node_id for node in presence.alive(now)}


def test_one_state_proves_nothing(clock: Clock) -> None:
    presence = Presence(3.0)
    assert told(presence, state(1, a=0.0, b=0.1)) == (False, set())
    clock.now_s += 1
    assert told(presence, state(2, a=1.0, b=0.1)) == (False, {"a"})
    clock.now_s += 0.2
    assert told(presence, state(3, a=1.0, b=1.1)) == (True, {"a", "b"})


def test_nobody_waits_for_a_node_that_is_silent_already(clock: Clock) -> None:
    presence = Presence(3.0)
    told(presence, state(1, a=10.0, b=2.0))
    clock.now_s += 1
    assert told(presence, state(2, a=11.0, b=2.0)) == (True, {"a"})


def test_a_node_that_stops_reporting_is_gone(clock: Clock) -> None:
    presence = Presence(3.0)
    told(presence, state(1, a=0.0, b=0.0))
    clock.now_s += 1
    told(presence, state(2, a=1.0, b=1.0))
    for second in range(2, 6):
        clock.now_s += 1
        found = told(presence, state(second + 1, a=float(second), b=1.0))
    assert found == (True, {"a"})


def test_a_state_that_stood_still_makes_all_reports_old(clock: Clock) -> None:
    """The first to report again must not look like the only one that is left."""
    presence = Presence(3.0)
    told(presence, state(5, a=0.0, b=0.0))
    clock.now_s += 8
    assert told(presence, state(5, a=0.0, b=0.0)) == (True, set())
    assert told(presence, state(6, a=8.0, b=0.0)) == (False, {"a"})
    clock.now_s += 0.5
    assert told(presence, state(7, a=8.0, b=8.4)) == (True, {"a", "b"})


def test_a_new_master_begins_anew(clock: Clock) -> None:
    presence = Presence(3.0, expected={"a", "b"})
    told(presence, state(800, a=0.0, b=0.0))
    clock.now_s += 8
    assert told(presence, state(31, b=8.0)) == (False, set())
    clock.now_s += 1
    assert told(presence, state(40, b=9.0)) == (False, {"b"})  # a may still come
    clock.now_s += 2.5
    assert told(presence, state(50, b=11.0)) == (True, {"b"})


def test_versions_without_reports(clock: Clock) -> None:
    """Then who is in the topology is there, as long as the state moves on."""
    presence = Presence(3.0)
    assert told(presence, state(1, a=None)) == (False, set())
    clock.now_s += 1
    assert told(presence, state(2, a=None)) == (True, {"a"})
    clock.now_s += 4
    assert told(presence, state(2, a=None))[1] == set()
