"""Random numbers of a job: which of them belong together, and what moves none of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.cluster.cluster import AccessPoint
from simulator.laws import Lognormal
from simulator.run.evaluate import token_times_s
from simulator.runtime.draws import Draws, autoregression
from simulator.runtime.job import Job
from simulator.scenario import NoiseSpec, PosteriorSpec
from tests.helpers import SPEED, WIFI, by_recursion, device, job, jobs, link

NOISY = NoiseSpec(sigma=0.2, correlation=0.7)


@given(jobs("exo", chats=3), st.integers(0, 20), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_a_row_alone_equals_the_row_of_a_block(a_job: Job, first: int, rows: int) -> None:
    block = by_recursion(a_job, first + rows)
    np.testing.assert_array_equal(by_recursion(a_job, rows, first), block[:, :, first:])


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not() -> None:
    a_job = job([device(f"d{i}", link=link(WIFI), noise=NOISY) for i in range(4)])
    times = token_times_s(a_job, 50)
    assert times.tobytes() == token_times_s(a_job, 50).tobytes()
    assert not np.any(times == token_times_s(replace(a_job, seed=2), 50))


def test_adding_a_device_moves_no_other_devices_numbers() -> None:
    base = job([device(f"d{i}", link=link(WIFI), noise=NOISY) for i in range(3)])
    more = job([device(f"d{i}", link=link(WIFI), noise=NOISY) for i in (7, 0, 1, 2)])
    for name in ("d0", "d1", "d2"):
        before, after = Draws(base, 3, 4), Draws(more, 3, 4)
        np.testing.assert_array_equal(
            before.noise(base.cluster.device(name), "decode", 30),
            after.noise(more.cluster.device(name), "decode", 30),
        )
        path = base.cluster.path(name, "d0")
        np.testing.assert_array_equal(before.delay_s(path, "forward", 30), after.delay_s(path, "forward", 30))


def test_another_law_keeps_the_quantiles() -> None:
    """Common random numbers: the draw that was unlucky under one law is as unlucky under the other."""
    times = [
        Draws(job([device(f"d{i}", link=link(law)) for i in range(2)]), 0, 1)
        for law in (Lognormal(median="2 ms", sigma=0.5), Lognormal(median="4 ms", sigma=0.5))
    ]
    delays = [draws.delay_s(draws.job.cluster.path("d0", "d1"), "forward", 99) for draws in times]
    np.testing.assert_allclose(delays[1], 2 * delays[0], rtol=1e-12)


def test_runs_share_their_world_and_nothing_else() -> None:
    """Row i is run i % runs of world i // runs: how wrong the catalogue is does not change from run to run."""
    speed = SPEED.model_copy(update={"decode_spread": 0.3})
    a_job = job([device("d0", speed=speed, noise=NoiseSpec(sigma=0.0, run_sigma=0.1))], runs=3)
    draws = Draws(a_job, 1, 8)
    world = draws.speed_factor(a_job.ring[0], "decode")
    assert [len(set(world[i].tolist())) for i in (slice(0, 2), slice(2, 5), slice(5, 8))] == [1, 1, 1]
    assert len(set(world.tolist())) == 3
    assert len(set(draws.noise(a_job.ring[0], "decode", 1)[0].tolist())) == 8


def test_a_certain_world_has_no_spread() -> None:
    speed = SPEED.model_copy(update={"decode_spread": 0.3, "prefill_spread": 0.3})
    vague = link(0.002, delay_log_sd=0.4, rate_log_sd=0.2)
    doubtful = [device(f"d{i}", speed=speed, noise=NOISY, link=vague) for i in range(3)]
    times = token_times_s(job(doubtful, overhead_log_sd=0.4, step_overhead_s=0.01), 6, certain=True)
    np.testing.assert_array_equal(times, np.repeat(times[:, :, :1], 6, axis=2))


def test_a_posterior_replaces_the_spread_of_the_worlds_it_names() -> None:
    posterior = PosteriorSpec(names=("world/d0/decode",), draws=((1.5,), (0.5,)))
    a_job = replace(job([device("d0"), device("d1")], runs=2), posterior=posterior)
    assert Draws(a_job, 1, 5).world("world/d0/decode", 9.0).tolist() == [1.5, 0.5, 0.5, 1.5, 1.5]
    assert Draws(a_job, 0, 3).world("world/d1/decode", 0.0).tolist() == [1.0, 1.0, 1.0]


def test_a_posterior_may_leave_open_what_sharing_a_machine_costs() -> None:
    """Contention 0.1 in the job; draws of twice and none of it give 1.2 and 1.0 over 1.1."""
    posterior = PosteriorSpec(names=("world/contention",), draws=((2.0,), (1e-9,)))
    shared = replace(device("d0"), contention=0.1)
    a_job = replace(job([shared, replace(device("d1"), contention=0.1)]), posterior=posterior)
    noise = Draws(a_job, 0, 2).noise(a_job.ring[0], "decode", 3)
    np.testing.assert_allclose(noise, np.tile([1.2 / 1.1, 1.0 / 1.1], (3, 1)), rtol=1e-6)
    times = token_times_s(a_job, 2)
    assert times[0, -1, 0] > times[0, -1, 1]


