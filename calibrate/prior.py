"""What is believed before any measurement, in the one place that the fit and the
design of measurements share.

Devices of one kind are alike, and what all share is where the table of `parameters` has it. Each belief is a
row of least squares that weighs as much as one run that errs by `USUAL_ERROR`; all give way to data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibrate.parameters import CONTEXT_COST, PARAMETERS, device_of, kind_of_parameter
from simulator.laws.law import Floats
from simulator.scenario import Scenario

__all__ = ["MODEL_ERROR", "USUAL_ERROR", "Prior", "is_unpacked", "prior"]

MODEL_ERROR = 0.1
"""Log sd of what the model misses of one split: token times are not quite linear in the layers."""
POOLING_LOG_SD = 0.05
"""How much two machines of one kind usually differ (natural logarithm): the same chip in the same model, at
the same settings. Assumed; it matters only where placements do not separate them.
"""
UNPACKED_CONTEXT = (1.0, 0.5)
"""Belief about what a byte of the cache costs where weights are as wide as what is computed with: a byte is
a byte. The half of the second EXO campaign that calibrates has 0.8 (0.6 to 1.2) in 32 bits on a processor,
the catalogue's graphics processors 1.45 to 1.8, most with packed weights.
"""
AS_WIDE = 0.1
"""Relative difference of two widths that are one: norms are not packed, nor counted as flops."""
USUAL_ERROR = 0.1
"""Relative error of one run against a good model: what repeats of one placement on a
shared machine differ by.
"""


@dataclass(frozen=True, slots=True)
class Prior:
    """Beliefs about the parameters `names`."""

    names: tuple[str, ...]
    pooled: tuple[tuple[int, ...], ...]
    """Columns of devices that are alike: of one catalogue kind, or all played by one machine."""
    beliefs: dict[str, tuple[float, float]]
    """Mean and standard deviation of shared parameters, in the units of `ParameterKind.belief`."""

    def told(self, name: str, found: tuple[float, float] | None) -> Prior:
        """The beliefs, that about a parameter put together with another one (mean, standard deviation)."""
        if found is None:
            return self
        means, weights = zip(*((mean, sd**-2) for mean, sd in (self.beliefs[name], found)), strict=True)
        both = float(np.average(means, weights=weights)), float(np.sum(weights) ** -0.5)
        return replace(self, beliefs={**self.beliefs, name: both})

    def rows(self, values: Floats, gap_s: float) -> tuple[Floats, Floats]:
        """(rows, wanted): beliefs about parameters whose values are near `values`, of
        tokens that take about `gap_s`.
        """
        extra, wanted = [], []
        for group in self.pooled:
            # in units of the group's own mean, so that 5 % is 5 % of a phone and of a graphics card
            mean = max(float(np.mean(values[list(group)])), 1e-9)
            for column in group:
                row = np.zeros(len(values))
                # to the mean of the others and itself: one row each, of which all but one are independent
                row[list(group)] -= 1 / len(group)
                row[column] += 1
                extra.append(row / (mean * POOLING_LOG_SD) * USUAL_ERROR)
                wanted.append(0.0)
        for column, name in enumerate(self.names):
            if name in self.beliefs:
                unit = gap_s if kind_of_parameter(name).unit == "s" else 1.0
                mean, sd = (unit * value for value in self.beliefs[name])
                row = np.zeros(len(values))
                row[column] = USUAL_ERROR / sd
                extra.append(row)
                wanted.append(mean * USUAL_ERROR / sd)
        return np.array(extra).reshape(-1, len(values)), np.array(wanted)


def prior(names: Sequence[str], scenarios: Sequence[Scenario]) -> Prior:
    """The beliefs behind a fit of measurements of these scenarios."""
    alike: dict[str, str] = {}
    for scenario in scenarios:
        for name, device in scenario.devices.items():
            # devices that one machine plays share its cores and memory whatever they are called
            host = "one machine" if scenario.shared_host is not None else f"only {name}"
            alike[name] = device.kind or host
    groups: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        owner = device_of(name)
        if owner is not None:
            groups.setdefault(alike[owner], []).append(column)
    said = [
        device.speed.context_cost
        for scenario in scenarios
        for device in scenario.devices.values()
        if device.speed
    ]
    beliefs = {kind.name: kind.belief for kind in PARAMETERS.values() if kind.belief is not None}
    usual = UNPACKED_CONTEXT if all(map(is_unpacked, scenarios)) else beliefs[CONTEXT_COST]
    beliefs[CONTEXT_COST] = _context_cost(float(np.mean(said)) if said else 0.0, *usual)
    return Prior(tuple(names), tuple(tuple(group) for group in groups.values() if len(group) > 1), beliefs)


def is_unpacked(scenario: Scenario) -> bool:
    """Whether weights are stored as wide as hidden states; False where the scenario does not say."""
    model = scenario.model
    if not (model.layer_flops and model.layer_bytes and model.activation_bytes and model.hidden):
        return False
    # two flops for each weight
    weight_bytes = 2 * (model.active_layer_bytes or model.layer_bytes) / model.layer_flops
    return abs(weight_bytes * model.hidden / model.activation_bytes - 1) < AS_WIDE


def _context_cost(said: float, mean: float, sd: float) -> tuple[float, float]:
    """A scenario that says more than usual of what reading a context costs is believed,
    give or take as much again.
    """
    return (said, max(sd, said)) if said > mean else (mean, sd)
