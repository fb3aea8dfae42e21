"""Models that come as a file: the header of a GGUF file, or the config.json of a Hugging Face repository."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simulator.catalog.gguf_header import GgufHeader, GgufPart, Value, read_header
from simulator.catalog.llm import FP16_BYTES, Bits, ModelFacts, Shape, build
from simulator.errors import CatalogError

__all__ = ["from_gguf", "from_hf_config"]

MAX_CONFIG_BYTES = 10_000_000  # the longest real config.json has some hundred kB


def from_gguf(path: str | Path) -> ModelFacts:
    """The model in a GGUF file (of a split file: any part, the others beside it); only headers are read.

    Bytes per layer, embedding and head are exact sums over the tensors. Raises CatalogError for anything that
    is no complete GGUF header of a transformer.
    """
    path = Path(path)
    header = read_header(path)
    for other in _other_parts(path, header):
        _merge(header, read_header(other))
    return _facts(path, header)


def _other_parts(path: Path, header: GgufHeader) -> list[Path]:
    """The other files of a split model, named <name>-00002-of-00005.gguf."""
    count = header.metadata.get("split.count", 0)
    match = re.fullmatch(r"(.*)-(\d{5})-of-(\d{5})\.gguf", path.name)
    if not isinstance(count, int) or count <= 1 or match is None:
        return []
    parts = [
        path.with_name(f"{match[1]}-{part:05d}-of-{match[3]}.gguf") for part in range(1, int(match[3]) + 1)
    ]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise CatalogError(
            f"{path}: is one of {len(parts)} parts and {missing[0]} is not beside it; put all parts in one "
            "folder"
        )
    return [part for part in parts if part != path]


def _merge(header: GgufHeader, other: GgufHeader) -> None:
    """Add the tensors of another part of the same model."""
    header.metadata = {**other.metadata, **header.metadata}
    header.embedding_rows = max(header.embedding_rows, other.embedding_rows)
    for layer, part in other.layers.items():
        _add(header.layers[layer], part)
    for name, part in other.parts.items():
        _add(header.parts[name], part)
    for kind, size in other.bytes_by_type.items():
        header.bytes_by_type[kind] += size


def _add(part: GgufPart, other: GgufPart) -> None:
    part.tensor_bytes += other.tensor_bytes
    part.values += other.values
    part.expert_bytes += other.expert_bytes
    part.expert_values += other.expert_values


def _facts(path: Path, header: GgufHeader) -> ModelFacts:
    """The header's metadata and tensor sums as a model."""
    shape = _gguf_shape(path, header)
    layers = [header.layers.get(index, GgufPart()) for index in range(shape.layers)]
    if not any(part.tensor_bytes for part in layers) or "token_embd" not in header.parts:
        raise CatalogError(
            f"{path}: has no tensors of layers or embedding; give the file that holds the weights"
        )
    table, extra = (
        header.parts["token_embd"],
        header.parts["output_norm"].tensor_bytes + header.parts["rest"].tensor_bytes,
    )
    head = table if shape.tied_embeddings else header.parts["output"]
    embedding = 0.0 if shape.tied_embeddings else float(table.tensor_bytes)
    total = sum(part.tensor_bytes for part in layers)
    used = shape.experts_per_token / shape.experts if shape.experts else 0.0
    active = sum(part.values - (1 - used) * part.expert_values for part in layers) / shape.layers
    return ModelFacts(
        **shape.model_dump(include=COMMON),
        params_total=sum(part.values for part in layers)
        + table.values
        + head.values * (not shape.tied_embeddings),
        params_active=active * shape.layers + head.values,
        kv_bytes_per_token_per_layer=shape.kv_bytes_per_token_per_layer,
        quantisation=max(header.bytes_by_type, key=lambda name: header.bytes_by_type[name]),
        format="GGUF",
        total_bytes=total + embedding + head.tensor_bytes + extra,
        size_basis="file",
        size_confidence="exact-from-table",
        layer_bytes=total / shape.layers,
        expert_layer_bytes=sum(part.expert_bytes for part in layers) / shape.layers,
        embedding_bytes=embedding,
        head_bytes=float(head.tensor_bytes + extra),
        layer_flops_per_token=2 * active,
        head_flops=2.0 * head.values,
        bytes_per_layer=tuple(float(part.tensor_bytes) for part in layers),
    )


