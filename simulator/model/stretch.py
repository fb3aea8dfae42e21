"""Stretch: the layers that one device runs, as how many of each kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from simulator.laws.law import Floats
from simulator.layer import LayerKind

__all__ = ["Stretch"]


@dataclass(frozen=True, slots=True)
class Stretch:
    """`counts[i]` layers of `kinds[i]`; fractions stand for average layers."""

    kinds: tuple[LayerKind, ...]
    counts: tuple[float, ...]

    @property
    def layers(self) -> float:
        """How many layers."""
        return sum(self.counts)

    @property
    def weight_bytes(self) -> float:
        """Of all weights."""
        return sum(n * kind.weight_bytes for n, kind in self._parts())

    @property
    def flops(self) -> float:
        """For one token, attention to the context excluded."""
        return sum(n * kind.flops for n, kind in self._parts())

    def bytes_read(self, batch: int = 1, mixture_cost: float = 1.0, evenness: float | None = None) -> float:
        """Weight bytes that a step with `batch` tokens reads; those of mixtures
        count `mixture_cost` times.
        """
        return sum(
            n * kind.bytes_read(batch, evenness) * (mixture_cost if kind.experts else 1.0)
            for n, kind in self._parts()
        )

    def launches(self, mixture_layer_cost: float) -> float:
        """How many layers, those of mixtures counted `mixture_layer_cost` times: they start more kernels."""
        return sum(n * (mixture_layer_cost if kind.experts else 1.0) for n, kind in self._parts())

    @property
    def latent_layers(self) -> float:
        """How many layers have latent attention."""
        return sum(n for n, kind in self._parts() if kind.latent)

    def prompt_flops(
        self, tokens: int, mixture_cost: float, expert_fill: float = 0.0, latent_cost: float = 1.0
    ) -> float:
        """Of a chunk of `tokens` prompt tokens, attention to the context excluded.

        Those of mixtures count `mixture_cost (1 + expert_fill / n)` times, where n tokens go to each expert
        that is asked at all, those of layers with latent attention `latent_cost` times.
        """
        return sum(
            n
            * kind.flops
            * (mixture_cost * (tokens + expert_fill * kind.tiles_begun(tokens)) if kind.experts else tokens)
            * (latent_cost if kind.latent else 1.0)
            for n, kind in self._parts()
        )

    def kv_bytes(self, context: ArrayLike, sequences: int = 1) -> Floats:
        """Bytes of the caches of `sequences` chats at `context` tokens each, shape of `context`."""
        tokens = np.asarray(context, dtype=float)
        total = np.zeros_like(tokens)
        for n, kind in self._parts():
            total = total + n * (kind.kv_bytes_per_token * _seen(kind, tokens) + kind.state_bytes)
        return total * sequences

    def kv_bytes_read(self, context: ArrayLike, sequences: int = 1) -> Floats:
        """What one decode step reads of `kv_bytes`, shape of `context`: all of it, but for sparse attention.

        There, of `c` tokens that are kept, `(kv - index) min(c, k) + index c` bytes: the index looks at all
        in order to pick `k`. Up to `k` tokens there is nothing to pick, and it is not asked.
        """
        tokens = np.asarray(context, dtype=float)
        total = np.zeros_like(tokens)
        for n, kind in self._parts():
            picked, indexed = _picked(kind, tokens)
            beside = 0.0 if kind.kv_read_tokens is None else kind.index_bytes_per_token
            read = (kind.kv_bytes_per_token - beside) * picked + beside * indexed
            total = total + n * (read + kind.state_bytes)
        return total * sequences

    def attention_flops(self, context: ArrayLike) -> Floats:
        """Further flops of one token that attends to `context` tokens, shape of `context`."""
        tokens = np.asarray(context, dtype=float)
        total = np.zeros_like(tokens)
        for n, kind in self._parts():
            picked, indexed = _picked(kind, tokens)
            total = total + n * (
                kind.attention_flops_per_token * picked + kind.index_flops_per_token * indexed
            )
        return total

    def prompt_attention_flops(self, tokens: int, context: int = 0) -> float:
        """Of a chunk of `tokens` prompt tokens behind `context` earlier ones, each
        attending to those before it.

        `sum of min(context + i, window)` over the chunk, without a window `tokens * context + tokens**2 / 2`.
        Sparse attention saves nothing here: engines mask what was not picked, and the index comes on top.
        """
        total = 0.0
        for n, kind in self._parts():
            # a continuous sum, half a token each below the exact one
            seen = tokens * context + tokens**2 / 2
            if kind.kv_window_tokens is not None:
                # tokens whose window is not full yet
                free = min(tokens, max(0, kind.kv_window_tokens - context))
                seen = free * context + free**2 / 2 + (tokens - free) * kind.kv_window_tokens
            asked = context + tokens > (kind.kv_read_tokens or 0)
            total += n * (kind.attention_flops_per_token + kind.index_flops_per_token * asked) * seen
        return total

    def part(self, ranks: int) -> Stretch:
        """What each of `ranks` ranks holds of these layers, and computes, where all are split among them.

        There are as many layers as before: what each costs beside its arithmetic is not divided.
        """
        return self if ranks == 1 else Stretch(tuple(kind.part(ranks) for kind in self.kinds), self.counts)

    def _parts(self) -> zip[tuple[float, LayerKind]]:
        return zip(self.counts, self.kinds, strict=True)


def _seen(kind: LayerKind, tokens: Floats) -> Floats:
    """Tokens that a layer of this kind keeps of `tokens`."""
    return tokens if kind.kv_window_tokens is None else np.minimum(tokens, kind.kv_window_tokens)


def _picked(kind: LayerKind, tokens: Floats) -> tuple[Floats, Floats]:
    """Tokens that one step attends to, and that the index looks at to pick them, of `tokens`."""
    seen = _seen(kind, tokens)
    if kind.kv_read_tokens is None:
        return seen, seen
    return np.minimum(seen, kind.kv_read_tokens), np.where(seen > kind.kv_read_tokens, seen, 0.0)
