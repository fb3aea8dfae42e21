"""A running cluster as a scenario: the user's second command is then `sim run` on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from live.errors import LiveError
from live.exo.cards import model_of_card
from live.exo.match import device_names
from live.exo.state import ClusterState, StateInstance, StateNode
from simulator.catalog.hardware import DeviceFacts, device, devices
from simulator.catalog.llm import model
from simulator.catalog.tables import normalise
from simulator.errors import CatalogError
from simulator.scenario import DeviceSpec, EngineSpec, LinkSpec, ModelSpec, PlacementSpec, Scenario, WireSpec

__all__ = ["catalogue_device", "scenario_of"]

# What EXO calls an interface, as a network of the catalogue.
# It does not tell generations apart, so the usual one.
LINKS = {
    "wifi": "wifi6",
    "ethernet": "ethernet_1g",
    "maybe_ethernet": "ethernet_1g",
    "thunderbolt": "thunderbolt4",
}
CPU_DEVICE = "Linux laptop LPDDR5/DDR5-4800 dual channel"  # EXO says nothing of a machine that is no Mac
CUDA_DEVICE = "RTX 4060 Laptop"
ORDER = ("thunderbolt", "maybe_ethernet", "ethernet", "wifi")  # EXO's order of preference


def scenario_of(
    state: ClusterState,
    card: Mapping[str, Any],
    *,
    name: str = "my-cluster",
    instance: StateInstance | None = None,
) -> tuple[Scenario, tuple[str, ...]]:
    """The cluster as a scenario for the model of `card`, and what was assumed, one sentence each.

    With `instance` its layers and ring order are taken over, else EXO's rule decides.
    Raises LiveError without nodes.
    """
    if not state.nodes:
        raise LiveError("the cluster has no nodes yet; wait some seconds after EXO's start")
    names = device_names(state.nodes)
    notes: list[str] = []
    specs = {names[node.node_id]: _device(node, names[node.node_id], state, notes) for node in state.nodes}
    placement, spec = PlacementSpec(rule="exo"), model_of_card(card, notes)
    if instance is not None:
        layers = _layers(instance, names, spec, notes)
        placement = PlacementSpec(layers=layers, min_devices=len(layers))
        specs = {
            key: specs[key] for key in sorted(specs, key=lambda key: key not in (placement.layers or {}))
        }
    made = Scenario(
        name=name,
        question=f"How fast does {card.get('base_model') or card.get('model_id') or 'the model'} run on this "
        "cluster?",
        model=spec,
        devices=specs,
        wires=tuple(_wires(state, names)),
        engine=EngineSpec(name="exo"),
        placement=placement,
    )
    return made, tuple(notes)


def _layers(
    instance: StateInstance, names: Mapping[str, str], spec: ModelSpec, notes: list[str]
) -> dict[str, int]:
    """Layers by device; where EXO's card counts other ones than the model has, the last has the rest."""
    layers = {names[s.node_id]: s.end_layer - s.start_layer for s in instance.shards}
    counted, has = sum(layers.values()), spec.layers or model(spec.name).layers
    last = list(layers)[-1]
    if has != counted and layers[last] + has - counted > 0:
        layers[last] += has - counted
        notes.append(
            f"model: EXO's card counts {counted} layers, {spec.name} has {has}; {last} gets the difference"
        )
    return layers


def catalogue_device(node: StateNode) -> DeviceFacts | None:
    """The catalogue's device for a Mac's model ('MacBook Pro'), chip ('Apple M4 Max') and
    memory; None without one.
    """
    for wanted in (f"{node.model} {node.chip.removeprefix('Apple ')}", node.chip):
        try:
            return device(wanted, node.memory_bytes)
        except CatalogError:
            continue
    same = [facts for facts in devices() if _same_chip(facts.chip, node.chip)]
    fits = [facts for facts in same if node.memory_bytes and facts.sold_with(node.memory_bytes)]
    return (fits or same or [None])[0]  # type: ignore[list-item]


def _same_chip(known: str, chip: str) -> bool:
    """'Apple M4 Max 40c' is a 'Apple M4 Max': the number of cores is not in EXO's name."""
    stem = known.rpartition(" ")[0] if known.endswith("c") else known
    return bool(chip) and normalise(stem) == normalise(chip)


def _device(node: StateNode, name: str, state: ClusterState, notes: list[str]) -> DeviceSpec:
    facts = catalogue_device(node)
    if facts is None:
        generic = CUDA_DEVICE if "MlxCuda" in node.backends else CPU_DEVICE
        facts = device(generic)
        notes.append(
            f"{name}: chip {node.chip!r} is not in the catalogue, {generic!r} stands in for it; set its kind"
        )
    link = _link(node, state)
    if link is None:
        notes.append(
            f"{name}: EXO does not say how it is connected, {facts.network} is assumed; set its link"
        )
    return DeviceSpec.model_validate(
        {
            "kind": facts.name,
            "memory": _bytes(node.memory_bytes),
            "usable_memory": _bytes(node.free_bytes),
            "link": LinkSpec(kind=link),
        }
    )


def _bytes(value: float | None) -> str | None:
    """Bytes as a scenario says them: with their unit."""
    return f"{value:.0f} B" if value else None


def _link(node: StateNode, state: ClusterState) -> str | None:
    """How the others reach the node through the LAN: the interface that EXO would prefer,
    cables between two aside.
    """
    kinds = {kind for source in state.nodes for _, kind in state.addresses(source.node_id, node.node_id)}
    if not kinds and len(state.nodes) == 1:
        kinds = {interface.kind for interface in node.interfaces}
    return next((LINKS[kind] for kind in ORDER[1:] if kind in kinds), None)


def _wires(state: ClusterState, names: Mapping[str, str]) -> list[WireSpec]:
    """Thunderbolt cables: pairs of nodes that reach each other through such interfaces in both directions."""
    found = []
    for i, one in enumerate(state.nodes):
        for other in state.nodes[i + 1 :]:
            ends = (one.node_id, other.node_id)
            if all(
                any(kind == "thunderbolt" for _, kind in state.addresses(*pair))
                for pair in (ends, ends[::-1])
            ):
                found.append(WireSpec(between=(names[ends[0]], names[ends[1]]), kind=LINKS["thunderbolt"]))
    return found
