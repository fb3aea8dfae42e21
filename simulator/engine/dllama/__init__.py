"""distributed-llama: the root embeds and tells, every node sends its partial sums to every other one."""

from __future__ import annotations

from pathlib import Path

from simulator.engine.sharded import tensor_engine

__all__ = ["ENGINE"]

ENGINE = tensor_engine(Path(__file__).parent)
