"""Cases: published rows as scenarios. What a source left open is drawn over, not picked.

A file `scenarios/published/<row>.yaml` names its row, says what was assumed, lists what the source left open
as equally likely values of scenario paths, and holds the scenario itself.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from simulator.errors import CalibrationError, SimulatorError
from simulator.files import load
from simulator.plan.sweep.paths import variants
from simulator.plan.sweep.points import Point
from simulator.scenario import Scenario
from simulator.spec import Spec

__all__ = ["Case", "load_case", "load_cases", "readings"]

LEAST_WORLDS = 1000
"""Of a case: with 200 the ends of 90 % intervals are off by 4 to 8 % by chance, and figures there tip."""
MOST_READINGS = 12
"""Ways to read a source that are predicted; of more, so many are drawn: a case then takes seconds."""


class Case(Spec):
    """One published row as a scenario, with what its source left open."""

    row: str
    """The row, as the table names it."""
    stands_for: str = ""
    """The source's engine, where ours only stands for it."""
    apart: str = ""
    """Why the row is counted apart from others of its strategy, as a group's name has it."""
    assumed: tuple[str, ...] = ()
    """What was taken without the source saying it, in words."""
    open: dict[str, tuple[int | float | str, ...]] = Field(default_factory=dict)
    """Equally likely values by scenario path; `*` in a path is every device."""
    rate: Literal["decode", "whole", "unknown"] = "decode"
    """What the source's tokens/s are of: from the first token to the last, or over the prompt too."""
    scenario: Scenario


def load_case(file: Path) -> Case:
    """The case of a file; raises ScenarioError with every fault of it, CalibrationError for a wrong name."""
    case = load(file, Case)
    if case.row != file.stem:
        raise CalibrationError(f"{file}: row is {case.row!r}; a case is in the file of its row's name")
    return case


def load_cases(folder: Path) -> tuple[Case, ...]:
    """Every case of a folder, by name; raises CalibrationError for a folder without any."""
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise CalibrationError(
            f"{folder}: no case (*.yaml) there; name a folder with some, as scenarios/published"
        )
    return tuple(load_case(file) for file in files)


def readings(case: Case) -> tuple[Scenario, ...]:
    """The scenario in each way that its source may be read, the replications shared out among them.

    Each reading has worlds of its own: a mixture of the same worlds would count few of them many times.
    """
    base = case.scenario
    if case.stands_for:
        meant = base.engine.model_copy(update={"stands_for": case.stands_for})
        base = base.model_copy(update={"engine": meant})
    points = [
        Point(tuple((path, value) for paths, value in chosen for path in paths))
        for chosen in product(
            *([(_paths(case, path), value) for value in values] for path, values in case.open.items())
        )
    ]
    if len(points) > MOST_READINGS:
        drawn = np.random.default_rng(case.scenario.seed).choice(len(points), MOST_READINGS, replace=False)
        points = [points[at] for at in sorted(drawn)]
    share = -(-max(case.scenario.replications, LEAST_WORLDS) // len(points))
    try:
        found = list(variants(base, points))
    except SimulatorError as error:
        raise CalibrationError(f"{case.row}: what is open does not fit its scenario: {error}") from error
    return tuple(
        scenario.replace(seed=case.scenario.seed + at, replications=share)
        for at, scenario in enumerate(found)
    )


def _paths(case: Case, path: str) -> tuple[str, ...]:
    """The paths that a path with `*` stands for."""
    return tuple(path.replace("*", name) for name in case.scenario.devices) if "*" in path else (path,)
