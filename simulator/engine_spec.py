"""EngineSpec: the software that moves a token, as a scenario names it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from simulator.processor_spec import Label, Name
from simulator.spec import Duration, LogSd, ToldSeconds, ToldSpec
from simulator.units import TIME, Bytes

__all__ = ["EngineSpec"]

DEFAULT = "exo"
TENSOR = "-tensor"
"""What follows the name of an engine where it shards by tensor."""


class EngineSpec(ToldSpec):
    """The software that moves a token, and its own costs."""

    PLUS_MINUS: ClassVar = dict.fromkeys(("step_overhead", "hop_overhead"), ("overhead_spread", TIME))

    name: Name = DEFAULT
    sharding: Literal["pipeline", "tensor"] | None = Field(
        default=None, description="tensor: every device holds a part of each layer (engines that can)"
    )
    backend: Name | None = Field(
        default=None, description="what carries collectives: ring, jaccl, nccl, sockets; a pipeline has none"
    )
    step_overhead: ToldSeconds | None = Field(
        default=None, description="host time per token on each rank: sampling, Python"
    )
    hop_overhead: ToldSeconds | None = Field(
        default=None, description="host time per message beyond the link's delay"
    )
    request_overhead: Duration | None = Field(
        default=None, description="host time per request before its prompt is read"
    )
    overhead_spread: LogSd | None = None
    hop_spread: LogSd | None = Field(default=None, description="of hop_overhead, where it is another")
    memory_overhead: Annotated[Bytes, Field(ge=0)] | None = Field(
        default=None, description="per device, beside weights"
    )
    protocol: Annotated[str, BeforeValidator(str)] | None = Field(
        default=None, description="version of the wire protocol (llama-rpc: 1.0 to 7); default: the newest"
    )
    push: bool | None = Field(
        default=None,
        description="servers hand hidden states on by themselves (petals); default: as it is shipped, no",
    )
    compression: Literal["none", "float16", "8bit"] | None = Field(
        default=None, description="of hidden states on the wire (petals); default: none"
    )
    stands_for: str | None = Field(
        default=None,
        max_length=60,
        description="the engine that is meant, where this one only stands for it: speeds are less sure then",
    )
    label: Label = "assumed"

    @model_validator(mode="before")
    @classmethod
    def _strategy_is_of_the_name(cls, told: Any) -> Any:
        # tensor parallelism is a flow of its own, which everything behind asks for by its one name
        if not isinstance(told, dict) or not isinstance(name := told.get("name", DEFAULT), str):
            return told
        plain = name.removesuffix(TENSOR)
        named = {"pipeline": plain, "tensor": plain + TENSOR}
        return told | {"name": named.get(str(told.get("sharding")), name)}
