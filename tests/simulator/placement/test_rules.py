"""The rules by name: what they give, what must always hold, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.engine.base import rules
from simulator.errors import PlacementError
from simulator.placement import DeviceCapacity, Placement, PlacementRequest, memory_table
from simulator.placement import place as place_by
from simulator.placement.apportion import apportion

GB = 1e9
HOME = {"mac": (30.0, 60.0), "laptop": (12.0, 20.0), "phone": (4.0, 10.0)}


def place(rule: str, request: PlacementRequest) -> Placement:
    return place_by(rule, request, rules())


def devices(usable_gb: dict[str, tuple[float, float]], **roles: Any) -> tuple[DeviceCapacity, ...]:
    return tuple(
        DeviceCapacity(name=name, usable_bytes=gb * GB, layers_per_s=speed, role=roles.get(name))
        for name, (gb, speed) in usable_gb.items()
    )


def request(**changes: Any) -> PlacementRequest:
    fields: dict[str, Any] = {
        "devices": devices(HOME),
        "n_layers": 80,
        "layer_bytes": 0.4 * GB,
        "total_bytes": 34 * GB,
        "embedding_bytes": 1 * GB,
        "head_bytes": 1 * GB,
        "embedding_on": "first",
        "head_on": "last",
    }
    return PlacementRequest(**(fields | changes))


def test_speed_is_proportional_where_memory_allows() -> None:
    counts = place("speed", request(n_layers=36, layer_bytes=0.1 * GB)).layer_counts
    assert counts == {"mac": 24, "laptop": 8, "phone": 4}


def test_speed_fills_a_small_device_and_shares_the_rest() -> None:
    """The phone holds (4 GB - 1 GB head) / 0.4 GB = 7 layers, the other 65 go 3 : 1 to mac and laptop."""
    assert place("speed", request(n_layers=72)).layer_counts == {"mac": 49, "laptop": 16, "phone": 7}


def test_even_is_even_where_memory_allows() -> None:
    counts = place("even", request(n_layers=20, layer_bytes=0.1 * GB)).layer_counts
    assert counts == {"mac": 7, "laptop": 7, "phone": 6}


def test_kv_cache_and_overhead_take_room() -> None:
    plain = place("speed", request(n_layers=72)).layer_counts["phone"]
    kv = place("speed", request(n_layers=60, kv_bytes_per_layer=0.1 * GB)).layer_counts["phone"]
    overhead = place("speed", request(n_layers=72, overhead_bytes=0.4 * GB)).layer_counts["phone"]
    assert (plain, kv, overhead) == (7, 6, 6)


def test_device_without_room_is_left_out_and_the_head_moves() -> None:
    placement = place("even", request(devices=devices(HOME | {"phone": (1, 1.0)}), n_layers=60))
    assert placement.left_out == ("phone",)
    (last,) = [use for use in memory_table(placement, request()) if use.head_bytes]
    assert last.device == "laptop"


def test_fewer_layers_than_devices() -> None:
    placement = place("speed", request(n_layers=2))
    assert (placement.devices, placement.left_out) == (("mac", "laptop"), ("phone",))


def test_order_is_the_ring_order() -> None:
    assert place("even", request(n_layers=20, order=("phone", "mac", "laptop"))).devices == (
        "phone",
        "mac",
        "laptop",
    )


def test_pinned_devices_hold_no_layers() -> None:
    four = HOME | {"pixel": (2, 1.0)}
    wish = request(devices=devices(four, phone="embedding", pixel="head"), n_layers=60)
    for rule in ("speed", "even"):
        placement = place(rule, wish)
        assert placement.devices == ("phone", "mac", "laptop", "pixel")
        assert (placement.embedding, placement.head) == ("phone", "pixel")
        table = memory_table(placement, wish)
        held = {use.device: (use.layers > 0, use.embedding_bytes, use.head_bytes) for use in table}
        assert held == {
            "phone": (False, GB, 0),
            "mac": (True, 0, 0),
            "laptop": (True, 0, 0),
            "pixel": (False, 0, GB),
        }


def test_pinned_device_too_small() -> None:
    wish = request(devices=devices(HOME | {"pixel": (0.5, 1.0)}, pixel="head"), n_layers=60)
    with pytest.raises(PlacementError, match=r"pixel: 0 layers, 1 GB of 500 MB: 500 MB too much"):
        place("speed", wish)


@pytest.mark.parametrize("rule", ["speed", "even"])
def test_shortage_gives_both_figures(rule: str) -> None:
    wish = request(n_layers=120)
    with pytest.raises(PlacementError, match=r"120 layers with .* need 48 GB.*room for 109 layers, 43\.6 GB"):
        place(rule, wish)
    with pytest.raises(PlacementError, match=r"4\.4 GB are missing; take a smaller quantisation"):
        place(rule, wish)


def test_manual_keeps_the_split() -> None:
    split = {"laptop": 20, "phone": 5, "mac": 55}
    placement = place("manual", request(layers=split))
    assert list(placement.layer_counts.items()) == list(split.items())
    placement = place("manual", request(layers=split, order=("mac", "laptop", "phone")))
    assert placement.devices == ("mac", "laptop", "phone")


def test_manual_zero_leaves_out() -> None:
    assert place("manual", request(layers={"mac": 60, "laptop": 20, "phone": 0})).left_out == ("phone",)


def test_manual_overfull_is_refused_unless_it_may_page() -> None:
    wish = {"layers": {"mac": 20, "laptop": 20, "phone": 40}}
    with pytest.raises(PlacementError, match=r"phone: 40 layers, 17 GB of 4 GB: 13 GB too much"):
        place("manual", request(**wish))
    assert place("manual", request(**wish, may_page=True)).layer_counts["phone"] == 40


def test_exo_sees_the_free_memory_only() -> None:
    """EXO takes the least ring that holds the weights: here mac and laptop, though KV cache would overfill both."""
    wish = request(kv_bytes_per_layer=0.4 * GB)
    placement = place("exo", wish)
    assert placement.layer_counts == {"laptop": 23, "mac": 57}
    assert placement.left_out == ("phone",)
    assert not any(use.fits for use in memory_table(placement, wish))


def test_exo_takes_more_devices_when_told() -> None:
    assert len(place("exo", request(min_devices=3)).shards) == 3


def test_legacy_goes_by_total_memory() -> None:
    total = {"mac": 64 * GB, "laptop": 16 * GB, "phone": 8 * GB}
    owned = tuple(
        DeviceCapacity(name=name, usable_bytes=GB, total_bytes=memory) for name, memory in total.items()
    )
    assert place("exo-legacy", request(devices=owned)).layer_counts == {"mac": 58, "laptop": 14, "phone": 8}


@pytest.mark.parametrize(
    ("rule", "changes", "message"),
    [
        ("sped", {}, "did you mean 'speed'"),
        ("manual", {}, "needs layers"),
        ("manual", {"layers": {"mac": 79}}, "sum to 79, but the model has 80"),
        ("manual", {"layers": {"mac": 81, "phone": -1}}, "'phone' cannot hold -1"),
        ("manual", {"layers": {"tv": 80}}, "unknown device 'tv': the devices are mac, laptop, phone"),
        (
            "manual",
            {"layers": {"mac": 75, "phone": 5}, "devices": devices(HOME, phone="head")},
            "'phone' is pinned",
        ),
        (
            "manual",
            {"layers": {"mac": 60, "laptop": 20}, "min_devices": 3},
            "on 2 devices, but min_devices is 3",
        ),
        ("exo", {"devices": devices(HOME, phone="head")}, r"cannot pin embedding or head \(phone\)"),
        ("exo-legacy", {"devices": devices(HOME, phone="head")}, r"cannot pin embedding or head \(phone\)"),
        ("even", {"order": ("mac", "phone")}, "must name each of these devices once: mac, laptop, phone"),
        ("even", {"head_on": "tv"}, "unknown device 'tv'"),
        ("even", {"devices": devices(HOME) + devices(HOME)}, "2 devices are called 'mac'"),
        ("even", {"devices": devices(HOME, mac="head", phone="head")}, "2 devices are pinned to the head"),
        ("even", {"devices": devices({"mac": HOME["mac"]}, mac="head")}, "leave at least one for the layers"),
        ("even", {"layer_bytes": 99 * GB}, "none on any device"),
        (
            "speed",
            {"devices": (DeviceCapacity(name="mac", usable_bytes=99 * GB),)},
            "needs layers_per_s of mac",
        ),
    ],
)
def test_refusals(rule: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PlacementError, match=message):
        place(rule, request(**changes))


@st.composite
def requests(draw: st.DrawFn) -> PlacementRequest:
    count = draw(st.integers(1, 8))
    found = tuple(
        DeviceCapacity(
            name=f"d{at}",
            usable_bytes=draw(st.integers(0, 64)) * GB,
            layers_per_s=draw(st.floats(0.1, 1e4)),
            role=draw(st.sampled_from(["layers", None])),
        )
        for at in range(count)
    )
    where = st.sampled_from(["all", "first", "last", "d0"])
    return request(
        devices=found,
        n_layers=draw(st.integers(1, 126)),
        embedding_on=draw(where),
        head_on=draw(where),
        kv_bytes_per_layer=draw(st.integers(0, 3)) * 0.1 * GB,
        overhead_bytes=draw(st.integers(0, 2)) * GB,
        order=draw(st.none() | st.permutations([f"d{at}" for at in range(count)]).map(tuple)),
    )


@settings(deadline=None)
@given(wish=requests(), rule=st.sampled_from(sorted(rules())))
def test_every_rule_tiles_or_refuses(wish: PlacementRequest, rule: str) -> None:
    """No rule ever answers with a gap, or with anything else than a PlacementError."""
    if rule == "manual":
        wish = wish.model_copy(update={"layers": {wish.devices[0].name: wish.n_layers}})
    try:
        placement = place(rule, wish)
    except PlacementError:
        return
    held = placement.layer_counts.values()
    assert set(held) == {wish.n_layers} if placement.splits_layers else sum(held) == wish.n_layers
    assert set(placement.devices) | set(placement.left_out) == {device.name for device in wish.devices}
    if rule in ("speed", "even", "manual"):
        assert all(use.fits for use in memory_table(placement, wish))


splits = st.lists(st.tuples(st.floats(1e-3, 1e6), st.integers(1, 130)), min_size=1, max_size=8)


@settings(deadline=None)
@given(split=splits, data=st.data())
def test_apportion(split: list[tuple[float, int]], data: st.DataObject) -> None:
    """Sums up, within one and the cap, never less for a greater weight under no smaller cap, near the quota."""
    weights, caps = [weight for weight, _ in split], [cap for _, cap in split]
    total = data.draw(st.integers(len(split), sum(caps)))
    shares = apportion(total, weights, caps)
    assert sum(shares) == total
    assert all(1 <= share <= cap for share, cap in zip(shares, caps, strict=True))
    for one, mine in zip(split, shares, strict=True):
        for other, theirs in zip(split, shares, strict=True):
            assert not (one[0] > other[0] and one[1] >= other[1]) or mine >= theirs
            # Water-filling: one who could take more and who could give stand in the ratio of their weights.
            if mine < one[1] and theirs > 1:
                assert (mine + 1) / one[0] >= (theirs - 1) / other[0] * (1 - 1e-12)


@settings(deadline=None)
@given(split=splits, data=st.data(), factor=st.floats(1, 100))
def test_a_faster_device_never_gets_less(
    split: list[tuple[float, int]], data: st.DataObject, factor: float
) -> None:
    weights, caps = [weight for weight, _ in split], [cap for _, cap in split]
    total = data.draw(st.integers(len(split), sum(caps)))
    at = data.draw(st.integers(0, len(split) - 1))
    faster = [weight * factor if here == at else weight for here, weight in enumerate(weights)]
    assert apportion(total, faster, caps)[at] >= apportion(total, weights, caps)[at]


@pytest.mark.parametrize(
    ("total", "weights", "caps"),
    [(1, [1, 1], [2, 2]), (5, [1, 1], [2, 2]), (2, [1, 0], [2, 2]), (2, [1, 1], [2, 0])],
)
def test_apportion_refuses_the_impossible(total: int, weights: list[float], caps: list[int]) -> None:
    with pytest.raises(ValueError, match="cannot give"):
        apportion(total, weights, caps)
