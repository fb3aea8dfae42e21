"""What the page can offer: scenarios of the library, and what the catalogue knows."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from simulator import catalog
from simulator.engine.base import engines, rules
from simulator.errors import Fault, ScenarioError, did_you_mean
from simulator.files import schema
from simulator.library import find_scenario, scenario_names
from simulator.own import yours
from simulator.scenario import Scenario
from simulator.version import VERSION

__all__ = ["catalogue", "library", "start"]


def start(text: str, name: str) -> dict[str, Any]:
    """The scenario to begin with, the library's names, and the version."""
    return {"yaml": text, "name": name, "scenarios": scenario_names(), "version": VERSION}


def library(name: str) -> str:
    """The text of a scenario of the library; raises ScenarioError for any other name, a path above all."""
    names = scenario_names()
    if name not in names:
        raise ScenarioError(
            name[:60], [Fault("", f"no scenario of the library{did_you_mean(name[:60], names)}")]
        )
    return find_scenario(name).read_text(encoding="utf-8")


@cache
def catalogue() -> bytes:
    """Names with what tells them apart, and the schema of scenarios, as JSON; once, as nothing changes."""
    known = {
        "devices": [*_own("devices"), *map(_device, catalog.devices())],
        "models": [
            *_own("models"),
            *(
                {"name": one.name, "about": f"{one.layers} layers", "also": one.aliases}
                for one in catalog.models()
            ),
        ],
        "networks": [
            *_own("links"),
            *({"name": one.name, "about": one.title, "also": ()} for one in catalog.networks()),
        ],
        "quantisations": sorted({one.quantisation for one in catalog.quantisations()}),
        "engines": [_engine(name) for name in engines()],
        "rules": sorted(rules()),
        "schema": schema(Scenario),
    }
    return json.dumps(known).encode()


def _own(part: str) -> list[dict[str, Any]]:
    """Entries of the user's own catalogue."""
    return [{"name": one.name, "about": "your own", "also": ()} for one in yours(part)]


def _device(facts: catalog.DeviceFacts) -> dict[str, Any]:
    return {
        "name": facts.name,
        "about": f"{facts.chip}, {facts.memory_bytes_per_s / 1e9:.0f} GB/s",
        "also": facts.aliases,
        "memory_bytes": facts.memory_options_bytes or (facts.memory_bytes,),
        "network": facts.network,
        "category": facts.category,
    }


def _engine(name: str) -> dict[str, Any]:
    flow = engines()[name]
    return {"name": name, "software": flow.software, "splits_layers": flow.splits_layers}
