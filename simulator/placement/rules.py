"""Our own placement rules, and `place`, which applies these or an engine's.

`manual`  the split that the request gives
`speed`   layers in proportion to layers/s, under what each device can hold
`even`    as many layers each, under what each device can hold
`tensor`  an equal part of every layer on each device, in ring order

An engine's own rules stand with the engine; `simulator.engine.base.rules` has all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from simulator.errors import PlacementError, did_you_mean
from simulator.placement.apportion import apportion
from simulator.placement.memory import memory_table, overfull
from simulator.placement.partition import partition
from simulator.placement.request import DeviceCapacity, PlacementRequest
from simulator.placement.shard import Placement
from simulator.units import format_bytes

__all__ = ["RULES", "Rule", "place", "refuse_pins"]


WIDENINGS = 40
"""Steps in which a device that may page is given more, up to the whole model: to
within a layer of most models.
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """A way to divide layers among devices."""

    place: Callable[[PlacementRequest], Placement]
    takes_fewest: bool = False
    """Takes the fewest devices that hold the model, so who wants all of them must say so (`min_devices`)."""
    counts_weights_alone: bool = False
    """Looks at no KV cache and no overhead, so a placement that it accepts may not fit."""


def place(rule: str, request: PlacementRequest, rules: Mapping[str, Rule] | None = None) -> Placement:
    """The placement that `rule`, one of `rules` (default: ours), gives; its shards tile the model.

    Raises PlacementError for an unknown rule, a request that contradicts itself, or too little memory: the
    message holds what is needed, what there is, and what would have to change.
    """
    known = RULES if rules is None else rules
    if rule not in known:
        near = did_you_mean(rule, list(known))
        raise PlacementError(f"unknown placement rule {rule!r}{near}; one of {', '.join(known)}")
    placement = _placed(known[rule], request.check()).check(request.n_layers)
    holding = sum(shard.layers > 0 for shard in placement.shards)
    if request.min_devices is not None and holding < request.min_devices:
        raise PlacementError(
            f"rule {rule!r} puts layers on {holding} devices, but min_devices is "
            f"{request.min_devices}; add a device that can hold a layer, or lower min_devices"
        )
    return placement


def _placed(rule: Rule, request: PlacementRequest) -> Placement:
    """What the rule gives; where that does not fit, with more and more memory on
    the devices that may page.
    """
    try:
        found = rule.place(request)
    except PlacementError as error:
        refused: PlacementError | None = error
    else:
        refused = None
        if not _others_overfull(found, request):
            return found
    if any(device.may_page for device in request.devices):
        # from little to much: who pages reads all that it maps again at each step, so it should get no layer
        # that has room elsewhere
        for step in range(1, WIDENINGS + 1):
            wider = _widened(request, step * request.total_bytes / WIDENINGS)
            try:
                found = rule.place(wider)
            except PlacementError:
                continue
            if step == WIDENINGS or not _others_overfull(found, request):
                return found
    if refused is not None:
        raise refused
    return found


def _others_overfull(placement: Placement, request: PlacementRequest) -> bool:
    """Whether a device that must not page would have to, while another one may."""
    strict = {device.name for device in request.devices if not device.may_page}
    pages = len(strict) < len(request.devices)
    return pages and any(use.device in strict and not use.fits for use in memory_table(placement, request))


def _widened(request: PlacementRequest, more_bytes: float) -> PlacementRequest:
    """The request as if each device that may page had so much more memory."""
    devices = tuple(
        device.model_copy(
            update={
                "usable_bytes": device.usable_bytes + more_bytes,
                # a rule may look at what a machine has (legacy EXO) instead of what is usable
                "total_bytes": device.total_bytes and device.total_bytes + more_bytes,
            }
        )
        if device.may_page
        else device
        for device in request.devices
    )
    return request.model_copy(update={"devices": devices})


