"""Random models: shapes as asked, the same bytes for the same seed, checked before use."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from pydantic import ValidationError

from live.local import weights
from live.local.weights import WeightsRecipe, model_file, recipe, recipes, write_f16
from simulator import catalog
from simulator.errors import CatalogError
from tests.live.local.parts import needs_engine

TINY = WeightsRecipe(layers=2, hidden=256, feed_forward=512, heads=4, kv_heads=2, vocabulary=300, context=256)


def test_a_model_has_the_shape_of_its_recipe(tmp_path: Path) -> None:
    write_f16(TINY, tmp_path / "tiny.gguf")
    facts = catalog.from_gguf(tmp_path / "tiny.gguf")
    assert (facts.layers, facts.hidden, facts.heads, facts.kv_heads, facts.vocab) == (2, 256, 4, 2, 300)
    assert facts.params_total + TINY.hidden == TINY.parameters, "the catalogue leaves out the last norm"
    assert facts.ffn == 512


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    digests = []
    for number, seed in enumerate((1, 1, 2)):
        write_f16(TINY.model_copy(update={"seed": seed}), tmp_path / f"{number}.gguf")
        digests.append(hashlib.sha256((tmp_path / f"{number}.gguf").read_bytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]


def test_recipes_are_realistic() -> None:
    for found in recipes().values():
        assert 16 <= found.layers <= 32
        assert 1024 <= found.hidden <= 4096
        assert found.kv_heads < found.heads, "grouped-query attention"


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(CatalogError, match=r"did you mean 'random-80mb'.*random-420mb, random-80mb"):
        recipe("random-80m")


def test_heads_must_divide() -> None:
    with pytest.raises(ValidationError, match="multiple of heads"):
        WeightsRecipe(
            layers=1, hidden=256, feed_forward=256, heads=3, kv_heads=1, vocabulary=300, context=256
        )


class TestQuantised:
    pytestmark = needs_engine

    def test_cached_until_its_checksum_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SIM_CACHE", str(tmp_path))
        told: list[str] = []
        file = model_file("tiny", TINY, told.append)
        made = file.read_bytes()
        assert catalog.from_gguf(file).quantisation.startswith("Q4_K")
        assert model_file("tiny", TINY, told.append) == file
        assert len(told) == 1, "the second time it comes from the cache"
        file.write_bytes(made[:-1] + bytes([made[-1] ^ 1]))
        assert model_file("tiny", TINY, told.append).read_bytes() == made
        assert "checksum" in told[1]
        left = [path.suffix for path in sorted(file.parent.iterdir())]
        assert left == [".gguf", ".json"], "nothing half-made is left"

    def test_files_of_other_recipes_do_not_clash(self) -> None:
        assert TINY.key != TINY.model_copy(update={"seed": 2}).key
        assert weights.recipe("random-80mb").key != weights.recipe("random-420mb").key
