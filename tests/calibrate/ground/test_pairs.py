"""Pairs: which of two measured strategies or links is faster, and whether a prediction says so."""

from __future__ import annotations

from calibrate.ground.pairs import pair_lines, pairs
from calibrate.ground.rows import Row, read_rows
from tests.calibrate.ground.test_rows import LINE
from tests.calibrate.ground.test_score import outcome

CHANGES = {
    "one": {},
    "rdma": {"strategy": "tensor", "nodes": "2", "link": "RDMA"},
    "tcp": {"strategy": "tensor", "nodes": "2", "link": "TCP"},
    "stages": {"strategy": "pipeline", "nodes": "2", "link": "TCP"},
    "other": {"strategy": "tensor", "nodes": "2", "link": "TCP", "model": "another"},
}


def the_rows() -> dict[str, Row]:
    return {row.row: row for row in read_rows([{**LINE, **c, "row": name} for name, c in CHANGES.items()])}


def test_pairs_ask_one_thing_of_one_source_and_one_of_them_is_tensor() -> None:
    measured_s = {"one": 1.0, "rdma": 0.6, "tcp": 1.2, "stages": 1.1, "other": 0.1}
    outcomes = [outcome(s, row=name) for name, s in measured_s.items()]
    found = {(one.faster, one.slower) for one in pairs(outcomes, the_rows())}
    assert found == {("rdma", "one"), ("one", "tcp"), ("rdma", "tcp"), ("rdma", "stages"), ("stages", "tcp")}


def test_a_pair_is_right_where_the_medians_are_in_the_measured_order() -> None:
    slow = tuple(2 * value for value in outcome(1.0).predicted_s)
    outcomes = [outcome(1.0, row="rdma"), outcome(3.0, row="tcp", predicted_s=slow), outcome(0.9, row="one")]
    found = pairs(outcomes, the_rows())
    assert [(one.faster, one.slower, one.is_right) for one in found] == [
        ("rdma", "tcp", True),
        ("one", "rdma", False),
        ("one", "tcp", True),
    ]
    lines = pair_lines(found)
    assert "| looked-at | decode | 3 | 67% |" in lines
    assert "- decode: one was measured 1.11 times as fast as rdma; predicted 1.00" in lines
