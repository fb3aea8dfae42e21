"""Models with random weights, whatever the engine: a shape by name, a file in the cache that is checked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import yaml
from pydantic import Field, model_validator

from simulator.errors import CatalogError, did_you_mean
from simulator.spec import Spec

__all__ = ["FLOAT_BYTES", "FloatRecipe", "ModelRecipe", "kept", "named", "read_recipes"]

FLOAT_BYTES = 4


class ModelRecipe(Spec):
    """The shape of a Llama-architecture model with grouped-query attention."""

    writer_version: ClassVar[int] = 1
    """Raised by an engine's recipe when the same one would give other bytes."""

    layers: int = Field(ge=1, le=200)
    hidden: int
    feed_forward: int
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    vocabulary: int

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden % self.heads or self.heads % self.kv_heads:
            raise ValueError(
                f"hidden {self.hidden} must be a multiple of heads {self.heads}, and heads of kv_heads "
                f"{self.kv_heads}"
            )
        return self

    @property
    def key(self) -> str:
        """What tells this recipe's file from all others."""
        return sha256(f"{self.writer_version} {self.model_dump_json()}".encode()).hexdigest()[:12]

    @property
    def kv_columns(self) -> int:
        """Columns of a key, and of a value."""
        return self.hidden // self.heads * self.kv_heads

    @property
    def layer_weights(self) -> int:
        """Number of a layer's weights in matrices: q, o, k, v and three of the feed-forward."""
        return 2 * self.hidden * (self.hidden + self.kv_columns) + 3 * self.hidden * self.feed_forward


class FloatRecipe(ModelRecipe):
    """One that computes in float32, whatever its matrices are stored in."""

    quantisation: ClassVar[str]
    bytes_per_weight: ClassVar[float]
    """Of a matrix, what belongs to its groups included."""

    def figures(self) -> dict[str, float]:
        """What a scenario says about the model: bytes, operations, counts."""
        table = self.vocabulary * self.hidden * self.bytes_per_weight
        norm_bytes = self.hidden * FLOAT_BYTES
        return {
            "layers": self.layers,
            "hidden": self.hidden,
            "layer_bytes": self.layer_weights * self.bytes_per_weight + 2 * norm_bytes,
            "embedding_bytes": table,
            "head_bytes": table + norm_bytes,
            "layer_flops": 2 * self.layer_weights,
            "kv_bytes_per_token_per_layer": 2 * self.kv_columns * FLOAT_BYTES,
            "head_flops": 2 * self.hidden * self.vocabulary,
            "activation_bytes": self.hidden * FLOAT_BYTES,
            "kv_heads": self.kv_heads,
        }

    def numbers(self, name: str) -> dict[str, Any]:
        """The same as a scenario writes them."""
        figures = self.figures().items()
        told = {key: f"{value:.0f} B" if "bytes" in key else round(value) for key, value in figures}
        return {"name": name, "quantisation": self.quantisation, **told}


R = TypeVar("R", bound=ModelRecipe)


def read_recipes(kind: type[R], file: Path) -> dict[str, R]:
    """The recipes that scenarios name."""
    tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {name: kind.model_validate(fields) for name, fields in tree.items()}


def named(name: str, known: Mapping[str, R], whose: str, otherwise: str = "") -> R:
    """The recipe of that name; raises CatalogError, which says what `whose` makes and what else there is."""
    if name not in known:
        raise CatalogError(
            f"no recipe for a model {name!r}{did_you_mean(name, sorted(known))}; {whose} makes "
            f"{', '.join(sorted(known))}{otherwise}"
        )
    return known[name]


def kept(
    file: Path, shape: ModelRecipe, make: Callable[[Path], Mapping[str, Any]], tell: Callable[[str], None]
) -> Path:
    """The file from the cache if its checksum holds, else made now; `make` returns what made it."""
    record = file.with_suffix(".json")
    if file.exists() and record.exists():
        if json.loads(record.read_text(encoding="utf-8"))["sha256"] == _sha256(file):
            return file
        tell(f"{file.name} does not match its checksum and is made again")
    fresh = file.with_name(f"{file.stem}.{os.getpid()}{file.suffix}")
    try:
        by = make(fresh)
        facts = {"sha256": _sha256(fresh), "recipe": shape.model_dump(), **by}
        # before the file gets its name, for a file without its record is made again
        record.write_text(json.dumps(facts) + "\n", encoding="utf-8")
        # whole or not at all: two commands may make the same model at once
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)
    return file


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return file_digest(opened, "sha256").hexdigest()
