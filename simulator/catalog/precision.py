"""Bits per weight of each matrix: what a config's `quantization` says, and what stays as it is.

Every scheme stores scales beside its integers: 16 bits (and 16 for a bias or zero) per group, 8 bits per
block of a micro-scaled float. Norms, biases and short convolutions are never quantised.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cached_property
from typing import Any

from simulator.catalog.config_keys import Config
from simulator.catalog.ggml_types import widened_bits
from simulator.catalog.matrices import Matrix

__all__ = ["EMBEDDING", "HEAD", "Precision", "precision_of"]

EMBEDDING, HEAD = "embed_tokens", "lm_head"
MAX_PATTERNS = 2_000
# names of one thing in different families, so that a pattern of any of them finds it
SAME = (
    ("block_sparse_moe", "mlp"),
    ("feed_forward", "mlp"),
    (".ffn.", ".mlp."),
    ("switch_mlp", "experts"),
    (".attn.", ".self_attn."),
    ("experts.0.w1", "experts.0.gate_proj"),
    ("experts.0.w2", "experts.0.down_proj"),
    ("experts.0.w3", "experts.0.up_proj"),
    ("mlp.router", "mlp.gate"),
    ("shared_expert.", "shared_experts."),
    ("wte", EMBEDDING),
    ("word_embeddings", EMBEDDING),
)


@dataclass(frozen=True)
class Precision:
    """The bits of a whole model: linear layers, the two tables, exceptions by name."""

    name: str
    format: str
    linear: float
    embedding: float
    head: float
    plain: float = 16.0
    """Of what is never quantised."""
    expert: float | None = None
    """Of routed experts, where they differ."""
    exceptions: Mapping[str, float] = field(default_factory=dict)
    """Bits by a piece of a name, or by a pattern with `*` or `re:`."""
    types: tuple[str, ...] = ()
    """llama.cpp's types behind `linear`, by equal shares; rows that they do not divide take more bits."""
    down_types: tuple[str, ...] = ()
    """The same of `down_proj`, which mixes store in more bits."""

    def bits(self, matrix: Matrix, layer: int) -> float:
        """Bits per weight of a matrix in layer number `layer`."""
        if matrix.is_vector:
            return self.plain
        told = self._told(f"layers.{layer}.{matrix.name}")
        if told is not None:
            return told
        usual = self.expert if matrix.is_expert and self.expert is not None else self.linear
        types = self.down_types if matrix.name.endswith("down_proj") else self.types
        return usual + widened_bits(types, matrix.columns)

    def table_bits(self, table: str) -> float:
        """Bits of the embedding table or the head."""
        told = self._told(table)
        return told if told is not None else self.head if table == HEAD else self.embedding

    @property
    def is_uniform(self) -> bool:
        """No exception asks for the layer's number."""
        return not self.exceptions

    def _told(self, name: str) -> float | None:
        """The exception for a name: its longest piece that is listed, else the first pattern that fits."""
        pieces = name.split(".")
        for length in range(len(pieces), 0, -1):
            for start in range(len(pieces) - length + 1):
                found = self._pieces.get(".".join(pieces[start : start + length]))
                if found is not None:
                    return found
        number = pieces[1] if pieces[0] == "layers" else ""
        near = (*self._patterns.get(number, ()), *self._patterns.get("", ()))
        return next((bits for pattern, bits in near if pattern.search(name)), None)

    @cached_property
    def _pieces(self) -> dict[str, float]:
        return {_plain_name(key): bits for key, bits in self.exceptions.items() if not _is_pattern(key)}

    @cached_property
    def _patterns(self) -> dict[str, list[tuple[re.Pattern[str], float]]]:
        """By the number of the layer that they name, '' without one: a file has some for each layer."""
        found = defaultdict[str, list[tuple[re.Pattern[str], float]]](list)
        for key, bits in self.exceptions.items():
            pattern = _pattern(key)
            if pattern is not None:
                named = re.search(r"layers\.(\d+)\.", key)
                found[named[1] if named else ""].append((pattern, bits))
        return dict(found)


def _is_pattern(key: str) -> bool:
    return key.startswith("re:") or "*" in key


def _plain_name(key: str) -> str:
    """A name of the file as `layers.3.mlp.gate`: without what stands before, in this project's words."""
    key = re.sub(r"^.*?(?=layers\.|embed_tokens|lm_head|wte|word_embeddings)", "", key)
    key = f".{key}."
    for one, other in SAME:
        key = key.replace(one, other)
    return key.strip(".").removesuffix(".weight")


def _pattern(key: str) -> re.Pattern[str] | None:
    """A pattern to search for; None for a plain name, and for one that could take for ever."""
    if not _is_pattern(key):
        return None
    if key.startswith("re:"):
        source = key[3:]
        # a repeated group may backtrack without end
        if re.search(r"[)\]][*+{]", source) or len(re.findall(r"[*+{]", source)) > 4 or len(source) > 300:
            return None
    else:
        if key.count("*") > 4:
            return None
        at = key.find("layers.")
        source = translate(f"*{key[at:] if at > 0 else key}*").replace("(?s:", "(?:")
    for one, other in SAME:
        source = source.replace(re.escape(one), re.escape(other)).replace(one, other)
    try:
        return re.compile(source)
    except re.error:
        return None


