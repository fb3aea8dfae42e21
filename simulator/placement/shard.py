"""Shard and Placement: which layers sit on which device, in ring order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from pydantic import Field, model_validator

from simulator.errors import PlacementError
from simulator.spec import Spec

__all__ = ["Placement", "Shard"]


class Shard(Spec):
    """The layers [start_layer, end_layer) on one device;
    empty only on a device pinned to embedding or head.
    """

    device: str
    start_layer: int = Field(ge=0)
    end_layer: int = Field(ge=0)

    @model_validator(mode="after")
    def _runs_forward(self) -> Self:
        if self.end_layer < self.start_layer:
            raise ValueError(f"the shard of {self.device!r} ends at {self.end_layer}, before it starts")
        return self

    @property
    def layers(self) -> int:
        """How many layers the shard holds: end_layer - start_layer."""
        return self.end_layer - self.start_layer


class Placement(Spec):
    """Shards in ring order that tile the model, and who holds embedding and output head.

    `embedding` and `head` are None where the engine decides.
    `left_out` names the devices that the rule did not use.
    """

    shards: tuple[Shard, ...] = Field(min_length=1)
    embedding: str | None = None
    head: str | None = None
    rule: str
    left_out: tuple[str, ...] = ()
    splits_layers: bool = False
    """Every shard is an equal part of all layers (tensor parallelism), not a run of whole ones."""

    @classmethod
    def from_layers(
        cls,
        layers: Iterable[tuple[str, int]],
        rule: str,
        *,
        embedding: str | None = None,
        head: str | None = None,
        devices: Iterable[str] = (),
    ) -> Placement:
        """Lay (device, number of layers) pairs end to end from layer 0; those of
        `devices` not used are left out.
        """
        shards: list[Shard] = []
        for device, count in layers:
            start = shards[-1].end_layer if shards else 0
            shards.append(Shard(device=device, start_layer=start, end_layer=start + count))
        # a pinned device is used, though its shard is empty
        used = {shard.device for shard in shards}
        left_out = tuple(device for device in devices if device not in used)
        return cls(shards=tuple(shards), embedding=embedding, head=head, rule=rule, left_out=left_out)

    @classmethod
    def split(cls, names: Iterable[str], n_layers: int, rule: str, devices: Iterable[str] = ()) -> Placement:
        """An equal part of every layer on each of `names`; those of `devices` not named are left out."""
        shards = tuple(Shard(device=name, start_layer=0, end_layer=n_layers) for name in names)
        left_out = tuple(set(devices) - {shard.device for shard in shards})
        return cls(shards=shards, rule=rule, left_out=tuple(sorted(left_out)), splits_layers=True)

    @property
    def parts(self) -> int:
        """Into how many equal parts each layer is split."""
        return len(self.shards) if self.splits_layers else 1

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices in ring order, pinned ones included."""
        return tuple(shard.device for shard in self.shards)

    @property
    def layer_counts(self) -> dict[str, int]:
        """Number of layers by device, in ring order."""
        return {shard.device: shard.layers for shard in self.shards}

    def check(self, n_layers: int) -> Placement:
        """Return the placement if its shards tile layers 0 .. n_layers in order and each device appears once.

        Raises PlacementError that names the gap, the overlap or the device at fault.
        """
        self._check_devices()
        if self.splits_layers:
            return self._checked_parts(n_layers)
        expected = 0
        for shard in self.shards:
            if shard.start_layer != expected:
                raise PlacementError(_seam(expected, shard))
            expected = shard.end_layer
        if expected != n_layers:
            what = (
                f"layers {expected} to {n_layers - 1} are on no device"
                if expected < n_layers
                else (f"the last shard ends at {expected}")
            )
            raise PlacementError(f"{what}: the shards must tile layers 0 to {n_layers - 1} of the model")
        return self

    def _checked_parts(self, n_layers: int) -> Placement:
        for shard in self.shards:
            if (shard.start_layer, shard.end_layer) != (0, n_layers):
                raise PlacementError(
                    f"{shard.device!r} holds a part of layers {shard.start_layer} to {shard.end_layer - 1}, "
                    "but "
                    f"tensor parallelism splits each of the {n_layers} layers among all devices"
                )
        return self

    def _check_devices(self) -> None:
        """One shard per device, empty shards only where pinned, pinned devices present."""
        devices = self.devices
        for device in devices:
            if devices.count(device) > 1:
                raise PlacementError(
                    f"device {device!r} holds two shards: give each device one run of layers"
                )
        for role, pinned in (("embedding", self.embedding), ("head", self.head)):
            if pinned is not None and pinned not in devices:
                raise PlacementError(
                    f"the {role} is pinned to {pinned!r}, which is not among {', '.join(devices)}"
                )
        for shard in self.shards:
            if shard.layers == 0 and shard.device not in (self.embedding, self.head):
                raise PlacementError(
                    f"device {shard.device!r} holds no layer: take it out, give it one, or pin embedding or "
                    "head to it"
                )


def _seam(expected: int, shard: Shard) -> str:
    """What is wrong where `shard` does not start at layer `expected`."""
    if shard.start_layer > expected:
        what = f"gap: layers {expected} to {shard.start_layer - 1} are on no device before {shard.device!r}"
    else:
        what = (
            f"overlap: {shard.device!r} starts at layer {shard.start_layer}, but those up to "
            f"{expected - 1} are held"
        )
    return f"{what}; start it at layer {expected}"
