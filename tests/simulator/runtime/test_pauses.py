"""Pauses of a host: as often and as long as said, in short steps and in long ones, and in what plans minimise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulator.laws.streams import Streams
from simulator.run.evaluate import token_times_s
from simulator.runtime.pauses import slow_downs
from simulator.scenario import NoiseSpec
from tests.helpers import device, job

LAW = NoiseSpec(sigma=0.0, pauses_per_s=2.0, pause="30 ms")


@pytest.mark.parametrize("usual_s", [0.01, 0.1, 1.0, 10.0, 60.0])
def test_pauses_are_a_poisson_process_of_exponential_lengths(usual_s: float) -> None:
    """Mean `rate * mean`, variance `2 rate mean**2` of a second, none with probability exp(-rate * time)."""
    found = slow_downs(Streams(1, 0, 4000), "host", LAW, usual_s, 10) - 1
    assert found.mean() == pytest.approx(2.0 * 0.03, rel=0.03)
    # two pauses in one slot count as one: a little more variance in steps that expect many
    assert found.std() * usual_s == pytest.approx(np.sqrt(2 * 2.0 * usual_s) * 0.03, rel=0.15)
    assert np.mean(found == 0) == pytest.approx(np.exp(-2.0 * usual_s), abs=0.005)


def test_the_same_draw_pauses_no_less_in_a_longer_step() -> None:
    short, long = (
        (slow_downs(Streams(1, 0, 100), "host", LAW, usual_s, 50) - 1) * usual_s for usual_s in (0.05, 0.2)
    )
    assert np.all(long >= short)
    assert np.any(long > short)


def test_a_host_that_pauses_makes_p99_long_and_hardly_moves_the_median() -> None:
    """A pause, as long as a token, in every 25th: the quantile where 4 % exp(-y) = 1 % is y = log 4 of it."""
    quiet = job([device("d0")], layers=[24], output_tokens=500)
    work_s = float(np.median(np.diff(token_times_s(quiet, 1)[0], axis=0)))
    pauses = NoiseSpec(sigma=0.0, pauses_per_s=0.04 / work_s, pause=f"{work_s} s")
    gaps_s = np.diff(token_times_s(replace(quiet, common_noise=pauses), 20)[0], axis=0)
    assert np.median(gaps_s) == pytest.approx(work_s, rel=0.002)
    assert np.quantile(gaps_s, 0.99) / work_s == pytest.approx(1 + np.log(4), rel=0.1)
    assert gaps_s.mean() / work_s == pytest.approx(1.04, abs=0.01)


def test_certain_draws_have_no_pauses() -> None:
    restless = job([device("d0", noise=LAW)])
    still = job([device("d0")])
    assert np.array_equal(
        token_times_s(restless, 2, certain=True)[0], token_times_s(still, 2, certain=True)[0]
    )
