"""Named streams: the same name gives the same numbers, whatever else is drawn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.laws import Exponential, Streams

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
