"""The model that a Hugging Face config.json describes, as transformers or MLX write it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simulator.catalog.architecture import architecture
from simulator.catalog.config_keys import Config, read_json
from simulator.catalog.llm import bits_named
from simulator.catalog.model_facts import ModelFacts, facts_of
from simulator.catalog.precision import Precision, precision_of
from simulator.errors import CatalogError

__all__ = ["from_config", "from_hf_config"]


def from_hf_config(
    path: str | Path, quantisation: str | None = None, bits_per_weight: float | None = None
) -> ModelFacts:
    """The model in a config.json, with sizes computed from its quantisation.

    `quantisation` (a name of the catalogue: '4bit', 'Q4_K_M', 'bf16') or `bits_per_weight` decide where
    given, else what the file says of its own weights. Raises CatalogError for a file that is no config of a
    transformer, an unknown quantisation, bits outside (0.5, 64], or both at once.
    """
    path = Path(path)
    config = Config.read(path)
    beside = path.with_name("hf_quant_config.json")
    if "quantization_config" not in config.outer and beside.is_file():
        # NVIDIA's quantiser writes what it did into a file of its own
        config.outer = {**config.outer, "quantization_config": _quantiser(beside)}
    return from_config(config, quantisation, bits_per_weight, source=f"{path.name} of {path.parent.name}")


def from_config(
    config: Config,
    quantisation: str | None = None,
    bits_per_weight: float | None = None,
    source: str = "config",
) -> ModelFacts:
    """The same from a config that is read already."""
    if quantisation is not None and bits_per_weight is not None:
        raise CatalogError(
            f"{config.where}: quantisation {quantisation!r:.40} and bits_per_weight {bits_per_weight:g} "
            "at once; give one"
        )
    made = architecture(config)
    is_original = False
    if quantisation is not None:
        precision = bits_named(quantisation, None).precision(made)
    elif bits_per_weight is not None:
        precision = _uniform(config, bits_per_weight)
    else:
        precision = precision_of(config)
        is_original = precision.format != "MLX"
    name = config.text("_name_or_path") or config.model_type or Path(config.where).parent.name
    known: dict[str, str | tuple[str, ...]] = {
        "name": name[:200],
        "aliases": (),
        "family": config.model_type,
        "source": source,
        "confidence": "exact-from-table",
        "note": "",
    }
    facts = facts_of(made, precision, known, is_original=is_original)
    # the reader of the quantisation may have had to guess as well
    return facts.model_copy(update={"doubts": tuple(dict.fromkeys((*config.doubts, *facts.doubts)))})


def _uniform(config: Config, bits: float) -> Precision:
    if not 0.5 < bits <= 64:
        raise CatalogError(f"{config.where}: {bits:g} bits per weight, must be above 0.5 and at most 64")
    return Precision(f"{bits:g} bits per weight", "config", bits, bits, bits, bits)


def _quantiser(path: Path) -> Mapping[str, Any]:
    """The `quantization` object of hf_quant_config.json."""
    values = read_json(path)
    stated = values.get("quantization") if isinstance(values, dict) else None
    return stated if isinstance(stated, dict) else {}
