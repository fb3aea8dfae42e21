"""Token times of replies that arrive in bursts: what is true of them stays, and nothing else is made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.churn.mean_gap import MeanGap
from simulator.result.bursts import SHORT, arrivals
from simulator.result.measured import measured_summary
from simulator.result.measurement import read_measurement

LIVE2 = Path(__file__).parents[3] / "results" / "exo" / "live2"


def delivered(made_s: np.ndarray, packet: int) -> np.ndarray:
    """Times of tokens that are handed out `packet` at a time, when the last of them has been made."""
    last = np.minimum(np.arange(len(made_s)) // packet * packet + packet - 1, len(made_s) - 1)
    return made_s[last]


@pytest.mark.parametrize("packet", [2, 5, 20])
def test_packets_give_back_the_times_at_which_the_tokens_were_made(packet: int) -> None:
    made_s = 3 + 0.05 * np.arange(64)
    found = arrivals(delivered(made_s, packet))
    assert found.bursts
    np.testing.assert_allclose(found.times_s, made_s, atol=1e-9)


@given(st.lists(st.integers(0, 2_000_000), min_size=2, max_size=60), st.floats(0.01, 5))
def test_times_run_forward_and_the_last_token_stays(gaps_us: list[int], first_s: float) -> None:
    times_s = first_s + np.append(0, np.cumsum(gaps_us)) / 1e6
    found = arrivals(times_s)
    assert found.times_s[-1] == pytest.approx(times_s[-1])
    assert np.all(found.times_s > 0)
    assert np.all(np.diff(found.times_s) >= 0)
    assert found.bursts or found.times_s is times_s
    if found.bursts and times_s[-1] > times_s[0]:
        assert np.all(np.diff(found.times_s) > 0)
    # no token was made after it came, but for the short gaps within its own packet
    short_s = SHORT * (times_s[-1] - times_s[0]) / len(gaps_us)
    assert np.all(found.times_s <= times_s + short_s * len(gaps_us) + 1e-9)


@pytest.mark.parametrize("file", ["circle1/mine_03", "circle1/mine_06", "circle1/mine_07", "circle2/mine_06"])
def test_what_the_engine_counted_is_found(file: str) -> None:
    """EXO tells the rate of each reply; medians of raw gaps are up to 100 % below it, these within 14 %."""
    measurement = read_measurement(LIVE2 / f"{file}.jsonl.gz")
    told_s = {event["run"]: 1 / event["engine_stats"]["generation_tps"] for event in measurement.of("result")}
    for (run, _), times_s in measurement.token_times_s().items():
        found = arrivals(times_s)
        if found.bursts:
            gaps = np.diff(found.times_s)
            assert np.median(gaps) == pytest.approx(told_s[run], rel=0.14)
            assert np.mean(gaps) == pytest.approx(told_s[run], rel=0.05)
            assert gaps.min() > 0.001


def test_a_summary_of_bursts_is_one_cluster() -> None:
    """It said 20.9 tokens/s beside a median gap of 257 us; and which runs burst is said."""
    found = measured_summary(read_measurement(LIVE2 / "circle1" / "mine_06.jsonl.gz"))
    gap_s = found.summary.inter_token_p50_s.median
    assert gap_s == pytest.approx(1 / found.summary.tokens_per_s.median, rel=0.05)
    assert any("run 0, 1;" in text and "bursts" in text for text in found.warnings)
    assert found.summary.first_token_s.median == pytest.approx(8.22, abs=0.01)  # as it arrived


def test_a_client_that_waits_is_not_fooled_by_packets() -> None:
    """After 20 tokens at once the mean gap is what a token takes, not nothing; steady tokens count as ever."""
    gap, steady = MeanGap(), MeanGap()
    for at_s in delivered(0.05 * np.arange(200), 20):
        gap.note(float(at_s))
    for at_s in 0.05 * np.arange(200):
        steady.note(float(at_s))
    assert gap.mean_s == pytest.approx(0.05, rel=0.1)
    assert steady.mean_s == pytest.approx(0.05)
    assert SHORT < 1
