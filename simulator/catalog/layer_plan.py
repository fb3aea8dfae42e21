"""Which layer mixes tokens how: the many ways in which configs say it, as one word per layer."""

from __future__ import annotations

from typing import Literal

from simulator.catalog.config_keys import Config

__all__ = ["Mixer", "plan_of_layers", "window_of"]

Mixer = Literal["full", "local", "linear", "mamba", "conv", "both", "mlp", "moe"]
WORDS: dict[str, Mixer] = {
    "full_attention": "full",
    "attention": "full",
    "global": "full",
    "sliding_attention": "local",
    "chunked_attention": "local",
    "local": "local",
    "linear_attention": "linear",
    "mamba": "mamba",
    "mamba2": "mamba",
    "recurrent": "mamba",
    "conv": "conv",
    "mlp": "mlp",
    "moe": "moe",
    "deepseek_sparse_attention": "full",
    "compressed_sparse_attention": "full",
}
LETTERS: dict[str, Mixer] = {"M": "mamba", "*": "full", "-": "mlp", "E": "moe", "L": "local", "G": "full"}


def plan_of_layers(config: Config, layers: int) -> list[Mixer]:
    """One mixer per layer. Raises CatalogError for a kind of layer that is not known."""
    stated = _stated(config, layers)
    if stated is not None:
        return stated
    if config.has("attn_layer_period"):
        period, offset = config.whole("attn_layer_period"), config.whole("attn_layer_offset", default=0)
        return ["full" if i % period == offset else "mamba" for i in range(layers)]
    if config.model_type in ("mamba", "mamba2", "falcon_mamba"):
        return ["mamba"] * layers
    if config.model_type == "falcon_h1":
        return ["both"] * layers
    if config.has("full_attention_interval") or config.trait("linear"):
        every = config.whole("full_attention_interval", default=config.trait("linear")) or 1
        return ["full" if (i + 1) % every == 0 else "linear" for i in range(layers)]
    return _by_window(config, layers)


def _stated(config: Config, layers: int) -> list[Mixer] | None:
    """The plan where the config spells it out, layer by layer."""
    for key in ("layer_types", "layers_block_type"):
        words = config.layers_of(key)
        if words:
            return [_word(config, key, word) for word in _enough(config, key, words, layers)]
    pattern = config.text("hybrid_override_pattern") or config.text("sliding_window_pattern")
    if pattern:
        repeated = pattern if len(pattern) >= layers else pattern * (layers // len(pattern) + 1)
        return [_word(config, "the pattern of layers", letter) for letter in repeated[:layers]]
    linear = config.part("linear_attn_config").numbers("kda_layers")
    if linear:
        return ["linear" if i + 1 in linear else "full" for i in range(layers)]
    return _numbered(config, layers)


def _numbered(config: Config, layers: int) -> list[Mixer] | None:
    """Lists of 0 and 1 per layer, or of the layers that attend."""
    kinds = config.layers_of("attn_type_list")
    if kinds:
        return [
            "full" if kind == 1 else "linear" for kind in _enough(config, "attn_type_list", kinds, layers)
        ]
    locals_ = config.layers_of("hybrid_layer_pattern")
    if locals_:
        return [
            "local" if kind else "full" for kind in _enough(config, "hybrid_layer_pattern", locals_, layers)
        ]
    for key, other in (("full_attn_idxs", "conv"), ("attn_layer_indices", "mamba")):
        if config.has(key):
            attending = config.numbers(key)
            return ["full" if i in attending else WORDS[other] for i in range(layers)]
    no_rope = config.layers_of("no_rope_layers")
    if no_rope and config.has("attention_chunk_size"):
        return ["local" if entry else "full" for entry in _enough(config, "no_rope_layers", no_rope, layers)]
    return None


def _enough(config: Config, key: str, entries: list[object], layers: int) -> list[object]:
    if len(entries) < layers:
        raise config.fail(f"{key} has {len(entries)} entries for {layers} layers")
    return entries[:layers]


def _word(config: Config, key: str, word: object) -> Mixer:
    table = LETTERS if isinstance(word, str) and len(word) == 1 else WORDS
    mixer = table.get(word) if isinstance(word, str) else None
    if mixer is None and isinstance(word, str) and "attention" in word and "linear" not in word:
        config.doubt(f"{key}: {word[:40]!r} is not known and counted as full attention")
        return "full"
    if mixer is None:
        raise config.fail(
            f"{key} has a layer {str(word)[:40]!r}, which is not known ({', '.join(table)} are)"
        )
    return mixer


def _by_window(config: Config, layers: int) -> list[Mixer]:
    """All full, all local, or one full layer in so many, by family."""
    window = config.whole("sliding_window", "attention_chunk_size", default=0)
    if not window or config.values.get("use_sliding_window") is False:
        return ["full"] * layers
    if config.has("use_sliding_window") and config.has("max_window_layers"):
        first = config.whole("max_window_layers", default=0)
        return ["full" if i < first else "local" for i in range(layers)]
    every = config.whole(
        "sliding_window_pattern",
        "_sliding_window_pattern",
        "no_rope_layer_interval",
        default=config.trait("pattern") or 0,
    )
    if config.has("attention_chunk_size") and not every:
        every = 4  # Llama 4: each fourth layer has no positions and sees everything
    return ["full" if every and (i + 1) % every == 0 else "local" for i in range(layers)]


def window_of(config: Config) -> int | None:
    """Tokens that a local layer keeps."""
    window = config.whole("sliding_window", "sliding_window_size", "attention_chunk_size", default=0)
    if config.has("attention_chunk_size") and not config.has("sliding_window"):
        config.doubt(f"chunked attention is counted as a sliding window of {window} tokens")
    return window or None
