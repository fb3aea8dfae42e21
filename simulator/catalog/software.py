"""Engines: where they run, what they send and what they cost beside the arithmetic."""

from __future__ import annotations

from functools import cache
from typing import Any

from simulator.catalog.tables import Facts, pick, tree
from simulator.units import SIZE, TIME, read_quantity

__all__ = ["EngineFacts", "engine_facts", "engines"]


class EngineFacts(Facts):
    """One engine. Overheads are medians; `overhead_log_sd` is how unsure they are (natural logarithm)."""

    name: str
    aliases: tuple[str, ...]
    title: str
    runs_on: tuple[str, ...]
    does_not_run_on: tuple[str, ...]
    note: str
    needs: str
    default_format: str
    default_quantisation: str
    activation_bytes_per_value: int
    head_on_every_rank: bool
    placement: str
    step_overhead_s: float
    hop_overhead_s: float
    overhead_log_sd: float
    memory_overhead_bytes: float
    compute_share: float = 1.0
    """Share of a platform's fitted decode speed that the engine's own runtime reaches, with its log sd."""
    compute_share_log_sd: float = 0.0
    compute_share_except: tuple[str, ...] = ()
    """Platforms where it runs what the fit was made with."""
    prefill_chunk_tokens: int | None = None
    max_batch: int
    source: str
    confidence: str
    assumed_fields: tuple[str, ...]

    def why_not_on(self, platform: str) -> str | None:
        """None where the engine runs on `platform`, else what to tell the user, with the way out."""
        if platform in self.runs_on:
            return None
        return f"engine {self.name} does not run on {platform}: {self.note}"


@cache
def engines() -> tuple[EngineFacts, ...]:
    """All engines of the catalogue."""
    return tuple(EngineFacts(**_fields(entry)) for entry in tree("engines")["engines"])


def engine_facts(name: str) -> EngineFacts:
    """The engine called `name`: exo, exo-legacy or llama-rpc; raises CatalogError for an unknown one."""
    return pick("engine", name, engines(), lambda facts: (facts.name, *facts.aliases))[0]


# keys of the file that carry a unit: the field they fill, and the units it is read in
QUANTITIES = {
    "step_overhead": ("step_overhead_s", TIME),
    "hop_overhead": ("hop_overhead_s", TIME),
    "memory_overhead": ("memory_overhead_bytes", SIZE),
}


def _fields(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of the file as the fields of its facts, in
    base units; its `assumed` names become field names too.
    """
    fields = {key: value for key, value in entry.items() if key not in QUANTITIES and key != "assumed"}
    for key, (field, units) in QUANTITIES.items():
        fields[field] = read_quantity(entry[key], units)
    assumed = tuple(QUANTITIES[name][0] if name in QUANTITIES else name for name in entry["assumed"])
    return fields | {"assumed_fields": assumed}
