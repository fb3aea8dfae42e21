"""The catalogue's models against published parameter counts and file sizes, computed without seeing them."""

import csv
from pathlib import Path

import pytest

from simulator.catalog import models, quantisations
from simulator.catalog.llm import build

TABLE = Path(__file__).parents[2] / "data/published_models.csv"
ROWS = tuple(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))
SHAPES = {shape.name: shape for shape in models()}
BITS = {(bits.quantisation, bits.format): bits for bits in quantisations()}
BOUND = 0.02


def name_of(row):
    return f"{row['model']} {row['quantisation']}".strip()


def size_error(row):
    made = build(SHAPES[row["model"]], BITS[row["quantisation"], row["format"]])
    return made.total_bytes / float(row["file_bytes"]) - 1


@pytest.mark.parametrize("row", [row for row in ROWS if row["file_bytes"]], ids=name_of)
def test_computed_bytes_are_those_of_the_published_file(row):
    error = size_error(row)
    if row["miss"]:
        pytest.xfail(f"{error:+.1%}: {row['miss']}")
    assert abs(error) <= BOUND, f"{error:+.1%}, {row['source']}"


@pytest.mark.parametrize("row", [row for row in ROWS if row["params_total"]], ids=name_of)
def test_parameters_are_those_published(row):
    """Published totals are counted or rounded; a tower's or prediction head's weights may be among them."""
    shape, published = SHAPES[row["model"]], float(row["params_total"])
    beside = sum(other.params for other in shape.architecture.others)
    assert shape.params_total * (1 - BOUND) <= published <= (shape.params_total + beside) * (1 + BOUND)


@pytest.mark.parametrize("row", [row for row in ROWS if row["params_active"]], ids=name_of)
def test_active_parameters_are_those_published(row):
    """Some count the tables and some do not, and most round to a whole billion."""
    made, published = SHAPES[row["model"]].architecture, float(row["params_active"])
    without, rounding = made.params_active - made.table_params, 0.5e9
    least, most = without - rounding, made.params_active + made.table_params + rounding
    assert least <= published <= most, f"{without / 1e9:.2f} B without tables"


def test_at_least_sixty_models_agree_in_bytes_or_count():
    in_bytes = {row["model"] for row in ROWS if row["file_bytes"] and abs(size_error(row)) <= BOUND}
    counted = {row["model"] for row in ROWS if row["params_total"] or row["params_active"]}
    assert in_bytes == {row["model"] for row in ROWS if row["file_bytes"]}
    assert len(in_bytes) >= 67
    assert len(in_bytes | counted) >= 126
    assert sum(bool(row["miss"]) for row in ROWS) == 1


def test_how_many_models_are_within_two_percent_of_a_source_and_how_many_of_memory():
    """What somebody remembers checks the arithmetic; only config and size from sources check the model."""
    good = [row for row in ROWS if row["file_bytes"] and abs(size_error(row)) <= BOUND]
    config = {row["model"] for row in good if SHAPES[row["model"]].confidence != "from-memory"}
    both = {row["model"] for row in good if row["model"] in config and row["confidence"] != "from-memory"}
    assert len(both) >= 51
    assert len(config) >= 57
    assert sum(shape.confidence == "from-memory" for shape in SHAPES.values()) <= 28
