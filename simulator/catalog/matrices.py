"""What a layer is made of: named matrices, as the files name them, and what attention keeps of each token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pydantic import ValidationError

from simulator.errors import CatalogError
from simulator.layer import LayerKind

__all__ = ["Block", "Matrix", "checked_kind", "layer_kind", "params_active", "params_of"]

FP16_BYTES, FP32_BYTES = 2, 4


@dataclass(frozen=True)
class Matrix:
    """Weights under one name of the file, 'self_attn.q_proj'; all experts of a layer share one."""

    name: str
    params: float
    is_expert: bool = False
    is_vector: bool = False
    """Norms, biases, short convolutions: no quantiser touches them."""
    is_added: bool = False
    """Biases and norms of heads: a flop or none per weight, not counted."""
    columns: int = 0
    """Values in a row, which is what blocks of a quantisation must divide; 0 where nobody asks."""


@dataclass(frozen=True)
class Block:
    """A layer, or its attention or MLP alone: weights, and what a chat costs besides."""

    matrices: tuple[Matrix, ...] = ()
    experts: int = 0
    experts_per_token: int = 0
    kv_values: float = 0.0
    """Kept of each token."""
    window: int | None = None
    read_tokens: int | None = None
    """Of those kept a step reads so many at most, which an index picks."""
    index_values: float = 0.0
    """The part of `kv_values` that the index has."""
    index_flops: float = 0.0
    state_bytes: float = 0.0
    attention_flops: float = 0.0
    state_flops: float = 0.0
    """For one token, beside two per weight."""
    latent: bool = False
    """Whether what is kept is one vector for all heads."""

    def __add__(self, other: Block) -> Block:
        return Block(
            self.matrices + other.matrices,
            max(self.experts, other.experts),
            max(self.experts_per_token, other.experts_per_token),
            self.kv_values + other.kv_values,
            self.window or other.window,
            self.read_tokens or other.read_tokens,
            self.index_values + other.index_values,
            self.index_flops + other.index_flops,
            self.state_bytes + other.state_bytes,
            self.attention_flops + other.attention_flops,
            self.state_flops + other.state_flops,
            self.latent or other.latent,
        )

    def inside(self, path: str) -> Block:
        """The same with each name under `path`."""
        return replace(
            self, matrices=tuple(replace(part, name=f"{path}.{part.name}") for part in self.matrices)
        )


def params_of(block: Block) -> float:
    """All weights."""
    return sum(part.params for part in block.matrices)


def params_active(block: Block) -> float:
    """The weights that one token multiplies: of E experts it takes k."""
    used = block.experts_per_token / block.experts if block.experts else 0.0
    multiplied = (part for part in block.matrices if not part.is_added)
    return sum(part.params * (used if part.is_expert else 1.0) for part in multiplied)


def layer_kind(block: Block, bits: Callable[[Matrix], float]) -> LayerKind:
    """The layer in a quantisation: `bits` per weight of each matrix."""
    sizes = [(part.is_expert, part.params * bits(part) / 8) for part in block.matrices]
    experts = sum(size for is_expert, size in sizes if is_expert)
    rest = sum(size for is_expert, size in sizes if not is_expert)
    used = block.experts_per_token / block.experts if block.experts else 0.0
    return checked_kind(
        weight_bytes=rest + experts,
        active_bytes=rest + experts * used,
        experts=block.experts,
        experts_per_token=block.experts_per_token,
        expert_bytes=experts,
        kv_bytes_per_token=block.kv_values * FP16_BYTES,
        kv_window_tokens=block.window,
        kv_read_tokens=block.read_tokens,
        index_bytes_per_token=block.index_values * FP16_BYTES,
        index_flops_per_token=block.index_flops,
        latent=block.latent,
        state_bytes=block.state_bytes,
        flops=2 * params_active(block) + block.state_flops,
        attention_flops_per_token=block.attention_flops,
    )


def checked_kind(**fields: float | None) -> LayerKind:
    """A kind of layer; raises CatalogError for sizes that no layer has."""
    try:
        return LayerKind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise CatalogError(
            f"a layer's {first['loc'][0]} would be {first['input']:g}, which no model has "
            f"({first['msg'].lower()}); describe the model in the scenario instead"
        ) from error
