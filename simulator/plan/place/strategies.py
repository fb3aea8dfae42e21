"""strategies: the best placement of each way in which an engine can divide a model, on the same numbers.

A pipeline gives each device whole layers, as many as `search` finds best. Tensor parallelism gives each an
equal part of every layer: there only which devices take part is open, in which order where collectives go
round a ring, and what carries them. Both within one cluster (tensor inside fast groups, a pipeline between
them) is modelled for no engine here, so it is not tried; `Strategies.not_tried` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import numpy as np

from simulator.engine.base import Engine, engine, flows_of, rules
from simulator.engine.facts import BackendFacts
from simulator.errors import PlacementError, SimulatorError
from simulator.placement.memory import memory_table, overfull
from simulator.placement.rules import place
from simulator.placement.shard import Placement
from simulator.plan.place.search import Objective, asked, search
from simulator.plan.place.trial import Tried, manual, simulated
from simulator.prepare import Ground, ground
from simulator.result.estimate import Estimate, estimate
from simulator.scenario import Scenario
from simulator.spec import Spec

__all__ = ["Strategies", "Strategy", "strategies"]

KEPT = 4
"""Sets of devices that are simulated; the others were slower where nothing is random."""
MOST_DEVICES = 10
"""Of more, the fastest alone are considered: slow ones only hold up an equal split."""
NOT_TRIED = (
    "tensor inside fast groups with a pipeline between them: EXO, mlx-lm and distributed-llama have one "
    "strategy for all devices; vLLM has it, but it is not modelled"
)


class Strategy(Spec):
    """One way to divide the model, placed as well as it can be; `refused` says why it cannot be."""

    engine: str
    """The name that means engine and strategy."""
    backend: str | None = None
    """What carries the collectives of tensor parallelism."""
    scenario: Scenario | None = None
    """The scenario with this strategy and its best placement."""
    placement: Placement | None = None
    refused: str | None = None
    tokens_per_s: Estimate | None = None
    first_token_s: Estimate | None = None
    slower: Estimate | None = None
    """By what factor of the objective the best strategy is better, pair by pair."""

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.engine} over {self.backend}" if self.backend else self.engine


class Strategies(Spec):
    """Strategies, the best by the objective first, refused ones last."""

    objective: str
    ranking: tuple[Strategy, ...]
    first_token_by: str
    """The strategy whose first token comes first: prompts and replies may ask for different ones."""
    not_tried: str = NOT_TRIED


def strategies(
    scenario: Scenario,
    objective: Objective = "chat",
    chats: int | None = None,
    begin: Callable[[Scenario, int], None] | None = None,
    pipeline: Placement | None = None,
) -> Strategies | None:
    """Every strategy of the scenario's engine, placed and ranked; `pipeline` is the best one of whole layers,
    where it is known already.

    None where no strategy splits layers, or the objective is of stages. Raises what `prepare` raises, and
    PlacementError where no strategy can be; one that cannot is told.
    """
    ways = list(_ways(engine(scenario.engine.name).software))
    if objective == "slowest-stage" or all(backend is None for _, backend in ways):
        return None
    found: list[tuple[Strategy, Tried | None]] = []
    for flow, backend in ways:
        as_this = _as(scenario, flow, backend)
        one = Strategy(engine=flow.name, backend=backend.name if backend else None)
        try:
            base = ground(asked(as_this, objective, chats))
            if backend is not None:
                wanted = dict(likely_sets(base, backend))
            else:
                wanted = {"best": pipeline or _pipeline(as_this, objective, chats, begin)}
            tried = min(
                simulated(base, objective, wanted, None, begin), key=lambda one: float(np.median(one.score))
            )
        except SimulatorError as error:
            found.append((one.model_copy(update={"refused": str(error)}), None))
        else:
            found.append((_told(one, as_this, tried), tried))
    return _ranked(found, objective)


def _ways(software: str) -> Iterator[tuple[Engine, BackendFacts | None]]:
    for flow in flows_of(software):
        yield from ((flow, backend) for backend in flow.facts.backends or (None,))


def _as(scenario: Scenario, flow: Engine, backend: BackendFacts | None) -> Scenario:
    """The scenario with this strategy; what it says of the engine's costs stays where it is of this one."""
    carried = backend.name if backend else None
    changes = {"name": flow.name, "sharding": flow.facts.sharding, "backend": carried}
    return scenario.model_copy(update={"engine": scenario.engine.model_copy(update=changes)})


def _pipeline(
    scenario: Scenario, objective: Objective, chats: int | None, begin: Callable[[Scenario, int], None] | None
) -> Placement:
    placement = search(scenario, objective, chats, None, begin).best.placement
    assert placement is not None, "what search finds best was placed"
    return placement