def refuse_pins(rule: str, request: PlacementRequest) -> None:
    """Raise PlacementError where a device is pinned, for a rule that decides itself where the ends go."""
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
    if fault is not None and not request.may_page:
        raise fault
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
    # a guess for one device would move the layers of all
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
        # each takes one layer at least, so not all can take part
        fastest = sorted(ring, key=weight, reverse=True)[: request.n_layers]
        ring = _with_room(request, [device for device in ring if device in fastest])
    caps = _caps(request, ring)
    # caps are of average layers; where layers differ, only laying them out tells whether they fit
    if sum(caps) < request.n_layers and not request.by_layer:
        raise _shortage(request, ring, caps)
    weights = [weight(device) for device in ring]
    counts = (
        apportion(request.n_layers, weights, caps)
        if not request.by_layer
        else _by_what_layers_weigh(request, ring, weights, caps)
    )
    placement = _with_pins(request, [(d.name, n) for d, n in zip(ring, counts, strict=True)], rule)
    fault = overfull(memory_table(placement, request))
    if fault is not None:
        raise fault
    return placement


def _by_what_layers_weigh(
    request: PlacementRequest, ring: Sequence[DeviceCapacity], weights: Sequence[float], caps: Sequence[int]
) -> tuple[int, ...]:
    """Runs of layers whose reading is in proportion to `weights`; raises PlacementError where no runs fit."""
    names, footprint = [device.name for device in ring], request.footprint
    room = [d.usable_bytes - sum(footprint.fixed_bytes(names, d.name)) for d in ring]
    sizes = [weights_ + kv for weights_, kv, _ in request.by_layer]
    counts = partition([read for _, _, read in request.by_layer], sizes, weights, room)
    if counts is None:
        raise _shortage(request, ring, caps)
    return counts


def _with_room(request: PlacementRequest, ring: Sequence[DeviceCapacity]) -> Sequence[DeviceCapacity]:
    """The devices with room for a layer; leaving out an end may move embedding or head, so it asks again."""
    while 0 in (caps := _caps(request, ring)):
        ring = [device for device, cap in zip(ring, caps, strict=True) if cap]
    return ring


def _caps(request: PlacementRequest, ring: Sequence[DeviceCapacity]) -> list[int]:
    """Whole layers, with their KV cache, that each device has room for besides its fixed bytes."""
    names, footprint = [device.name for device in ring], request.footprint
    return [footprint.room_layers(names, device.name, device.usable_bytes) for device in ring]


def _shortage(
    request: PlacementRequest, ring: Sequence[DeviceCapacity], caps: Sequence[int]
) -> PlacementError:
    per_layer = request.footprint.per_layer_bytes
    needed, room = request.n_layers * per_layer, sum(caps) * per_layer
    usable = sum(device.usable_bytes for device in request.devices)
    rooms = (
        ", ".join(f"{device.name} {cap}" for device, cap in zip(ring, caps, strict=True))
        or "none on any device"
    )
    return PlacementError(
        f"{request.n_layers} layers with their KV cache need {format_bytes(needed)}, but there is room for "
        f"{sum(caps)} layers, {format_bytes(room)} (of {format_bytes(usable)} usable, after embedding, "
        f"head and engine; layers by device: {rooms}): {format_bytes(needed - room)} are missing",
        "; take a smaller quantisation or a shorter context, or add a device with "
        f"{format_bytes(needed - room)} to spare for layers",
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


def _tensor(request: PlacementRequest) -> Placement:
    """All devices, or those that `order` names."""
    refuse_pins("tensor", request)
    names = [request.device(name).name for name in request.order or [one.name for one in request.ring()]]
    if len(set(names)) < len(names):
        raise PlacementError(f"order {', '.join(names)} names a device twice; each holds one part")
    return Placement.split(names, request.n_layers, "tensor", [device.name for device in request.devices])


RULES: Mapping[str, Rule] = {
    "manual": Rule(_manual),
    "speed": Rule(_speed),
    "even": Rule(_even),
    "tensor": Rule(_tensor),
}
