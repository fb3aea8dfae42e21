"""Why did the tokens stop? Look at the state of the cluster, as the stream itself never says.

Recorded with EXO of 2026-06: after the loss of a node the stream sends keep-alives for 40 to 51 s and then just ends;
after the loss of the master it sends them for ever. The state gives both away within 5 to 10 s.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from live.errors import LiveError
from live.exo.state import ClusterState, Instance

__all__ = ["Diagnosis", "diagnose"]

SILENT_S = 5.0  # a node reports about once per second; 5 s of silence stood out in every recorded loss


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the state says of a silent stream."""

    healthy: bool
    """Nothing is wrong as far as the state shows: waiting longer makes sense."""
    master_lost: bool
    text: str


def diagnose(
    fetch: Callable[[], ClusterState], before: ClusterState, instance_id: str | None, look_again_s: float
) -> Diagnosis:
    """Compare the state with the one `before` the request.

    `fetch` gets the state now; `instance_id` is the one that serves the stream, None when it is not known.
    When the first look shows nothing there is a second one after `look_again_s`: a state that stands still is lost.
    """
    try:
        now = fetch()
        found = _changed(now, before, instance_id)
        if found is not None:
            return found
        time.sleep(look_again_s)
        later = fetch()
    except LiveError as error:
        return Diagnosis(False, False, f"and the node asked does not answer any more: {error}")
    if later.event_index == now.event_index:
        return Diagnosis(False, True, f"and the state stands still at event {now.event_index}: the master is lost")
    return _changed(later, before, instance_id) or Diagnosis(True, False, "although the state shows nothing wrong")


def _changed(now: ClusterState, before: ClusterState, instance_id: str | None) -> Diagnosis | None:
    """What tells at one glance."""
    if now.event_index < before.event_index:
        return Diagnosis(
            False, True,
            f"because the master was lost: the state began anew (event {now.event_index} after {before.event_index}) "
            "and all instances are gone; place the model again",
        )
    instance = now.instances.get(instance_id or "") or (before.instances.get(instance_id or ""))
    if instance is None:
        return None
    if instance.instance_id not in now.instances:
        # EXO ends the streams of an instance that it deletes, so one that goes on belongs to a state that is no more.
        return Diagnosis(
            False, True,
            "because the instance is gone while its stream was left open: the master was lost and the cluster began "
            "anew, or somebody deleted it; place the model again",
        )
    lost = _lost_nodes(now, before, instance)
    if lost:
        return Diagnosis(False, False, f"because {'; '.join(lost)}")
    failed = [
        f"the runner on {now.name_of(shard.node_id)} says {runner.status}{f': {runner.error}' if runner.error else ''}"
        for shard, runner in now.runners_of(instance)
        if runner.status in ("RunnerFailed", "RunnerShutdown", "RunnerShuttingDown")
    ]
    return Diagnosis(False, False, f"because {'; '.join(failed)}") if failed else None


def _lost_nodes(now: ClusterState, before: ClusterState, instance: Instance) -> list[str]:
    """Nodes of the instance that left, went silent, or that others no longer reach."""
    newest = max((node.last_seen for node in now.nodes if node.last_seen), default=None)
    lost = []
    for shard in instance.shards:
        node, name = now.node(shard.node_id), before.name_of(shard.node_id)
        if node is None:
            lost.append(f"{name} left the cluster")
            continue
        silent_s = (newest - node.last_seen).total_seconds() if newest and node.last_seen else 0.0
        alive = {other.node_id for other in now.nodes}
        unreached = (_sources(before, shard.node_id) - _sources(now, shard.node_id)) & alive
        if silent_s > SILENT_S:
            lost.append(f"{name} has been silent for {silent_s:.0f} s")
        elif unreached:
            lost.append(f"{', '.join(map(before.name_of, sorted(unreached)))} cannot reach {name} any more")
    return lost


def _sources(state: ClusterState, sink: str) -> set[str]:
    return {edge.source for edge in state.edges if edge.sink == sink}
