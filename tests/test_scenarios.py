"""The project's own scenarios: each asks its question, is predicted, and gives what it gave before."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.files import load
from simulator.scenario import Scenario
from tests.make_golden import GOLDEN, SCENARIOS, golden_file, golden_text

each = pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
WANTED = {
    "four_devices",
    "five_devices",
    "wired_laptop",
    "wifi5_contended",
    "phone_pinned",
    "thunderbolt_macs",
    "oversize",
    "legacy_phones",
}


def test_the_promised_scenarios_are_there() -> None:
    assert {path.stem for path in SCENARIOS} >= WANTED


@each
def test_a_scenario_opens_with_its_question(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    scenario = load(path, Scenario)
    assert first.startswith("# ")
    assert "?" in first
    assert scenario.name == path.stem
    assert "?" in scenario.question


@each
def test_a_scenario_gives_what_it_gave_before(path: Path) -> None:
    """If a number was meant to move: `python -m tests.make_golden`, and say by how much in CHANGELOG.md."""
    assert golden_text(path) == golden_file(path).read_text(encoding="utf-8")


def test_no_golden_file_is_left_over() -> None:
    assert {file.stem for file in GOLDEN.glob("*.json")} == {path.stem for path in SCENARIOS}
