"""Named streams: the same name gives the same numbers, whatever else is drawn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from simulator.catalog.links import network
from simulator.laws import Exponential, Streams
from simulator.laws.law import TABLE_SIZE, Law, table

ROOT = Path(__file__).parents[3]
LAW = Exponential(mean="1 s")
FIRST_CELLS = "from simulator.laws import Streams; print(Streams(5, 3, 2).cells('link/mac/out', 9).tolist())"


@given(
    st.integers(0, 2**63 - 1), st.text(max_size=12), st.integers(1, 9), st.integers(0, 50), st.integers(1, 6)
)
@settings(deadline=None)
def test_a_row_alone_equals_the_row_of_a_block(seed: int, name: str, n: int, first: int, rows: int) -> None:
    block = Streams(seed, 0, first + rows).draws(name, LAW, n)
    part = Streams(seed, first, rows).draws(name, LAW, n)
    np.testing.assert_array_equal(part, block[:, first:])


def test_names_and_seeds_and_rows_are_independent() -> None:
    cells = {
        (seed, name): Streams(seed, 0, 2).cells(name, 4000).astype(float)
        for seed in (1, 2)
        for name in ("link/a/in", "link/a/out", "link/b/in")
    }
    rows = np.concatenate(list(cells.values()))
    correlation = np.corrcoef(rows) - np.eye(len(rows))
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


def test_cells_are_uniform() -> None:
    """Chi-square of 256 groups of 65,536 cells: mean 255, standard deviation 22.6."""
    counts = np.bincount(Streams(3).cells("uniform", 200_000)[0] >> 8, minlength=256)
    expected = 200_000 / 256
    chi_square = float(np.sum((counts - expected) ** 2 / expected))
    assert 255 - 4 * 22.6 < chi_square < 255 + 4 * 22.6


def test_normals_and_factors() -> None:
    normals = Streams(1, rows=1000).normals("noise", 200)
    assert abs(normals.mean()) < 4 / np.sqrt(normals.size)
    assert abs(normals.std() - 1) < 0.01
    factors = Streams(1, rows=40_000).factors("world/mac/decode", 0.3)
    assert abs(np.median(factors) - 1) < 0.01
    assert abs(np.std(np.log(factors)) - 0.3) < 0.005
    np.testing.assert_array_equal(Streams(1, rows=3).factors("world/mac/decode", 0.0), np.ones(3))


def test_another_process_draws_the_same() -> None:
    """No hash seed, no global state: the numbers depend on the seed and the name alone."""
    here = Streams(5, 3, 2).cells("link/mac/out", 9).tolist()
    for hash_seed in ("0", "1"):
        there = subprocess.run(
            [sys.executable, "-c", FIRST_CELLS],
            cwd=ROOT,
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        )
        assert there.stdout.strip() == str(here)


def test_these_very_numbers_are_kept() -> None:
    """A change here changes every prediction: say so in CHANGELOG.md."""
    assert Streams(1).cells("link/mac/out", 4).tolist() == [[22490, 26670, 15432, 41801]]


WIFI = TypeAdapter[Law](Law).validate_python(network("wifi6").delay)


@pytest.mark.parametrize(
    "law", [WIFI, Exponential.model_validate({"mean": "1 s"})], ids=["wifi6", "exponential"]
)
def test_tails_go_on_beyond_the_last_cell_of_the_table(law: Law) -> None:
    """In four million draws about 61 lie in the last cell, 15 beyond its third quarter, 4 beyond its 15th 16th."""
    draws = Streams(3, rows=1000).draws("far", law, 4000)
    for part in (1.0, 0.25, 1 / 16):
        expected = draws.size * part / TABLE_SIZE
        found = np.count_nonzero(draws > law.quantile(np.array([1 - part / TABLE_SIZE]))[0])
        assert abs(found - expected) <= 4 * np.sqrt(expected), part
    assert draws.max() > table(law)[-1]


def test_a_far_draw_is_the_same_in_its_row_alone() -> None:
    every = Streams(3, rows=200).draws("far", WIFI, 4000)
    row = int(np.argmax(every.max(axis=0)))
    assert every[:, row].max() > table(WIFI)[-1]
    np.testing.assert_array_equal(Streams(3, first=row).draws("far", WIFI, 4000)[:, 0], every[:, row])
