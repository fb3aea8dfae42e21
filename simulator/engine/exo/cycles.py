"""Rings of a directed graph, in the order in which EXO sees them.

EXO takes the first of equally good rings, so the order decides who becomes rank 0. It comes from rustworkx
`simple_cycles` (Johnson's algorithm on Kosaraju components; 0.17.1 recorded, 0.18.1 compared on random
graphs). Each ring is found from the first of its devices to become a root, by a depth-first walk that tries
the targets of a device from the oldest to the newest edge. So the first ring over a given set of devices can
be found without listing the others: at 10 devices in a full mesh there are over a million.

Exact for every directed graph without self-loops (EXO makes none), parallel edges included.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

__all__ = ["Ring", "Wiring"]


@dataclass(frozen=True, slots=True)
class Ring:
    """Devices in rank order; of two rings of one length, that with the smaller `rank_key` is listed first."""

    devices: tuple[str, ...]
    rank_key: tuple[int, ...]


@dataclass(frozen=True)
class Wiring:
    """A directed graph: nodes and (source, sink) edges, both in order of insertion."""

    nodes: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]

    @cached_property
    def newest_first(self) -> dict[str, list[str]]:
        """Sinks by source, newest edge first, parallel edges repeated: the order in
        which petgraph walks them.
        """
        return _adjacent(self.nodes, self.edges)

    @cached_property
    def sources_newest_first(self) -> dict[str, list[str]]:
        """Sources by sink, newest edge first."""
        return _adjacent(self.nodes, ((sink, source) for source, sink in self.edges))

    @cached_property
    def trial_order(self) -> dict[str, dict[str, int]]:
        """Position at which each sink of a node is tried:
        oldest first, where parallel edges count by the newest.
        """
        return {
            node: {sink: at for at, sink in enumerate(reversed(dict.fromkeys(sinks)))}
            for node, sinks in self.newest_first.items()
        }

    @cached_property
    def roots(self) -> tuple[tuple[str, frozenset[str]], ...]:
        """(root, devices that its rings may visit), in the order in which roots are taken."""
        found: list[tuple[str, frozenset[str]]] = []
        pending = self._components(self.nodes)
        while pending:
            # Johnson: a root leaves the graph after its turn; go on with what is still connected
            component = pending.pop()
            root = component[-1]
            found.append((root, frozenset(component)))
            pending += self._components([node for node in self.nodes if node in component[:-1]])
        return tuple(found)

    def _components(self, nodes: Collection[str]) -> list[list[str]]:
        """Strongly connected components of two nodes or more (Kosaraju), each in the
        order of its second walk.
        """
        finished: list[str] = []
        seen: set[str] = set()
        for node in nodes:
            finished += _depth_first(node, self.sources_newest_first, nodes, seen, on_leaving=True)
        seen = set()
        components = [
            _depth_first(node, self.newest_first, nodes, seen, on_leaving=False)
            for node in reversed(finished)
        ]
        return [component for component in components if len(component) > 1]

    def first_ring(self, members: Collection[str]) -> Ring | None:
        """The first ring through exactly `members`, or None where no ring joins them all.

        A single device is a ring of its own, ordered by insertion.
        """
        if len(members) == 1:
            (node,) = members
            return Ring((node,), (self.nodes.index(node),))
        for at, (root, reachable) in enumerate(self.roots):
            # A root leaves the graph after its turn, so only the first root among the
            # members can find their ring.
            if root in members:
                if not reachable.issuperset(members):
                    return None
                path = next(self._walk([root], frozenset(members), len(members)), None)
                return Ring(path, (at, *self._turns(path))) if path else None
        return None

    def _turns(self, path: tuple[str, ...]) -> Iterator[int]:
        return (self.trial_order[here][there] for here, there in pairwise(path))

    def rings(self) -> Iterator[tuple[str, ...]]:
        """All rings in EXO's order, single devices last; their number explodes, so only for small graphs."""
        for root, reachable in self.roots:
            yield from self._walk([root], reachable, None)
        yield from ((node,) for node in self.nodes)

    def _walk(
        self, path: list[str], allowed: frozenset[str], length: int | None
    ) -> Iterator[tuple[str, ...]]:
        """Depth-first: rings that begin with `path` and stay within `allowed`; of one `length`, if given."""
        for sink in self.trial_order[path[-1]]:
            if sink == path[0] and length in (None, len(path)):
                yield tuple(path)
            elif sink in allowed and sink not in path:
                yield from self._walk([*path, sink], allowed, length)


def _adjacent(nodes: Iterable[str], edges: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    adjacent: dict[str, list[str]] = {node: [] for node in nodes}
    for source, sink in edges:
        # petgraph puts each edge before those that its node has
        adjacent[source].insert(0, sink)
    return adjacent


def _depth_first(
    start: str, adjacent: dict[str, list[str]], nodes: Collection[str], seen: set[str], *, on_leaving: bool
) -> list[str]:
    """Nodes in the order in which a walk from `start` enters them, or leaves them, last neighbour
    first; adds them to `seen`.
    """
    if start in seen:
        return []
    seen.add(start)
    behind: list[str] = []
    for node in reversed(adjacent[start]):
        if node in nodes:
            behind += _depth_first(node, adjacent, nodes, seen, on_leaving=on_leaving)
    return [*behind, start] if on_leaving else [start, *behind]
