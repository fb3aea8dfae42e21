"""Reads the keys of a config.json as sizes: checked, bounded, under any of the names that families use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simulator.catalog.tables import tree
from simulator.errors import CatalogError

__all__ = ["MAX_LAYERS", "MAX_SIZE", "Config", "read_json", "whole_number"]

MAX_CONFIG_BYTES = 4_000_000  # the longest known, one line per quantised expert, has 3.1 MB
MAX_LAYERS = 1_000  # as many as a scenario may have; the deepest model known has 126
MAX_SIZE = 100_000_000  # no width, vocabulary or number of experts comes near
TEXT_PARTS = ("text_config", "language_config", "llm_config")


class Config:
    """The text model of one config.json, with what its family assumes where a key is missing."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.where, self.doubts = where, list[str]()
        self._parts, self._sets = dict[str, Config](), dict[str, frozenset[int]]()
        self.outer = values
        inner = self._text_part(values)
        merged = {**values, **inner}
        self.model_type = str(inner.get("model_type") or values.get("model_type") or "")[:100]
        families = tree("config_families")
        stem = self.model_type.removesuffix("_text")
        self.is_known_family = self.model_type in families or stem in families
        self.family: dict[str, Any] = families.get(self.model_type) or families.get(stem) or {}
        defaults = self.family.get("defaults") or {}
        self.values = {**defaults, **{key: value for key, value in merged.items() if value is not None}}

    def _text_part(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The nested description of the language model; a speech model nests it in its thinker."""
        thinker = values.get("thinker_config")
        for holder in (values, thinker if isinstance(thinker, dict) else {}):
            for name in TEXT_PARTS:
                if isinstance(holder.get(name), dict):
                    # an inner null means "as the family has it", not "as the outer object has it"
                    return dict(holder[name])
        return {}

    @classmethod
    def read(cls, path: Path) -> Config:
        """The file; raises CatalogError when it cannot be read, is too long or is no JSON object."""
        values = read_json(path)
        if not isinstance(values, dict):
            raise CatalogError(
                f"{path}: holds a {type(values).__name__}, must be the object of a config.json"
            )
        return cls(values, str(path))

    def fail(self, what: str) -> CatalogError:
        """The error for this config."""
        return CatalogError(f"{self.where}: {what}; describe the model in the scenario instead")

    def doubt(self, sentence: str) -> None:
        """Note a guess, once."""
        if sentence not in self.doubts:
            self.doubts.append(sentence)

    def has(self, key: str) -> bool:
        """Whether the key has a value."""
        return key in self.values

    def whole(self, *keys: str, default: int | None = None, layer: int | None = None) -> int:
        """The first of the keys that is there, as a whole number; of a list the entry of `layer`.

        Without `default` one of the keys must be there, and be at least 1. Raises CatalogError.
        """
        key = next((key for key in keys if key in self.values), keys[0])
        self.layers_of(key)  # a list of a million is searched once for each layer otherwise
        value = self.values.get(key, default)
        if isinstance(value, list) and layer is not None:
            value = value[layer] if layer < len(value) else None
        return whole_number(self.where, key, value, least=1 if default is None else 0)

    def layers_of(self, key: str) -> list[Any] | None:
        """A list with one entry per layer, or None. Raises CatalogError for an endless one."""
        value = self.values.get(key)
        if not isinstance(value, list):
            return None
        if len(value) > 2 * MAX_LAYERS:
            raise self.fail(f"{key} has {len(value)} entries, more than {2 * MAX_LAYERS}")
        return value

    def part(self, key: str) -> Config:
        """A nested object, as a config of its own (empty where it is missing); its doubts are shared."""
        if key not in self._parts:
            value = self.values.get(key)
            self._parts[key] = Config(value if isinstance(value, dict) else {}, f"{self.where}: {key}")
            self._parts[key].doubts = self.doubts
        return self._parts[key]

    def numbers(self, key: str) -> frozenset[int]:
        """Numbers of layers, as a list or as '3,4,5'; asked for each layer, so kept."""
        if key not in self._sets:
            value = self.values.get(key)
            if isinstance(value, str):
                parts = value[:100_000].split(",")
                value = [int(part) for part in parts if part.strip().isdecimal() and len(part) < 9]
            entries = value if isinstance(value, list) else []
            self._sets[key] = frozenset(entry for entry in entries if isinstance(entry, int))
        return self._sets[key]

    def flag(self, key: str, default: bool = False) -> bool:
        """A switch."""
        value = self.values.get(key, default)
        return value if isinstance(value, bool) else default

    def text(self, key: str) -> str:
        """A short text, '' where it is missing or something else."""
        value = self.values.get(key)
        return value[:1000] if isinstance(value, str) else ""

    def trait(self, name: str) -> Any:
        """What config_families.yaml says of the family."""
        return self.family.get(name)


def read_json(path: Path) -> Any:
    """A JSON file; raises CatalogError when it cannot be read, is too long or is no JSON."""
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= MAX_CONFIG_BYTES else ""
        values = json.loads(text) if text else None
    except OSError as error:
        raise CatalogError(
            f"{path}: cannot be read ({error.strerror}); give the path of a config.json"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CatalogError(
            f"{path}: is not JSON ({str(error)[:80]}); download the config.json again"
        ) from error
    if size > MAX_CONFIG_BYTES:
        raise CatalogError(f"{path}: {size} bytes are too many for a config.json; give the right file")
    if not text:
        raise CatalogError(f"{path}: is not JSON (it is empty); download the config.json again")
    return values


def whole_number(where: str, key: str, value: Any, least: int, most: int = MAX_SIZE) -> int:
    """A whole number in bounds; of a list the largest entry. Raises CatalogError."""
    if isinstance(value, (list, tuple)) and value and all(_is_number(entry) for entry in value):
        value = max(value)
    if not _is_number(value) or not least <= value <= most or value != int(value):
        shown = (
            "is missing"
            if value is None
            else f"is {str(value)[:40] if _is_number(value) else repr(value)[:40]}"
        )
        raise CatalogError(
            f"{where}: {key} {shown}, must be a whole number >= {least} and at most {most:,}; describe the "
            "model in the scenario instead"
        )
    return int(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
