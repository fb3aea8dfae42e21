"""Proposed placements fit, differ, and separate what a poorer choice does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibrate.design import _apart, _information, _like, _once_measured, propose
from calibrate.forward import parameter_names
from calibrate.prior import MODEL_ERROR, USUAL_ERROR
from calibrate.samples import sample
from calibrate.study import plainest
from simulator.errors import CalibrationError
from simulator.files import load
from simulator.prepare import prepare
from simulator.result.measurement import read_measurement
from simulator.scenario import Scenario

LIVE2 = Path(__file__).parents[2] / "results" / "exo" / "live2"
DATA = Path(__file__).parents[1] / "data" / "campaign"


@pytest.fixture(autouse=True)
def fewer_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 60 splits most are alike; a third of them shows the same in a third of the time."""
    monkeypatch.setattr("calibrate.design.CANDIDATES", 20)


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


def test_a_scenario_is_proposed_its_own_neighbourhood_and_no_split_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The determinant proposed all layers on one node (four times), 1/3/20 (twice) and 23/1, which trained a bias."""
    monkeypatch.undo()  # of a third of the candidates too few lie near
    own = sample(read_measurement(LIVE2 / "others" / "own.jsonl.gz")).scenario
    splits = [tuple(sorted(proposal.layers.items())) for proposal in propose(own, 8)]
    assert len(set(splits)) == 8
    largest = [max(count for _, count in split) / 24 for split in splits]
    assert sum(share > 0.7 for share in largest) <= 2  # one alone tells what hops cost
    assert {len(split) for split in splits} == {1, 2, 3}
    assert {name for split in splits for name, _ in split} == {"node-a", "node-b", "node-c"}


def test_balanced_splits_are_known_better_than_after_extremes() -> None:
    """What the measured circles showed, as the design sees it: six balanced ones leave less open than eight extremes."""
    own = sample(read_measurement(LIVE2 / "others" / "own.jsonl.gz")).scenario

    def left_open(files: str) -> float:
        known = [sample(read_measurement(path)).scenario for path in sorted((LIVE2 / files).glob("*.gz"))]
        names = parameter_names([own, *known])
        rows, information = _information([own, *known], names)
        apart = _apart([own, *known])
        covariance = USUAL_ERROR**2 * rows @ np.linalg.inv(information) @ rows.T + MODEL_ERROR**2 * _like(
            apart
        )
        for index in range(1, len(known) + 1):
            covariance = _once_measured(covariance, index)
        return float(covariance[0, 0])

    assert left_open("circle3") < left_open("circle2")


def test_what_is_measured_already_is_not_proposed_again() -> None:
    own = sample(read_measurement(LIVE2 / "others" / "own.jsonl.gz")).scenario
    first = [proposal.scenario for proposal in propose(own, 3)]
    later = propose(own, 3, measured=first)
    assert not {tuple(p.layers.items()) for p in later} & {
        tuple((p.placement.layers or {}).items()) for p in first
    }


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


def test_no_prompt_is_longer_than_the_scenario_needs(scenario: Scenario) -> None:
    """One of 1,500 tokens for a scenario of 32 and 64 took minutes and told of no question of its user."""
    work = scenario.workload
    for proposal in propose(scenario, 12):
        assert proposal.scenario.workload.prompt_tokens in {
            work.prompt_tokens,
            work.prompt_tokens + work.output_tokens,
        }


def test_what_will_be_asked_is_designed_for_and_not_given_away() -> None:
    """A folder that asks for 1,500 tokens of context was calibrated on 64 alone, and was 22 % too fast there."""
    folder = Path(__file__).parents[2] / "scenarios" / "local"
    own = load(folder / "four_even.yaml", Scenario)
    asked = [own, load(folder / "four_long_context.yaml", Scenario), load(folder / "two_even.yaml", Scenario)]
    proposals = propose(own, 4, asked=asked)
    assert max(one.scenario.workload.prompt_tokens for one in proposals) == 1564
    assert {"laptop": 4, "desktop": 4, "mini": 4, "phone": 4} not in [one.layers for one in proposals]
    assert {"laptop": 8, "desktop": 8} not in [one.layers for one in proposals]


def test_the_client_of_a_star_stays_first() -> None:
    """A llama.cpp RPC client runs where the chat runs; another first device would be another client."""
    asked = load(Path(__file__).parents[2] / "scenarios" / "local" / "four_even.yaml", Scenario)
    for proposal in propose(asked, 8):
        assert next(iter(proposal.layers)) == "laptop"


def test_devices_of_one_machine_teach_about_each_other() -> None:
    """With what the fit believes of alike devices, one of them measured makes all of them known to a few percent more."""
    asked = load(Path(__file__).parents[2] / "scenarios" / "local" / "four_even.yaml", Scenario)
    first = propose(asked, 1)[0]
    assert "phone" not in first.layers
    assert first.relative_sd["layer_s/phone"] < 0.25


def test_the_plainest_scenario_has_what_most_have() -> None:
    folder = Path(__file__).parents[2] / "scenarios" / "local"
    known = [load(path, Scenario) for path in sorted(folder.glob("*.yaml"))]
    assert plainest(known).name == "four_even"
    with pytest.raises(CalibrationError, match="no scenario to design"):
        plainest([])
