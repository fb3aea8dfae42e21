"""What is known of the heat of kinds of devices; the data file carries the sources."""

from __future__ import annotations

from functools import cache
from typing import Any

from simulator import catalog
from simulator.catalog.tables import tree
from simulator.churn.spec import HeatSpec
from simulator.errors import CatalogError
from simulator.scenario import DeviceSpec, Scenario

__all__ = ["heat_of", "with_heat"]


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
