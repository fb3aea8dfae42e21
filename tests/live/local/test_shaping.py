"""What a link does to bytes, told from arrival times alone: laws come back, rates hold, order is kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live.local.shaping import (
    DRAWS,
    GAP_NS,
    Direction,
    DirectionSpec,
    DozeSpec,
    LegSpec,
    LinkShape,
    Transmitter,
)
from simulator.laws.law import Constant, Gamma, Law, Lognormal, Mixture, Part

MS = 1_000_000
STALLING = Mixture(
    parts=(Part(weight=0.95, of=Constant(value="2 ms")), Part(weight=0.05, of=Constant(value="200 ms")))
)


def direction(
    *laws: Law, seconds_per_byte: float = 0.0, port: Transmitter | None = None, doze: DozeSpec | None = None
) -> Direction:
    spec = DirectionSpec(
        source="a",
        sink="b",
        legs=tuple(LegSpec(law=law) for law in laws),
        seconds_per_byte=seconds_per_byte,
        doze=doze,
    )
    return Direction(spec, port or Transmitter(), spec.delays_ns(1), spec.wakes_ns(1))


@pytest.mark.parametrize(
    "laws",
    [
        [Lognormal(median="5 ms", sigma=0.5)],
        [Gamma(mean="3 ms", shape=2)],
        [Constant(value="1 ms"), Gamma(mean="2 ms", shape=4)],
    ],
)
def test_imposed_delays_follow_their_laws(laws: list[Law]) -> None:
    """Messages far apart each meet a fresh sum of the legs' draws."""
    link = direction(*laws)
    delays_s = np.array([(link.arrive(100, n * 10**9)[0] - n * 10**9) / 1e9 for n in range(DRAWS)])
    mean, variance = sum(law.mean_s for law in laws), sum(law.variance_s2 for law in laws)
    error = np.sqrt(variance / DRAWS)
    assert error < 0.02 * mean
    assert abs(delays_s.mean() - mean) < 4 * error
    assert delays_s.std() == pytest.approx(np.sqrt(variance), rel=0.1)


def test_a_burst_is_one_flight_until_the_other_side_speaks() -> None:
    link = direction(Lognormal(median="5 ms", sigma=0.5))
    due = [link.arrive(10, at)[0] - at for at in (0, 1000, 2000)]
    assert len(set(due)) == 1
    assert len(link.flights) == 1
    link.close()
    link.arrive(10, 3000)
    link.arrive(10, 3001 + GAP_NS)
    assert [flight.size_bytes for flight in link.flights] == [30, 10, 10]


def test_rate_limit() -> None:
    """1 MB at 10 MB/s takes 100 ms, whatever its pieces."""
    link = direction(Constant(value="1 ms"), seconds_per_byte=1e-7)
    last = [link.arrive(10_000, 0)[0] for _ in range(100)][-1]
    assert last == pytest.approx(101 * MS)


def test_links_of_one_medium_wait_for_each_other() -> None:
    air = Transmitter()
    one, other = (direction(Constant(value="1 ms"), seconds_per_byte=1e-6, port=air) for _ in range(2))
    assert one.arrive(5000, 0)[0] == 6 * MS
    assert other.arrive(5000, 0)[0] == 11 * MS, "the second message has to wait for 5 ms of airtime"
    alone = direction(Constant(value="1 ms"), seconds_per_byte=1e-6)
    assert alone.arrive(5000, 0)[0] == 6 * MS


def test_a_stalled_flight_holds_back_those_behind_it() -> None:
    link = direction(STALLING)
    stalled = next(n for n, delay in enumerate(link.delays_ns) if delay == 200 * MS)
    due = [link.arrive(1, n * 25 * MS)[0] for n in range(stalled + 5)]
    assert due[stalled] == stalled * 25 * MS + 200 * MS
    assert due[stalled + 1 :] == [due[stalled]] * 4


def test_a_dozing_receiver_wakes_late() -> None:
    link = direction(Constant(value="1 ms"), doze=DozeSpec(awake_s=0.1, wake=Constant(value="50 ms")))
    first = link.arrive(1, 10**9)[0] - 10**9
    link.close()
    second = link.arrive(1, 10**9 + 80 * MS)[0] - (10**9 + 80 * MS)
    assert (first, second) == (51 * MS, 1 * MS)


@given(st.lists(st.tuples(st.integers(0, 50 * MS), st.integers(1, 100_000)), min_size=1, max_size=60))
def test_order_is_kept_and_nothing_arrives_early(steps: list[tuple[int, int]]) -> None:
    link = direction(Lognormal(median="5 ms", sigma=1.5), seconds_per_byte=1e-8)
    now_ns, last_ns = 0, 0
    for wait_ns, size in steps:
        now_ns += wait_ns
        due_ns, flight = link.arrive(size, now_ns)
        assert due_ns >= max(last_ns, now_ns + flight.delay_ns + round(size * 1e-8 * 1e9))
        last_ns = due_ns


def test_same_seed_same_delays_and_each_direction_its_own() -> None:
    law = Gamma(mean="3 ms", shape=2)
    there, back = (
        DirectionSpec(source=a, sink=b, legs=(LegSpec(law=law),)) for a, b in (("a", "b"), ("b", "a"))
    )
    assert there.delays_ns(1) == there.delays_ns(1)
    assert there.delays_ns(1) != there.delays_ns(2)
    assert there.delays_ns(1) != back.delays_ns(1)


def test_a_shape_survives_its_way_to_the_relay() -> None:
    spec = DirectionSpec(
        source="a", sink="b", legs=(LegSpec(law=STALLING, extra_s=0.001),), seconds_per_byte=1e-8
    )
    shape = LinkShape(medium="home", forth=spec, back=spec, seed=3)
    assert LinkShape.model_validate(shape.model_dump(mode="json")) == shape
