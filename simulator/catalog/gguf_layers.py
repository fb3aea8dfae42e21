"""What the metadata of a GGUF file says of each layer: cache, window, state, experts."""

from __future__ import annotations

from pathlib import Path

from simulator.catalog.config_keys import MAX_SIZE, whole_number
from simulator.catalog.gguf_header import GgufHeader, GgufPart, Value
from simulator.catalog.matrices import FP16_BYTES, FP32_BYTES, checked_kind
from simulator.catalog.tables import tree
from simulator.errors import CatalogError
from simulator.layer import LayerKind

__all__ = ["GgufKeys", "LayerReader"]


class GgufKeys:
    """The keys `<architecture>.*` of one header, checked and bounded."""

    def __init__(self, path: Path, header: GgufHeader) -> None:
        self.path, self.header = path, header
        self.architecture = str(header.metadata.get("general.architecture", ""))

    def value(self, key: str) -> Value | None:
        """The value of a key of this architecture."""
        return self.header.metadata.get(f"{self.architecture}.{key}")

    def whole(
        self, key: str, default: int | None = None, most: int = MAX_SIZE, layer: int | None = None
    ) -> int:
        """A whole number; of a list (one per layer) that of `layer`, else the largest.

        Raises CatalogError.
        """
        value = self.value(key)
        if isinstance(value, tuple) and layer is not None:
            value = value[layer] if layer < len(value) else None
        found = default if value is None else value
        return whole_number(
            str(self.path), f"{self.architecture}.{key}", found, 1 if default is None else 0, most
        )

    def names(self) -> dict[str, str | int | tuple[str, ...]]:
        """Who the model is, and its widths."""
        heads, hidden = self.whole("attention.head_count"), self.whole("embedding_length", most=1_000_000)
        return {
            "name": str(self.header.metadata.get("general.name", self.path.stem))[:200],
            "aliases": (),
            "family": self.architecture[:100],
            "hidden": hidden,
            "heads": heads,
            "kv_heads": self.whole("attention.head_count_kv", heads),
            "head_dim": self.whole("attention.key_length", max(hidden // heads, 1)),
            "source": f"header of {self.path.name}",
            "confidence": "exact-from-table",
            "note": "the file ends before its tensors do: an incomplete download?"
            if self.header.incomplete
            else "",
        }


class LayerReader:
    """Turns the tensor sums of a layer into its kind."""

    def __init__(self, keys: GgufKeys) -> None:
        self.keys, self.doubts = keys, list[str]()
        hidden, heads = keys.whole("embedding_length", most=1_000_000), keys.whole("attention.head_count")
        self.width = max(hidden // heads, 1)
        self.latent = keys.whole("attention.kv_lora_rank", 0)
        self.experts, self.used = keys.whole("expert_count", 0), keys.whole("expert_used_count", 0)
        self.window = keys.whole("attention.sliding_window", 0)
        self.layers = keys.whole("block_count")
        if self.experts and not 0 < self.used <= self.experts:
            raise CatalogError(
                f"{keys.path}: {self.used} of {self.experts} experts per token, must be 1 to {self.experts}; "
                "describe the model in the scenario instead"
            )

    def kind(self, number: int, part: GgufPart) -> LayerKind:
        """The layer with this number."""
        share = self.used / self.experts if self.experts and part.expert_bytes else 0.0
        is_mixture = part.expert_bytes > 0 and self.experts > 0
        kv, attention_flops = self._cache(number, part)
        if not part.tensor_bytes:
            raise CatalogError(
                f"{self.keys.path}: block_count is {self.layers}, but layer {number} has no tensors; "
                "download the file again"
            )
        return checked_kind(
            weight_bytes=float(part.tensor_bytes),
            active_bytes=part.tensor_bytes - (1 - share) * part.expert_bytes
            if is_mixture
            else float(part.tensor_bytes),
            experts=self.experts if is_mixture else 0,
            experts_per_token=self.used if is_mixture else 0,
            expert_bytes=float(part.expert_bytes) if is_mixture else 0.0,
            kv_bytes_per_token=kv,
            latent=bool(self.latent),
            kv_window_tokens=self._window(number) if kv else None,
            **(self._index() if kv and self.latent else {}),
            state_bytes=self._state() if part.has_state else 0.0,
            flops=2.0 * (part.values - (1 - share) * part.expert_values * is_mixture),
            attention_flops_per_token=attention_flops,
        )

    def _cache(self, number: int, part: GgufPart) -> tuple[float, float]:
        """Bytes and flops per cached token; a layer with a state alone keeps none."""
        keys = self.keys
        heads = keys.whole("attention.head_count", layer=number, default=0)
        kv_heads = keys.whole("attention.head_count_kv", heads, layer=number)
        first_borrower = self.layers - keys.whole("attention.shared_kv_layers", 0)
        if (part.has_state and not part.has_keys) or not kv_heads:
            return 0.0, 0.0
        if self.latent:
            width = self.latent + keys.whole("rope.dimension_count", 0)
            with_index = width + keys.whole("attention.indexer.key_length", 0)
            return float(with_index * FP16_BYTES), 2.0 * heads * (width + self.latent)
        local = "_swa" if self._window(number) and keys.value("attention.key_length_swa") else ""
        width = keys.whole(f"attention.key_length{local}", self.width)
        value = keys.whole(f"attention.value_length{local}", width)
        kept = 0.0 if number >= first_borrower else float(kv_heads * (width + value) * FP16_BYTES)
        return kept, 2.0 * heads * (width + value)

    def _index(self) -> dict[str, float | None]:
        """Of sparse attention (DeepSeek-V3.2, GLM-5): keys beside the latent ones, which are asked first."""
        width = self.keys.whole("attention.indexer.key_length", 0)
        return {
            "kv_read_tokens": (self.keys.whole("attention.indexer.top_k", 0) or None) if width else None,
            "index_bytes_per_token": float(width * FP16_BYTES),
            "index_flops_per_token": 2.0 * self.keys.whole("attention.indexer.head_count", 0) * width,
        }

    def _window(self, number: int) -> int | None:
        """Tokens of a local layer: a list says which layers are, else the family's pattern."""
        if not self.window:
            return None
        stated = self.keys.value("attention.sliding_window_pattern")
        if isinstance(stated, tuple):
            is_local = bool(stated[number]) if number < len(stated) else False
            return self.window if is_local else None
        family = tree("config_families").get(self.keys.architecture.replace("-", "_"), {})
        every = int(stated) if isinstance(stated, int) and stated > 0 else family.get("pattern")
        if every is None and "sliding window" not in " ".join(self.doubts):
            self.doubts.append(f"sliding window of {self.window} tokens: all layers are taken for local ones")
        return None if every and (number + 1) % every == 0 else self.window

    def _state(self) -> float:
        """Of a state space or a linear attention: inner width times state, and a convolution's tokens."""
        inner, state = self.keys.whole("ssm.inner_size", 0), self.keys.whole("ssm.state_size", 0)
        kernel = self.keys.whole("ssm.conv_kernel", 1)
        mixed = inner + 2 * self.keys.whole("ssm.group_count", 0) * state
        return float(inner * state + max(kernel - 1, 0) * mixed) * FP32_BYTES
