"""What a throttled device costs, also where a calibration says how much the devices of one machine disturb each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from calibrate.applied import apply
from calibrate.calibration import load_calibration
from calibrate.parameters import layer_time
from simulator.churn.membership import Condition, altered
from simulator.churn.study import Study
from simulator.files import load
from simulator.laws.law import Floats
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.scenario import PosteriorSpec, Scenario
from tests.helpers import device, job

ROOT = Path(__file__).parents[3]


def test_half_the_speed_is_twice_the_time_in_every_world() -> None:
    """Whatever a posterior says of contention: it must not rescale what an event does."""
    shared = [replace(device(f"d{i}"), contention=0.1) for i in range(2)]
    posterior = PosteriorSpec(names=("world/contention",), draws=((1e-9,), (1.0,), (20.0,)))
    before = replace(job(shared), posterior=posterior)
    after = replace(before, cluster=altered(before.cluster, (("d0", Condition(slow=2.0)),)))

    def step_s(a_job: Job) -> Floats:
        draws, one = Draws(a_job, 0, 3), a_job.ring[0]
        return draws.decode_s(one, a_job.model.average(4), np.ones(1)) * draws.noise(one, "decode", 1)

    np.testing.assert_allclose(step_s(after), 2 * step_s(before), rtol=1e-12)


def test_a_throttled_device_of_the_local_study() -> None:
    """A token takes 93 ms; the mini's four layers at half speed add four times 4.6 ms. While an event wrote into
    `contention`, which the calibration redraws in each world, intervals reached up to four times the median.
    """
    calibration = load_calibration(ROOT / "results/local/calibration.yaml")
    plain = apply(calibration, load(ROOT / "scenarios/local/four_even.yaml", Scenario)).scenario
    throttle = {"event": "throttle", "device": "mini", "at": "0 s", "speed": 0.5}
    whole_s, half_s = (
        token_s(plain.model_dump(mode="json", exclude_none=True) | {"events": events})
        for events in ([], [throttle])
    )
    layers_s = 4 * np.median(calibration.column(layer_time("mini"))[: len(half_s)])
    # and what a context of a hundred tokens costs them
    assert layers_s < np.median(half_s - whole_s) < 1.15 * layers_s
    low, high = np.quantile(half_s / np.median(half_s), [0.05, 0.95])
    assert 0.8 < low < high < 1.2


def token_s(written: dict[str, object]) -> Floats:
    """Median time of a token in each of 100 worlds."""
    traces = Study(Scenario.model_validate(written), 100).traces()
    return np.array([np.median(np.diff(trace.replies[0].times_s)) for trace in traces])
