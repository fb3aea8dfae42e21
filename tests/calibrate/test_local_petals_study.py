"""The study of scenarios/local_petals on a made-up machine:
what its training set can teach, before a real one is asked.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

import numpy as np
import pytest

from calibrate.samples import RunSample, Sample
from calibrate.study import StudySplit, kind_of, run_split
from sim.calibrate_cmd import _training_of
from simulator.library import load
from simulator.prepare import prepare
from simulator.run.evaluate import token_times_s
from simulator.scenario import Scenario

FOLDER = Path("scenarios/local_petals")
HOP_S, STEP_S, SLOWER = 1.6e-3, 2.2e-3, 1.02
"""The truth: a relay that costs something, and a floor that is overshot a little."""


@pytest.fixture(scope="module")
def scenarios() -> dict[str, Scenario]:
    return {path.stem: load(path) for path in sorted(FOLDER.glob("*.yaml"))}


def measured(scenario: Scenario, seed: int) -> Sample:
    """Two runs of the scenario on the true machine."""
    told = scenario.model_dump(mode="json", exclude_none=True)
    for device in told["devices"].values():
        rate = (
            scenario.devices["anna"].speed.decode_bandwidth
            if device["speed"].get("context_cost") == 0
            else 4e9
        )
        device["speed"] = device["speed"] | {"decode_bandwidth": f"{rate / SLOWER} B/s", "decode_spread": 0.0}
        device["noise"] = {"sigma": 0.02, "run_sigma": 0.01}
    told["engine"] |= {"hop_overhead": f"{HOP_S} s", "step_overhead": f"{STEP_S} s", "overhead_spread": 0.0}
    told["common_noise"] = {"sigma": 0.0}
    told["tails"] = 1e6  # the true machine is no odd one
    job = prepare(Scenario.model_validate(told | {"seed": seed})).job
    times_s = token_times_s(job, 2)
    prompt = scenario.workload.prompt_tokens
    runs = tuple(
        RunSample(
            np.concatenate([np.diff(chat[:, run]) for chat in times_s]),
            float(np.mean(times_s[:, 0, run])),
            prompt,
            prompt + times_s.shape[1] / 2,
        )
        for run in range(2)
    )
    return Sample(scenario.name, f"{seed:064x}", scenario, runs, ())


@pytest.fixture(scope="module")
def study(scenarios: dict[str, Scenario]) -> StudySplit:
    samples = [measured(scenario, number + 1) for number, scenario in enumerate(scenarios.values())]
    with pytest.MonkeyPatch.context() as patch:
        # medians are all that is looked at, and several chats at once are simulated event by event
        patch.setattr("calibrate.study.REPLICATIONS", 30)
        return run_split("made up", samples, _training_of(FOLDER), draws=20)


def test_fifteen_are_held_out_and_each_is_new(scenarios: dict[str, Scenario]) -> None:
    training = _training_of(FOLDER)
    trained = [scenarios[name] for name in training]
    kinds = {name: kind_of(one, trained) for name, one in scenarios.items() if name not in training}
    assert len(kinds) == 15
    assert set(kinds.values()) == {"new link", "slower device", "several chats", "new split"}


def test_near_servers_without_push_teach_all_others(study: StudySplit) -> None:
    """The aims of the real study, met where the model is true: 6 % at the median, 15 % at worst."""
    errors = {row.name: row.median_error for row in study.validations}
    assert median(map(abs, errors.values())) <= 0.06
    assert max(map(abs, errors.values())) <= 0.15
    assert sum(row.in_90 for row in study.validations) >= 13
