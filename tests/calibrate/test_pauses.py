"""Tails of recorded gaps: pauses are found again, none are seen where there are none, and left-out p99 has no sign."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from calibrate.pauses import Stream, Tail, fit_tail

RESULTS = Path(__file__).parents[2] / "results"


def streams(pauses_per_s: float, pause_s: float, sigma: float = 0.2) -> list[Stream]:
    """Gaps of 30 to 120 ms, made without the simulator: lognormal, and each pause with a time of its own."""
    generator, found = np.random.default_rng(5), []
    for gap_s in (0.03, 0.06, 0.09, 0.12) * 4:
        gaps_s = gap_s * np.exp(generator.normal(0, sigma, 380))
        for at in range(len(gaps_s)):
            lengths = generator.exponential(pause_s or 1.0, generator.poisson(pauses_per_s * gap_s))
            gaps_s[at] += lengths.sum()
        middle = float(np.median(gaps_s))
        found.append(Stream(gaps_s / middle, middle, gap_s))
    return found


@pytest.mark.parametrize(("pauses_per_s", "pause_s"), [(0.4, 0.08), (2.0, 0.03)])
def test_pauses_are_found_again(pauses_per_s: float, pause_s: float) -> None:
    known = streams(pauses_per_s, pause_s)
    found = fit_tail(known)
    assert found.pauses_per_s * found.pause_s == pytest.approx(pauses_per_s * pause_s, rel=0.35)
    # short pauses in a fifth of all gaps are hard to tell from a wider body
    assert found.pause_s == pytest.approx(pause_s, rel=0.5)
    assert found.body * np.mean([one.sigma for one in known]) == pytest.approx(0.2, rel=0.06)


def test_gaps_without_a_tail_have_next_to_no_pauses() -> None:
    found = fit_tail(streams(0.0, 0.0))
    assert found.pauses_per_s * found.pause_s < 0.005


def test_too_few_gaps_say_nothing_of_a_tail() -> None:
    few = [Stream(one.relative[:40], one.gap_s, one.work_s) for one in streams(2.0, 0.03)[:4]]
    assert fit_tail(few) == Tail()


@pytest.mark.parametrize(("study", "low", "high"), [("exo", 0.4, 0.6), ("exo/campaign2", 0.4, 0.6)])
def test_p99_of_left_out_recordings_is_too_low_as_often_as_too_high(
    study: str, low: float, high: float
) -> None:
    lines = (RESULTS / study / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    errors = [json.loads(line)["p99_error"] for line in lines]
    assert low <= np.mean([error < 0 for error in errors]) <= high
