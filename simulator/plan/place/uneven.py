"""Splits for models whose layers differ: the search's rings, their layers laid out
by what each layer weighs.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace

from simulator.errors import PlacementError
from simulator.placement.partition import partition
from simulator.plan.place.solve import Split
from simulator.prepare import Ground
from simulator.runtime.ring_costs import RingCosts

__all__ = ["by_what_layers_weigh"]


def by_what_layers_weigh(
    base: Ground, costs: RingCosts, splits: Sequence[Split], *, slowest: bool
) -> list[Split]:
    """The rings of `splits` with the layers that make their sum of stages, or their slowest stage, least.

    The search counts average layers; here each has its own bytes, so a ring may turn out to be too small.
    Raises PlacementError where all are.
    """
    found = []
    for split in splits:
        counts = _counts(base, costs, split.order, slowest=slowest)
        if counts is not None:
            found.append(replace(split, layers=counts))
    if not found:
        raise PlacementError(
            "no ring of these devices holds the model: its layers differ in size, and no run of them fits "
            "everywhere; take a smaller quantisation or a shorter context, or add a device"
        )
    return found


def _counts(base: Ground, costs: RingCosts, order: Sequence[int], *, slowest: bool) -> tuple[int, ...] | None:
    """Layers of each rank, 0 for those that are pinned to an end."""
    holding = [at for at in order if costs.holds_layers[at]]
    names = [base.cluster.devices[at].name for at in holding]
    request, footprint = base.request, base.request.footprint
    counts = partition(
        [read for _, _, read in request.by_layer],
        [weights + kv for weights, kv, _ in request.by_layer],
        # only ratios count: work is told in bytes and speed in average layers
        [1 / float(costs.layer_s[at]) for at in holding],
        [request.device(name).usable_bytes - sum(footprint.fixed_bytes(names, name)) for name in names],
        of=max if slowest else operator.add,
    )
    if counts is None:
        return None
    held = dict(zip(holding, counts, strict=True))
    return tuple(held.get(at, 0) for at in order)
