"""Models with random weights for Petals: folders as the
Hugging Face libraries read them, in the cache folder.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from live.local.petals.environment import LAUNCH, PETALS
from live.local.petals.nursery import ENVIRONMENT
from live.local.recipe import FloatRecipe, kept, named, read_recipes
from simulator.errors import EngineUnavailable
from simulator.files.cache import cache_folder
from simulator.files.write import write_text_atomically

__all__ = ["PetalsRecipe", "model_file", "recipe", "recipes"]

POSITIONS = 8192
"""Beyond what a server takes in one request."""


class PetalsRecipe(FloatRecipe):
    """The shape of a Llama-architecture model in float32."""

    quantisation: ClassVar = "fp32"
    bytes_per_weight: ClassVar = 4.0

    hidden: int = Field(ge=8)
    feed_forward: int = Field(ge=8)
    vocabulary: int = Field(ge=8)
    seed: int = Field(default=1, ge=0)

    def config(self) -> dict[str, Any]:
        """What `config.json` says; no token ends a text."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.feed_forward,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": POSITIONS,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
            "bos_token_id": 1,
            "eos_token_id": None,
            "pad_token_id": 0,
        }


@cache
def recipes() -> dict[str, PetalsRecipe]:
    """The recipes that scenarios name."""
    return read_recipes(PetalsRecipe, Path(__file__).with_name("recipes.yaml"))


def recipe(name: str) -> PetalsRecipe:
    """The recipe of that name; raises CatalogError."""
    return named(name, recipes(), "the local Petals swarm")


def model_file(name: str, tell: Callable[[str], None] = lambda text: None) -> Path:
    """The weights of that recipe, in a folder with its `config.json`: from the cache, else made now.

    Raises EngineUnavailable without Petals, CatalogError for an unknown recipe.
    """
    shape = recipe(name)
    folder = cache_folder("models") / f"{name}-{shape.key}"
    folder.mkdir(exist_ok=True)
    config = folder / "config.json"

    def make(fresh: Path) -> dict[str, str]:
        PETALS.require()
        tell(f"making {name} with random weights")
        _write(shape, fresh)
        # whole or not at all, as the weights
        write_text_atomically(config, json.dumps(shape.config()))
        return PETALS.versions()

    return kept(folder / "model.safetensors", shape, make, tell)


def _write(shape: PetalsRecipe, target: Path) -> None:
    asked = json.dumps({"config": shape.config(), "seed": shape.seed})
    command = [str(PETALS.python), "-P", str(LAUNCH), "write", asked, str(target)]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise EngineUnavailable(
            f"Petals could not write the model; is there space on the disk? It said:\n{tail}"
        )
