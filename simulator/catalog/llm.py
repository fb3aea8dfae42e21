"""Language models of the catalogue by name: their configs, exact file sizes, bits of quantisations.

`model` answers from the catalogue, `simulator.catalog.files` from a GGUF header, `simulator.catalog.hf` from
a config.json. A config and the catalogue's entry of the same model go one way (`architecture`, then
`model_facts.facts_of`), so that they agree.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Literal

from simulator.catalog.architecture import Architecture, architecture
from simulator.catalog.config_keys import Config
from simulator.catalog.ggml_types import fits, type_bits, widened_bits
from simulator.catalog.matrices import FP16_BYTES
from simulator.catalog.model_facts import ModelFacts, facts_of
from simulator.catalog.model_names import spelling
from simulator.catalog.precision import Precision
from simulator.catalog.tables import DATA, Facts, Row, normalise, pick, split, table
from simulator.errors import CatalogError, did_you_mean

__all__ = [
    "Bits",
    "ModelFacts",
    "Shape",
    "bits_named",
    "build",
    "model",
    "models",
    "quantisations",
    "shape_named",
    "stored_as",
]


class Shape(Facts):
    """The architecture of a model of the catalogue: its config, no bytes."""

    name: str
    aliases: tuple[str, ...] = ()
    family: str = ""
    config: dict[str, Any]
    source: str
    confidence: str
    note: str = ""

    @property
    def architecture(self) -> Architecture:
        """Its layers as matrices."""
        return _architecture(self.name)

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.architecture.layers)

    @property
    def hidden(self) -> int:
        """Width of the hidden state."""
        return self.architecture.hidden

    @property
    def experts(self) -> int:
        """Routed experts of a mixture layer, 0 in a dense model."""
        return self.architecture.experts

    @property
    def params_total(self) -> float:
        """All weights of the language model; a tied head is counted once."""
        return self.architecture.params_total

    @property
    def kv_bytes_per_token_per_layer(self) -> float:
        """fp16 cache of one token in an average layer, windows aside."""
        blocks = self.architecture.layers
        return sum(block.kv_values for block in blocks) * FP16_BYTES / len(blocks)


class Bits(Facts):
    """Bits per weight of the parts of a quantised file;
    `attention` differs from `body` where only experts shrink.
    """

    quantisation: str
    format: str
    body: float
    embedding: float
    head: float
    tied: float
    attention: float
    unpacking: Literal["none", "plain", "nested"]
    """How much work it is to make numbers of the stored weights: blocks of one scale, or blocks of blocks."""
    is_offered: bool = True
    """Whether it is proposed to who asks for fewer bits: usual names, none that few models come in."""
    types: tuple[str, ...] = ()
    """llama.cpp's types behind `body`, by equal shares, and of `down_proj`; none where every row fits."""
    down_types: tuple[str, ...] = ()

    @property
    def flops_per_byte(self) -> float:
        """Of the stored weights: a multiplication and an addition for each."""
        return 16 / self.body

    def precision(self, made: Architecture) -> Precision:
        """The bits of each part: in a mixture `attention` is what is no expert and no dense MLP."""
        head = self.tied if made.tied else self.head
        embedding = self.embedding
        if self.types and not fits("Q6_K", made.hidden):
            # so the quantiser takes 8 bits for the head, and the table is a matrix like any other
            head, base = max(head, type_bits("Q8_0")), self.types[0]
            embedding = max(embedding, type_bits(base) + widened_bits([base], made.hidden))
        plain = self.attention if made.experts else self.body
        # averages over files hold for what the quantiser leaves alone as well
        return Precision(
            self.quantisation,
            self.format,
            plain,
            embedding,
            head,
            plain,
            self.body,
            self._exceptions(made, plain),
            self.types,
            self.down_types,
        )

    def _exceptions(self, made: Architecture, plain: float) -> dict[str, float]:
        """Bits of the dense MLPs of a mixture, where they have their own."""
        if self.format == "MLX" and any(BESIDE in part.name for part in made.layers[0].matrices):
            # Gemma 4 adds the experts to a dense MLP, which MLX's converter keeps at 8 bits at least
            return dict.fromkeys(DENSE_MLP, max(self.body, EIGHT_BITS))
        return {} if plain == self.body else dict.fromkeys(DENSE_MLP, self.body)


