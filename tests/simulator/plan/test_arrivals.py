"""Chats that come one by one: queueing theory where it is exact, the batch where all come together, bounds that hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from simulator.errors import ScenarioError
from simulator.laws.closed_forms import md1_sojourn_s
from simulator.plan.load.arrivals import Bound, Served, arrivals_s, crossover, load_curve, load_point, serve
from simulator.prepare import prepare
from simulator.runtime.job import Job
from simulator.scenario import ArrivalSpec, Scenario
from tests.helpers import SPEED, agrees, by_simpy, device, job, link, ring
from tests.simulator.plan.test_placement_search import random_scenario

ENGINES = ("exo", "exo-legacy")


def with_arrivals(plain: Job, at_once: int, **arrivals: Any) -> Job:
    workload = plain.workload.model_copy(update={"concurrency": at_once, "arrivals": ArrivalSpec(**arrivals)})
    return replace(plain, workload=workload)


def scenario_with(engine: str, **arrivals: Any) -> Scenario:
    workload = {"prompt_tokens": 8, "output_tokens": 6, "runs": 1, "concurrency": 3, "arrivals": arrivals}
    return random_scenario(4, 3, engine, workload=workload, replications=4)


def test_poisson_arrivals_have_the_mean_and_the_spread_of_a_poisson_process() -> None:
    alone = with_arrivals(ring(1), 1, rate="360 /h", chats=200)
    gaps = np.concatenate([np.diff(arrivals_s(alone, row), prepend=0) for row in range(200)])
    agrees(gaps, 10.0)
    agrees((gaps - 10.0) ** 2 / 10.0, 10.0 * (1 - 1e-4))  # variance = mean**2
    np.testing.assert_array_equal(arrivals_s(alone, 3), arrivals_s(alone, 3))
    assert not np.array_equal(arrivals_s(alone, 3), arrivals_s(alone, 4))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("load", "rows"), [(0.3, 20), (0.5, 50)])
def test_one_device_and_one_chat_at_a_time_is_an_m_d_1_queue(engine: str, load: float, rows: int) -> None:
    """Sojourn from arrival to last token, against Pollaczek and Khinchine: rows of 300 chats, the first 50 left out."""
    alone = ring(1, engine_name=engine, prompt_tokens=2, output_tokens=2)
    service_s = float(by_simpy(alone)[0, -1])
    rate = load / service_s
    served = serve(with_arrivals(alone, 1, rate=f"{rate * 3600!r} /h", chats=300), rows)
    sojourn_s = (served.times_s[:, -1] - served.arrivals_s)[50:].mean(axis=0)
    agrees(sojourn_s, md1_sojourn_s(rate, service_s))


@pytest.mark.parametrize("engine", ENGINES)
def test_chats_that_come_together_decode_as_a_batch_does(engine: str) -> None:
    """Constant laws: the gaps between tokens are those of the engine's own chats at once."""
    together = ring(3, 0.004, engine, prompt_tokens=12, output_tokens=9, concurrency=4)
    served = serve(with_arrivals(together, 4, times=("0 s",) * 4), 1)
    expected = np.diff(by_simpy(together), axis=-1)
    np.testing.assert_allclose(
        np.diff(served.times_s[:, :, 0], axis=-1), np.broadcast_to(expected, (4, 8)), rtol=1e-9
    )


def test_one_after_the_other_is_as_fast_as_alone() -> None:
    """Far apart, nobody waits: each chat has the times of a chat alone, but for the notice of its arrival."""
    for engine in ENGINES:
        alone = ring(3, 0.004, engine, prompt_tokens=12, output_tokens=9)
        served = serve(with_arrivals(alone, 8, times=("0 s", "100 s", "1000 s")), 1)
        took = served.times_s[:, :, 0] - served.arrivals_s
        np.testing.assert_allclose(took, np.broadcast_to(by_simpy(alone), took.shape), atol=0.004 * 2 + 1e-9)


