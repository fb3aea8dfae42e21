"""Plain mlx-lm, started by `mlx.launch`: no master, no
rounds but those of its layers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from simulator.engine.facts import read_facts
from simulator.engine.mlx.mean import mean_costs
from simulator.engine.mlx.pipeline import Pipeline
from simulator.engine.sharded import lockstep_engine, tensor_engine

__all__ = ["ENGINE", "ENGINES"]

FOLDER = Path(__file__).parent
ENGINE = replace(lockstep_engine(read_facts(FOLDER), Pipeline), mean_costs=mean_costs)
ENGINES = (ENGINE, tensor_engine(FOLDER, "tensor.yaml"))
