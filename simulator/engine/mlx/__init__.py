"""Plain mlx-lm with its own tensor parallelism (`mlx.launch`,
`model.shard`): no master, no rounds but the layers'.
"""

from __future__ import annotations

from pathlib import Path

from simulator.engine.sharded import tensor_engine

__all__ = ["ENGINE"]

ENGINE = tensor_engine(Path(__file__).parent)
