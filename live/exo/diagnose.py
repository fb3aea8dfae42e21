"""Why did the tokens stop? Look at the state of the cluster, as the stream itself never says.

Recorded with EXO of 2026-06: after the loss of a node the stream sends keep-alives for 40 to 51 s and then
just ends; after the loss of the master it sends them for ever. The state gives both away within 5 to 10 s.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from live.errors import LiveError
from live.exo.state import ClusterState, StateInstance

__all__ = ["SILENT_S", "Diagnosis", "Inquiry", "compare", "is_deleted"]

SILENT_S = 5.0  # a node reports about once per second; 5 s of silence stood out in every recorded loss


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the state says of a silent stream."""

    healthy: bool
    """Nothing is wrong as far as the state shows: waiting longer makes sense."""
    master_lost: bool
    text: str
    is_node_lost: bool = False
    is_cut_off: bool = False
    """Nobody answered, so nothing is known of the cluster."""


@dataclass
class Inquiry:
    """Looks into the silences of one stream, one look at a time: tokens that come meanwhile must not wait."""

    fetch: Callable[[], ClusterState]
    """Gets the state now."""
    before: ClusterState
    """The state before the request."""
    instance_id: str | None
    """What serves the stream, None where that is not known."""
    standing_s: float
    """A living master numbers several events per second; a state that stands still for so long has none."""
    silent_s: float = SILENT_S
    _index: int | None = None
    _since_s: float = 0.0

    def look(self) -> Diagnosis:
        """Compare the state with the one before, and with that of the last look."""
        try:
            now = self.fetch()
        except LiveError as error:
            return Diagnosis(
                False, False, f"and the node asked does not answer any more: {error}", is_cut_off=True
            )
        found = compare(now, self.before, self.instance_id, self.silent_s)
        if found is not None:
            return found
        if now.event_index != self._index:
            self._index, self._since_s = now.event_index, time.monotonic()
        elif time.monotonic() - self._since_s >= self.standing_s:
            return Diagnosis(
                False, True, f"and the state stands still at event {now.event_index}: the master is lost"
            )
        return Diagnosis(True, False, "although the state shows nothing wrong")


def compare(
    now: ClusterState, before: ClusterState, instance_id: str | None, silent_s: float = SILENT_S
) -> Diagnosis | None:
    """What one glance at the state tells of an instance that served `before`; None where nothing is wrong.

    A node counts as lost once it has not reported for `silent_s`, or others have given up reaching it.
    """
    # events are numbered by the master: a smaller number is another master, which began anew
    if now.event_index < before.event_index:
        return Diagnosis(
            False,
            True,
            f"because the master was lost: the state began anew (event {now.event_index} after "
            f"{before.event_index}) and all instances are gone; place the model again",
        )
    instance = now.instances.get(instance_id or "") or (before.instances.get(instance_id or ""))
    # nobody told which instance serves, so nothing can be said of it
    if instance is None:
        return None
    if instance.instance_id not in now.instances:
        # EXO ends the streams of an instance that it deletes, so one that goes on belongs
        # to a state that is no more.
        return Diagnosis(
            False,
            True,
            "because the instance is gone while its stream was left open: the master was lost and the "
            "cluster began anew, or somebody deleted it; place the model again",
        )
    lost = _lost_nodes(now, before, instance, silent_s)
    if lost:
        return Diagnosis(False, False, f"because {'; '.join(lost)}", is_node_lost=True)
    failed = [
        f"the runner on {now.name_of(shard.node_id)} says "
        f"{runner.status}{f': {runner.error}' if runner.error else ''}"
        for shard, runner in now.runners_of(instance)
        if runner.status in ("RunnerFailed", "RunnerShutdown", "RunnerShuttingDown")
    ]
    return Diagnosis(False, False, f"because {'; '.join(failed)}") if failed else None


def is_deleted(now: ClusterState, before: ClusterState, instance: StateInstance) -> bool:
    """Whether somebody deleted the instance while the master that knew it lives on.

    Such a master goes on numbering, and keeps the runners of what was deleted as shut down for ever
    (recordings); a new one begins anew and knows none of them. EXO itself deletes what failed 5 times.
    """
    runners = [now.runners.get(shard.runner_id) for shard in instance.shards]
    said = {runner.status for runner in runners if runner}
    return (
        instance.instance_id not in now.instances
        and now.event_index >= before.event_index
        and bool(said)
        and "RunnerFailed" not in said
    )


def _lost_nodes(
    now: ClusterState, before: ClusterState, instance: StateInstance, limit_s: float
) -> list[str]:
    """Nodes of the instance that left, went silent, or that others no longer reach."""
    silences_s = now.silences_s()
    lost = []
    for shard in instance.shards:
        node, name = now.node(shard.node_id), before.name_of(shard.node_id)
        if node is None:
            lost.append(f"{name} left the cluster")
            continue
        silent_s = silences_s.get(shard.node_id, 0.0)
        alive = {other.node_id for other in now.nodes}
        # only who reached it before and lives now: a node that never did proves nothing
        unreached = (_sources(before, shard.node_id) - _sources(now, shard.node_id)) & alive
        if silent_s > limit_s:
            lost.append(f"{name} has been silent for {silent_s:.0f} s")
        elif unreached:
            lost.append(f"{', '.join(map(before.name_of, sorted(unreached)))} cannot reach {name} any more")
    return lost


def _sources(state: ClusterState, sink: str) -> set[str]:
    return {edge.source for edge in state.edges if edge.sink == sink}
