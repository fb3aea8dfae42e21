"""The client of an engine whose chat runs on the first
device: it stays in the token's path, with layers or without.
"""

from __future__ import annotations

from simulator.engine.base import Engine
from simulator.scenario import PlacementSpec, Scenario

__all__ = ["with_client"]


def with_client(scenario: Scenario, flow: Engine, *, idles: bool) -> PlacementSpec:
    """The placement of a complete scenario in which a client without layers keeps its part: the embedding.

    A person gives it none (`layers: {client: 0, ...}`); or, where it `idles`, a person says nothing, and it
    is a processor beside devices that compute faster (`client_idles_on`).
    """
    choice = scenario.placement
    if not flow.client_is_first or "embedding" in choice.roles.values():
        return choice
    client = next(iter(choice.layers or choice.order or scenario.devices))
    told_none = choice.layers is not None and choice.layers[client] == 0 and len(choice.layers) > 1
    if not (told_none or (idles and _nobody_chose(choice) and _is_slow(scenario, flow, client))):
        return choice
    return choice.model_copy(update={"roles": {**choice.roles, client: "embedding"}})


def _nobody_chose(choice: PlacementSpec) -> bool:
    return choice.rule is None and choice.layers is None and not choice.roles


def _is_slow(scenario: Scenario, flow: Engine, client: str) -> bool:
    """Whether the client is a processor and others are more than that."""
    idle = flow.facts.client_idles_on
    others = {device.platform for name, device in scenario.devices.items() if name != client}
    return scenario.devices[client].platform in idle and not others <= set(idle)