def test_odd_worlds_are_odd_in_all_figures() -> None:
    """Student's t: of 3 degrees of freedom 10 % of the logarithms lie beyond 2.353 of their scale and half within
    0.765. Two factors are independent but for that scale.
    """
    plain = job([device("d0")])
    a_job = replace(plain, tails=3.0)
    draws = Draws(a_job, 0, 20_000)
    one, other = (np.log(draws.world(name, 0.2)) / 0.2 for name in ("world/a/decode", "world/b/rate"))
    for t in (one, other):
        assert np.mean(np.abs(t) > 2.353) == pytest.approx(0.1, abs=0.01)
        assert np.mean(np.abs(t) < 0.765) == pytest.approx(0.5, abs=0.02)
    assert abs(np.corrcoef(np.sign(one), np.sign(other))[0, 1]) < 0.03
    assert np.corrcoef(np.log(np.abs(one)), np.log(np.abs(other)))[0, 1] > 0.1
    normal = np.log(Draws(plain, 0, 20_000).world("world/a/decode", 0.2)) / 0.2
    assert np.mean(np.abs(normal) > 1.645) == pytest.approx(0.1, abs=0.01)


def test_what_is_said_of_background_load_is_not_taken_at_its_word() -> None:
    """A loaded device's speed differs from world to world, by a tenth; that of a device that does nothing else does not."""
    a_job = job([replace(device("d0"), background_load=0.5), device("d1")])
    loaded, free = (Draws(a_job, 0, 4000).noise(one, "decode", 1)[0] for one in a_job.ring)
    assert np.std(np.log(loaded)) == pytest.approx(0.1, rel=0.05)
    assert np.median(loaded) == pytest.approx(1.0, abs=0.01)
    assert set(free.tolist()) == {1.0}


@pytest.mark.parametrize(
    "name", ["exo", "exo-legacy", "llama-rpc", "exo-tensor", "mlx-tensor", "dllama", "vllm"]
)
def test_every_engine_heeds_what_is_open_about_contexts(name: str) -> None:
    """Twice the context's cost is slower in each of them, and the rest of the work is not touched."""
    posterior = PosteriorSpec(names=("world/context",), draws=((1.0,), (2.0,)))
    speed = SPEED.model_copy(update={"context_cost": 5.0})
    a_job = job([device("d0", speed=speed), device("d1", speed=speed)], engine_name=name)
    a_job = replace(
        a_job, posterior=posterior, workload=a_job.workload.model_copy(update={"prompt_tokens": 2000})
    )
    gaps = np.diff(token_times_s(a_job, 2)[0], axis=0)
    assert np.all(gaps[1:, 1] > gaps[1:, 0])


@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.8])
def test_noise_is_as_correlated_as_asked(correlation: float) -> None:
    a_job = job([device("d0", noise=NoiseSpec(sigma=0.2, correlation=correlation))])
    logs = np.log(Draws(a_job, 0, 400).noise(a_job.ring[0], "decode", 200))
    assert np.std(logs) == pytest.approx(0.2, rel=0.02)
    assert np.mean(logs[1:] * logs[:-1]) / np.var(logs) == pytest.approx(correlation, abs=0.02)
    assert np.std(logs[0]) == pytest.approx(0.2, rel=0.15)  # stationary from the first token on


def test_autoregression_of_nothing_is_nothing() -> None:
    assert autoregression(np.empty((0, 3)), 0.5).shape == (0, 3)


def test_background_traffic_stretches_delays_and_takes_airtime() -> None:
    """At load 0.5 a queue is twice as long and half of the rate is left."""
    quiet, busy = (
        job(
            [device(f"d{i}", link=link(0.002, rate=1e6, shared=True)) for i in range(2)],
            points=[AccessPoint("lan", share)],
        )
        for share in (0.0, 0.5)
    )
    found = []
    for a_job in (quiet, busy):
        draws, path = Draws(a_job, 0, 1), a_job.cluster.path("d0", "d1")
        found.append((float(draws.delay_s(path, "forward", 1)[0, 0]), float(draws.seconds_per_byte(path)[0])))
    assert found[0] == pytest.approx((0.004, 2e-6))
    assert found[1] == pytest.approx((0.008, 4e-6))


@pytest.mark.parametrize(
    ("a", "b", "per_byte_s"),
    [
        ({"shared": True}, {"shared": True}, 1 / 1e6 + 1 / 4e6),  # one air: heard, then repeated
        ({"shared": True}, {"shared": False}, 1 / 1e6),
        ({"shared": True}, {"shared": True, "via": "attic"}, 1 / 1e6),
        ({"shared": False}, {"shared": False}, 1 / 1e6),
    ],
)
def test_transmission_by_the_kind_of_path(a: dict, b: dict, per_byte_s: float) -> None:
    ends = [device("a", link=link(rate=1e6, **a)), device("b", link=link(rate=4e6, **b))]
    a_job = job(ends, points=[AccessPoint("lan", 0.0), AccessPoint("attic", 0.0)])
    assert float(Draws(a_job, 0, 1).seconds_per_byte(a_job.cluster.path("a", "b"))[0]) == pytest.approx(
        per_byte_s
    )
