"""Measure real clusters. Nothing is decided here: a scenario goes in, a Measurement file comes out.

`run_scenario` measures llama.cpp RPC (processes of this machine, or servers elsewhere), `measure_exo` a
running EXO cluster; `simulator.read_measurement` reads what they wrote:

>>> import live, simulator
>>> from pathlib import Path
>>> path = live.run_scenario(simulator.load("local/four_even"), Path("measured"))  # doctest: +SKIP
>>> simulator.measured_summary(simulator.read_measurement(path)).summary.tokens_per_s  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.face import face

if TYPE_CHECKING:
    from live.local.run import run_scenario
    from live.measure import MeasureOptions, MeasureResult, measure_exo

__all__ = ["MeasureOptions", "MeasureResult", "measure_exo", "run_scenario"]

_HOMES = {
    "live.local.run": ("run_scenario",),
    "live.measure": ("MeasureOptions", "MeasureResult", "measure_exo"),
}

if not TYPE_CHECKING:  # as in `simulator`: a name is imported when first asked for
    __getattr__, __dir__ = face(__name__, _HOMES)
