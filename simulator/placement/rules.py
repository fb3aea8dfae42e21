"""The placement rules by the names that scenarios use, and `place`, which applies one.

`exo`         EXO 1.x: smallest ring that fits, layers by free memory; sees no KV cache and no overhead
              (`exo`)
`exo-legacy`  EXO 0.0.x: all devices, layers by total memory, no check at all (`legacy`)
`manual`      the split that the request gives
`speed`       layers in proportion to layers/s, under what each device can hold
`even`        as many layers each, under what each device can hold
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from simulator.errors import PlacementError, did_you_mean
from simulator.placement.apportion import apportion
from simulator.placement.exo import place_full_mesh
from simulator.placement.legacy import place_legacy
from simulator.placement.memory import fixed_bytes, memory_table, overfull
from simulator.placement.request import DeviceCapacity, PlacementRequest
from simulator.placement.shard import Placement
from simulator.units import SIZE, format_bytes

__all__ = ["RULES", "place"]

Rule = Callable[[PlacementRequest], Placement]


def place(rule: str, request: PlacementRequest) -> Placement:
    """The placement that `rule` gives; its shards tile the model.

    Raises PlacementError for an unknown rule, a request that contradicts itself, or too little memory: the
    message holds what is needed, what there is, and what would have to change.
    """
    if rule not in RULES:
        near = did_you_mean(rule, list(RULES))
        raise PlacementError(f"unknown placement rule {rule!r}{near}; one of {', '.join(RULES)}")
    placement = RULES[rule](request.check()).check(request.n_layers)
    holding = sum(shard.layers > 0 for shard in placement.shards)
    if request.min_devices is not None and holding < request.min_devices:
        raise PlacementError(
            f"rule {rule!r} puts layers on {holding} devices, but min_devices is "
            f"{request.min_devices}; add a device that can hold a layer, or lower min_devices"
        )
    return placement


def _exo(request: PlacementRequest) -> Placement:
    """EXO 1.x on a full mesh, the devices having joined in `order`; it allows for weights only."""
    _refuse_pins("exo", request)
    ring = request.ring()
    return place_full_mesh(
        [device.name for device in ring],
        {device.name: device.usable_bytes for device in ring},
        request.total_bytes,
        request.n_layers,
        request.min_devices or 1,
    )


def _exo_legacy(request: PlacementRequest) -> Placement:
    """Legacy EXO: it makes its own ring order, so `order` has no effect."""
    _refuse_pins("exo-legacy", request)
    memory_mb = {
        device.name: int(
            (device.usable_bytes if device.total_bytes is None else device.total_bytes) // SIZE["MiB"]
        )
        for device in request.devices
    }
    return place_legacy(memory_mb, request.n_layers)


def _refuse_pins(rule: str, request: PlacementRequest) -> None:
    pinned = [device.name for device in request.devices if device.pinned]
    if pinned:
        raise PlacementError(
            f"rule {rule!r} cannot pin embedding or head ({', '.join(pinned)}): EXO decides where "
            "they go; use manual, speed or even"
        )


def _manual(request: PlacementRequest) -> Placement:
    """The split given in `layers`, in its order unless `order` is given."""
    layers = request.layers
    if layers is None:
        raise PlacementError("rule 'manual' needs layers: a number for each device, in ring order")
    _check_manual(request, layers)
    names = [device.name for device in request.ring()] if request.order else list(layers)
    placement = _with_pins(request, [(name, layers[name]) for name in names if layers.get(name)], "manual")
    fault = overfull(memory_table(placement, request))
    if fault and not request.may_page:
        raise PlacementError(fault)
    return placement


def _check_manual(request: PlacementRequest, layers: Mapping[str, int]) -> None:
    for name, count in layers.items():
        if request.device(name).pinned and count:
            raise PlacementError(
                f"{name!r} is pinned to the {request.device(name).role}, so it holds no layers, "
                f"not {count}; unpin it or give it 0"
            )
        if count < 0:
            raise PlacementError(f"{name!r} cannot hold {count} layers; 0 leaves it out")
    if sum(layers.values()) != request.n_layers:
        raise PlacementError(
            f"the layers given sum to {sum(layers.values())}, but the model has {request.n_layers}"
        )


def _speed(request: PlacementRequest) -> Placement:
    unknown = [device.name for device in request.ring() if device.layers_per_s is None]
    if unknown:
        raise PlacementError(
            f"rule 'speed' needs layers_per_s of {', '.join(unknown)}; give it, or use 'even'"
        )
    return _proportional(request, "speed", lambda device: device.layers_per_s or 0.0)


def _even(request: PlacementRequest) -> Placement:
    return _proportional(request, "even", lambda device: 1.0)


def _proportional(
    request: PlacementRequest, rule: str, weight: Callable[[DeviceCapacity], float]
) -> Placement:
    """Layers in proportion to `weight` under the caps; a device with no room for one layer is left out."""
    ring = _with_room(request, request.ring())
    if len(ring) > request.n_layers:
        fastest = sorted(ring, key=weight, reverse=True)[: request.n_layers]
        ring = _with_room(request, [device for device in ring if device in fastest])
    caps = _caps(request, ring)
    if sum(caps) < request.n_layers:
        raise PlacementError(_shortage(request, ring, caps))
    counts = apportion(request.n_layers, [weight(device) for device in ring], caps)
    placement = _with_pins(request, [(d.name, n) for d, n in zip(ring, counts, strict=True)], rule)
    fault = overfull(memory_table(placement, request))
    if fault:
        raise PlacementError(fault)
    return placement


def _with_room(request: PlacementRequest, ring: Sequence[DeviceCapacity]) -> Sequence[DeviceCapacity]:
    """The devices with room for a layer; leaving out an end may move embedding or head, so it asks again."""
    while 0 in (caps := _caps(request, ring)):
        ring = [device for device, cap in zip(ring, caps, strict=True) if cap]
    return ring


def _caps(request: PlacementRequest, ring: Sequence[DeviceCapacity]) -> list[int]:
    """Whole layers, with their KV cache, that each device has room for besides its fixed bytes."""
    names = [device.name for device in ring]
    per_layer = request.layer_bytes + request.kv_bytes_per_layer
    return [
        int(max(0.0, device.usable_bytes - sum(fixed_bytes(request, names, device.name))) // per_layer)
        for device in ring
    ]


def _shortage(request: PlacementRequest, ring: Sequence[DeviceCapacity], caps: Sequence[int]) -> str:
    per_layer = request.layer_bytes + request.kv_bytes_per_layer
    needed, room = request.n_layers * per_layer, sum(caps) * per_layer
    usable = sum(device.usable_bytes for device in request.devices)
    rooms = (
        ", ".join(f"{device.name} {cap}" for device, cap in zip(ring, caps, strict=True))
        or "none on any device"
    )
    return (
        f"{request.n_layers} layers with their KV cache need {format_bytes(needed)}, but there is room for "
        f"{sum(caps)} "
        f"layers, {format_bytes(room)} (of {format_bytes(usable)} usable, after embedding, head and engine; "
        "layers by "
        f"device: {rooms}): {format_bytes(needed - room)} are missing; take a smaller quantisation or a "
        "shorter "
        f"context, or add a device with {format_bytes(needed - room)} to spare"
    )


def _with_pins(request: PlacementRequest, layers: list[tuple[str, int]], rule: str) -> Placement:
    """The placement with the pinned devices as empty shards:
    embedding before the first, head after the last.
    """
    embedding, head = request.pinned("embedding"), request.pinned("head")
    first = [(embedding, 0)] if embedding else []
    last = [(head, 0)] if head else []
    names = [device.name for device in request.devices]
    return Placement.from_layers(
        [*first, *layers, *last], rule, embedding=embedding, head=head, devices=names
    )


RULES: Mapping[str, Rule] = {
    "exo": _exo,
    "exo-legacy": _exo_legacy,
    "manual": _manual,
    "speed": _speed,
    "even": _even,
}
