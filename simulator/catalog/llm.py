"""Language models: shapes, exact file sizes, and the bytes and flops of one layer.

`model` answers from the catalogue, `simulator.catalog.files` from a GGUF header or an HF config.json. All of
them end in `build`, so that a name, a file and a config of the same model agree.
"""

from __future__ import annotations

from functools import cache

from simulator.catalog.tables import Facts, Row, names_of, normalise, number, pick, split, table
from simulator.errors import CatalogError, did_you_mean

__all__ = ["Bits", "ModelFacts", "Shape", "build", "model", "models", "quantisations"]

FP16_BYTES = 2


class Shape(Facts):
    """The architecture of a model: sizes only, no bytes."""

    name: str
    aliases: tuple[str, ...] = ()
    family: str = ""
    layers: int
    hidden: int
    ffn: int
    ffn_matrices: int = 3
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied_embeddings: bool = False
    experts: int = 0
    experts_per_token: int = 0
    expert_ffn: int = 0
    shared_expert_ffn: int = 0
    dense_layers_first: int = 0
    attention_params_override: int | None = None
    kv_bytes_override: float | None = None
    source: str
    confidence: str
    note: str = ""

    @property
    def attention_params(self) -> float:
        """Weights of attention and norms in one layer: h*(H +
        2*K)*d for q, k, v, H*d*h for the output, 2*h norms.
        """
        if self.attention_params_override is not None:
            return self.attention_params_override
        return self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads) + 2 * self.hidden

    @property
    def expert_params(self) -> float:
        """Weights of one expert: three matrices hidden x expert_ffn."""
        return 3.0 * self.hidden * self.expert_ffn

    @property
    def shared_params(self) -> float:
        """Weights that every token reads in a mixture layer besides attention: shared expert and router."""
        return 3.0 * self.hidden * self.shared_expert_ffn + self.hidden * self.experts

    @property
    def dense_ffn_params(self) -> float:
        """Weights of the feed-forward block of a dense layer."""
        return float(self.ffn_matrices * self.hidden * self.ffn)

    @property
    def mixture_share(self) -> float:
        """Share of the layers that are mixtures of experts."""
        return (self.layers - self.dense_layers_first) / self.layers if self.experts else 0.0

    @property
    def table_params(self) -> float:
        """Weights of the embedding table, and of the output head."""
        return float(self.vocab * self.hidden)

    @property
    def params_total(self) -> float:
        """All weights; a tied head is counted once."""
        mix = self.mixture_share
        ffn = (1 - mix) * self.dense_ffn_params + mix * (
            self.shared_params + self.experts * self.expert_params
        )
        return self.layers * (self.attention_params + ffn) + self.table_params * (
            1 if self.tied_embeddings else 2
        )

    @property
    def active_params_per_layer(self) -> float:
        """Weights that one token multiplies in an average layer."""
        mix = self.mixture_share
        experts = self.shared_params + self.experts_per_token * self.expert_params
        return self.attention_params + (1 - mix) * self.dense_ffn_params + mix * experts

    @property
    def kv_bytes_per_token_per_layer(self) -> float:
        """fp16 cache of one token in one layer: 2 (k and v)
        * K * d * 2 bytes; of a latent cache what it stores.
        """
        if self.kv_bytes_override is not None:
            return self.kv_bytes_override
        return 2.0 * self.kv_heads * self.head_dim * FP16_BYTES


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


class ModelFacts(Facts):
    """A model in one quantisation. Invariant: layers *
    layer_bytes + embedding_bytes + head_bytes = total_bytes.

    With tied embeddings `embedding_bytes` is 0 and `head_bytes` is the shared table: a device that embeds
    without holding the head needs its own copy (`embedding_table_bytes`). Layers are averages where they
    differ; `bytes_per_layer` holds the exact ones when a file told them.
    """

    name: str
    aliases: tuple[str, ...]
    family: str
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied_embeddings: bool
    experts: int
    experts_per_token: int
    dense_layers_first: int
    params_total: float
    params_active: float
    kv_bytes_per_token_per_layer: float
    quantisation: str
    format: str
    total_bytes: float
    size_basis: str
    size_confidence: str
    layer_bytes: float
    expert_layer_bytes: float
    embedding_bytes: float
    head_bytes: float
    layer_flops_per_token: float
    head_flops: float
    bytes_per_layer: tuple[float, ...] = ()
    source: str
    confidence: str
    note: str = ""

    @property
    def embedding_table_bytes(self) -> float:
        """Bytes that a device must hold in order to embed tokens."""
        return self.head_bytes if self.tied_embeddings else self.embedding_bytes

    @property
    def active_layer_bytes(self) -> float:
        """Bytes that one token reads in an average layer."""
        return self.active_layer_bytes_at(1)

    @property
    def attention_flops_per_context_token(self) -> float:
        """Flops of one layer per cached token that is attended
        to: `4 * heads * head_dim`, for q.k and for the sum.
        """
        return 4.0 * self.heads * self.head_dim

    def active_layer_bytes_at(self, batch: int) -> float:
        """Bytes that a step over `batch` tokens reads in an average layer.

        `rest + experts * (1 - (1 - k/E)**batch)`: of E experts a token takes k; with
        independent routing an expert is missed by all tokens with probability (1 -
        k/E)**batch. Real routing is correlated, so this is an upper bound.
        """
        if not self.experts:
            return self.layer_bytes
        hit = 1 - (1 - self.experts_per_token / self.experts) ** batch
        return self.layer_bytes - (1 - hit) * self.expert_layer_bytes


