"""The tiling check and the table of what each device must hold."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from simulator.errors import PlacementError
from simulator.placement import DeviceCapacity, Placement, PlacementRequest, Shard, memory_table
from simulator.placement.memory import overfull

REQUEST = PlacementRequest(
    devices=tuple(DeviceCapacity(name=name, usable_bytes=100) for name in ("a", "b", "c")),
    n_layers=10,
    layer_bytes=7,
    kv_bytes_per_layer=2,
    embedding_bytes=11,
    head_bytes=13,
    overhead_bytes=5,
    total_bytes=94,
)


def tiled(**layers: int) -> Placement:
    return Placement.from_layers(layers.items(), "manual")


def test_shards_are_half_open() -> None:
    placement = tiled(a=6, b=4)
    assert [(shard.start_layer, shard.end_layer, shard.layers) for shard in placement.shards] == [
        (0, 6, 6),
        (6, 10, 4),
    ]
    assert placement.check(10) is placement


def test_shard_cannot_run_backwards() -> None:
    with pytest.raises(ValidationError, match="ends at 2, before it starts"):
        Shard(device="a", start_layer=3, end_layer=2)


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ([("a", 0, 4), ("b", 6, 10)], "gap: layers 4 to 5 are on no device before 'b'; start it at layer 4"),
        (
            [("a", 0, 6), ("b", 4, 10)],
            "overlap: 'b' starts at layer 4, but those up to 5 are held; start it at layer 6",
        ),
        ([("a", 1, 10)], "gap: layers 0 to 0"),
        ([("a", 0, 6)], "layers 6 to 9 are on no device"),
        ([("a", 0, 12)], "the last shard ends at 12"),
        ([("a", 0, 5), ("a", 5, 10)], "device 'a' holds two shards"),
        ([("a", 0, 10), ("b", 10, 10)], "device 'b' holds no layer"),
    ],
)
def test_faults_of_a_tiling(shards: list[tuple[str, int, int]], message: str) -> None:
    placement = Placement(
        shards=tuple(Shard(device=d, start_layer=start, end_layer=end) for d, start, end in shards),
        rule="manual",
    )
    with pytest.raises(PlacementError, match=message):
        placement.check(10)


def test_pinned_device_may_be_empty_but_must_be_there() -> None:
    shards = tiled(a=0, b=10).shards
    Placement(shards=shards, embedding="a", rule="manual").check(10)
    with pytest.raises(PlacementError, match="the head is pinned to 'tv', which is not among a, b"):
        Placement(shards=shards, embedding="a", head="tv", rule="manual").check(10)


@pytest.mark.parametrize(
    ("embedding_on", "head_on", "expected"),
    [
        ("all", "all", {"a": (11, 13), "b": (11, 13)}),
        ("first", "last", {"a": (11, 0), "b": (0, 13)}),
        ("b", "b", {"a": (0, 0), "b": (11, 13)}),
        ("c", "c", {"a": (0, 0), "b": (0, 0), "c": (11, 13)}),
    ],
)
def test_where_the_engine_keeps_embedding_and_head(
    embedding_on: str, head_on: str, expected: dict[str, tuple[int, int]]
) -> None:
    table = memory_table(tiled(a=6, b=4), REQUEST, embedding_on=embedding_on, head_on=head_on)
    assert {use.device: (use.embedding_bytes, use.head_bytes) for use in table} == expected


def test_the_table_adds_up() -> None:
    a, b = memory_table(tiled(a=6, b=4), REQUEST)
    assert (a.weights_bytes, a.kv_bytes, a.overhead_bytes, a.total_bytes) == (
        42,
        12,
        5,
        42 + 12 + 11 + 13 + 5,
    )
    assert (b.weights_bytes, b.kv_bytes, b.total_bytes) == (28, 8, 28 + 8 + 11 + 13 + 5)
    assert a.fits
    assert overfull((a, b)) is None


def test_a_full_device_fits_and_one_byte_more_does_not() -> None:
    request = REQUEST.model_copy(update={"devices": (DeviceCapacity(name="a", usable_bytes=119),)})
    (use,) = memory_table(tiled(a=10), request)
    assert (use.total_bytes, use.fits) == (119, True)
    (use,) = memory_table(tiled(a=10), request.model_copy(update={"overhead_bytes": 6}))
    assert not use.fits
    assert str(use) == "a: 10 layers, 120 B of 119 B: 1 B too much"
    assert "move layers worth 1 B to other devices" in str(overfull((use,)))


def test_pin_of_the_placement_comes_first() -> None:
    placement = Placement(shards=tiled(a=0, b=10).shards, embedding="a", rule="manual").check(10)
    a, b = memory_table(placement, REQUEST, head_on="last")
    assert (a.embedding_bytes, a.head_bytes, b.embedding_bytes, b.head_bytes) == (11, 0, 0, 13)


def test_first_and_last_mean_devices_with_layers() -> None:
    placement = Placement(shards=tiled(a=0, b=6, c=4).shards, embedding="a", rule="manual").check(10)
    _, b, c = memory_table(placement, REQUEST, head_on="first")
    assert (b.head_bytes, c.head_bytes) == (13, 0)


def test_unknown_holder() -> None:
    with pytest.raises(PlacementError, match="unknown device 'tv': the devices are a, b, c"):
        memory_table(tiled(a=10), REQUEST, head_on="tv")
