"""Models with random weights for MLX: made by `rank.py` in MLX's environment, kept in the cache folder."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from functools import cache
from hashlib import file_digest, sha256
from pathlib import Path

import yaml
from pydantic import Field, model_validator

from live.local.mlx import environment
from simulator.errors import CatalogError, EngineUnavailable, did_you_mean
from simulator.files.cache import cache_folder
from simulator.spec import Spec

__all__ = ["RANK", "MlxRecipe", "model_file", "recipe", "recipes"]

RANK = Path(__file__).with_name("rank.py")
SEED = 1
WRITER_VERSION = 1  # raise it when the same recipe would give other bytes
GROUP = 64
VALUE_BYTES = 4  # float32: activations, norms, scales and biases
BYTES_PER_WEIGHT = 0.5 + 2 * VALUE_BYTES / GROUP
"""4 bits, and per group of 64 a scale and a bias."""


class MlxRecipe(Spec):
    """The shape of a Llama-architecture model, 4 bits in groups of 64."""

    layers: int = Field(ge=1, le=200)
    hidden: int = Field(ge=GROUP, multiple_of=GROUP)
    feed_forward: int = Field(ge=GROUP, multiple_of=GROUP)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    vocabulary: int = Field(ge=GROUP)
    seed: int = Field(default=SEED, ge=0)

    @model_validator(mode="after")
    def _heads_divide(self) -> MlxRecipe:
        if self.hidden % self.heads or self.heads % self.kv_heads:
            raise ValueError(
                f"hidden {self.hidden} must be a multiple of heads {self.heads}, and heads of kv_heads "
                f"{self.kv_heads}"
            )
        return self

    @property
    def key(self) -> str:
        """What tells this recipe's file from all others."""
        return sha256(f"{WRITER_VERSION} {self.model_dump_json()}".encode()).hexdigest()[:12]

    @property
    def _kv(self) -> int:
        return self.hidden // self.heads * self.kv_heads

    @property
    def _layer_weights(self) -> int:
        return 2 * self.hidden * (self.hidden + self._kv) + 3 * self.hidden * self.feed_forward

    def figures(self) -> dict[str, float]:
        """What a scenario says about the model: bytes, operations, counts."""
        table = self.vocabulary * self.hidden * BYTES_PER_WEIGHT
        return {
            "layers": self.layers,
            "hidden": self.hidden,
            "layer_bytes": self._layer_weights * BYTES_PER_WEIGHT + 2 * self.hidden * VALUE_BYTES,
            "embedding_bytes": table,
            "head_bytes": table + self.hidden * VALUE_BYTES,
            "layer_flops": 2 * self._layer_weights,
            "kv_bytes_per_token_per_layer": 2 * self._kv * VALUE_BYTES,
            "head_flops": 2 * self.hidden * self.vocabulary,
            "activation_bytes": self.hidden * VALUE_BYTES,
            "kv_heads": self.kv_heads,
        }

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
    text = Path(__file__).with_name("recipes.yaml").read_text(encoding="utf-8")
    return {name: MlxRecipe.model_validate(fields) for name, fields in yaml.safe_load(text).items()}


def recipe(name: str) -> MlxRecipe:
    """The recipe of that name; raises CatalogError."""
    if name not in recipes():
        known = sorted(recipes())
        raise CatalogError(
            f"no recipe for a model {name!r}{did_you_mean(name, known)}; the local MLX cluster makes "
            f"{', '.join(known)}"
        )
    return recipes()[name]


def model_file(name: str, tell: Callable[[str], None] = lambda text: None) -> Path:
    """The model of that recipe: from the cache if its checksum holds, else made now.

    Raises EngineUnavailable without MLX, CatalogError for an unknown recipe.
    """
    shape = recipe(name)
    file = cache_folder("models") / f"{name}-{shape.key}.mlx4.safetensors"
    record = file.with_suffix(".json")
    if file.exists() and record.exists():
        if json.loads(record.read_text(encoding="utf-8"))["sha256"] == _sha256(file):
            return file
        tell(f"{file.name} does not match its checksum and is made again")
    environment.require()
    tell(f"making {name} with random weights")
    fresh = file.with_name(f"{file.stem}.{os.getpid()}.safetensors")
    try:
        _write(shape, fresh)
        facts = {"sha256": _sha256(fresh), "recipe": shape.model_dump(), **environment.versions()}
        # before the file gets its name, for a file without its record is made again
        record.write_text(json.dumps(facts) + "\n", encoding="utf-8")
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)
    return file


def _write(shape: MlxRecipe, target: Path) -> None:
    command = [str(environment.python()), "-P", str(RANK), shape.model_dump_json(), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise EngineUnavailable(
            f"MLX could not write the model; is there space on the disk? It said:\n{tail}"
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return file_digest(opened, "sha256").hexdigest()
