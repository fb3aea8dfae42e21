"""Portions: what each processor of a device holds, where it has cards beside its own processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from simulator.cluster.cluster import Device, Processor
from simulator.model.model import Model
from simulator.model.stretch import Stretch

__all__ = ["DivideHost", "Divided", "HostTask", "Portion"]


@dataclass(frozen=True, slots=True)
class Portion:
    """What one processor holds of the layers of its device."""

    processor: Processor
    held: Stretch
    """Whole layers, layers without their experts, and experts alone."""
    whole_layers: int = 0
    layers_without_experts: int = 0
    expert_layers: int = 0
    """Layers of which it holds the experts alone."""
    crossings: int = 0
    """How often a step passes its bus, out or in."""
    has_head: bool = False


@dataclass(frozen=True, slots=True)
class Divided:
    """A stretch of layers divided among the processors of its device; the one with the head comes last."""

    whole: Stretch
    portions: tuple[Portion, ...]
    """One for each processor, empty ones too."""
    state_bytes: float
    """Of the hidden state of one token, which is handed over."""
    copies_from_tokens: int | None = None
    """Chunks of so many prompt tokens are computed by the first card even where the weights are in RAM, and
    these are copied to it; None: never.
    """

    @property
    def layers(self) -> float:
        """How many layers."""
        return self.whole.layers

    @property
    def used(self) -> tuple[Portion, ...]:
        """The portions that a step goes through."""
        return tuple(part for part in self.portions if part.held.layers or part.has_head)


@dataclass(frozen=True, slots=True)
class HostTask:
    """What an engine is asked: who of a device's processors holds which of the layers [start, end)."""

    device: Device
    model: Model
    start: int
    end: int
    has_head: bool
    embedding_bytes: float
    """Held by the host's own processor; 0 where the device holds no embedding."""
    overhead_bytes: float
    """The engine's own on each processor that holds something."""
    context: int
    """Tokens of each chat in the KV cache."""
    chats: int

    def held_bytes(self, part: Portion) -> float:
        """All bytes on the processor of a portion."""
        return sum(self.bytes_by_use(part))

    def bytes_by_use(self, part: Portion) -> tuple[float, float, float, float, float]:
        """(weights, KV cache, embedding, head, overhead) bytes on the processor of a portion."""
        weights, kv = part.held.weight_bytes, float(part.held.kv_bytes(self.context, self.chats))
        embedding = 0.0 if part.processor.device.is_card else self.embedding_bytes
        head = self.model.head_bytes if part.has_head else 0.0
        # a card that holds nothing is not initialised for it
        overhead = self.overhead_bytes if part.held.layers or head or embedding else 0.0
        return weights, kv, embedding, head, overhead


DivideHost = Callable[[HostTask], Divided]
"""How an engine divides a device's layers among its processors."""
