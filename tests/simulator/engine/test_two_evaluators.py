"""Two evaluators, one meaning: the recursion gives SimPy's token times, and `auto` knows where it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from simulator.cluster.cluster import PowerSave, Wire
from simulator.engine.base import engine, engines
from simulator.errors import CatalogError
from simulator.laws import Constant, Lognormal
from simulator.run.evaluate import replay, token_times_s
from simulator.runtime.collective import Algorithm
from simulator.runtime.job import Job
from tests.helpers import WIFI, by_recursion, by_simpy, device, job, jobs, link, ring

many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def assert_equal_evaluators(a_job: Job, rows: int = 3) -> None:
    assert engine(a_job.engine.name).is_recursion_exact(a_job)
    fast = by_recursion(a_job, rows)
    for row in range(rows):
        np.testing.assert_allclose(fast[:, :, row], by_simpy(a_job, row), rtol=1e-9)


@given(jobs("exo", chats=10))
@many
def test_exo(a_job: Job) -> None:
    assert_equal_evaluators(a_job)


@pytest.mark.parametrize("cores", [1, 2])
@given(a_job=jobs("exo", chats=3))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_exo_on_one_machine(cores: int, a_job: Job) -> None:
    assert_equal_evaluators(replace(a_job, heads_at_once=cores))


def test_ranks_of_one_machine_compute_their_heads_in_turns_unless_a_message_comes_between() -> None:
    """What a delay D adds to a token is less than 2 D where the heads then no longer meet."""

    def gap_s(delay_ms: float, at_once: int | None) -> float:
        devices = [device(f"d{i}", link=link(Constant(value=f"{delay_ms} ms"), rate=1e12)) for i in range(2)]
        a_job = replace(job(devices, output_tokens=6), heads_at_once=at_once)
        return float(np.diff(by_recursion(a_job, 1)[0, 2:, 0]).mean())

    head_s = gap_s(0, 1) - gap_s(0, None)
    assert head_s > 0
    # one side's delay is half of a hop's
    delay_ms = 1e3 * head_s
    assert gap_s(delay_ms, None) - gap_s(0, None) == pytest.approx(4 * head_s)
    assert gap_s(delay_ms, 1) - gap_s(0, 1) == pytest.approx(3 * head_s)


@pytest.mark.parametrize("algorithm", ["ring", "mesh", "exchange"])
@given(a_job=jobs("exo-tensor", chats=10))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_exo_by_tensor(algorithm: Algorithm, a_job: Job) -> None:
    own = replace(a_job.engine, algorithm=algorithm)
    assert_equal_evaluators(replace(a_job, engine=own), rows=2)


@pytest.mark.parametrize("name", ["mlx", "vllm"])
@given(data=st.data())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_pipelines_in_lockstep(name: str, data: st.DataObject) -> None:
    assert_equal_evaluators(data.draw(jobs(name, chats=3)), rows=2)


@given(jobs("exo-legacy"))
@many
def test_legacy_with_one_chat(a_job: Job) -> None:
    assert_equal_evaluators(a_job)


@given(jobs("llama-rpc", chats=3, prompts=1500))
@many
def test_llama_rpc(a_job: Job) -> None:
    assume(engine("llama-rpc").is_recursion_exact(a_job))  # chunks of a long prompt may share one air
    assert_equal_evaluators(a_job, rows=2)


@pytest.mark.parametrize("engine_name", ["exo", "exo-legacy", "llama-rpc"])
def test_rows_that_are_drawn_together_are_those_drawn_alone(engine_name: str) -> None:
    law = Lognormal(median="3 ms", sigma=1.0)
    devices = [device(f"d{i}", link=link(law, rate=1e6, shared=True)) for i in range(3)]
    a_job = job(devices, engine_name, output_tokens=6, concurrency=2)
    together = token_times_s(a_job, 5, "simpy")
    for row in range(5):
        np.testing.assert_array_equal(together[:, :, row], by_simpy(a_job, row))


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_exo_with_a_chunked_prompt_on_cables(ranks: int) -> None:
    devices = [device(f"d{i}", link=link(WIFI, rate=1e8)) for i in range(ranks)]
    assert_equal_evaluators(job(devices, prompt_tokens=9001, output_tokens=4, concurrency=2))


def test_exo_where_the_layers_are_few_and_the_port_is_slow() -> None:
    """Hidden states and notices queue for one port."""
    devices = [
        device(f"d{i}", link=link(Lognormal(median="3 ms", sigma=1.0), rate=2e4, shared=True))
        for i in range(4)
    ]
    assert_equal_evaluators(job(devices, layers=[1, 1, 1, 1], output_tokens=30, concurrency=8))


DOZING = PowerSave(0.001, Constant(value="80 ms"))


@pytest.mark.parametrize(
    ("engine_name", "changes", "exact"),
    [
        ("exo", {}, True),
        ("exo", {"prompt_tokens": 9000}, False),
        ("exo", {"concurrency": 12}, True),
        ("exo-legacy", {}, True),
        ("exo-legacy", {"concurrency": 2}, False),
    ],
)
def test_auto_takes_simpy_where_messages_want_the_air_together(
    engine_name: str, changes: dict[str, int], exact: bool
) -> None:
    devices = [device(f"d{i}", link=link(0.002, rate=1e6, shared=True)) for i in range(3)]
    a_job = job(devices, engine_name, **({"output_tokens": 3} | changes))
    assert engine(engine_name).is_recursion_exact(a_job) is exact
    times = token_times_s(a_job, 2)
    np.testing.assert_array_equal(
        times[:, :, 1], by_simpy(a_job, 1) if not exact else by_recursion(a_job, 2)[:, :, 1]
    )


@pytest.mark.parametrize("engine_name", ["exo", "exo-legacy"])
def test_auto_takes_simpy_where_a_radio_dozes(engine_name: str) -> None:
    plain = [device(f"d{i}", link=link(0.002)) for i in range(3)]
    dozing = [*plain[:2], replace(plain[2], link=link(0.002, power_save=DOZING))]
    awake, asleep = (token_times_s(job(devices, engine_name), 1) for devices in (plain, dozing))
    assert not engine(engine_name).is_recursion_exact(job(dozing, engine_name))
    np.testing.assert_array_equal(asleep[:, :, 0], by_simpy(job(dozing, engine_name)))
    # while the other two compute (8 ms each) it falls asleep, so at least one message per token waits for it to wake
    assert asleep[0, -1, 0] > awake[0, -1, 0] + 10 * 0.08


def test_wakes_that_take_no_time_change_nothing() -> None:
    plain = ring(3, 0.002)
    dozing = job(
        [replace(d, link=replace(d.link, power_save=PowerSave(0.0, Constant(value=0)))) for d in plain.ring]
    )
    np.testing.assert_allclose(by_simpy(dozing), by_simpy(plain), rtol=1e-12)


def test_chunks_on_one_air_take_longer_than_on_cables() -> None:
    """Each hidden state crosses the access point's air twice, and chunks in flight queue for it."""

    def first_token_s(shared: bool) -> float:
        devices = [device(f"d{i}", link=link(0.0, rate=1e7, shared=shared)) for i in range(4)]
        return float(token_times_s(job(devices, prompt_tokens=8194, output_tokens=2), 1)[0, 0, 0])

    airtime_s = 8192 * 2048 * 3 * 2 / 1e7
    assert first_token_s(True) > airtime_s > first_token_s(False)


