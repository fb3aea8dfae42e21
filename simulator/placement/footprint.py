"""Footprint: what a device must hold, layer by layer and besides, counted in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from simulator.placement.shard import Shard

__all__ = ["Footprint"]


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that a layer takes with its KV cache, and what else a device holds.

    `embedding_on` and `head_on` say who holds them: `all` devices with layers, the `first` or the `last` of
    them, or the device of that name.
    """

    layer_bytes: float
    kv_bytes_per_layer: float
    embedding_bytes: float
    head_bytes: float
    overhead_bytes: float
    embedding_on: str
    head_on: str
    keep_head: tuple[str, ...] = ()
    """Devices that hold the head themselves where they are the first, whoever is the last."""
    on_hosts: tuple[str, ...] = ()
    """Devices that keep no embedding in their own memory:
    cards, where the engine leaves it to their hosts.
    """
    latent: bool = False
    """Whether the cache is one latent vector for all heads,
    which ranks that split a layer each keep whole.
    """
    by_layer: tuple[tuple[float, float, float], ...] = ()
    """(weights, KV cache, read per token) of each layer, where layers differ;
    those above are averages then.
    """

    @property
    def per_layer_bytes(self) -> float:
        """Of one layer with its KV cache."""
        return self.layer_bytes + self.kv_bytes_per_layer

    def part(self, ranks: int) -> Footprint:
        """What each of `ranks` ranks holds where every layer is split among them."""
        shared = 1 if self.latent else ranks
        return replace(
            self,
            layer_bytes=self.layer_bytes / ranks,
            kv_bytes_per_layer=self.kv_bytes_per_layer / shared,
            by_layer=tuple((held / ranks, kv / shared, read / ranks) for held, kv, read in self.by_layer),
        )

    def pinned(self, embedding: str | None, head: str | None) -> Footprint:
        """The same with embedding or head on the devices of these names, where one is given."""
        # where both are the first device's, they are the client's, and stay together wherever it is
        together = embedding if self.embedding_on == self.head_on == "first" else None
        return replace(
            self,
            embedding_on=embedding or self.embedding_on,
            head_on=head or together or self.head_on,
            # who is pinned holds no layers, and who holds none is not asked to go on from them
            keep_head=() if embedding or head else self.keep_head,
        )

    def fixed_bytes(self, ring: Sequence[str], device: str) -> tuple[float, float, float]:
        """(embedding, head, overhead) bytes on `device`, whatever layers it gets,
        if `ring` holds the layers.
        """
        here = _holds(self.embedding_on, ring, device) and device not in self.on_hosts
        embedding = self.embedding_bytes if here else 0.0
        head = self.head_bytes if self.holds_head(ring, device) else 0.0
        return embedding, head, self.overhead_bytes

    def holds_head(self, ring: Sequence[str], device: str) -> bool:
        """Whether the output head is on `device`, if `ring` holds the layers."""
        keeps = self.head_on == "last" and bool(ring) and ring[0] in self.keep_head
        return _holds("first" if keeps else self.head_on, ring, device)

    def held_bytes(self, start: int, end: int) -> tuple[float, float]:
        """(weights, KV cache) of the layers [start, end)."""
        if not self.by_layer:
            return (end - start) * self.layer_bytes, (end - start) * self.kv_bytes_per_layer
        held = self.by_layer[start:end]
        return sum(weights for weights, _, _ in held), sum(kv for _, kv, _ in held)

    def total_bytes(self, ring: Sequence[str], shard: Shard) -> float:
        """All bytes on the device of a shard."""
        held = self.held_bytes(shard.start_layer, shard.end_layer)
        return sum(held) + sum(self.fixed_bytes(ring, shard.device))

    def room_layers(self, ring: Sequence[str], device: str, usable_bytes: float) -> int:
        """Whole average layers that fit on `device` beside its fixed bytes."""
        free = usable_bytes - sum(self.fixed_bytes(ring, device))
        return int(max(0.0, free) // self.per_layer_bytes)


def _holds(where: str, ring: Sequence[str], device: str) -> bool:
    # anything else is the name of a device
    chosen = {"all": ring, "first": ring[:1], "last": ring[-1:]}.get(where, (where,))
    return device in chosen
