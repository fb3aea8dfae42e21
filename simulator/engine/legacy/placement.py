"""The placement of legacy EXO (0.0.x): a ring by memory, layers by each device's share of all memory.

As recorded from its own functions (`RingMemoryWeightedPartitioningStrategy`, head of the 0.0.x line), with
its fault: a device whose range is empty gets no shard, but shards are then looked up by ring position, so all
later devices run the wrong layers and the last ones none. The request hangs; such a split is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping

from simulator.errors import PlacementError
from simulator.placement.request import PlacementRequest
from simulator.placement.rules import Rule, refuse_pins
from simulator.placement.shard import Placement
from simulator.spec import Spec
from simulator.units import SIZE

__all__ = ["RULE", "LegacyPartition", "partition", "place_legacy"]

# Legacy EXO rounds every end of a range to 5 places and goes on from the rounded figure.
PLACES = 5


class LegacyPartition(Spec):
    """What legacy EXO computes: `ranges[i]` is the share [start, end) of ring position i.

    `shards` are layers [start, end) without the empty ones:
    position i runs `shards[i]`, or fails where there is none.
    """

    ring: tuple[str, ...]
    ranges: tuple[tuple[float, float], ...]
    shards: tuple[tuple[int, int], ...]
    n_layers: int

    @property
    def index_mismatch(self) -> bool:
        """True where some device has no shard: generation would hang."""
        return len(self.shards) < len(self.ring)

    @property
    def without_shard(self) -> tuple[str, ...]:
        """The devices at ring positions beyond the last shard: those that fail."""
        return self.ring[len(self.shards) :]

    @property
    def too_small(self) -> tuple[str, ...]:
        """The devices whose share of the memory comes to no whole layer: the cause of a mismatch."""
        last = self.ring[-1]
        return tuple(
            device
            for device, (start, end) in zip(self.ring, self.ranges, strict=True)
            if _layer_range(start, end, self.n_layers, device == last) is None
        )

    def placement(self, *, allow_mismatch: bool = False) -> Placement:
        """The shards on the devices that would look them up.

        Raises PlacementError on an index mismatch, unless `allow_mismatch`: then the devices
        without a shard are left out.
        """
        if self.index_mismatch and not allow_mismatch:
            small = ", ".join(self.too_small)
            raise PlacementError(
                f"legacy EXO would hang: {small} would get less than one of {self.n_layers} layers, which "
                f"shifts later devices to wrong layers and leaves {', '.join(self.without_shard)} without "
                f"a shard; take {small} out of the ring or give it more memory"
            )
        counts = ((device, end - start) for device, (start, end) in zip(self.ring, self.shards, strict=False))
        return Placement.from_layers(counts, "exo-legacy", devices=self.ring).check(self.n_layers)


def partition(memory_mb: Mapping[str, int], n_layers: int) -> LegacyPartition:
    """Split `n_layers` as legacy EXO does, by the total memory (MiB, whole) that each device announces.

    Ring order: by (memory, name), largest first. Range: end = round(start + memory / sum of memory, 5
    places), layers int(start * n_layers) to int(end * n_layers), the last device to n_layers; empty ranges
    are dropped. Names stand for EXO's random node ids, so the order among equal memories is not that of a
    real cluster. Raises PlacementError for no memory at all (EXO: ZeroDivisionError).
    """
    total = sum(memory_mb.values())
    if total == 0:
        raise PlacementError(
            f"legacy EXO divides by the sum of all memory, which is 0 MiB for {sorted(memory_mb)}; "
            "give at least one device its memory"
        )
    ring = tuple(sorted(memory_mb, key=lambda device: (memory_mb[device], device), reverse=True))
    ranges: list[tuple[float, float]] = []
    start = 0.0
    for device in ring:
        end = round(start + memory_mb[device] / total, PLACES)
        ranges.append((start, end))
        start = end
    return LegacyPartition(
        ring=ring, ranges=tuple(ranges), shards=_shards(ranges, n_layers), n_layers=n_layers
    )


def _shards(ranges: list[tuple[float, float]], n_layers: int) -> tuple[tuple[int, int], ...]:
    """Whole layers of each range, empty ones dropped.

    Legacy EXO also stretches a last shard that ends early;
    none does: a dropped last device starts at or beyond 1.
    """
    found = [
        _layer_range(start, end, n_layers, at == len(ranges) - 1) for at, (start, end) in enumerate(ranges)
    ]
    return tuple(shard for shard in found if shard)


def _layer_range(start: float, end: float, n_layers: int, is_last: bool) -> tuple[int, int] | None:
    first, stop = int(start * n_layers), n_layers if is_last else int(end * n_layers)
    return (first, stop) if stop > first else None


def place_legacy(memory_mb: Mapping[str, int], n_layers: int) -> Placement:
    """The placement of legacy EXO by total memory (MiB);
    raises PlacementError where the request would hang.
    """
    return partition(memory_mb, n_layers).placement()


def _place(request: PlacementRequest) -> Placement:
    """Legacy EXO: it makes its own ring order, so `order` has no effect, and counts
    all memory a machine has.
    """
    refuse_pins("exo-legacy", request)
    memory_mb = {
        device.name: int(
            (device.usable_bytes if device.total_bytes is None else device.total_bytes) // SIZE["MiB"]
        )
        for device in request.devices
    }
    return place_legacy(memory_mb, request.n_layers)


RULE = Rule(_place, counts_weights_alone=True)
