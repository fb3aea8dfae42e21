"""Where a scenario wants its layers on an EXO cluster, and what to say where they are elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from live.exo.state import ClusterState, StateInstance
from simulator.engine.base import engine
from simulator.errors import SimulatorError
from simulator.placement.shard import Placement
from simulator.prepare import prepare
from simulator.scenario import Scenario
from simulator.units import format_bytes

__all__ = ["METAS", "beyond_memory", "chosen_by_client", "exos_words", "is_tensor", "otherwise"]

METAS = {"ring": "MlxRing", "jaccl": "MlxJaccl"}
"""EXO's instances by what carries the collectives."""


def chosen_by_client(scenario: Scenario) -> Placement | None:
    """The placement that the client has to make: the scenario's own layers, or of a rule that is not EXO's.

    None where EXO's master decides. Raises SimulatorError where the rule finds no placement.
    """
    layers, rule = scenario.placement.layers, scenario.placement.rule
    # an equal part of every layer is nobody's choice; who comes after whom may be (`placement.order`)
    if engine(scenario.engine.name).splits_layers:
        return None
    if layers is not None:
        return Placement.from_layers([(name, count) for name, count in layers.items() if count], "manual")
    if rule in (None, engine(scenario.engine.name).default_rule):
        return None
    placed = prepare(scenario).job.placement
    return Placement.from_layers([(s.device, s.layers) for s in placed.shards if s.layers], placed.rule)


def exos_words(scenario: Scenario) -> tuple[str, str]:
    """(sharding, instance_meta) as EXO calls what the scenario's engine says."""
    flow = engine(scenario.engine.name)
    if not flow.splits_layers:
        return "Pipeline", "MlxRing"
    return "Tensor", METAS[flow.facts.backend(scenario.engine.backend).name]


def otherwise(scenario: Scenario, instance: StateInstance, names: Mapping[str, str]) -> list[str]:
    """What of the instance is not the scenario's: ranks and layers, devices that it lacks."""
    held = {names[shard.node_id]: shard.end_layer - shard.start_layer for shard in instance.shards}
    if strangers := [name for name in held if name not in scenario.devices]:
        return [
            f"{', '.join(strangers)} holds layers and is no device of the scenario, so nothing can be "
            "predicted for this measurement; name the scenario's devices like the nodes, or say --device "
            "device=node"
        ]
    try:
        asked = {name: n for name, n in prepare(scenario).job.placement.layer_counts.items() if n}
    # a model that the catalogue lacks can be measured all the same
    except SimulatorError:
        return []
    # in ring order: another first rank samples, and other links carry the messages
    if list(held.items()) == list(asked.items()):
        return []
    return [
        f"the layers lie as {_split(held)}, where the scenario's placement says {_split(asked)}; the first "
        "is what is measured, and what `sim calibrate` and `sim validate` take; to measure the scenario's "
        "own, write it there as `placement: {layers: ...}`"
    ]


def is_tensor(instance: StateInstance) -> bool:
    """Whether each node holds a part of every layer."""
    return instance.shards[0].sharding == "Tensor"


def beyond_memory(instance: StateInstance, state: ClusterState, names: Mapping[str, str]) -> list[str]:
    """Nodes whose layers take more than they have free: they page, or are killed."""
    size, found = instance.card.get("storage_size"), []
    per_layer = size["in_bytes"] / instance.shards[0].n_layers if isinstance(size, dict) else 0.0
    if is_tensor(instance):
        # EXO looks at the sum of all nodes' memory alone, and each gets an equal part of every layer
        per_layer /= len(instance.shards)
    for shard in instance.shards:
        node, layers = state.node(shard.node_id), shard.end_layer - shard.start_layer
        if node is not None and node.free_bytes is not None and layers * per_layer > node.free_bytes:
            held = f"{'part of ' if is_tensor(instance) else ''}{layers} layers"
            way_out = "leave it out, or shard by pipeline" if is_tensor(instance) else "give it fewer"
            found.append(
                f"{names[shard.node_id]}: its {held} take {format_bytes(layers * per_layer)} and "
                f"{format_bytes(node.free_bytes)} is free there: it may page or be killed; {way_out}"
            )
    return found


def _split(layers: Mapping[str, int]) -> str:
    return " / ".join(f"{device} {count}" for device, count in layers.items())