def build(shape: Shape, bits: Bits, published: Row | None = None) -> ModelFacts:
    """A shape in a quantisation; the layers take what embedding and head leave of a published file size.

    Without a published size each part has its weights times its bits per weight / 8, flagged 'computed'.
    """
    table_bits = bits.tied if shape.tied_embeddings else bits.head
    head = shape.table_params * table_bits / 8
    embedding = 0.0 if shape.tied_embeddings else shape.table_params * bits.embedding / 8
    mix = shape.mixture_share
    experts = mix * shape.experts * shape.expert_params * bits.body / 8
    rest_params = shape.attention_params + mix * shape.shared_params
    rest_bits = bits.attention if shape.experts else bits.body
    rest = (rest_params * rest_bits + (1 - mix) * shape.dense_ffn_params * bits.body) / 8
    basis, confidence, layer = "computed", "computed", experts + rest
    if published is not None:
        left = float(published["size_bytes"]) - head - embedding
        basis, confidence, layer = "published", published["confidence"], left / shape.layers
    return ModelFacts(
        **shape.model_dump(include=SHARED_FIELDS),
        params_total=shape.params_total,
        params_active=shape.layers * shape.active_params_per_layer + shape.table_params,
        kv_bytes_per_token_per_layer=shape.kv_bytes_per_token_per_layer,
        quantisation=bits.quantisation,
        format=bits.format,
        total_bytes=layer * shape.layers + embedding + head,
        size_basis=basis,
        size_confidence=confidence,
        layer_bytes=layer,
        expert_layer_bytes=experts * layer / (experts + rest),
        embedding_bytes=embedding,
        head_bytes=head,
        layer_flops_per_token=2 * shape.active_params_per_layer,
        head_flops=2 * shape.table_params,
    )


SHARED_FIELDS = {
    "name",
    "aliases",
    "family",
    "layers",
    "hidden",
    "ffn",
    "heads",
    "kv_heads",
    "head_dim",
    "vocab",
    "tied_embeddings",
    "experts",
    "experts_per_token",
    "dense_layers_first",
    "source",
    "confidence",
    "note",
}


def _shape(row: Row) -> Shape:
    """One row of models.csv."""
    layers, latent = int(row["layers"]), row["attention_params_per_layer"]
    kv = number(row, "kv_bytes_per_token_fp16")

    def whole(column: str) -> int:
        return int(row[column] or 0)

    return Shape(
        name=row["model"],
        aliases=names_of(row, "model")[1:],
        family=row["family"],
        layers=layers,
        hidden=whole("hidden"),
        ffn=whole("ffn"),
        ffn_matrices=whole("ffn_matrices"),
        heads=whole("heads"),
        kv_heads=whole("kv_heads"),
        head_dim=whole("head_dim"),
        vocab=whole("vocab"),
        tied_embeddings=row["tied_embeddings"] == "True",
        experts=whole("experts"),
        experts_per_token=whole("experts_per_token"),
        expert_ffn=whole("expert_ffn"),
        shared_expert_ffn=whole("shared_expert_ffn"),
        dense_layers_first=whole("dense_layers_first"),
        attention_params_override=int(latent) if latent else None,
        kv_bytes_override=kv / layers if latent and kv else None,
        source=row["source"],
        confidence=row["confidence"],
        note=row["note"],
    )


@cache
def models() -> tuple[Shape, ...]:
    """All architectures of the catalogue; `model` adds a quantisation."""
    return tuple(_shape(row) for row in table("models"))


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
        )
        for row in table("quantisations")
    )


def _default(shape: Shape, file_format: str | None) -> tuple[str, str]:
    """What people run when they do not say: 4 bits, in the format of EXO (MLX) unless GGUF is asked for."""
    gguf = normalise(file_format or "MLX") == "gguf"
    if shape.family == "gpt-oss":
        return ("MXFP4", "GGUF") if gguf else ("MXFP4-Q8", "MLX")
    return ("Q4_K_M", "GGUF") if gguf else ("4bit", "MLX")


def _bits(quantisation: str, file_format: str | None) -> Bits:
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


FORMATS = ("GGUF", "MLX")


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
    shape = pick("model", name, models(), lambda known: (known.name, *known.aliases))[0]
    if quantisation is None:
        quantisation, format = _default(shape, format)
    bits = _bits(quantisation, format)
    return build(shape, bits, _published_size(shape.name, bits))
