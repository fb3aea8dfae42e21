"""vLLM over NCCL, by pipeline and by tensor: decode of one to a few chats, no scheduler of its own here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from simulator.engine.facts import read_facts
from simulator.engine.sharded import lockstep_engine, tensor_engine
from simulator.engine.vllm.mean import mean_costs
from simulator.engine.vllm.pipeline import Pipeline

__all__ = ["ENGINE", "ENGINES"]

FOLDER = Path(__file__).parent
ENGINE = replace(
    lockstep_engine(read_facts(FOLDER), Pipeline), mean_costs=mean_costs, embedding_on="first", head_on="last"
)
ENGINES = (ENGINE, tensor_engine(FOLDER, "tensor.yaml"))