def precision_of(config: Config) -> Precision:
    """What the files of this config hold. Raises CatalogError for a method that does not say its bits."""
    mlx = config.values.get("quantization")
    if isinstance(mlx, dict) and "quant_algo" not in mlx:
        return _mlx(config, mlx)
    stated = config.values.get("quantization_config") or config.outer.get("quantization_config") or mlx
    plain, name = _plain(config)
    if not isinstance(stated, dict) or not stated:
        return Precision(name, "config", plain, plain, plain, plain)
    return _of_transformers(config, stated, plain)


def _plain(config: Config) -> tuple[float, str]:
    """Bits of the unquantised type."""
    told = config.text("torch_dtype") or config.text("dtype") or "bfloat16"
    names = {"float32": (32.0, "fp32"), "float16": (16.0, "fp16"), "bfloat16": (16.0, "bf16")}
    return names.get(told.removeprefix("torch."), (16.0, "bf16"))


def _mlx(config: Config, stated: Mapping[str, Any]) -> Precision:
    """MLX: one setting for all linear layers and tables, others by name (an object, or false for none)."""
    bits = _mlx_bits(config, stated)
    exceptions = {}
    for key, value in list(stated.items())[:100_000]:
        if isinstance(value, dict):
            exceptions[key] = _mlx_bits(config, {**stated, **value})
        elif value is False:
            exceptions[key] = 16.0
    mode, group = str(stated.get("mode", "affine")), _small(stated.get("group_size"), 64)
    name = f"{_small(stated.get('bits'), 4)}bit" if mode == "affine" else mode[:20]
    if mode == "affine" and group != 64:
        name += f"-gs{group}"
    return Precision(name, "MLX", bits, bits, bits, exceptions=exceptions)


def _mlx_bits(config: Config, stated: Mapping[str, Any]) -> float:
    """affine: bits + 32 per group (scale and bias); mxfp: 8 per 32; nvfp4: 8 per 16."""
    mode = stated.get("mode", "affine")
    fixed = {"mxfp4": 4.25, "mxfp8": 8.25, "nvfp4": 4.5}
    if mode in fixed:
        return fixed[str(mode)]
    if mode != "affine":
        config.doubt(f"quantisation mode {str(mode)[:30]!r} is not known, counted as affine")
    return _bits(config, stated.get("bits")) + 32 / _small(stated.get("group_size"), 64)


