"""ModelSpec: the LLM as a scenario file says it."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any

from pydantic import Field, model_validator

from simulator.layer import LayerKind, experts_fault
from simulator.spec import PositiveBytes, Spec
from simulator.units import Bytes

__all__ = ["ModelSpec"]


class ModelSpec(Spec):
    """The LLM: a catalogue name, a file's header, or its numbers."""

    name: str
    quantisation: str | None = None
    gguf: str | None = Field(default=None, description="path of a GGUF file; only its header is read")
    hf_config: str | None = Field(default=None, description="path of a Hugging Face config.json")
    bits_per_weight: float | None = Field(default=None, gt=0.5, le=64, description="with hf_config")
    layers: int | None = Field(default=None, ge=1, le=1000)
    hidden: int | None = Field(default=None, ge=1, le=1_000_000)
    layer_bytes: PositiveBytes | None = None
    active_layer_bytes: PositiveBytes | None = Field(
        default=None, description="read per token (mixture of experts)"
    )
    experts: int | None = Field(default=None, ge=0, le=100_000)
    experts_per_token: int | None = Field(default=None, ge=0, le=100_000)
    expert_layer_bytes: Annotated[Bytes, Field(ge=0)] | None = Field(
        default=None, description="of all experts"
    )
    embedding_bytes: Annotated[Bytes, Field(ge=0)] | None = None
    head_bytes: Annotated[Bytes, Field(ge=0)] | None = None
    kv_bytes_per_token_per_layer: Annotated[Bytes, Field(ge=0)] | None = None
    kv_heads: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="heads of the KV cache, by which tensor parallelism splits it",
    )
    split_widths: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        default=None, max_length=100, description="columns of a layer that tensor parallelism splits"
    )
    layer_flops: float | None = Field(
        default=None, gt=0, description="floating point operations per layer and token"
    )
    head_flops: float | None = Field(default=None, ge=0)
    activation_bytes: PositiveBytes | None = Field(
        default=None, description="of the hidden state of one token"
    )
    layer_kinds: tuple[LayerKind, ...] | None = Field(
        default=None, max_length=1000, description="where layers differ: their kinds, in bytes"
    )
    layer_pattern: tuple[int, ...] | None = Field(
        default=None, max_length=10_000, description="the kind of each layer in order, counted from 0"
    )
    doubts: tuple[str, ...] = Field(
        default=(), max_length=100, description="what had to be guessed about it, in words"
    )
    other_bytes: Annotated[Bytes, Field(ge=0)] | None = Field(
        default=None, description="held with the embedding and never read for text: a vision tower"
    )

    @model_validator(mode="before")
    @classmethod
    def _called_as_its_file(cls, said: Any) -> Any:
        """Without a name: that of the folder of a config.json, else of the file."""
        path = isinstance(said, dict) and "name" not in said and (said.get("hf_config") or said.get("gguf"))
        if not isinstance(path, str):
            return said
        file = PurePath(path)
        name = file.parent.name if file.name == "config.json" and file.parent.name else file.stem
        return {"name": name or path, **said}

    @model_validator(mode="after")
    def _numbers_say_what_is_sent(self) -> ModelSpec:
        if self.layers is not None and self.layer_bytes is not None and self.hidden is None:
            # no guess: a wrong width is wrong in every message
            way_out = "give hidden (hidden_size in its config.json), or only the name of a catalogue model"
            raise ValueError(f"{self.name} has layers and layer_bytes but not hidden, its width; {way_out}")
        return self

    @model_validator(mode="after")
    def _experts_are_part_of_a_layer(self) -> ModelSpec:
        if self.layer_bytes is not None:
            fault = experts_fault(
                self.layer_bytes,
                self.active_layer_bytes or self.layer_bytes,
                self.experts or 0,
                self.experts_per_token or 0,
                self.expert_layer_bytes or 0.0,
            )
            if fault is not None:
                raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _each_layer_has_a_kind(self) -> ModelSpec:
        kinds, pattern = self.layer_kinds or (), self.layer_pattern or ()
        if bool(kinds) != bool(pattern):
            raise ValueError("layer_kinds and layer_pattern belong together; give both or neither")
        if pattern and self.layers not in (None, len(pattern)):
            raise ValueError(
                f"layer_pattern has {len(pattern)} layers, but layers is {self.layers}; they must agree"
            )
        if pattern and self.layer_bytes is not None and max(pattern) < len(kinds):
            mean = sum(kinds[kind].weight_bytes for kind in pattern) / len(pattern)
            if abs(self.layer_bytes - mean) > 0.01 * mean:
                raise ValueError(
                    f"layer_bytes is {self.layer_bytes:g} B and the layers of layer_pattern have {mean:g} B "
                    "on "
                    "average; give that"
                )
        unknown = [kind for kind in pattern if not 0 <= kind < len(kinds)]
        if unknown:
            raise ValueError(f"layer_pattern names kind {unknown[0]}, but kinds are 0 to {len(kinds) - 1}")
        return self
