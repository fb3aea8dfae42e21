"""Legacy EXO's partitioning against its own functions, and against what must always hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.engine.legacy.placement import partition, place_legacy
from simulator.errors import PlacementError

DATA = Path(__file__).parents[2] / "data" / "placement"
CASES = json.loads((DATA / "legacy_cases.json").read_text(encoding="utf-8"))["cases"]


def memory_of(case: dict[str, Any]) -> dict[str, int]:
    return {node["id"]: node["memory_mb"] for node in case["nodes"]}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_recorded_case(case: dict[str, Any]) -> None:
    if "error" in case:
        assert "ZeroDivisionError" in case["error"]
        with pytest.raises(PlacementError, match="sum of all memory, which is 0 MiB"):
            partition(memory_of(case), case["n_layers"])
        return
    found = partition(memory_of(case), case["n_layers"])
    assert list(found.ring) == case["ring_order"]
    assert list(found.ranges) == [(part["start"], part["end"]) for part in case["partitions"]]
    assert list(found.shards) == [(shard["start_layer"], shard["end_layer"] + 1) for shard in case["shards"]]
    assert found.index_mismatch == case["index_mismatch"]


@pytest.mark.parametrize(
    "case", [case for case in CASES if "error" not in case], ids=lambda case: case["name"]
)
def test_recorded_shards_by_ring_position(case: dict[str, Any]) -> None:
    looked_up = case["shard_by_ring_index"]
    with_shard = [entry for entry in looked_up if "end_layer" in entry]
    held = {entry["node_id"]: (entry["start_layer"], entry["end_layer"] + 1) for entry in with_shard}
    found = partition(memory_of(case), case["n_layers"])
    placement = found.placement(allow_mismatch=True)
    assert {shard.device: (shard.start_layer, shard.end_layer) for shard in placement.shards} == held
    assert (
        set(placement.left_out)
        == set(found.without_shard)
        == {entry["node_id"] for entry in looked_up} - set(held)
    )


def test_mismatch_is_refused_with_the_culprit() -> None:
    """The recorded hang: a device of 0 MiB in the ring."""
    with pytest.raises(
        PlacementError, match=r"would hang: zz would get less than one of 16 layers.*take zz out"
    ):
        place_legacy({"a": 16384, "b": 16384, "zz": 0}, 16)


def test_culprit_is_not_always_the_one_that_fails() -> None:
    """Recorded case random_08: a gap in the middle of the ring leaves the last device without a shard."""
    case = next(case for case in CASES if case["name"] == "random_08")
    found = partition(memory_of(case), case["n_layers"])
    assert found.without_shard == ("node0",)
    assert len(found.too_small) == 1


names = st.text("abcdxyz019-", min_size=1, max_size=4)


def test_last_kept_shard_runs_to_the_end() -> None:
    """Three equal shares round to 0.99999; the last device takes the rest of the model all the same."""
    found = partition({"a": 10**6, "b": 10**6, "c": 10**6}, 16)
    assert found.shards[-1] == (10, 16)
    # Six ends of 0.16667 sum to 1.00002, so the last device starts beyond the model and the sixth keeps its end.
    found = partition(dict.fromkeys("bcdefg", 10**6) | {"a": 1}, 16)
    assert found.ranges[-1][0] > 1
    assert (found.shards[-1][1], found.too_small) == (16, ("a",))


memories = st.dictionaries(names, st.integers(0, 200_000), min_size=1, max_size=9)


@settings(deadline=None)
@given(memory_mb=memories, n_layers=st.integers(1, 130))
def test_what_always_holds(memory_mb: dict[str, int], n_layers: int) -> None:
    """Largest memory first, later names first among equals; the kept shards tile the model, mismatch or not."""
    if not any(memory_mb.values()):
        with pytest.raises(PlacementError):
            partition(memory_mb, n_layers)
        return
    found = partition(memory_mb, n_layers)
    assert sorted(found.ring) == sorted(memory_mb)
    for before, after in zip(found.ring, found.ring[1:], strict=False):
        assert memory_mb[before] > memory_mb[after] or (
            memory_mb[before] == memory_mb[after] and before > after
        )
    found.placement(allow_mismatch=True).check(n_layers)
    assert found.index_mismatch == bool(found.too_small)
    if found.index_mismatch:
        with pytest.raises(PlacementError, match="would hang"):
            found.placement()


@settings(deadline=None)
@given(memory_mb=memories, n_layers=st.integers(1, 130))
def test_layers_are_near_the_share_of_memory(memory_mb: dict[str, int], n_layers: int) -> None:
    """Without a mismatch each device gets its share to within one layer and the rounding of 5 places."""
    if not any(memory_mb.values()) or partition(memory_mb, n_layers).index_mismatch:
        return
    total = sum(memory_mb.values())
    for device, layers in place_legacy(memory_mb, n_layers).layer_counts.items():
        # Ends are rounded one after the other, so the error of an end grows by half a unit per device.
        slack = 1 + n_layers * 0.5e-5 * 2 * len(memory_mb)
        assert abs(layers - n_layers * memory_mb[device] / total) <= slack + 1e-9