def likely_sets(base: Ground, backend: BackendFacts) -> Iterator[tuple[str, Placement]]:
    """The likeliest sets of devices for tensor parallelism; raises PlacementError where none can be."""
    fitting, refusals = [], []
    for names in _sets(base, backend):
        try:
            fitting.append(_placed(base, backend, names))
        except PlacementError as error:
            refusals.append(str(error))
    if not fitting:
        raise PlacementError(refusals[-1] if refusals else _no_number(base))
    # the slowest rank paces every layer, and each further rank shortens it
    quick = sorted(fitting, key=lambda placement: _layer_s(base, placement))
    for at, placement in enumerate(quick[:KEPT]):
        yield str(at), placement


def _sets(base: Ground, backend: BackendFacts) -> Iterator[tuple[str, ...]]:
    """Sets of devices that the engine splits layers among, equal ones once."""
    facts, model = base.engine.facts, base.model
    speeds = {one.name: one.layers_per_s or 0.0 for one in base.request.devices if not one.pinned}
    names = sorted(speeds, key=lambda name: -speeds[name])[:MOST_DEVICES]
    kept = [name for name in base.scenario.devices if name in names]
    seen = set()
    for size in range(2, len(kept) + 1):
        if not facts.can_split(size, model.hidden, base.request.kv_heads):
            continue
        for chosen in combinations(kept, size):
            alike = _looks(base, chosen)
            if alike not in seen:
                seen.add(alike)
                yield _round(base, chosen) if backend.algorithm == "ring" else chosen


def _looks(base: Ground, names: Sequence[str]) -> tuple[object, ...]:
    """What tells a set of devices from another one: machines, and the links between them."""
    machines = sorted(repr(base.scenario.devices[name]) for name in names)
    links = sorted(_delay_s(base, a, b) for a, b in combinations(names, 2))
    return (*machines, *links)


def _round(base: Ground, names: Sequence[str]) -> tuple[str, ...]:
    """A ring in which each device is followed by the nearest one that is left."""
    ring, left = [names[0]], list(names[1:])
    while left:
        ring.append(min(left, key=lambda name: _delay_s(base, ring[-1], name)))
        left.remove(ring[-1])
    return tuple(ring)


def _delay_s(base: Ground, a: str, b: str) -> float:
    return base.cluster.path(a, b, polled=True).median_s


def _placed(base: Ground, backend: BackendFacts, names: tuple[str, ...]) -> Placement:
    """The placement on these devices; raises PlacementError where memory or links do not allow it."""
    # a rule that takes the fewest devices would be told to take all
    least = base.scenario.placement.min_devices
    request = base.request.model_copy(update={"order": names, "min_devices": least})
    placement = place("tensor", request, rules())
    fault = overfull(memory_table(placement, request))
    if fault is not None:
        raise fault
    lacking = backend.lacks(base.cluster, names)
    if lacking:
        raise PlacementError(lacking)
    return placement


def _layer_s(base: Ground, placement: Placement) -> float:
    """Seconds of the slowest rank, and of its collectives' delays, for one layer."""
    request, ranks = base.request, len(placement.shards)
    slowest_s = max(1 / (request.device(name).layers_per_s or 1e-9) for name in placement.devices) / ranks
    farthest_s = max(_delay_s(base, a, b) for a, b in combinations(placement.devices, 2))
    turns = 2 * (ranks - 1) if base.engine.facts.backend(request.backend).algorithm == "ring" else 1
    return slowest_s + base.engine.facts.collectives_per_layer * turns * farthest_s


def _no_number(base: Ground) -> str:
    heads = f" and {base.request.kv_heads} KV heads" if base.request.kv_heads else ""
    return (
        f"{base.engine.name} splits this model (hidden size {base.model.hidden}{heads}) among no number of "
        f"these {len(base.scenario.devices)} devices; add one, or take another model"
    )


def _told(one: Strategy, scenario: Scenario, tried: Tried) -> Strategy:
    summary = tried.summary
    return one.model_copy(
        update={
            "scenario": scenario.model_copy(update={"placement": manual(tried.placement)}),
            "placement": tried.placement,
            "tokens_per_s": summary.tokens_per_s,
            "first_token_s": summary.first_token_s,
        }
    )


def _ranked(found: Sequence[tuple[Strategy, Tried | None]], objective: str) -> Strategies:
    placed = [(one, tried) for one, tried in found if tried is not None]
    refused = [one for one, tried in found if tried is None]
    if not placed:
        raise PlacementError("; ".join(f"{one.name}: {one.refused}" for one in refused))
    placed.sort(key=lambda pair: float(np.median(pair[1].score)))
    best = placed[0][1].score
    ranking = []
    for one, tried in placed:
        # of a strategy that only SimPy can evaluate there are fewer rows
        rows = min(len(best), len(tried.score))
        slower = estimate(tried.score[:rows] / best[:rows])
        ranking.append(one.model_copy(update={"slower": slower}))
    first = min(placed, key=lambda pair: pair[1].summary.first_token_s.median)[0]
    return Strategies(objective=objective, ranking=(*ranking, *refused), first_token_by=first.name)