def _bits(config: Config, value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0.5 < value <= 32:
        return float(value)
    raise config.fail(f"quantization bits {str(value)[:30]!r}, must be above 0.5 and at most 32")


def _small(value: Any, default: int) -> int:
    """A positive whole number of a quantisation, else what is usual."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default


def _kept(stated: Mapping[str, Any], bits: float) -> dict[str, float]:
    """The modules that a method leaves alone."""
    names: list[str] = []
    for key in (
        "modules_to_not_convert",
        "ignore",
        "exclude_modules",
        "ignored_layers",
        "llm_int8_skip_modules",
    ):
        value = stated.get(key)
        if isinstance(value, list):
            names += [name[:400] for name in value[:100_000] if isinstance(name, str) and name]
    return dict.fromkeys(names, bits)


def _of_transformers(config: Config, stated: Mapping[str, Any], plain: float) -> Precision:
    """`quantization_config` of transformers; the tables stay as they are unless a target names them."""
    method = str(stated.get("quant_method") or stated.get("quant_algo") or "").lower()
    algorithm = str(stated.get("quant_algo") or "").upper()
    exceptions = _kept(stated, plain)
    if method == "mxfp4":
        # gpt-oss: the experts alone; what is not to be converted is the rest
        return Precision("mxfp4", "config", plain, plain, plain, plain, 4.25, exceptions)
    groups = stated.get("config_groups")
    if algorithm == "MIXED_PRECISION":
        return _by_layer(config, stated, plain, exceptions)
    if isinstance(groups, dict) and groups:
        return _by_group(config, groups, plain, exceptions, algorithm)
    name, bits = _method(config, method, algorithm, stated)
    head = bits if stated.get("lm_head") is True else plain
    # what stays as it is in every such file, whether listed or not: routers, and gates of one value
    exceptions = {"mlp.gate": plain, "shared_expert_gate": plain} | exceptions
    expert = 4.25 if config.text("expert_dtype") == "fp4" else None
    _bound(config, exceptions)
    return Precision(name, "config", bits, plain, head, plain, expert, exceptions)


def _method(config: Config, method: str, algorithm: str, stated: Mapping[str, Any]) -> tuple[str, float]:
    """Name and bits of a method with one setting."""
    group = stated.get("group_size", stated.get("q_group_size"))
    if algorithm in ("MXFP8", "MXFP4"):
        return algorithm.lower(), int(algorithm[-1]) + 8 / _small(group, 32)
    if "fp8" in method or algorithm in ("FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO"):
        block = stated.get("weight_block_size")
        area = (
            block[0] * block[1]
            if isinstance(block, list) and len(block) == 2 and all(_small(b, 0) for b in block)
            else 1e9
        )
        return "fp8", 8 + 32 / area
    if algorithm in ("NVFP4", "W4A16_NVFP4", "NVFP4_AWQ") or method == "nvfp4":
        return "nvfp4", 4 + 8 / _small(group, 16)
    if method in ("bitsandbytes", "bnb"):
        if stated.get("load_in_8bit") or stated.get("_load_in_8bit"):
            return "bitsandbytes 8bit", 8.0
        return "bitsandbytes 4bit", 4 + (
            8 / 64 + 32 / 64 / 256 if stated.get("bnb_4bit_use_double_quant") else 32 / 64
        )
    told = next(
        (stated[key] for key in ("bits", "w_bit", "weight_bits", "num_bits", "nbits") if stated.get(key)),
        4 if algorithm.startswith(("W4", "INT4")) else 8 if algorithm.startswith(("W8", "INT8")) else None,
    )
    if told is None:
        raise config.fail(
            f"quantisation method {method[:40]!r} does not say its bits; give `quantisation` or "
            "`bits_per_weight`"
        )
    bits = _bits(config, told)
    if method in ("gptq", "awq", "gptqmodel", "auto-round", "autoround"):
        size = _small(group, 0)
        return f"{method} {bits:g}bit", bits + ((16 + bits) / size if size else 0)
    config.doubt(
        f"quantisation method {method[:40]!r} is not known: {bits:g} bits per weight as it says, no scales"
    )
    return f"{method[:20]} {bits:g}bit".strip(), bits


def _by_group(
    config: Config, groups: Mapping[str, Any], plain: float, kept: dict[str, float], algorithm: str
) -> Precision:
    """compressed-tensors and newer modelopt: groups of targets, each with the numbers of its weights."""
    linear, name, exceptions = plain, "", dict[str, float]()
    for group in list(groups.values())[:100]:
        weights = group.get("weights") if isinstance(group, dict) else None
        if not isinstance(weights, dict):
            continue
        label, bits = _weights(config, weights)
        name = name or label
        targets = group.get("targets")
        for target in targets[:100_000] if isinstance(targets, list) else ["Linear"]:
            if target == "Linear":
                linear, name = bits, label
            elif isinstance(target, str):
                exceptions[target[:400]] = bits
    exceptions |= {"mlp.gate": plain, "shared_expert_gate": plain} | kept
    _bound(config, exceptions)
    head = plain if linear == plain or HEAD in kept else linear
    return Precision(
        algorithm.lower() or name or "compressed-tensors",
        "config",
        linear,
        plain,
        head,
        plain,
        None,
        exceptions,
    )


def _weights(config: Config, weights: Mapping[str, Any]) -> tuple[str, float]:
    bits = _bits(config, weights.get("num_bits"))
    group = _small(weights.get("group_size"), 0)
    is_float = weights.get("type") == "float"
    scale = 8.0 if is_float and bits == 4 else 16.0
    if weights.get("symmetric") is False:
        scale += bits
    label = (
        ("nvfp4" if group == 16 else "mxfp4")
        if is_float and bits == 4
        else f"{'fp' if is_float else 'int'}{bits:g}"
    )
    return label, bits + (scale / group if group else 0)


def _by_layer(config: Config, stated: Mapping[str, Any], plain: float, kept: dict[str, float]) -> Precision:
    """Modelopt's mixed precision: each quantised module by name, everything else as it is."""
    listed, method = stated.get("quantized_layers"), str(stated.get("quant_method") or "").lower()
    if "fp8" in method:
        # what the second quantiser left alone is what the first one made of it
        plain_linear, kept = 8.0, {}
    else:
        plain_linear = plain
    exceptions, found = dict(kept), set[str]()
    for key, value in list(listed.items())[:100_000] if isinstance(listed, dict) else []:
        if isinstance(value, dict):
            algorithm = str(value.get("quant_algo") or "").upper()
            label, bits = _method(config, "", algorithm, value)
            exceptions[key[:400]] = bits
            found.add(label)
    if not found:
        raise config.fail(
            "mixed precision without a list of layers; give `quantisation` or `bits_per_weight`"
        )
    _bound(config, exceptions)
    name = "mixed " + "+".join(sorted(found))
    return Precision(name, "config", plain_linear, plain, plain, plain, None, exceptions)


def _bound(config: Config, exceptions: Mapping[str, float]) -> None:
    """Patterns are tried on each matrix of each layer; a real file has some hundred."""
    patterns = sum(map(_is_pattern, exceptions))
    layers = config.whole("num_hidden_layers", "n_layer", "n_layers", "num_layers", default=1)
    if patterns > MAX_PATTERNS or patterns * layers > 200_000:
        raise config.fail(f"{patterns} patterns of unquantised modules for {layers} layers are too many")
