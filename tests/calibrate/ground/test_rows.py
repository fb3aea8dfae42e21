"""Published rows: the table, and a split by source that nobody chooses."""

from __future__ import annotations

import csv
import re
from hashlib import sha256
from pathlib import Path

import pytest

from calibrate.ground.rows import part_by_hash, parts, read_parts, read_rows, rows
from simulator.errors import CalibrationError

LINE = {
    "row": "x-1",
    "source": "somebody",
    "reference": "somebody's blog",
    "engine": "exo",
    "strategy": "single",
    "model": "Llama-3.2-3B",
    "quantisation": "4bit",
    "devices": "Mac mini M4 x1",
    "nodes": "1",
    "link": "none",
    "rtt_us": "",
    "prompt_tokens": "",
    "output_tokens": "128",
    "batch": "1",
    "decode_tokens_per_s": "20",
    "prefill_tokens_per_s": "",
    "confidence": "exact-from-table",
    "note": "",
}


def test_every_source_of_a_row_has_its_part_and_no_other_has_one() -> None:
    assert {row.source for row in rows()} == set(parts())


def test_each_row_has_a_figure_or_says_why_not() -> None:
    for row in rows():
        assert row.decode_tokens_per_s or row.prefill_tokens_per_s or row.note, row.row


def test_an_empty_cell_is_open_and_a_text_may_be_empty() -> None:
    (row,) = read_rows([LINE])
    assert (row.rtt_us, row.prompt_tokens, row.output_tokens, row.note) == (None, None, 128, "")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"nodes": "0"}, "line 2: nodes is '0'"),
        ({"decode_tokens_per_s": "9-15"}, "decode_tokens_per_s is '9-15'"),
        ({"strategy": "ring"}, "strategy is 'ring'"),
        ({"batch": "-1"}, "batch is '-1'"),
    ],
)
def test_bad_cells_are_refused_with_their_place(change: dict[str, str], says: str) -> None:
    with pytest.raises(CalibrationError, match=says):
        read_rows([{**LINE, **change}])


def test_a_row_that_is_there_twice_is_refused() -> None:
    with pytest.raises(CalibrationError, match="x-1 is there twice"):
        read_rows([LINE, LINE])


@pytest.mark.parametrize("source", sorted(parts()))
def test_the_part_is_the_hash_of_the_source(source: str) -> None:
    """Written a second time by other means: no part moves without this failing."""
    odd = bytes.fromhex(sha256(source.encode()).hexdigest()[:8])[-1] % 2
    assert part_by_hash(source) == ("counted" if odd else "looked-at")
    assert parts()[source] == part_by_hash(source) or parts()[source] == "looked-at"


def test_measured_hosts_are_of_no_source_that_is_only_counted() -> None:
    """Their rates were looked at one by one while several processors of a device were built."""
    path = Path(__file__).parents[2] / "data/hosts_measured.csv"
    table = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    told = {re.sub(r" (discussion|issue|pull request) ", "#", row["source"]) for row in table}
    assert len(told) > 5
    counted = [source for source, part in parts().items() if part == "counted"]
    assert not [(here, source) for here in told for source in counted if here.startswith(source)]


def test_nobody_moves_a_source_into_the_counted_part() -> None:
    moved = {"source": "avlp12", "part": "counted", "why": "I would rather"}
    with pytest.raises(CalibrationError, match="the hash of its name says looked-at"):
        read_parts([moved])
    with pytest.raises(CalibrationError, match="the hash of its name says counted"):
        read_parts([{"source": "kubis.ai", "part": "looked-at", "why": "hash"}])
    with pytest.raises(CalibrationError, match="part is 'both'"):
        read_parts([{"source": "kubis.ai", "part": "both", "why": "hash"}])
    seen = read_parts([{"source": "kubis.ai", "part": "looked-at", "why": "a field case names it"}])
    assert seen == {"kubis.ai": "looked-at"}
