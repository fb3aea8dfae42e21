"""EXO's model cards, from its repository or a running instance: which model, in which quantisation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from live.errors import LiveError
from simulator.catalog.config_keys import MAX_LAYERS, MAX_SIZE
from simulator.catalog.llm import Shape, bits_named, build, models, quantisations, shape_named
from simulator.errors import CatalogError
from simulator.model_spec import ModelSpec

__all__ = ["model_of_card"]

# EXO's cards give many sizes in the wrong unit, GB for GiB at most: 7.4 %, and their authors rounded
SIZE_TOLERANCE = 0.13
ALL_MIXTURES = ("deepseek", "kimi", "minimax", "glm", "gpt-oss", "step")
WORDS = re.compile(r"(MXFP4-Q8|MXFP4|MXFP8|NVFP4|gs32)", re.IGNORECASE)


def model_of_card(card: Mapping[str, Any], notes: list[str]) -> ModelSpec:
    """The catalogue's model where it knows it or one of its shape, else the card's own numbers.

    What had to be assumed goes to `notes`. Raises LiveError where the card does not tell how much of the
    model a token reads, and nothing else does.
    """
    card_id = str(card.get("model_id") or card.get("hugging_face_id") or card.get("id") or "")[:200]
    if not card_id:
        raise LiveError("EXO's card of a model names no model (no `model_id`); name the model")
    shape = _shape(card, card_id, notes)
    if shape is None:
        return _by_numbers(card, card_id, notes)
    return ModelSpec(name=shape.name, quantisation=_quantisation(shape, card, card_id, notes))


def _shape(card: Mapping[str, Any], card_id: str, notes: list[str]) -> Shape | None:
    for wanted in (card_id, str(card.get("base_model") or "")):
        try:
            return shape_named(wanted)[0]
        except CatalogError:
            continue
    # a tuned model keeps the architecture it came from: same layers, width and heads, and size per layer
    layers, hidden, heads = (card.get(key) for key in ("n_layers", "hidden_size", "num_key_value_heads"))
    is_mixture = _active_share(card_id) is not None
    alike = [
        shape
        for shape in models()
        if (shape.layers, shape.hidden) == (layers, hidden)
        and heads in (None, shape.architecture.kv_heads)
        and bool(shape.experts) == is_mixture
        and _fits(shape, card)
    ]
    if len(alike) != 1:
        return None
    notes.append(
        f"model: {card_id} is not in the catalogue; it has the layers, width and size of {alike[0].name} "
        "and is taken for one"
    )
    return alike[0]


def _fits(shape: Shape, card: Mapping[str, Any]) -> bool:
    """Whether the card's size is that of the shape in the quantisation that the card states."""
    size, stated = _bytes_of(card), str(card.get("quantization") or "")
    try:
        made = build(shape, bits_named(stated, "MLX")).total_bytes
    except CatalogError:
        return False
    return size is not None and abs(made / size - 1) <= SIZE_TOLERANCE


def _quantisation(shape: Shape, card: Mapping[str, Any], card_id: str, notes: list[str]) -> str:
    """What the id or the card says, unless the card's own size contradicts it; then what the size says."""
    stated, size = _stated(card, card_id), _bytes_of(card)
    sizes = {
        bits.quantisation: build(shape, bits).total_bytes for bits in quantisations() if bits.format == "MLX"
    }
    if stated in sizes and (size is None or abs(sizes[stated] / size - 1) <= SIZE_TOLERANCE):
        return stated
    if size is None:
        raise LiveError(
            f"model {card_id!r}: EXO's card tells neither its size nor a quantisation that is known "
            f"({card.get('quantization') or 'none'}); name another model"
        )
    nearest = min(sizes, key=lambda name: abs(sizes[name] / size - 1))
    said = f"says {stated}, but its" if stated else "does not say its quantisation; its"
    error = sizes[nearest] / size - 1
    notes.append(
        f"model: the card of {card_id} {said} {size / 1e9:.4g} GB are nearest to {nearest} ({error:+.1%}), "
        "which is taken; set its quantisation"
    )
    return nearest


def _stated(card: Mapping[str, Any], card_id: str) -> str:
    """The quantisation in the catalogue's words; the id tells more than the card ('4bit' of an MXFP4)."""
    words = [word.lower() for word in WORDS.findall(card_id)]
    text = str(card.get("quantization") or "")
    for wanted in (*(word for word in words if word != "gs32"), text + "-gs32" * ("gs32" in words), text):
        try:
            return bits_named(wanted, "MLX").quantisation
        except CatalogError:
            continue
    return text


def _bytes_of(card: Mapping[str, Any]) -> int | None:
    """The size of the files."""
    size = card.get("storage_size")
    total = size.get("in_bytes") if isinstance(size, Mapping) else None
    return total if isinstance(total, int) and not isinstance(total, bool) and 0 < total < 1e15 else None


def _active_share(card_id: str) -> float | None:
    """Of '122B-A10B' in an id the share that a token reads; None where it says nothing of the kind."""
    found = re.search(r"(\d+(?:\.\d+)?)B-A(\d+(?:\.\d+)?)B", card_id[:200], re.IGNORECASE)
    if found is None or not 0 < float(found[2]) < float(found[1]):
        return None
    return float(found[2]) / float(found[1])


def _by_numbers(card: Mapping[str, Any], card_id: str, notes: list[str]) -> ModelSpec:
    """A model of which nothing is known but its card."""
    layers, hidden, total = card.get("n_layers"), card.get("hidden_size"), _bytes_of(card)
    if not (isinstance(layers, int) and isinstance(hidden, int) and total):
        raise LiveError(
            f"model {card_id!r} is not in the catalogue, and EXO's card lacks layers, width or size; "
            "name another"
        )
    if not (0 < layers <= MAX_LAYERS and 0 < hidden <= MAX_SIZE):
        raise LiveError(
            f"model {card_id!r} is not in the catalogue, and EXO's card gives it {layers:.4g} layers of "
            f"width {hidden:.4g}, must be 1 to {MAX_LAYERS:,} and 1 to {MAX_SIZE:,}; name another"
        )
    share = _active_share(card_id)
    family = str(card.get("family") or "").lower()
    if share is None and family in ALL_MIXTURES:
        raise LiveError(
            f"model {card_id!r} is not in the catalogue, and models of the family {family} are mixtures of "
            "experts: its card does not say how much of it a token reads; describe it in a scenario by "
            "`hf_config`, the path of its config.json"
        )
    notes.append(
        f"model: {card_id} is not in the catalogue; its whole size is taken for layers; add its other numbers"
    )
    notes.append(
        f"model: by its name a token reads {share:.1%} of it"
        if share
        else "model: it is taken for a dense one, all of which each token reads; set active_layer_bytes if "
        "it is a mixture of experts"
    )
    return ModelSpec.model_validate(
        {
            "name": card_id,
            "layers": layers,
            "hidden": hidden,
            "layer_bytes": f"{total / layers:.0f} B",
            "active_layer_bytes": f"{total / layers * (share or 1.0):.0f} B",
        }
    )
