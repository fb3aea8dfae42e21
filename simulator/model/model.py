"""Model: what of an LLM costs time, memory and network."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache

from simulator.layer import LayerKind
from simulator.model.stretch import Stretch

__all__ = ["Model"]


@dataclass(frozen=True, slots=True)
class Model:
    """An LLM as its sizes; all bytes are of the quantised weights.

    Figures of a layer are averages. Where layers differ, `layer_kinds` and `layer_pattern` tell them apart.
    """

    name: str
    layers: int
    hidden: int
    layer_bytes: float
    active_layer_bytes: float
    """Bytes of one layer that one token reads; `layer_bytes` unless the model is a mixture of experts."""
    experts: int
    experts_per_token: int
    expert_layer_bytes: float
    """Bytes of all experts of one layer; 0 for a dense model."""
    embedding_bytes: float
    head_bytes: float
    kv_bytes_per_token_per_layer: float
    layer_flops: float
    """Floating point operations of one layer for one token, attention to the context excluded."""
    head_flops: float
    activation_bytes: float
    """Bytes of the hidden state of one token on the wire."""

    layer_kinds: tuple[LayerKind, ...] = ()
    layer_pattern: tuple[int, ...] = ()
    """The kind of each layer, as its index in `layer_kinds`."""
    kv_heads: int | None = None
    """Heads that the KV cache is kept for, and can be split by; None: not known."""
    other_bytes: float = 0.0
    """Held with the embedding and never read for a token of text: vision towers, heads for several tokens."""
    quantisation: str = ""
    """How the catalogue calls the way that weights are stored, for engines whose kernels differ by it."""

    @property
    def total_bytes(self) -> float:
        """`layers * layer_bytes + embedding_bytes + head_bytes + other_bytes`."""
        return self.layers * self.layer_bytes + self.embedding_bytes + self.head_bytes + self.other_bytes

    @property
    def is_uniform(self) -> bool:
        """Whether all layers are alike."""
        return len(set(self.layer_pattern)) <= 1

    @property
    def kinds(self) -> tuple[LayerKind, ...]:
        """The kinds of layers; an average one where nothing says that they differ."""
        return self.layer_kinds or (_average(self),)

    def stretch(self, start: int, end: int) -> Stretch:
        """The layers [start, end)."""
        if not self.layer_pattern:
            return self.average(end - start)
        # which kinds are inside is all that costs depend on, not their order
        held = Counter(self.layer_pattern[start:end])
        return Stretch(self.kinds, tuple(float(held[kind]) for kind in range(len(self.kinds))))

    def average(self, layers: float) -> Stretch:
        """So many average layers, for searches that do not know yet which ones."""
        if not self.layer_pattern:
            return Stretch(self.kinds, (float(layers),))
        held = Counter(self.layer_pattern)
        return Stretch(
            self.kinds, tuple(layers * held[kind] / self.layers for kind in range(len(self.kinds)))
        )


@cache
def _average(model: Model) -> LayerKind:
    # two products of 2 hidden for each cached token, as many heads as the hidden state has room for
    return LayerKind.model_construct(
        weight_bytes=model.layer_bytes,
        active_bytes=model.active_layer_bytes,
        experts=model.experts,
        experts_per_token=model.experts_per_token,
        expert_bytes=model.expert_layer_bytes,
        kv_bytes_per_token=model.kv_bytes_per_token_per_layer,
        flops=model.layer_flops,
        attention_flops_per_token=4.0 * model.hidden,
    )
