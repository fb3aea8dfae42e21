"""What limits each world: found by the recursion's derivative, held against the critical path that SimPy records."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from simulator.laws import Exponential
from simulator.result.bottleneck import Bottleneck
from simulator.result.critical import critical_shares
from simulator.result.summary import rates
from simulator.run.evaluate import replay
from simulator.run.limits import limits, path_shares
from simulator.run.predict import Prediction
from simulator.runtime.job import Job
from simulator.scenario import NoiseSpec
from tests.helpers import SPEED, device, job, link

WORLDS = 30


def uncertain(engine_name: str, delay_s: float = 0.002) -> Job:
    """Three devices whose speeds overlap, on links with a tail."""
    speed = SPEED.model_copy(update={"decode_spread": 0.3})
    side = link(Exponential(mean=f"{delay_s} s"), 1e7)
    noise = NoiseSpec(sigma=0.1)
    made = job([device(f"d{i}", speed=speed, link=side, noise=noise) for i in range(3)], engine_name)
    return replace(made, workload=made.workload.model_copy(update={"output_tokens": 40}))


@pytest.mark.parametrize(
    ("engine_name", "within"), [("exo", 0.01), ("exo-legacy", 1e-6), ("llama-rpc", 1e-6)]
)
def test_the_derivative_is_the_critical_path(engine_name: str, within: float) -> None:
    """World by world and place by place: the path of the last token less that of the first.

    In EXO's ring a message may be held back by an earlier one on its connection: SimPy's span says where it waited,
    the derivative what it waited for.
    """
    a_job = uncertain(engine_name)
    for row in (0, 7):
        recorder = replay(a_job, row)
        (_, _, first_s, first), *_, (_, _, last_s, last) = sorted(recorder.tokens)
        paths: Counter[str] = Counter()
        for index, sign in ((last, 1), (first, -1)):
            for span in recorder.critical_path(index):
                paths[span.where] += sign * (span.end_s - span.start_s)  # type: ignore[assignment]
        shares = path_shares(a_job, row + 1, paths)[:, row]
        expected = [length_s / (last_s - first_s) for length_s in paths.values()]
        assert shares == pytest.approx(expected, abs=within)
        assert shares.sum() == pytest.approx(1)


def test_equal_devices_take_turns_and_a_slow_one_does_not() -> None:
    a_job = uncertain("exo", delay_s=0.0001)
    parts = critical_shares([replay(a_job)])
    often = limits(a_job, WORLDS, parts)
    assert sum(often.values()) == pytest.approx(1)
    assert set(often) == {"d0", "d1", "d2"}
    assert list(often.values()) == sorted(often.values(), reverse=True)
    slow = replace(a_job.ring[1], slow_down=20.0)
    cluster = replace(a_job.cluster, devices=(a_job.ring[0], slow, a_job.ring[2]))
    assert limits(replace(a_job, cluster=cluster), WORLDS, parts) == {"d1": 1.0}


def test_slow_links_are_the_limit_together() -> None:
    a_job = uncertain("exo", delay_s=0.2)
    assert limits(a_job, WORLDS, critical_shares([replay(a_job)]))["all hops"] > 0.9


@pytest.mark.parametrize(
    ("worlds", "words"),
    [
        ({}, ""),
        ({"a": 1.0}, "a is the limit in every world"),
        ({"a": 0.62, "all hops": 0.38}, "a is the limit in 62% of the worlds, the network in 38%"),
        (
            {"a": 0.5, "b": 0.3, "c": 0.1, "d": 0.06, "e": 0.04},
            "a is the limit in 50% of the worlds, b in 30%, c in 10%, others in 10%",
        ),
        ({"a": 0.997, "b": 0.003}, "a is the limit in 100% of the worlds"),
    ],
)
def test_how_often_in_words(worlds: dict[str, float], words: str) -> None:
    limit = Bottleneck(kind="compute", where="a", share=0.5, sentence="", worlds=worlds)
    assert limit.over_worlds == words


def test_the_reply_that_is_shown_is_the_median_one(prediction: Prediction) -> None:
    """The timeline showed world 0, whatever that was: a pixel at 94 % where the sentence named the laptop."""
    rate = rates(prediction.times_s)
    assert np.sum(rate < rate[prediction.replayed_row]) == (len(rate) - 1) // 2
    shown = sorted(time_s for _, _, time_s, _ in prediction.replay.tokens)
    assert shown == pytest.approx(prediction.times_s[0, :, prediction.replayed_row].tolist(), rel=1e-9)
