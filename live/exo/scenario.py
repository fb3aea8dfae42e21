"""A running cluster as a scenario: the user's second command is then `sim run` on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from live.errors import LiveError
from live.exo.cards import model_of_card
from live.exo.health import silent_nodes
from live.exo.links import link_of, remarks, used_hops, wires_of
from live.exo.match import device_names
from live.exo.placing import METAS, is_tensor
from live.exo.state import ClusterState, StateInstance, StateNode
from simulator.catalog.hardware import DeviceFacts, device, devices
from simulator.catalog.llm import model
from simulator.catalog.tables import normalise
from simulator.errors import CatalogError
from simulator.files.explain import in_words
from simulator.scenario import DeviceSpec, EngineSpec, LinkSpec, ModelSpec, PlacementSpec, Scenario

__all__ = ["catalogue_device", "scenario_of"]

CPU_DEVICE = "Linux laptop LPDDR5/DDR5-4800 dual channel"  # EXO says nothing of a machine that is no Mac
CUDA_DEVICE = "RTX 4060 Laptop"


def scenario_of(
    state: ClusterState,
    card: Mapping[str, Any],
    *,
    name: str = "my-cluster",
    instance: StateInstance | None = None,
) -> tuple[Scenario, tuple[str, ...]]:
    """The cluster as a scenario for the model of `card`, and what was assumed, one sentence each.

    With `instance` its layers and ring order are taken over, else EXO's rule decides.
    Raises LiveError without nodes, and where the state says what no scenario may.
    """
    notes: list[str] = []
    try:
        made = _made(state, card, name, instance, notes)
    except ValidationError as error:
        # every field of a state may be anything; the scenario's own rules are the last to see it
        raise LiveError(
            f"what the cluster says of itself makes no scenario: {in_words(error)}; write one by hand "
            "(sim init)"
        ) from None
    return made, tuple(notes)


def _made(
    state: ClusterState, card: Mapping[str, Any], name: str, instance: StateInstance | None, notes: list[str]
) -> Scenario:
    """The scenario; what was assumed goes to `notes`."""
    state, instance = _living(state, instance, notes)
    if not state.nodes:
        raise LiveError("the cluster has no nodes yet; wait some seconds after EXO's start")
    names, (ring, best) = device_names(state.nodes), used_hops(state, instance)
    known = {node.node_id: catalogue_device(node) for node in state.nodes}
    specs = {
        names[node.node_id]: _device(
            node, names[node.node_id], known[node.node_id], link_of(node, state, ring or best), notes
        )
        for node in state.nodes
    }
    notes += remarks(state, names, ring)
    placement, spec, engine = PlacementSpec(rule="exo"), model_of_card(card, notes), EngineSpec(name="exo")
    if instance is not None and is_tensor(instance):
        specs, placement, engine = _tensor(instance, names, specs, notes)
    elif instance is not None:
        layers = _layers(instance, names, spec, notes)
        placement = PlacementSpec(layers=layers, min_devices=len(layers))
        specs = {
            key: specs[key] for key in sorted(specs, key=lambda key: key not in (placement.layers or {}))
        }
    asked = card.get("base_model") or card.get("model_id") or "the model"
    return Scenario(
        name=name,
        question=f"How fast does {asked} run on this cluster?",
        model=spec,
        devices=specs,
        wires=tuple(
            wire
            for wire in wires_of(state, names, (*ring, *best), instance, known)
            if set(wire.between) <= set(specs)
        ),
        engine=engine,
        placement=placement,
    )


def _living(
    state: ClusterState, instance: StateInstance | None, notes: list[str]
) -> tuple[ClusterState, StateInstance | None]:
    """The state without nodes that no longer report, and the instance unless it needs one of them."""
    silent = silent_nodes(state)
    nodes = tuple(node for node in state.nodes if node.node_id not in silent)
    notes += [
        f"{state.name_of(node_id)}: left out, no sign of life for {quiet_s:.0f} s; start EXO there again and "
        "write the scenario anew if it belongs in it"
        for node_id, quiet_s in silent.items()
    ]
    ids = {node.node_id for node in nodes}
    lost = [shard.node_id for shard in instance.shards if shard.node_id not in ids] if instance else []
    if lost:
        notes.append(
            f"placement: the running instance needs {', '.join(map(state.name_of, lost))}, so EXO's rule "
            "places the model on the others"
        )
    edges = tuple(edge for edge in state.edges if {edge.source, edge.sink} <= ids)
    return replace(state, nodes=nodes, edges=edges), None if lost else instance


def _tensor(
    instance: StateInstance, names: Mapping[str, str], specs: Mapping[str, DeviceSpec], notes: list[str]
) -> tuple[dict[str, DeviceSpec], PlacementSpec, EngineSpec]:
    """The instance's devices in the order of their ranks, and nobody else: EXO's rule chooses among
    all that it is given.
    """
    ranks = [names[shard.node_id] for shard in instance.shards]
    if left_out := sorted(set(specs) - set(ranks)):
        notes.append(f"{', '.join(left_out)}: left out, as the running Tensor instance does without")
    backend = next((name for name, meta in METAS.items() if meta == instance.meta), None)
    told = EngineSpec.model_validate({"name": "exo", "sharding": "tensor", "backend": backend})
    return {name: specs[name] for name in ranks}, PlacementSpec(min_devices=len(ranks)), told


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


def _device(
    node: StateNode, name: str, facts: DeviceFacts | None, link: LinkSpec | None, notes: list[str]
) -> DeviceSpec:
    if facts is None:
        generic = CUDA_DEVICE if "MlxCuda" in node.backends else CPU_DEVICE
        facts = device(generic)
        notes.append(
            f"{name}: chip {node.chip!r} is not in the catalogue, {generic!r} stands in for it; set its kind"
        )
    if link is None:
        notes.append(
            f"{name}: EXO does not say how it is connected, {facts.network} is assumed; set its link"
        )
    return DeviceSpec.model_validate(
        {
            "kind": facts.name,
            "memory": _bytes(node.memory_bytes),
            "usable_memory": _bytes(node.free_bytes),
            "link": link or LinkSpec(),
        }
    )


def _bytes(value: float | None) -> str | None:
    """Bytes as a scenario says them: with their unit."""
    return f"{value:.0f} B" if value else None