@cache
def models() -> tuple[Shape, ...]:
    """All architectures of the catalogue; `model` adds a quantisation."""
    lines = (DATA / "models.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(Shape.model_validate(json.loads(line)) for line in lines if line)


@cache
def _architecture(name: str) -> Architecture:
    shape = next(shape for shape in models() if shape.name == name)
    return architecture(Config(shape.config, shape.name))


def build(shape: Shape, bits: Bits, published: Row | None = None) -> ModelFacts:
    """A model in a quantisation; with a published file size the layers take what is left of it."""
    made = shape.architecture
    known = shape.model_dump(include={"name", "aliases", "family", "source", "confidence", "note"})
    return facts_of(made, bits.precision(made), known, published)


@cache
def quantisations() -> tuple[Bits, ...]:
    """All quantisations of the catalogue with their bits per weight."""
    return tuple(
        Bits(
            quantisation=row["quantisation"],
            format=row["format"],
            body=float(row["bits_per_weight"]),
            embedding=float(row["embedding_bits"]),
            head=float(row["head_bits"]),
            tied=float(row["tied_bits"]),
            attention=float(row["attention_bits"] or row["bits_per_weight"]),
            unpacking=row["unpacking"],
            is_offered=row["offered"] == "yes",
            types=split(row["types"]),
            down_types=split(row["down_types"] or row["types"]),
        )
        for row in table("quantisations")
    )


def _default(family: str, file_format: str | None) -> tuple[str, str]:
    """What people run when they do not say: 4 bits, in EXO's format (MLX) unless another is asked for."""
    gguf = normalise(file_format or "MLX") == "gguf"
    if normalise(file_format or "") == "safetensors":
        return "nf4", "safetensors"
    if family == "gpt-oss":
        return ("MXFP4", "GGUF") if gguf else ("MXFP4-Q8", "MLX")
    return ("Q4_K_M", "GGUF") if gguf else ("4bit", "MLX")


def stored_as(name: str, quantisation: str | None, file_format: str) -> Bits:
    """The bits of a model that the catalogue need not know: of its quantisation, where that is a known name,
    else of what people usually run in a format.
    """
    try:
        if quantisation is not None:
            return bits_named(quantisation, None)
        return bits_named(*_default(shape_named(name)[0].family, file_format))
    except CatalogError:
        return bits_named(*_default("", file_format))


BESIDE, EIGHT_BITS = "moe.experts", 8.5
DENSE_MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


def bits_named(quantisation: str, file_format: str | None) -> Bits:
    """The bits per weight of a quantisation by name or alias; raises CatalogError."""
    rows = [
        row
        for row in table("quantisations")
        if not file_format or normalise(row["format"]) == normalise(file_format)
    ]
    if not rows:
        raise CatalogError(
            f"{file_format!r:.40} is no known model format{did_you_mean(file_format or '', FORMATS)}"
        )
    found = pick(
        "quantisation", quantisation, rows, lambda row: (row["quantisation"], *split(row["aliases"]))
    )[0]
    key = (found["quantisation"], found["format"])
    return next(bits for bits in quantisations() if (bits.quantisation, bits.format) == key)


FORMATS = ("GGUF", "MLX", "safetensors")


def _published_size(name: str, bits: Bits) -> Row | None:
    """The published size of this very file; a file of the model's own name goes before one of a fine-tune."""
    rows = [
        row
        for row in table("model_file_sizes")
        if row["catalogue_model"] == name
        and row["format"] == bits.format
        and normalise(row["quantisation"]) == normalise(bits.quantisation)
    ]
    return next(
        (row for row in rows if normalise(name) in normalise(row["model"])), rows[0] if rows else None
    )


def model(name: str, quantisation: str | None = None, format: str | None = None) -> ModelFacts:
    """The model called `name` in a quantisation ('4bit', 'Q4_K_M') and format ('MLX', 'GGUF').

    Defaults: MLX 4bit, GGUF Q4_K_M; gpt-oss comes as MXFP4.
    Raises CatalogError for an unknown name or quantisation.
    """
    shape, said = shape_named(name)
    if quantisation is None:
        quantisation, format = _default(shape.family, format)
    bits = bits_named(quantisation, format)
    facts = build(shape, bits, _published_size(shape.name, bits))
    return facts.model_copy(update={"doubts": (*said, *facts.doubts)}) if said else facts


def shape_named(name: str) -> tuple[Shape, tuple[str, ...]]:
    """The architecture called `name`, and what had to be left out of the name to find it.

    Raises CatalogError for an unknown name, with the nearest known one.
    """
    known = [other for shape in models() for other in (shape.name, *shape.aliases)]
    if normalise(name) in set(map(normalise, known)):
        return pick("model", name, models(), lambda shape: (shape.name, *shape.aliases))[0], ()
    other = spelling(name, known)
    shape = pick("model", other or name, models(), lambda shape: (shape.name, *shape.aliases))[0]
    return shape, (f"{name[:80]} is taken for {shape.name}, whose architecture it has by its name",)
