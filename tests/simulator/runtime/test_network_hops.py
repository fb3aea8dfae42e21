"""Hops, ports and the air, message by message."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.cluster.cluster import PowerSave
from simulator.laws import Constant
from simulator.runtime.draws import Draws
from simulator.runtime.network import Hop, Network, Port
from simulator.runtime.record import Recorder
from tests.helpers import device, job, link


def arrivals_s(hop: Hop, messages: list[tuple[float, float, float]], asked_s: float = 0.0) -> list[float]:
    """When messages of (send time, bytes, delay) are received by a process that first asks at `asked_s`."""
    env, found = hop.env, []

    def source() -> Iterator[simpy.Event]:
        for at_s, size, delay_s in messages:
            yield env.timeout(max(0.0, at_s - env.now))  # sums of times are rounded
            hop.send(size, delay_s, -1, 0)

    def sink() -> Iterator[simpy.Event]:
        yield env.timeout(asked_s)
        for _ in messages:
            yield hop.receive()
            found.append(env.now)

    env.process(source())
    env.process(sink())
    env.run()
    return found


def hop_of(per_byte_s: float = 0.0, **changes: object) -> Hop:
    return Hop(simpy.Environment(), "a", "b", Port(), per_byte_s, Recorder(keep_spans=True), **changes)


def test_messages_leave_one_after_the_other() -> None:
    assert arrivals_s(hop_of(0.5), [(0, 2, 0.1), (0, 4, 0.1)]) == pytest.approx([1.1, 3.1])


def test_what_is_sent_first_arrives_first() -> None:
    hop = hop_of()
    assert arrivals_s(hop, [(0, 1, 5.0), (1, 1, 0.1)]) == pytest.approx([5.0, 5.0])
    assert [span.end_s for span in hop.recorder.spans] == pytest.approx([5.0, 5.0])


def test_what_came_early_waits_for_its_receiver() -> None:
    assert arrivals_s(hop_of(), [(0, 1, 0.2), (0, 1, 3.0)], asked_s=1.0) == pytest.approx([1.0, 3.0])


@given(
    st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9), st.floats(0, 9)), min_size=1, max_size=20),
    st.booleans(),
)
@settings(deadline=None)
def test_order_is_kept_and_no_message_is_faster_than_its_path(messages: list, shared: bool) -> None:
    messages.sort()
    env = simpy.Environment()
    hop = Hop(env, "a", "b", Port(), 0.3, Recorder(), Port() if shared else None)
    found = arrivals_s(hop, messages)
    assert found == sorted(found)
    for (sent_s, size, delay_s), arrived_s in zip(messages, found, strict=True):
        assert arrived_s >= sent_s + 0.3 * size + delay_s - 1e-9


def test_several_flows_share_the_air_and_one_does_not_queue_for_it() -> None:
    wireless = job([device(f"d{i}", link=link(rate=1.0, shared=True)) for i in range(3)])
    for flows, expected in ((1, [2.0, 2.0]), (2, [2.0, 4.0])):
        env = simpy.Environment()
        network = Network(env, Draws(wireless, 0, 1), Recorder(), flows=flows)
        hops = [network.hop("d0", "d1"), network.hop("d1", "d2")]
        found = []

        def listen(
            hop: Hop, env: simpy.Environment = env, found: list[float] = found
        ) -> Iterator[simpy.Event]:
            yield hop.receive()
            found.append(env.now)

        for hop in hops:
            env.process(listen(hop))
            hop.send(1.0, 0.0, -1, 0)  # one byte over two legs of 1 byte/s
        env.run()
        assert found == pytest.approx(expected)


def test_a_dozing_radio_wakes_once_and_stays_awake_while_there_is_traffic() -> None:
    dozing = Port(doze=PowerSave(1.0, Constant(value="1 s")), wake_s=iter([0.3, 0.4]))
    messages = [(2.0, 1, 0.1), (2.5, 1, 0.1), (9.0, 1, 0.1)]
    assert arrivals_s(hop_of(listener=dozing), messages) == pytest.approx([2.4, 2.6, 9.5])


def test_wakes_are_the_devices_own_stream() -> None:
    sleepy = device("d0", link=link(power_save=PowerSave(1.0, Constant(value="7 ms"))))
    a_job = job([sleepy, device("d1")])
    wakes = Draws(a_job, 0, 1).wake_s(sleepy)
    assert [next(wakes) for _ in range(2000)] == [0.007] * 2000
    assert list(Draws(a_job, 0, 1).wake_s(a_job.ring[1])) == []


def test_waiting_for_a_port_is_a_span_of_its_own() -> None:
    hop = hop_of(1.0)
    arrivals_s(hop, [(0, 2, 0.5), (1, 3, 0.5)])
    assert [(s.kind, s.start_s, s.end_s, s.cause) for s in hop.recorder.spans] == [
        ("hop", 0, 2.5, -1),
        ("queue", 1, 2, -1),
        ("hop", 2, 5.5, 1),
    ]
