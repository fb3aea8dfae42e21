"""LayerKind: what one layer of a model weighs, reads, keeps and computes; layers of one model may differ."""

from __future__ import annotations

from math import exp, lgamma
from typing import Annotated

from pydantic import Field, model_validator

from simulator.spec import Spec

__all__ = ["LayerKind", "experts_fault"]

Amount = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=100_000)]


ROUNDING = 1e-6  # figures of a file may be rounded


def experts_fault(
    weight_bytes: float, active_bytes: float, experts: int, experts_per_token: int, expert_bytes: float
) -> str | None:
    """What contradicts itself in the sizes of a layer, with the rule; None where nothing does."""
    if experts_per_token > experts:
        return f"{experts_per_token} experts per token of {experts} experts; there are no more to take"
    if expert_bytes > weight_bytes * (1 + ROUNDING):
        return f"experts of {expert_bytes:g} B in a layer of {weight_bytes:g} B; they are part of it"
    if active_bytes > weight_bytes * (1 + ROUNDING):
        return (
            f"{active_bytes:g} B are read of a layer of {weight_bytes:g} B; no more can be read than there is"
        )
    touched = expert_bytes * experts_per_token / experts if experts else 0.0
    if active_bytes < touched * (1 - ROUNDING):
        return f"{active_bytes:g} B are read, but the experts of a token alone have {touched:g} B"
    return None


class LayerKind(Spec):
    """One kind of layer; all bytes are of the quantised weights."""

    weight_bytes: Annotated[float, Field(gt=0, le=1e15)]
    """All weights of the layer."""
    active_bytes: Annotated[float, Field(gt=0, le=1e15)]
    """What one token reads of them; less than `weight_bytes` in a mixture of experts."""
    experts: Count = 0
    experts_per_token: Count = 0
    expert_bytes: Amount = 0.0
    """Of all experts together; 0 in a dense layer."""
    kv_bytes_per_token: Amount = 0.0
    """That the cache keeps of each token; 0 in a layer with linear attention."""
    kv_window_tokens: Annotated[int, Field(ge=1)] | None = None
    """The cache keeps the last so many tokens alone (sliding window); None: all."""
    kv_read_tokens: Annotated[int, Field(ge=1)] | None = None
    """Of those kept, a decode step reads so many at most, which an index picks (sparse attention)."""
    index_bytes_per_token: Amount = 0.0
    """The part of `kv_bytes_per_token` that the index has; it looks at all tokens in order to pick."""
    index_flops_per_token: Amount = 0.0
    """Of the index, for each token that it looks at."""
    latent: bool = False
    """Whether the cache is one latent vector for all heads (multi-head latent attention)."""
    state_bytes: Amount = 0.0
    """Kept for a chat whatever its length (linear attention, state space)."""
    flops: Amount
    """Floating point operations for one token, attention to the context excluded."""
    attention_flops_per_token: Amount = 0.0
    """Further ones for each token that is attended to: 4 heads head_dim, for q k and for the sum."""

    @model_validator(mode="after")
    def _parts_fit_together(self) -> LayerKind:
        fault = experts_fault(
            self.weight_bytes, self.active_bytes, self.experts, self.experts_per_token, self.expert_bytes
        )
        if fault is not None:
            raise ValueError(fault)
        if self.index_bytes_per_token > self.kv_bytes_per_token * (1 + ROUNDING):
            raise ValueError(
                f"an index of {self.index_bytes_per_token:g} B per token in a cache of "
                f"{self.kv_bytes_per_token:g} B; it is part of it"
            )
        return self

    def bytes_read(self, batch: int = 1, evenness: float | None = None) -> float:
        """Weight bytes that a step with `batch` tokens reads.

        `shared + expert_bytes * (1 - (1 - k/E)**batch)`: the expected share of the E experts that `batch`
        independent tokens with k experts each touch; dense layers read every byte once. With an `evenness`
        a some experts are asked for more often than others: how often follows a beta law of mean k/E and
        shape a, so that `prod of (b + i) / (a + b + i)` over the batch, `b = a (E/k - 1)`, are not touched.
        """
        if self.experts <= 0:
            return self.active_bytes
        touched = self._share_touched(batch, evenness)
        # what each token reads whatever its experts: attention, router, shared experts
        shared = self.active_bytes - self.expert_bytes * self.experts_per_token / self.experts
        return shared + self.expert_bytes * touched

    def tiles_begun(self, tokens: int) -> float:
        """Experts that a chunk of so many tokens asks, for each expert of one token: `touched / k`."""
        chosen = self.experts_per_token / self.experts if self.experts else 0.0
        return (1 - (1 - chosen) ** tokens) / chosen if chosen else 0.0

    def _share_touched(self, batch: int, evenness: float | None) -> float:
        chosen = self.experts_per_token / self.experts
        if evenness is None or not 0 < chosen < 1:
            return 1 - (1 - chosen) ** batch
        rest = evenness * (1 / chosen - 1)
        return 1 - exp(
            lgamma(rest + batch) - lgamma(rest) + lgamma(evenness + rest) - lgamma(evenness + rest + batch)
        )

    def part(self, ranks: int) -> LayerKind:
        """What each of `ranks` ranks holds where the layer is split among them (tensor parallelism).

        Matrices are split by rows or columns, attention and its cache by heads; a
        latent cache is one vector for all heads, which each rank keeps whole.
        Norms and routers, which each rank has too, weigh next to nothing.
        """
        split = [
            "weight_bytes",
            "active_bytes",
            "expert_bytes",
            "state_bytes",
            "flops",
            "attention_flops_per_token",
        ]
        if not self.latent:
            split += ["kv_bytes_per_token", "index_bytes_per_token", "index_flops_per_token"]
        return self.model_copy(update={name: getattr(self, name) / ranks for name in split})

    def apart(self) -> tuple[LayerKind, LayerKind]:
        """(all but the experts, the experts alone), where they are held by different processors.

        Flops are divided as the bytes that a token reads of the two; the KV cache stays with attention.
        """
        touched = self.expert_bytes * self.experts_per_token / self.experts
        share = touched / self.active_bytes
        # built without validation: a layer may be nothing but experts, and then the rest of it weighs nothing
        rest = self.model_copy(
            update={
                "weight_bytes": self.weight_bytes - self.expert_bytes,
                "active_bytes": self.active_bytes - touched,
                "experts": 0,
                "experts_per_token": 0,
                "expert_bytes": 0.0,
                "flops": self.flops * (1 - share),
            }
        )
        experts = LayerKind.model_construct(
            weight_bytes=self.expert_bytes,
            active_bytes=touched,
            experts=self.experts,
            experts_per_token=self.experts_per_token,
            expert_bytes=self.expert_bytes,
            flops=self.flops * share,
        )
        return rest, experts
