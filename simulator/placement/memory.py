"""What each device must hold under a placement, against what it can."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.errors import PlacementError
from simulator.placement.footprint import Footprint
from simulator.placement.request import DeviceCapacity, PlacementRequest
from simulator.placement.shard import Placement, Shard
from simulator.spec import Spec
from simulator.units import format_bytes

__all__ = ["HostMemory", "MemoryUse", "memory_table", "overfull"]


class MemoryUse(Spec):
    """The memory of one device (bytes): `weights_bytes` are those of its layers alone."""

    device: str
    layers: int
    weights_bytes: float
    kv_bytes: float
    embedding_bytes: float
    head_bytes: float
    overhead_bytes: float
    total_bytes: float
    cap_bytes: float

    @property
    def fits(self) -> bool:
        """True where the device can hold it all."""
        # Bytes per layer need not be whole, so sums of them differ from the cap by rounding:
        # less than a byte is none.
        return self.total_bytes < self.cap_bytes + 1

    @property
    def over_bytes(self) -> float:
        """What it must hold beyond what it can; 0 where all fits."""
        return 0.0 if self.fits else self.total_bytes - self.cap_bytes

    def __str__(self) -> str:
        verdict = "fits" if self.fits else f"{format_bytes(self.over_bytes)} too much"
        return (
            f"{self.device}: {self.layers} layers, {format_bytes(self.total_bytes)} of "
            f"{format_bytes(self.cap_bytes)}: {verdict}"
        )


class HostMemory(MemoryUse):
    """The memory of a device of several processors: what they hold together, and each alone."""

    processors: tuple[MemoryUse, ...]
    pages: str | None
    """The processor whose memory may be mapped from a file; cards cannot page."""

    @property
    def fits(self) -> bool:
        """True where each processor can hold its own."""
        return all(one.fits for one in self.processors)

    @property
    def over_bytes(self) -> float:
        """What its processors must hold beyond what they can."""
        return sum(one.over_bytes for one in self.processors)

    @property
    def cards_alone(self) -> HostMemory:
        """The same but for the processor that may page."""
        left = tuple(one for one in self.processors if one.device != self.pages)
        return self.model_copy(update={"processors": left})

    def __str__(self) -> str:
        return "\n  ".join(f"{one}" for one in self.processors if not one.fits) or super().__str__()


def memory_table(
    placement: Placement,
    request: PlacementRequest,
    *,
    embedding_on: str | None = None,
    head_on: str | None = None,
) -> tuple[MemoryUse, ...]:
    """One row per device of the placement, and per other device that holds embedding or
    head, in ring order (bytes).

    total = layers * (layer_bytes + kv_bytes_per_layer) + embedding + head + overhead. `embedding_on` and
    `head_on` replace those of the request; a device pinned by the placement comes before both. Raises
    PlacementError for a name that the request does not know.
    """
    asked = request.footprint.pinned(embedding_on, head_on)
    footprint = asked.pinned(placement.embedding, placement.head).part(placement.parts)
    ring = [shard.device for shard in placement.shards if shard.layers]
    # a device that holds nothing but embedding or head has no shard and needs its row all the same
    ends = (footprint.embedding_on, footprint.head_on)
    rows = dict.fromkeys([*placement.devices, *(at for at in ends if at not in ("all", "first", "last"))])
    shards = {shard.device: shard for shard in placement.shards}
    nothing = {name: Shard(device=name, start_layer=0, end_layer=0) for name in rows}
    return tuple(_use(footprint, ring, request.device(name), (nothing | shards)[name]) for name in rows)


def _use(footprint: Footprint, ring: Sequence[str], device: DeviceCapacity, shard: Shard) -> MemoryUse:
    weights, kv = footprint.held_bytes(shard.start_layer, shard.end_layer)
    embedding, head, overhead = footprint.fixed_bytes(ring, device.name)
    return MemoryUse(
        device=device.name,
        layers=shard.layers,
        weights_bytes=weights,
        kv_bytes=kv,
        embedding_bytes=embedding,
        head_bytes=head,
        overhead_bytes=overhead,
        total_bytes=weights + kv + embedding + head + overhead,
        cap_bytes=device.usable_bytes,
    )


def overfull(table: Sequence[MemoryUse]) -> PlacementError | None:
    """One line per device that must hold more than it can, and the way out; None where all fit."""
    rows = [row for row in table if not row.fits]
    if not rows:
        return None
    missing = format_bytes(sum(row.over_bytes for row in rows))
    where = "other devices"
    if any(isinstance(row, HostMemory) for row in rows):
        where = "another processor (offload: gpu_layers, tensor_split, cpu_moe_layers) or other devices"
    return PlacementError(
        "\n".join(["the placement does not fit:", *(f"  {row}" for row in rows)]),
        f"\nmove layers worth {missing} to {where}, take a smaller quantisation or a shorter context",
    )
