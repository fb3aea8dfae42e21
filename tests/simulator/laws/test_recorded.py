"""One more repeat: as wide as few repeats leave it, about where they were."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from simulator.laws import table
from simulator.laws.recorded import USUAL_FREEDOM, USUAL_LOG_SD, one_more


def test_of_two_repeats_one_more_may_lie_far_outside() -> None:
    """By hand: three degrees of belief and one of data, both repeats alike."""
    low, middle, high = np.quantile(table(one_more((2.0, 2.0))), [0.05, 0.5, 0.95])
    sd = USUAL_LOG_SD * np.sqrt(USUAL_FREEDOM / (USUAL_FREEDOM + 1)) * np.sqrt(1.5)
    assert middle == pytest.approx(2.0, rel=1e-3)
    assert np.log(high / 2) == pytest.approx(sd * student.ppf(0.95, USUAL_FREEDOM + 1), rel=0.01)
    assert low * high == pytest.approx(4.0, rel=0.01)


def test_ninety_per_cent_hold_the_next_repeat() -> None:
    """Repeats that differ as much as is believed: of three, an interval between them would hold the next in half."""
    generator, held = np.random.default_rng(1), 0
    for _ in range(400):
        *known, new = np.exp(generator.normal(0.0, USUAL_LOG_SD, 4)).tolist()
        low, high = np.quantile(one_more(tuple(known)).samples, [0.05, 0.95])
        held += low <= new <= high
    assert 0.86 <= held / 400 <= 0.96
