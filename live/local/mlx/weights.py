"""Models with random weights for MLX: made by `rank.py` in MLX's environment, kept in the cache folder."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from live.local.mlx.environment import MLX
from live.local.recipe import FLOAT_BYTES, FloatRecipe, kept, named, read_recipes
from simulator.errors import EngineUnavailable
from simulator.files.cache import cache_folder

__all__ = ["RANK", "MlxRecipe", "model_file", "recipe", "recipes"]

RANK = Path(__file__).with_name("rank.py")
SEED = 1
GROUP = 64


class MlxRecipe(FloatRecipe):
    """The shape of a Llama-architecture model, 4 bits in groups of 64."""

    quantisation: ClassVar = "4bit"
    # and for each group a scale and a bias
    bytes_per_weight: ClassVar = 0.5 + 2 * FLOAT_BYTES / GROUP

    hidden: int = Field(ge=GROUP, multiple_of=GROUP)
    feed_forward: int = Field(ge=GROUP, multiple_of=GROUP)
    vocabulary: int = Field(ge=GROUP)
    seed: int = Field(default=SEED, ge=0)

    def fault_of(self, ranks: int) -> str | None:
        """Why `ranks` cannot split its layers by tensor, None where they can; MLX says it late or never."""
        for what, number, step in (
            ("KV heads", self.kv_heads, ranks),
            ("feed-forward columns", self.feed_forward, ranks * GROUP),
            ("hidden columns", self.hidden, ranks * GROUP),
        ):
            if number % step:
                return f"{number} {what} are no multiple of {step}"
        return None


@cache
def recipes() -> dict[str, MlxRecipe]:
    """The recipes that scenarios name."""
    return read_recipes(MlxRecipe, Path(__file__).with_name("recipes.yaml"))


def recipe(name: str) -> MlxRecipe:
    """The recipe of that name; raises CatalogError."""
    return named(name, recipes(), "the local MLX cluster")


def model_file(name: str, tell: Callable[[str], None] = lambda text: None) -> Path:
    """The model of that recipe: from the cache if its checksum holds, else made now.

    Raises EngineUnavailable without MLX, CatalogError for an unknown recipe.
    """
    shape = recipe(name)
    file = cache_folder("models") / f"{name}-{shape.key}.mlx4.safetensors"

    def make(fresh: Path) -> dict[str, str]:
        MLX.require()
        tell(f"making {name} with random weights")
        _write(shape, fresh)
        return MLX.versions()

    return kept(file, shape, make, tell)


def _write(shape: MlxRecipe, target: Path) -> None:
    command = [str(MLX.python), "-P", str(RANK), shape.model_dump_json(), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise EngineUnavailable(
            f"MLX could not write the model; is there space on the disk? It said:\n{tail}"
        )
