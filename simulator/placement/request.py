"""PlacementRequest: everything that a rule may look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from simulator.errors import PlacementError
from simulator.placement.footprint import Footprint
from simulator.spec import Spec

__all__ = ["DeviceCapacity", "PlacementRequest"]

Role = Literal["layers", "embedding", "head"]


class DeviceCapacity(Spec):
    """What one device can hold (bytes) and how fast it decodes (layers/s).

    `usable_bytes` is what the engine may fill, `total_bytes` what the machine has (None: the same).
    A device with the role embedding or head holds only that, no layer.
    """

    name: str
    usable_bytes: float = Field(ge=0)
    total_bytes: float | None = Field(default=None, ge=0)
    layers_per_s: float | None = Field(default=None, gt=0)
    role: Role | None = None
    prompt_tokens_per_s: float | None = Field(default=None, gt=0)
    """Of one layer that reads 1,024 tokens at once."""
    link_bytes_per_s: float | None = Field(default=None, gt=0)
    delay_s: float = Field(default=0.0, ge=0)
    """Median one-way delay between the device and its access point."""
    may_page: bool = False
    """It may hold more than fits, and read it from its disk again at each step."""

    @property
    def pinned(self) -> bool:
        """True for a device that holds no layer."""
        return self.role in ("embedding", "head")


class PlacementRequest(Spec):
    """Devices, model (bytes) and wishes.

    `total_bytes` is the whole model; `kv_bytes_per_layer` the KV cache of one layer at the workload's
    context, all sequences together; `overhead_bytes` what the engine takes on each device besides.
    `embedding_on` and `head_on` say where the engine keeps them, unless a device is pinned: on `all` devices
    with layers (EXO 1.x), on the `first` or `last` of the ring (legacy EXO), or on the device of that name.
    `hidden`, `kv_heads` (None: not known) and `backend` matter where layers are split among devices;
    `kv_bytes_per_token_per_layer` and whether heads share keys and values where servers keep a cache.
    `order` is the ring order (for the rule exo: the order of joining), `layers` the split of the rule manual.
    """

    devices: tuple[DeviceCapacity, ...] = Field(min_length=1)
    n_layers: int = Field(gt=0)
    layer_bytes: float = Field(gt=0)
    embedding_bytes: float = Field(default=0.0, ge=0)
    head_bytes: float = Field(default=0.0, ge=0)
    total_bytes: float = Field(ge=0)
    kv_bytes_per_layer: float = Field(default=0.0, ge=0)
    overhead_bytes: float = Field(default=0.0, ge=0)
    embedding_on: str = "all"
    head_on: str = "all"
    keep_head: tuple[str, ...] = ()
    on_hosts: tuple[str, ...] = ()
    latent: bool = False
    by_layer: tuple[tuple[float, float, float], ...] = ()
    order: tuple[str, ...] | None = None
    layers: Mapping[str, int] | None = None
    min_devices: int | None = None
    may_page: bool = False
    hidden: int = 1
    kv_bytes_per_token_per_layer: float = Field(default=0.0, ge=0)
    grouped_query: bool = False
    kv_heads: int | None = None
    backend: str | None = None

    @property
    def footprint(self) -> Footprint:
        """What devices hold, pinned ones considered."""
        return Footprint(
            layer_bytes=self.layer_bytes,
            kv_bytes_per_layer=self.kv_bytes_per_layer,
            embedding_bytes=self.embedding_bytes,
            head_bytes=self.head_bytes,
            overhead_bytes=self.overhead_bytes,
            embedding_on=self.embedding_on,
            head_on=self.head_on,
            keep_head=self.keep_head,
            by_layer=self.by_layer,
            on_hosts=self.on_hosts,
            latent=self.latent,
        ).pinned(self.pinned("embedding"), self.pinned("head"))

    def device(self, name: str) -> DeviceCapacity:
        """The device of that name; raises PlacementError for an unknown one."""
        for device in self.devices:
            if device.name == name:
                return device
        raise PlacementError(
            f"unknown device {name!r}: the devices are {', '.join(d.name for d in self.devices)}"
        )

    def pinned(self, role: Role) -> str | None:
        """The device pinned to `role`, if any."""
        return next((device.name for device in self.devices if device.role == role), None)

    def ring(self) -> tuple[DeviceCapacity, ...]:
        """The devices that may hold layers, in `order` if given; raises PlacementError
        if `order` is not complete.
        """
        ring = tuple(device for device in self.devices if not device.pinned)
        if self.order is None:
            return ring
        wanted = [name for name in self.order if not self.device(name).pinned]
        # counted, so that a name given twice is no substitute for one that is missing
        if Counter(wanted) != Counter(device.name for device in ring):
            names = ", ".join(device.name for device in ring)
            raise PlacementError(
                f"order {', '.join(self.order)} must name each of these devices once: {names}"
            )
        return tuple(self.device(name) for name in wanted)

    def check(self) -> PlacementRequest:
        """Return the request if names are unique, each role is pinned once and some device may hold layers.

        Raises PlacementError that names what contradicts what.
        """
        names = Counter(device.name for device in self.devices)
        roles = Counter(device.role for device in self.devices if device.pinned)
        for name, count in names.items():
            if count > 1:
                raise PlacementError(f"{count} devices are called {name!r}: give each its own name")
        for role, count in roles.items():
            if count > 1:
                raise PlacementError(f"{count} devices are pinned to the {role}: pin one")
        if all(device.pinned for device in self.devices):
            raise PlacementError(
                "every device is pinned to embedding or head: leave at least one for the layers"
            )
        for where in (self.embedding_on, self.head_on):
            if where not in ("all", "first", "last"):
                self.device(where)
        return self