def test_a_new_prompt_stops_the_tokens_of_the_others() -> None:
    """EXO, as recorded: the chat that is decoding has one long gap, at least as long as the other's prompt takes."""
    slow = SPEED.model_copy(update={"prefill_flops": 1e12})
    one = job(
        [device(f"d{at}", speed=slow, link=link(0.0005)) for at in range(2)],
        prompt_tokens=4000,
        output_tokens=60,
    )
    prompt_s = float(by_simpy(one)[0, 0])
    served = serve(with_arrivals(one, 8, times=("0 s", f"{prompt_s + 0.5!r} s")), 1)
    gaps = np.diff(served.times_s[0, :, 0])
    assert np.sum(gaps > 5 * np.median(gaps)) == 1
    assert gaps.max() > 0.9 * prompt_s
    assert np.diff(served.times_s[1, :, 0]).max() < 5 * np.median(gaps)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_more_are_let_in_than_the_workload_says(engine: str) -> None:
    """With one at a time a chat's first token comes after the last one of the chat before."""
    pair = ring(2, 0.001, engine, prompt_tokens=8, output_tokens=6)
    times_s = serve(with_arrivals(pair, 1, times=("0 s",) * 5), 1).times_s[:, :, 0]
    assert np.all(times_s[1:, 0] > times_s[:-1, -1])
    by_two = serve(with_arrivals(pair, 2, times=("0 s",) * 5), 1).times_s[:, :, 0]
    assert by_two[1, 0] < by_two[0, -1]
    assert by_two[2, 0] > by_two[0, -1]


@pytest.mark.parametrize("engine", ENGINES)
def test_every_token_comes_once_in_order_and_after_its_request(engine: str) -> None:
    served = serve(prepare(scenario_with(engine, rate="4000 /h", chats=12)).job, 4)
    assert np.isfinite(served.times_s).all()
    assert np.all(np.diff(served.times_s, axis=1) > 0)
    assert np.all(served.first_token_s > 0)


def test_met_means_both_bounds() -> None:
    came, times = (
        np.array([[0.0], [1.0], [2.0]]),
        np.array([[[1.0], [2.0], [3.0]], [[9.0], [9.1], [9.2]], [[3.0], [9.0], [15.0]]]),
    )
    served = Served(came, times)
    np.testing.assert_allclose(served.first_token_s[:, 0], [1, 8, 1])
    np.testing.assert_allclose(served.tokens_per_s[:, 0], [1, 10, 1 / 6])
    for bound, met in (
        (Bound(first_token_s=5.0), [1, 0, 1]),
        (Bound(first_token_s=9.0, tokens_per_s=0.5), [1, 1, 0]),
    ):
        np.testing.assert_array_equal(served.met(bound)[:, 0], met)


@pytest.mark.parametrize("engine", ENGINES)
def test_goodput_rises_with_the_load_and_falls_behind_it(engine: str) -> None:
    scenario = scenario_with(engine, rate="1 /h", chats=30)
    alone_s = load_curve(scenario, [1.0], Bound())[0].first_token_p50_s.median
    points = load_curve(scenario, [10.0, 300.0, 100_000.0], Bound(first_token_s=1.5 * alone_s))
    assert points[0].share_met.median == 1
    assert points[1].goodput_per_hour.median > 5 * points[0].goodput_per_hour.median
    assert points[2].share_met.median < 0.5
    for point in points:
        assert point.goodput_per_hour.median <= point.served_per_hour.median <= 2 * point.arrivals_per_hour
        assert point.first_token_p50_s.median <= point.first_token_p95_s.median


def test_two_chats_at_once_cross_between_the_bounds() -> None:
    legacy = crossover(random_scenario(4, 3, "exo-legacy", noisy=False, replications=3), 6)
    assert not legacy.in_step
    assert legacy.at_chats > 1
    for row in legacy.rows:  # constant laws: no bound is beaten
        assert row.total_tokens_per_s.median <= min(row.by_sum, row.by_slowest) * 1.05
    assert legacy.rows[0].total_tokens_per_s.median == pytest.approx(legacy.rows[0].by_sum, rel=0.02)
    assert legacy.rows[-1].total_tokens_per_s.median == pytest.approx(legacy.rows[-1].by_slowest, rel=0.15)
    exo = crossover(random_scenario(4, 3, "exo", noisy=False, replications=3), 4)
    assert exo.in_step
    assert [row.chats for row in exo.rows] == [1, 2, 3, 4]
    for row in exo.rows:
        assert row.total_tokens_per_s.median == pytest.approx(row.by_sum, rel=0.03)


def test_an_engine_that_nobody_recorded_and_a_scenario_without_arrivals_are_refused() -> None:
    with pytest.raises(ScenarioError, match="workload.arrivals: is missing"):
        load_point(prepare(random_scenario(1, 2)), Bound())
    with pytest.raises(ScenarioError, match="llama-rpc serves chats that come one by one is not recorded"):
        load_point(prepare(scenario_with("llama-rpc", rate="10 /h", chats=2)), Bound())


@pytest.mark.parametrize(
    "spec",
    [{}, {"rate": "1 /h", "times": ["0 s"]}, {"times": []}, {"times": ["2 s", "1 s"]}, {"rate": "-1 /h"}],
)
def test_arrivals_that_say_nothing_or_too_much(spec: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"one of them|rise|greater"):
        ArrivalSpec.model_validate(spec)