def test_a_cable_between_two_devices_bypasses_the_air() -> None:
    slow = [device(f"d{i}", link=link(0.05, shared=True)) for i in range(2)]
    cable = Wire(frozenset(("d0", "d1")), "cable", Constant(value="1 ms"), 1e9, 0.0, 0.0)
    assert by_simpy(job(slow, wires=[cable]))[0, -1] < by_simpy(job(slow))[0, -1] / 2


@pytest.mark.parametrize("engine_name", ["exo", "exo-legacy"])
@given(st.data())
@settings(max_examples=25, deadline=None)
def test_recording_spans_moves_no_token(engine_name: str, data: st.DataObject) -> None:
    a_job = data.draw(jobs(engine_name, doze=True, chats=3))
    times = by_simpy(a_job)
    for stream, token, time_s, _ in replay(a_job).tokens:
        assert times[stream, token] == time_s


def test_engines_are_found_by_name() -> None:
    assert {"exo", "exo-legacy"} <= set(engines())
    with pytest.raises(CatalogError, match=r"'exxo' is no known engine, did you mean 'exo'"):
        engine("exxo")


@pytest.mark.parametrize("algorithm", ["ring", "mesh", "exchange"])
@pytest.mark.parametrize(("ranks", "rate"), [(2, 1e12), (4, 1e12), (2, 1e4)])
def test_layers_are_gone_through_fast_only_where_ports_are_free(
    algorithm: Algorithm, ranks: int, rate: float
) -> None:
    """Random delays: without a wait for ports as with one, every token comes when SimPy has it."""
    side = link(Lognormal(median="2 ms", sigma=1.0), rate=rate)
    a_job = job([device(f"d{i}", link=side) for i in range(ranks)], engine_name="exo-tensor", output_tokens=3)
    assert_equal_evaluators(replace(a_job, engine=replace(a_job.engine, algorithm=algorithm)), rows=2)
