"""Measure real clusters. Nothing is decided here: a scenario goes in, a Measurement file comes out.

`run_scenario` measures llama.cpp RPC (processes of this machine, or servers elsewhere), `measure_exo` a
running EXO cluster; `simulator.read_measurement` reads what they wrote:

>>> import live, simulator
>>> from pathlib import Path
>>> path = live.run_scenario(simulator.load("local/four_even"), Path("measured"))  # doctest: +SKIP
>>> simulator.measured_summary(simulator.read_measurement(path)).summary.tokens_per_s  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from live.local.run import run_scenario
    from live.measure import MeasureOptions, MeasureResult, measure_exo

__all__ = ["MeasureOptions", "MeasureResult", "measure_exo", "run_scenario"]

_HOMES = {
    "live.local.run": ("run_scenario",),
    "live.measure": ("MeasureOptions", "MeasureResult", "measure_exo"),
}


if not TYPE_CHECKING:  # as in `simulator.face`, which a phone that runs only `live.agent` does not hold

    def __getattr__(name: str) -> object:
        home = next((home for home, names in _HOMES.items() if name in names), None)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(home), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
