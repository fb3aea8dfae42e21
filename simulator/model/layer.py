"""LayerKind: what one layer of a model weighs, reads, keeps and computes; layers of one model may differ."""

from __future__ import annotations

from simulator.spec import Spec

__all__ = ["LayerKind"]


class LayerKind(Spec):
    """One kind of layer; all bytes are of the quantised weights."""

    weight_bytes: float
    """All weights of the layer."""
    active_bytes: float
    """What one token reads of them; less than `weight_bytes` in a mixture of experts."""
    experts: int = 0
    experts_per_token: int = 0
    expert_bytes: float = 0.0
    """Of all experts together; 0 in a dense layer."""
    kv_bytes_per_token: float = 0.0
    """That the cache keeps of each token; 0 in a layer with linear attention."""
    kv_window_tokens: int | None = None
    """The cache keeps the last so many tokens alone (sliding window); None: all."""
    state_bytes: float = 0.0
    """Kept for a chat whatever its length (linear attention, state space)."""
    flops: float
    """Floating point operations for one token, attention to the context excluded."""
    attention_flops_per_token: float = 0.0
    """Further ones for each token that is attended to: 4 heads head_dim, for q k and for the sum."""
