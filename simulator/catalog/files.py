"""The model in a GGUF file, from its headers."""

from __future__ import annotations

import re
from pathlib import Path

from simulator.catalog.gguf_header import MAX_LAYERS, GgufHeader, GgufPart, read_header
from simulator.catalog.gguf_layers import GgufKeys, LayerReader
from simulator.catalog.model_facts import ModelFacts, averages
from simulator.errors import CatalogError
from simulator.layer import LayerKind

__all__ = ["from_gguf"]


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
    part.has_keys |= other.has_keys
    part.has_state |= other.has_state


def _facts(path: Path, header: GgufHeader) -> ModelFacts:
    """The header's metadata and tensor sums as a model."""
    keys = GgufKeys(path, header)
    blocks = keys.whole("block_count", most=MAX_LAYERS)
    # of a model with prediction heads the file counts these as blocks at its end
    layers = max(blocks - keys.whole("nextn_predict_layers", 0), 1)
    parts = [header.layers.get(index, GgufPart()) for index in range(blocks)]
    if not any(part.tensor_bytes for part in parts[:layers]) or "token_embd" not in header.parts:
        raise CatalogError(
            f"{path}: has no tensors of layers or embedding; give the file that holds the weights"
        )
    index: dict[LayerKind, int] = {}
    reader = LayerReader(keys)
    pattern = tuple(
        index.setdefault(reader.kind(number, part), len(index)) for number, part in enumerate(parts[:layers])
    )
    kinds = tuple(index)
    table, extra = header.parts["token_embd"], header.parts["output_norm"].tensor_bytes
    tied = "output" not in header.parts
    head = table if tied else header.parts["output"]
    embedding = 0.0 if tied else float(table.tensor_bytes)
    unread = [*parts[layers:], header.parts["rest"]]
    other = float(sum(part.tensor_bytes for part in unread))
    mean = averages(kinds, pattern)
    active = sum(kinds[kind].flops for kind in pattern) / 2
    return ModelFacts(
        **keys.names(),
        **mean,
        layers=layers,
        ffn=keys.whole("feed_forward_length", 0),
        vocab=header.embedding_rows,
        tied_embeddings=tied,
        experts=max(kind.experts for kind in kinds),
        experts_per_token=max(kind.experts_per_token for kind in kinds),
        params_total=float(
            sum(part.values for part in parts[:layers]) + table.values + head.values * (not tied)
        ),
        params_active=active + head.values,
        quantisation=max(header.bytes_by_type, key=lambda name: header.bytes_by_type[name]),
        format="GGUF",
        total_bytes=mean["layer_bytes"] * layers + embedding + head.tensor_bytes + extra + other,
        size_basis="file",
        size_confidence="exact-from-table",
        embedding_bytes=embedding,
        head_bytes=float(head.tensor_bytes + extra),
        head_flops=2.0 * head.values,
        other_bytes=other,
        other_params=float(sum(part.values for part in unread)),
        layer_kinds=kinds,
        layer_pattern=pattern,
        doubts=(*reader.doubts, *_said(other)),
    )


def _said(other: float) -> list[str]:
    if not other:
        return []
    return [f"{other / 1e6:.3g} MB beside layers and tables: counted in memory, not read for each token"]
