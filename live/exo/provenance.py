"""What must be known of a cluster in order to believe a measurement of it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from typing import Any

from live.exo.casing import snake
from live.exo.state import ClusterState, StateInstance, StateNode
from simulator.files import dumps
from simulator.result.measurement import DeviceProvenance, Provenance, ShardProvenance
from simulator.scenario import Scenario

__all__ = ["client_software", "provenance_of", "trimmed"]


def provenance_of(
    scenario: Scenario,
    state: ClusterState,
    instance: StateInstance,
    names: Mapping[str, str],
    *,
    features: tuple[str, ...],
    warm_up_requests: int,
    power: Mapping[str, str],
    extra: Mapping[str, Any],
) -> Provenance:
    """The header of a measurement of `instance`; `names` gives each node id the name
    under which it is reported.
    """
    size = instance.card.get("storage_size")
    return Provenance(
        name=scenario.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        source="exo",
        engine="exo",
        engine_version=f"1.x with {', '.join(features) or 'none of the later endpoints'}",
        model=instance.model_id,
        model_layers=instance.shards[0].n_layers,
        model_bytes=float(size["in_bytes"]) if isinstance(size, dict) and "in_bytes" in size else None,
        devices=tuple(
            _device(state.node(shard.node_id), names[shard.node_id], state, power)
            for shard in instance.shards
        ),
        placement=tuple(
            ShardProvenance(
                device=names[shard.node_id], start_layer=shard.start_layer, end_layer=shard.end_layer
            )
            for shard in instance.shards
        ),
        prompt_tokens=scenario.workload.prompt_tokens,
        output_tokens=scenario.workload.output_tokens,
        runs=scenario.workload.runs,
        concurrency=scenario.workload.concurrency,
        warm_up_requests=warm_up_requests,
        clock="client, monotonic; a token's time is when its bytes left the socket",
        scenario_sha256=sha256(dumps(scenario).encode()).hexdigest(),
        scenario=scenario.model_dump(mode="json", exclude_none=True),
        cluster={
            "state": trimmed(state),
            "instance": instance.instance_id,
            "sharding": instance.shards[0].sharding,
            "transport": instance.meta,
            "model_card": dict(instance.card),
            "client_load_1min": _load(),
            **extra,
        },
        software=client_software(),
    )


def client_software() -> dict[str, str]:
    """What the measuring side runs."""
    return {"httpx": version("httpx"), "python": platform.python_version(), "client_os": platform.platform()}


def _device(
    node: StateNode | None, name: str, state: ClusterState, power: Mapping[str, str]
) -> DeviceProvenance:
    if node is None:
        return DeviceProvenance(name=name, chip="unknown", os="unknown")
    # as others reach it: a device with a cable and a radio uses one of the two
    kinds = {kind for source in state.nodes for _, kind in state.addresses(source.node_id, node.node_id)} - {
        "unknown"
    }
    return DeviceProvenance(
        name=name,
        chip=node.chip,
        os=node.os,
        memory_bytes=node.memory_bytes,
        link_kind="+".join(sorted(kinds)) or "unknown",
        power_source=power.get(name, "unknown"),
        details={
            "node_id": node.node_id,
            "machine": node.model,
            "free_bytes": node.free_bytes,
            "backends": list(node.backends),
            "system": dict(node.system),
        },
    )


def trimmed(state: ClusterState) -> dict[str, Any]:
    """The state without what grows for ever and tells nothing: downloads, finished
    tasks, dead runners, cards.
    """
    # runners and tasks of the dead stay for ever, and a model card has hundreds of lines
    dropped = {"downloads", "tasks", "runners", "instances", "custom_model_cards", "node_profiles"}
    kept = {key: snake(value) for key, value in snake(dict(state.raw), 1).items() if key not in dropped}
    kept["instances"] = {
        key: {"model": one.model_id, "shards": [[s.node_id, s.start_layer, s.end_layer] for s in one.shards]}
        for key, one in state.instances.items()
    }
    return kept


def _load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
