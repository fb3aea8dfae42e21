"""The measurement doubts itself when, and only when, there is reason to."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from live.local.cluster import Run
from live.local.doubts import doubts, repeatability
from live.local.plan import DevicePlan

TOKENS = 90


def run(scale: float = 1.0, late_ns: int = 1000, growth: float = 0.0) -> Run:
    gaps_ns = 20e6 * scale * (1 + growth * np.arange(TOKENS) / TOKENS)
    flights = tuple({"late_ns": late_ns} for _ in range(200))
    return Run(0, tuple(np.cumsum(gaps_ns).astype(int).tolist()), flights, {}, {})


def plan(output_tokens: int = TOKENS, share: float = 0.5) -> Any:
    device = DevicePlan("phone", 0, 4, share, 1, None, 0.01)
    workload = SimpleNamespace(output_tokens=output_tokens)
    return SimpleNamespace(scenario=SimpleNamespace(workload=workload), devices=(device,))


QUIET: dict[str, Any] = {
    "visits": [[run()], [run(1.01)]],
    "achieved": {"phone": 0.51},
    "others_cores": [0.02],
    "reference_s": [0.017, 0.0172],
}


def test_a_quiet_measurement_raises_no_doubt() -> None:
    assert doubts(plan(), **QUIET) == []


def test_a_growing_context_is_no_drift() -> None:
    assert doubts(plan(), **QUIET | {"visits": [[run(growth=0.5)], [run(growth=0.5)]]}) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"others_cores": [0.0, 0.8]}, "0.80 cores busy"),
        ({"reference_s": [0.017, 0.020]}, "reference workload drifted by 16%"),
        ({"achieved": {"phone": 0.7}}, "phone was to run at 50% of full speed and ran at 70%"),
        ({"visits": [[run(late_ns=2_000_000)]]}, "relay delivered late: 2 ms at the median"),
        ({"visits": [[run()], [run()], [run(1.3)]]}, "the last third of all tokens took +30%"),
    ],
)
def test_each_doubt_names_its_figure(changes: dict[str, Any], words: str) -> None:
    found = doubts(plan(), **QUIET | changes)
    assert len(found) == 1
    assert words in found[0]


def test_few_tokens() -> None:
    assert "only 20 tokens per run" in doubts(plan(output_tokens=20), **QUIET)[0]


def test_repeatability_is_the_range_of_the_visits() -> None:
    found = repeatability([[run(), run(1.02)], [run(1.1)]])
    assert found["relative_range"] == pytest.approx((1.1 - 1.01) / 1.055, rel=0.01)
    assert len(found["run_median_s"]) == 3  # type: ignore[arg-type]
    alone = repeatability([[run(), run(1.02)]])
    assert alone["relative_range"] == pytest.approx(0.02 / 1.01)
    assert replace(run(), sent_ns=0).wall_s == pytest.approx(TOKENS * 0.02)
