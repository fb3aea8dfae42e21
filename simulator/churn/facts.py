"""What is known of each engine's recovery, and of the heat
of kinds of devices; the data files carry the sources.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from simulator import catalog
from simulator.catalog.tables import Facts, pick, tree
from simulator.churn.spec import HeatSpec
from simulator.errors import CatalogError
from simulator.laws.law import Constant, Law
from simulator.scenario import DeviceSpec, Scenario

__all__ = ["RecoveryFacts", "SourcedLaw", "heat_of", "recovery_facts", "with_heat"]

NOTHING: Law = Constant(value=0.0)


class SourcedLaw(Facts):
    """The law of a duration (s) and who says so."""

    law: Law
    source: str
    confidence: str


class RecoveryFacts(Facts):
    """How one engine gets over the loss of a device; the
    meaning of each law is in the head of recovery.yaml.
    """

    name: str
    client_may_split: bool
    """The client may ask for a split of its own when the engine's rule refuses."""
    serves_by_itself: bool
    """The survivors divide the layers anew without being asked."""
    files: Literal["everywhere", "own_shard", "client"]
    file_cache: Literal["copied", "mapped"]
    """Whether weights in memory are a copy beside the file cache, or are the file cache."""
    loads: Literal["parallel", "through_client"]
    warm_up_tokens: int
    load_log_sd: float
    """Of the logarithm of a load's duration: disks and caches are assumed."""
    load_round_trips: int = 0
    """How often the client waits for each server's answer while it loads, one after the other."""
    first_prompt_round_trips: int = 0
    """The same before the first prompt after a load, beyond what every prompt waits for."""
    laws: dict[str, SourcedLaw]

    def law(self, name: str) -> Law | None:
        """The law of that name, None where the engine never does it."""
        return self.laws[name].law if name in self.laws else None

    def delay(self, name: str) -> Law:
        """The law of that name, no time at all where the engine does not do it."""
        return self.law(name) or NOTHING


@cache
def recovery_facts(engine: str) -> RecoveryFacts:
    """The recovery of the engine of that name; raises CatalogError where none is known."""
    entries = [RecoveryFacts.model_validate(entry) for entry in tree("recovery")["engines"]]
    return pick("engine", engine, entries, lambda entry: (entry.name,))[0]


@cache
def _heat_table() -> dict[str, Any]:
    return tree("heat")


def heat_of(spec: DeviceSpec) -> HeatSpec:
    """The catalogue's heat law for a kind of device; raises CatalogError where none is known."""
    facts = catalog.device(spec.kind, spec.memory) if spec.kind else None
    for kind in _heat_table()["kinds"]:
        category = facts is not None and facts.category in kind["categories"]
        named = facts is not None and any(facts.name.startswith(name) for name in kind["names"])
        if category or named:
            return HeatSpec.model_validate(kind["law"])
    known = ", ".join(kind["name"] for kind in _heat_table()["kinds"])
    raise CatalogError(
        f"no heat law is known for {spec.kind or 'a device without kind'} (known: {known}); give heat: "
        "{approach, sustained}, or leave heat out: a device with a fan holds its speed"
    )


def with_heat(scenario: Scenario) -> Scenario:
    """The scenario with every `heat: true` written out;
    raises CatalogError where the catalogue has no law.
    """
    devices = {
        name: spec.model_copy(update={"heat": heat_of(spec) if spec.heat is True else spec.heat or None})
        for name, spec in scenario.devices.items()
    }
    return scenario.model_copy(update={"devices": devices})
