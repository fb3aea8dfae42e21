"""The study of scenarios/local_mlx on a made-up machine: what its training set can teach, before a real one is asked."""

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

FOLDER = Path("scenarios/local_mlx")
LAYERS_PER_S, HOP_S, STEP_S = 1.35e9, 0.13e-3, 1.5e-3
"""The truth: faster than the scenarios say, and messages that cost what real ranks' did."""


@pytest.fixture(scope="module")
def scenarios() -> dict[str, Scenario]:
    return {path.stem: load(path) for path in sorted(FOLDER.glob("*.yaml"))}


def measured(scenario: Scenario, seed: int) -> Sample:
    """Two runs of the scenario on the true machine."""
    told = scenario.model_dump(mode="json", exclude_none=True)
    for device in told["devices"].values():
        device["speed"] = device["speed"] | {"decode_bandwidth": f"{LAYERS_PER_S} B/s", "decode_spread": 0.0}
        device["noise"] = {"sigma": 0.03, "run_sigma": 0.01}
    told["engine"] |= {"hop_overhead": f"{HOP_S} s", "step_overhead": f"{STEP_S} s", "overhead_spread": 0.0}
    told["common_noise"] = {"sigma": 0.0}
    told["tails"] = 1e6  # the true machine is no odd one
    job = prepare(Scenario.model_validate(told | {"seed": seed})).job
    times_s = token_times_s(job, 2)[0]
    prompt = scenario.workload.prompt_tokens
    runs = tuple(RunSample(np.diff(row), float(row[0]), prompt, prompt + len(row) / 2) for row in times_s.T)
    return Sample(scenario.name, f"{seed:064x}", scenario, runs, ())


@pytest.fixture(scope="module")
def study(scenarios: dict[str, Scenario]) -> StudySplit:
    samples = [measured(scenario, number + 1) for number, scenario in enumerate(scenarios.values())]
    return run_split("made up", samples, _training_of(FOLDER), draws=60)


def test_seventeen_are_held_out_and_each_is_new(scenarios: dict[str, Scenario]) -> None:
    training = _training_of(FOLDER)
    trained = [scenarios[name] for name in training]
    kinds = {name: kind_of(one, trained) for name, one in scenarios.items() if name not in training}
    assert len(kinds) == 17
    assert set(kinds.values()) == {"new strategy", "other ranks", "new link", "slower device"}
    assert all((kind == "new strategy") == name.startswith("pipe") for name, kind in kinds.items())


def test_what_is_taught_by_tensor_predicts_pipelines(study: StudySplit) -> None:
    """The aims of the real study, met where the model is true: 5 % at the median, 15 % at worst."""
    errors = {row.name: row.median_error for row in study.validations}
    assert median(map(abs, errors.values())) <= 0.05
    assert max(map(abs, errors.values())) <= 0.15
    new = [abs(row.median_error) for row in study.validations if row.kind == "new strategy"]
    assert median(new) <= 0.05
    assert sum(row.in_90 for row in study.validations) >= 14
