"""Who is there, told from how the state changes: a node that lives reports, and its `lastSeen` moves on.

One state proves nothing: a dead node stays in the topology for 30 to 41 s, and after the loss of the master
the state stands still, with everybody in it (recordings).
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime

from live.exo.state import ClusterState, StateNode

__all__ = ["Presence"]


@dataclass(slots=True)
class _LastReport:
    """The last report of one node: when it was by the cluster's clock, and when we
    learnt of it (s, monotonic).
    """

    report: datetime | None
    learnt_s: float
    is_heard: bool = False
    """It reported since we began to listen."""


@dataclass
class Presence:
    """Listens to successive states; a node counts as gone when it has not reported for `quiet_s`."""

    quiet_s: float
    expected: Collection[str] = ()
    """Nodes to wait for, `quiet_s` at most, where a new master has to learn of them first."""
    _seen: dict[str, _LastReport] = field(default_factory=dict)
    _index: int = -1
    _began_s: float = 0.0
    _moved_s: float | None = None
    """When the state last moved on; None until it does."""
    _stood: bool = False
    """It had stood still for so long that the age of a report says nothing."""

    def note(self, state: ClusterState) -> None:
        """Take in one more state."""
        now_s = time.monotonic()
        if not self._seen or state.event_index < self._index:  # the first one, or that of a new master
            self._began_s, self._moved_s, self._stood = now_s, None, False
            # what the master before knew proves nothing of now
            self._seen.clear()
        elif state.event_index > self._index:
            if now_s - (self._moved_s or self._began_s) > self.quiet_s:
                self._began_s, self._stood = now_s, True
            self._moved_s = now_s
        self._index = state.event_index
        for node in state.nodes:
            known = self._seen.get(node.node_id)
            if known is None:
                self._seen[node.node_id] = _LastReport(node.last_seen, now_s)
            elif node.last_seen != known.report:
                self._seen[node.node_id] = _LastReport(node.last_seen, now_s, is_heard=True)

    def alive(self, state: ClusterState) -> tuple[StateNode, ...]:
        """The nodes of the state that report; where a version tells no reports, all, as
        long as the state moves on.
        """
        now_s = time.monotonic()
        # versions before reports existed
        if not any(node.last_seen for node in state.nodes):
            return state.nodes if self._moved_s is not None and now_s - self._moved_s <= self.quiet_s else ()
        seen = ((node, self._seen.get(node.node_id)) for node in state.nodes)
        return tuple(
            node for node, one in seen if one and one.is_heard and now_s - one.learnt_s <= self.quiet_s
        )

    def is_settled(self, state: ClusterState) -> bool:
        """Whether there is no more to wait for: all that may be alive have
        reported, or have had the time to.
        """
        if time.monotonic() - self._began_s > self.quiet_s:
            return True
        alive = {node.node_id for node in self.alive(state)}
        return bool(alive) and self._hopeful(state) | set(self.expected) <= alive

    def _hopeful(self, state: ClusterState) -> set[str]:
        """Nodes that may be alive: their last report is not older than that of the others by `quiet_s`."""
        newest = max((node.last_seen for node in state.nodes if node.last_seen), default=None)
        return {
            node.node_id
            for node in state.nodes
            if newest is None
            or self._stood
            or (node.last_seen and (newest - node.last_seen).total_seconds() <= self.quiet_s)
        }
