"""Predict how fast a large language model decodes in a pipeline across the devices of one LAN.

From a scenario to an answer:

>>> import simulator
>>> scenario = simulator.load("five_devices")  # a name, or a file of your own
>>> prediction = simulator.predict(scenario.replace(replications=20), with_what_ifs=False)
>>> sorted(prediction.prepared.job.placement.devices)
['iphone', 'laptop', 'macbook', 'old_phone', 'pixel']
>>> prediction.summary.tokens_per_s.p05 < prediction.summary.tokens_per_s.median
True

`predict` answers one scenario, `compare` ranks several on the same random numbers, `chart` draws a
prediction, `write_folder` keeps it. Every figure is an `Estimate`: median, 90 % interval, label. All errors
that a user can mend are `SimulatorError`. What is not named here may change without notice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.face import face

if TYPE_CHECKING:
    from simulator.errors import ScenarioError, SimulatorError
    from simulator.library import load, scenario_names
    from simulator.result.bottleneck import Bottleneck
    from simulator.result.critical import PathShare
    from simulator.result.estimate import Estimate
    from simulator.result.folder import write_folder
    from simulator.result.measured import Measured, measured_summary
    from simulator.result.measurement import Measurement, read_measurement
    from simulator.result.show import chart
    from simulator.result.summary import Summary
    from simulator.run.compare import Comparison, Ranked, compare
    from simulator.run.predict import Prediction, predict
    from simulator.run.what_if import WhatIf
    from simulator.scenario import Scenario
    from simulator.version import VERSION

__all__ = [
    "VERSION",
    "Bottleneck",
    "Comparison",
    "Estimate",
    "Measured",
    "Measurement",
    "PathShare",
    "Prediction",
    "Ranked",
    "Scenario",
    "ScenarioError",
    "SimulatorError",
    "Summary",
    "WhatIf",
    "chart",
    "compare",
    "load",
    "measured_summary",
    "predict",
    "read_measurement",
    "scenario_names",
    "write_folder",
]

_HOMES = {
    "simulator.errors": ("ScenarioError", "SimulatorError"),
    "simulator.library": ("load", "scenario_names"),
    "simulator.result.bottleneck": ("Bottleneck",),
    "simulator.result.critical": ("PathShare",),
    "simulator.result.estimate": ("Estimate",),
    "simulator.result.folder": ("write_folder",),
    "simulator.result.measured": ("Measured", "measured_summary"),
    "simulator.result.measurement": ("Measurement", "read_measurement"),
    "simulator.result.show": ("chart",),
    "simulator.result.summary": ("Summary",),
    "simulator.run.compare": ("Comparison", "Ranked", "compare"),
    "simulator.run.predict": ("Prediction", "predict"),
    "simulator.run.what_if": ("WhatIf",),
    "simulator.scenario": ("Scenario",),
    "simulator.version": ("VERSION",),
}

if not TYPE_CHECKING:  # type checkers would take every name for one that is here
    __getattr__, __dir__ = face(__name__, _HOMES)
