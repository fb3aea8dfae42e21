"""Proposed placements fit, differ, and separate what a poorer choice does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibrate.design import propose
from calibrate.forward import design, job_of, parameter_names
from calibrate.parameters import device_of, kind_of_parameter
from calibrate.samples import sample
from calibrate.study import plainest
from simulator.errors import CalibrationError
from simulator.files import load
from simulator.prepare import prepare
from simulator.result.measurement import read_measurement
from simulator.scenario import Scenario

DATA = Path(__file__).parents[1] / "data" / "campaign"


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return sample(read_measurement(DATA / "C_a8b8c8.jsonl")).scenario


def test_proposals_fit_and_are_distinct(scenario: Scenario) -> None:
    proposals = propose(scenario, 6)
    assert (
        len({(*proposal.layers.items(), proposal.scenario.workload.prompt_tokens) for proposal in proposals})
        == 6
    )
    for proposal in proposals:
        assert prepare(proposal.scenario).job.placement.layer_counts == proposal.layers
        assert sum(proposal.layers.values()) == 24


def test_each_proposal_adds_knowledge(scenario: Scenario) -> None:
    proposals = propose(scenario, 6)
    for before, after in zip(proposals, proposals[1:], strict=False):
        assert all(after.relative_sd[name] <= before.relative_sd[name] + 1e-9 for name in after.relative_sd)
    assert proposals[-1].relative_sd["layer_s/a"] < 0.2


def test_greedy_beats_the_same_number_of_placements_at_random(scenario: Scenario) -> None:
    chosen = [proposal.scenario for proposal in propose(scenario, 5)]
    everything = [proposal.scenario for proposal in propose(scenario, 40)]
    names = parameter_names(chosen)
    values = {name: 2.5e-3 if device_of(name) else kind_of_parameter(name).size for name in names}

    def information(scenarios: list[Scenario]) -> float:
        model = design([job_of(one, 100) for one in scenarios], names, values)
        relative = model.matrix * model.at / model.base[:, None]
        return float(np.linalg.slogdet(relative.T @ relative + 1e-2 * np.eye(len(names)))[1])

    generator = np.random.default_rng(5)
    others = [
        information([everything[i] for i in generator.choice(len(everything), 5, replace=False)])
        for _ in range(20)
    ]
    assert information(chosen) > np.median(others)


def test_a_single_possible_placement_is_refused(scenario: Scenario) -> None:
    long = scenario.workload.model_copy(update={"prompt_tokens": 1500})
    alone = scenario.model_copy(
        update={
            "workload": long,
            "devices": {"a": scenario.devices["a"]},
            "placement": scenario.placement.model_copy(update={"layers": {"a": 24}}),
        }
    )
    with pytest.raises(CalibrationError, match="nothing to choose"):
        propose(alone, 3)


def test_a_long_prompt_is_proposed_because_only_it_shows_what_a_context_costs(scenario: Scenario) -> None:
    proposals = propose(scenario, 6)
    prompts = [proposal.scenario.workload.prompt_tokens for proposal in proposals]
    assert {scenario.workload.prompt_tokens, 1500} == set(prompts)
    first_long = prompts.index(1500)
    before = proposals[first_long - 1].relative_sd["context_cost"] if first_long else 3.0
    assert proposals[first_long].relative_sd["context_cost"] < before


def test_the_client_of_a_star_stays_first() -> None:
    """A llama.cpp RPC client runs where the chat runs; another first device would be another client."""
    asked = load(Path(__file__).parents[2] / "scenarios" / "local" / "four_even.yaml", Scenario)
    for proposal in propose(asked, 8):
        assert next(iter(proposal.layers)) == "laptop"


def test_devices_of_one_machine_teach_about_each_other() -> None:
    """With what the fit believes of alike devices, one of them measured makes all of them known to a few percent more."""
    asked = load(Path(__file__).parents[2] / "scenarios" / "local" / "four_even.yaml", Scenario)
    first = propose(asked, 1)[0]
    assert set(first.layers) == {"laptop"}
    assert first.relative_sd["layer_s/phone"] < 0.2


def test_the_plainest_scenario_has_what_most_have() -> None:
    folder = Path(__file__).parents[2] / "scenarios" / "local"
    known = [load(path, Scenario) for path in sorted(folder.glob("*.yaml"))]
    assert plainest(known).name == "four_even"
    with pytest.raises(CalibrationError, match="no scenario to design"):
        plainest([])
