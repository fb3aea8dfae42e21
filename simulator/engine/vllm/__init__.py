"""vLLM with tensor parallelism over NCCL: decode of one to a few chats, no scheduler of its own here."""

from __future__ import annotations

from pathlib import Path

from simulator.engine.sharded import tensor_engine

__all__ = ["ENGINE"]

ENGINE = tensor_engine(Path(__file__).parent)
