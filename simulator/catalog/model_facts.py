"""ModelFacts: a model in one quantisation, and how it is put together from layers, tables and the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from simulator.catalog.architecture import Architecture, Other
from simulator.catalog.matrices import layer_kind, params_of
from simulator.catalog.precision import EMBEDDING, HEAD, Precision
from simulator.catalog.tables import Facts, Row
from simulator.layer import LayerKind

__all__ = ["ModelFacts", "averages", "facts_of"]


class ModelFacts(Facts):
    """A model in one quantisation.

    Invariant: layers * layer_bytes + embedding_bytes + head_bytes + other_bytes = total_bytes.

    With tied embeddings `embedding_bytes` is 0 and `head_bytes` is the shared table: a device that embeds
    without holding the head needs its own copy (`embedding_table_bytes`). `layer_pattern` is the kind of each
    layer in order, an index into `layer_kinds`; what is said of "a layer" elsewhere is their average.
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
    other_bytes: float = 0.0
    """Towers, looked-up tables, prediction heads: in memory and in the total, not read for each token."""
    other_params: float = 0.0
    expert_ffn: int = 0
    """Width of an expert, where it is not `ffn`."""
    layer_kinds: tuple[LayerKind, ...] = ()
    layer_pattern: tuple[int, ...] = ()
    doubts: tuple[str, ...] = ()
    """Every guess, in words."""
    source: str
    confidence: str
    note: str = ""

    @property
    def split_widths(self) -> tuple[int, ...]:
        """Columns of the matrices that tensor parallelism splits by columns: attention's and the MLP's."""
        latent = any(kind.latent for kind in self.layer_kinds)
        return (*(() if latent else (self.heads * self.head_dim,)), self.expert_ffn or self.ffn)

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
        """Flops of an average layer per cached token that is attended to, for q.k and for the sum."""
        flops = [kind.attention_flops_per_token for kind in self.layer_kinds]
        return sum(flops[index] for index in self.layer_pattern) / self.layers

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


def averages(kinds: tuple[LayerKind, ...], pattern: tuple[int, ...]) -> dict[str, float]:
    """What an average layer weighs, keeps and computes: the fields of ModelFacts that say so."""
    count = Counter(pattern)

    def mean(field: str) -> float:
        total: float = sum(getattr(kind, field) * count[index] for index, kind in enumerate(kinds))
        return total / len(pattern)

    return {
        "layer_bytes": mean("weight_bytes"),
        "expert_layer_bytes": mean("expert_bytes"),
        "kv_bytes_per_token_per_layer": mean("kv_bytes_per_token"),
        "layer_flops_per_token": mean("flops"),
    }


def facts_of(
    made: Architecture,
    precision: Precision,
    known: dict[str, str | tuple[str, ...]],
    published: Row | None = None,
    is_original: bool = False,
) -> ModelFacts:
    """An architecture in a precision; `known` holds name, aliases, family, source, confidence and note.

    Each part has its weights times its bits per weight / 8, flagged 'computed'. With a published file size
    the layers take what tables and the rest leave of it, all by one factor. `is_original`: the files of the
    config itself, with the prediction heads that converters leave out.
    """
    table = made.table_params / 8
    head = table * precision.table_bits(HEAD)
    embedding = 0.0 if made.tied else table * precision.table_bits(EMBEDDING)
    others = [other for other in made.others if is_original or _is_in(other, precision.format)]
    other = sum(_other_bytes(other, precision) for other in others)
    kinds, pattern = _kinds(made, precision)
    basis, confidence = "computed", "computed"
    if published is not None:
        basis, confidence = "published", published["confidence"]
        layers = averages(kinds, pattern)["layer_bytes"] * len(pattern)
        kinds = _scaled(kinds, (float(published["size_bytes"]) - head - embedding - other) / layers)
    mean = averages(kinds, pattern)
    return ModelFacts(
        **known,
        **mean,
        layers=len(pattern),
        hidden=made.hidden,
        ffn=made.ffn,
        expert_ffn=made.expert_ffn,
        heads=made.heads,
        kv_heads=made.kv_heads,
        head_dim=made.head_dim,
        vocab=made.vocab,
        tied_embeddings=made.tied,
        experts=made.experts,
        experts_per_token=made.experts_per_token,
        params_total=made.params_total,
        params_active=made.params_active,
        quantisation=precision.name,
        format=precision.format,
        total_bytes=mean["layer_bytes"] * len(pattern) + embedding + head + other,
        size_basis=basis,
        size_confidence=confidence,
        embedding_bytes=embedding,
        head_bytes=head,
        head_flops=2 * made.table_params,
        other_bytes=other,
        other_params=sum(other.params for other in others),
        layer_kinds=kinds,
        layer_pattern=pattern,
        doubts=(*made.doubts, *_said(made.others, others, precision)),
    )


def _is_in(other: Other, file_format: str) -> bool:
    """GGUF keeps towers in a file of their own; MLX has them inside, without the prediction heads."""
    return other.is_in_gguf if file_format == "GGUF" else other.is_in_mlx


def _other_bytes(other: Other, precision: Precision) -> float:
    if other.like is not None:
        layer = layer_kind(other.like, lambda matrix: precision.bits(matrix, -1)).weight_bytes
        return other.params * layer / params_of(other.like)
    bits: float = precision.linear if other.is_quantised else max(precision.plain, 16.0)
    return other.params * bits / 8


def _said(all_others: Iterable[Other], counted: list[Other], precision: Precision) -> list[str]:
    """A doubt for each part that no token reads."""
    said = []
    for other in all_others:
        size = f"{other.params / 1e9:.3g} B weights"
        if other in counted:
            said.append(f"{other.what}: {size}, counted in memory, not read for each token")
        else:
            said.append(f"{other.what}: {size}, not in the files of {precision.format} and not counted")
    return said


def _kinds(made: Architecture, precision: Precision) -> tuple[tuple[LayerKind, ...], tuple[int, ...]]:
    """The kinds of layers and the kind of each layer."""
    index: dict[LayerKind, int] = {}
    by_block: dict[int, LayerKind] = {}
    pattern = []
    for number, block in enumerate(made.layers):
        kind = by_block.get(id(block))
        if kind is None or not precision.is_uniform:
            kind = layer_kind(block, lambda matrix, number=number: precision.bits(matrix, number))  # type: ignore[misc]
            by_block[id(block)] = kind
        pattern.append(index.setdefault(kind, len(index)))
    return tuple(index), tuple(pattern)


def _scaled(kinds: tuple[LayerKind, ...], factor: float) -> tuple[LayerKind, ...]:
    """All weights of all layers times `factor`."""
    fields = ("weight_bytes", "active_bytes", "expert_bytes")
    return tuple(
        kind.model_copy(update={name: getattr(kind, name) * factor for name in fields}) for kind in kinds
    )