COMMON = {
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


def _gguf_shape(path: Path, header: GgufHeader) -> Shape:
    """The architecture from the metadata keys `<architecture>.*`."""
    architecture = str(header.metadata.get("general.architecture", ""))

    def whole(key: str, default: int | None = None) -> int:
        return _whole(path, header.metadata, f"{architecture}.{key}", default)

    heads, hidden = whole("attention.head_count"), whole("embedding_length")
    latent = whole("attention.kv_lora_rank", 0)
    note = "the file ends before its tensors do: an incomplete download?" if header.incomplete else ""
    return Shape(
        name=str(header.metadata.get("general.name", path.stem))[:200],
        family=architecture[:100],
        layers=whole("block_count"),
        hidden=hidden,
        ffn=whole("feed_forward_length", 0),
        heads=heads,
        kv_heads=whole("attention.head_count_kv", heads),
        head_dim=whole("attention.key_length", max(hidden // heads, 1)),
        vocab=header.embedding_rows,
        tied_embeddings="output" not in header.parts,
        experts=whole("expert_count", 0),
        experts_per_token=whole("expert_used_count", 0),
        dense_layers_first=whole("leading_dense_block_count", 0),
        kv_bytes_override=float((latent + whole("rope.dimension_count", 0)) * FP16_BYTES) if latent else None,
        source=f"header of {path.name}",
        confidence="exact-from-table",
        note=note,
    )


def _whole(path: Path, values: Mapping[str, Value], key: str, default: int | None) -> int:
    """A non-negative whole number of the file; of a list (one per layer) the largest."""
    value = values.get(key, default)
    if isinstance(value, tuple) and value:
        value = max(value)
    least = 1 if default is None else 0
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not least <= value < 1e9
        or value != int(value)
    ):
        shown = "is missing" if value is None else f"is {value!r:.40}"
        raise CatalogError(
            f"{path}: {key} {shown}, must be a whole number >= {least}; describe the model in the scenario "
            "instead"
        )
    return int(value)


def from_hf_config(path: str | Path, bits_per_weight: float | None = None) -> ModelFacts:
    """The model that a Hugging Face config.json describes, with sizes computed from `bits_per_weight`.

    Without `bits_per_weight` the file's own quantisation counts: MLX stores bits plus 32 per group; else 16
    bits. Raises CatalogError for a file that is no config of a transformer, or bits outside (0.5, 64].
    """
    path = Path(path)
    config = _read_config(path)
    bits = _config_bits(config) if bits_per_weight is None else bits_per_weight
    if not 0.5 < bits <= 64:
        raise CatalogError(f"{path}: {bits:g} bits per weight, must be above 0.5 and at most 64")
    name = f"{bits:g} bits per weight"
    return build(
        _config_shape(path, config),
        Bits(
            quantisation=name,
            format="config",
            body=bits,
            embedding=bits,
            head=bits,
            tied=bits,
            attention=bits,
        ),
    )


def _read_config(path: Path) -> dict[str, Any]:
    """The parsed file; of a multimodal model the text part on top of the rest."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise CatalogError(
                f"{path}: {path.stat().st_size} bytes are too many for a config.json; give the right file"
            )
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CatalogError(
            f"{path}: cannot be read ({error.strerror}); give the path of a config.json"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CatalogError(
            f"{path}: is not JSON ({str(error)[:80]}); download the config.json again"
        ) from error
    if not isinstance(config, dict):
        raise CatalogError(f"{path}: holds a {type(config).__name__}, must be the object of a config.json")
    text = config.get("text_config")
    return {**config, **text} if isinstance(text, dict) else config


def _config_bits(config: Mapping[str, Any]) -> float:
    """Bits per weight that the config states: MLX `quantization`, else 16."""
    stated = config.get("quantization")
    if isinstance(stated, dict) and isinstance(stated.get("bits"), (int, float)):
        group = stated.get("group_size", 64)
        return float(stated["bits"]) + 32 / (group if isinstance(group, int) and group > 0 else 64)
    return 16.0


def _config_shape(path: Path, config: Mapping[str, Any]) -> Shape:
    """The architecture, under the key names of the common model families."""

    def whole(*keys: str, default: int | None = None) -> int:
        key = next((key for key in keys if config.get(key) is not None), keys[0])
        return _whole(path, config, key, default)

    heads, hidden = whole("num_attention_heads", "n_head"), whole("hidden_size", "n_embd")
    expert_ffn = whole("moe_intermediate_size", "intermediate_size", default=0)
    latent, rope = whole("kv_lora_rank", default=0), whole("qk_rope_head_dim", default=0)
    shared = whole("n_shared_experts", default=0) * expert_ffn or whole(
        "shared_expert_intermediate_size", default=0
    )
    return Shape(
        name=str(config.get("_name_or_path") or config.get("model_type") or path.parent.name)[:200],
        family=str(config.get("model_type", ""))[:100],
        layers=whole("num_hidden_layers", "n_layer"),
        hidden=hidden,
        ffn=whole("intermediate_size", "ffn_hidden_size", default=4 * hidden),
        heads=heads,
        kv_heads=whole("num_key_value_heads", default=heads),
        head_dim=whole("head_dim", default=max(hidden // heads, 1)),
        vocab=whole("vocab_size"),
        tied_embeddings=config.get("tie_word_embeddings") is True,
        experts=whole("num_local_experts", "num_experts", "n_routed_experts", default=0),
        experts_per_token=whole("num_experts_per_tok", "experts_per_token", default=0),
        expert_ffn=expert_ffn,
        shared_expert_ffn=shared,
        dense_layers_first=whole("first_k_dense_replace", default=0),
        attention_params_override=_latent_attention(config, hidden, heads, latent, rope) if latent else None,
        kv_bytes_override=float((latent + rope) * FP16_BYTES) if latent else None,
        source=f"{path.name} of {path.parent.name}",
        confidence="exact-from-table",
    )


def _latent_attention(config: Mapping[str, Any], hidden: int, heads: int, latent: int, rope: int) -> int:
    """Weights of multi-head latent attention (DeepSeek-V2,
    arXiv:2405.04434): low-rank q, shared low-rank k and v.
    """
    query, nope, value = (
        int(config.get(key) or 0) for key in ("q_lora_rank", "qk_nope_head_dim", "v_head_dim")
    )
    q = hidden * query + query * heads * (nope + rope) if query else hidden * heads * (nope + rope)
    return q + hidden * (latent + rope) + latent * heads * (nope + value) + heads * value * hidden
