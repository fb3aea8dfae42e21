"""What Petals sends, keeps and refuses (`flow.yaml`): sizes of messages, its cache's room, its back-off."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from simulator.catalog.tables import Facts, yaml_tree
from simulator.cluster.cluster import Device
from simulator.errors import Fault, ScenarioError
from simulator.model.model import Model
from simulator.runtime.cost import crowding
from simulator.scenario import WorkloadSpec
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
    merged_tokens_of: dict[str, int]
    most_prompt_tokens: tuple[int, int]
    cache_tokens: tuple[int, int]
    backoff_s: tuple[float, float]
    client_overhead_s: float
    launch_s: dict[str, dict[str, float]]
    launch_elsewhere_s: float
    card_overhead_s: dict[str, float]
    unpacked_reads: dict[str, float]
    compressed_bytes_per_value: dict[str, float]
    source: str
    confidence: str

    def launching_s(self, device: Device, model: Model) -> float:
        """Seconds that launching the kernels of one block takes on a device."""
        # what else a card may be told to hold has kernels like the usual ones
        by_platform = self.launch_s.get(model.quantisation, self.launch_s["nf4"])
        return by_platform.get(device.platform, self.launch_elsewhere_s)

    def card_s(self, device: Device) -> float:
        """Seconds of a server's step that a graphics card costs beside the blocks' work."""
        return self.card_overhead_s.get(device.platform, 0.0)

    def unpacking_s(self, device: Device, model: Model, blocks: float, tokens: int) -> float:
        """Seconds of moving unpacked weights of so many blocks before several tokens are read at once."""
        reads = self.unpacked_reads.get(model.quantisation, 0.0) if tokens > 1 else 0.0
        return reads * blocks * model.layer_bytes / device.speed.decode_bandwidth * crowding(device)

    def refuse_longer(self, model: Model, workload: WorkloadSpec) -> None:
        """Raises ScenarioError for a chat that every server refuses for ever."""
        grouped, tokens = is_grouped(model), workload.prompt_tokens + workload.output_tokens
        most, room = self.most_prompt_tokens[grouped], self.cache_tokens[grouped]
        if workload.prompt_tokens > most:
            why = (
                f"is {workload.prompt_tokens}, and a Petals server takes {most} tokens in one request at most"
            )
            raise ScenarioError("scenario", [Fault("workload.prompt_tokens", f"{why}; shorten the prompt")])
        if tokens > room:
            why = f"makes {tokens} tokens with the prompt, and a Petals server keeps {room} at most"
            raise ScenarioError("scenario", [Fault("workload.output_tokens", f"{why}; shorten the reply")])

    def tasks(self, model: Model, blocks: int, tokens: int) -> int:
        """Tasks of a server's queue that read so many tokens: one, or where they are many one per block."""
        merged = self.merged_tokens_of.get(model.quantisation, self.merged_tokens)
        return blocks if tokens > merged else 1

    def state_bytes(self, model: Model, compression: str | None) -> float:
        """Bytes of one token's hidden state on the wire; `activation_bytes` is what it has uncompressed."""
        plain = self.compressed_bytes_per_value["none"]
        return model.activation_bytes * self.compressed_bytes_per_value[compression or "none"] / plain


@cache
def flow_facts() -> FlowFacts:
    """The facts of `flow.yaml`, in base units."""
    told: dict[str, Any] = yaml_tree(Path(__file__).parent / "flow.yaml")
    seconds = {name: read_quantity(told.pop(name), TIME) for name in ("client_overhead", "launch_elsewhere")}
    launch = {bits: _seconds(on) for bits, on in told.pop("launch").items()}
    in_tables = {"launch_s": launch, "card_overhead_s": _seconds(told.pop("card_overhead"))}
    backoff = tuple(read_quantity(value, TIME) for value in told.pop("backoff"))
    in_seconds = {f"{name}_s": value for name, value in seconds.items()}
    return FlowFacts.model_validate(told | in_seconds | in_tables | {"backoff_s": backoff})


def _seconds(by_platform: dict[str, str]) -> dict[str, float]:
    return {platform: read_quantity(value, TIME) for platform, value in by_platform.items()}


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
