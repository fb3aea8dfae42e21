"""Model: what of an LLM costs time, memory and network."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Model"]


@dataclass(frozen=True, slots=True)
class Model:
    """An LLM as its sizes; all bytes are of the quantised weights."""

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

    @property
    def total_bytes(self) -> float:
        """`layers * layer_bytes + embedding_bytes + head_bytes`."""
        return self.layers * self.layer_bytes + self.embedding_bytes + self.head_bytes

    def layer_bytes_read(self, batch: int = 1) -> float:
        """Weight bytes of one layer that a step with `batch` tokens reads.

        `shared + experts_bytes * (1 - (1 - k/E)**batch)`: the expected share of the E experts that `batch`
        independent tokens with k experts each touch; dense models read every byte once.
        """
        if self.experts <= 0:
            return self.active_layer_bytes
        touched = 1 - (1 - self.experts_per_token / self.experts) ** batch
        shared = self.active_layer_bytes - self.expert_layer_bytes * self.experts_per_token / self.experts
        return shared + self.expert_layer_bytes * touched

    def kv_bytes(self, layers: int, context: float, sequences: int = 1) -> float:
        """Bytes of the KV cache of `layers` layers at `context`
        tokens: `layers * per_token * context * sequences`.
        """
        return layers * self.kv_bytes_per_token_per_layer * context * sequences
