"""What Petals sends, keeps and refuses (`flow.yaml`): sizes of messages, its cache's room, its back-off."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from simulator.catalog.tables import Facts, yaml_tree
from simulator.cluster.cluster import Device
from simulator.model.model import Model
from simulator.units import TIME, read_quantity

__all__ = ["FlowFacts", "backoff_s", "flow_facts", "is_grouped"]


class FlowFacts(Facts):
    """See `flow.yaml`; pairs are (without, with grouped-query attention), or (request, reply)."""

    framing_bytes: int
    metadata_bytes: int
    metadata_bytes_per_next: int
    uid_bytes_per_block: int
    reply_bytes: int
    wire_bytes: tuple[int, int]
    merged_tokens: int
    most_prompt_tokens: tuple[int, int]
    cache_tokens: tuple[int, int]
    backoff_s: tuple[float, float]
    client_overhead_s: float
    launch_s: dict[str, float]
    launch_elsewhere_s: float
    compressed_bytes_per_value: dict[str, float]
    source: str
    confidence: str

    def launching_s(self, device: Device) -> float:
        """Seconds that launching the kernels of one block takes on a device."""
        return self.launch_s.get(device.platform, self.launch_elsewhere_s)

    def state_bytes(self, model: Model, compression: str | None) -> float:
        """Bytes of one token's hidden state on the wire; `activation_bytes` is what it has uncompressed."""
        plain = self.compressed_bytes_per_value["none"]
        return model.activation_bytes * self.compressed_bytes_per_value[compression or "none"] / plain


@cache
def flow_facts() -> FlowFacts:
    """The facts of `flow.yaml`, in base units."""
    told: dict[str, Any] = yaml_tree(Path(__file__).parent / "flow.yaml")
    seconds = {name: read_quantity(told.pop(name), TIME) for name in ("client_overhead", "launch_elsewhere")}
    launch = {platform: read_quantity(value, TIME) for platform, value in told.pop("launch").items()}
    backoff = tuple(read_quantity(value, TIME) for value in told.pop("backoff"))
    in_seconds = {f"{name}_s": value for name, value in seconds.items()}
    return FlowFacts.model_validate(told | in_seconds | {"launch_s": launch, "backoff_s": backoff})


def is_grouped(model: Model) -> bool:
    """Whether several heads share keys and values, which is when Petals keeps four times the tokens."""
    # key and value of as many heads as attend are two hidden states; kept in 16 bits, as on the wire
    return model.kv_bytes_per_token_per_layer < 2 * model.activation_bytes


def backoff_s(first_s: float, most_s: float) -> Iterator[float]:
    """Seconds to wait before each attempt at a route: `0, first, 2 first, 4 first, ..`, `most` at most.

    >>> from itertools import islice
    >>> list(islice(backoff_s(1.0, 60.0), 9))
    [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    """
    yield 0.0
    for attempt in count():
        yield min(first_s * 2.0**attempt, most_s)
