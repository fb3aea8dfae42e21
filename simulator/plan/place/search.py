"""search: the best placement of a scenario, proven for the mean cost and confirmed by simulation.

The exact search (`solve`) gives the optimum of the mean-cost model and the runners-up
with other devices. They and the usual rules are then simulated on the same random numbers; the
best of these by the objective is the answer, so it is never worse than a rule. Nothing beats
`bound`: every layer as cheap as memory allows, and no network at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf, sqrt
from typing import Literal, get_args

import numpy as np

from simulator.engine.base import rules
from simulator.errors import Fault, PlacementError, ScenarioError, did_you_mean
from simulator.placement.memory import MemoryUse, memory_table, overfull
from simulator.placement.rules import place
from simulator.placement.shard import Placement
from simulator.plan.place.bound import first_token_bound_s, tokens_per_s_bound
from simulator.plan.place.costs import decode_costs, prompt_costs, spread_costs
from simulator.plan.place.reduce import reduced, relaxed_lower_s, reordered
from simulator.plan.place.solve import Split, solve, value_s
from simulator.plan.place.trial import MOST_TOKENS, Tried, fills_pipeline, simulated
from simulator.plan.place.uneven import by_what_layers_weigh
from simulator.prepare import Ground, ground
from simulator.result.estimate import Estimate, estimate
from simulator.runtime.ring_costs import RingCosts
from simulator.scenario import PlacementSpec, Scenario
from simulator.spec import Spec

__all__ = ["OBJECTIVES", "Objective", "Option", "PlacementAnswer", "Proof", "asked", "search"]

Objective = Literal["chat", "users", "slowest-stage", "p99", "first-token"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)
USERS = 8
"""Chats at once that `users` stands for where the scenario has only one: a full batch of EXO."""
KEPT = 5
"""Sets of devices that are simulated beside the optimum's."""
MOST_REPLICATIONS = 100
"""Paired comparisons show nothing new beyond these."""
TANGENTS = (0.5, 1.0, 2.0, 8.0)
"""Weights of the variance that are tried, in multiples of the one that fits the optimum of the means."""
Z99 = 2.326
"""The 99th percentile of the standard normal distribution."""


class Option(Spec):
    """One placement and what simulation makes of it; `refused` says why there is none."""

    name: str
    placement: Placement | None = None
    refused: str | None = None
    tokens_per_s: Estimate | None = None
    total_tokens_per_s: Estimate | None = None
    inter_token_p99_s: Estimate | None = None
    first_token_s: Estimate | None = None
    gain: Estimate | None = None
    """By how much the best is better, as a factor of the objective, pair by pair."""


class Proof(Spec):
    """How good the search was: nothing under the model costs less than `lower_s`."""

    value_s: float
    lower_s: float
    gap: float
    """`value / lower - 1`; below 1e-9 it is rounding."""
    exact: bool
    is_of_average_layers: bool
    """Layers differ, and the search counted average ones: nothing is proven of what each weighs."""
    simulated: int


class PlacementAnswer(Spec):
    """The best placement, the usual ones beside it, and a bound that none can beat."""

    scenario: str
    engine: str
    objective: str
    chats: int
    meaning: str
    best: Option
    optimum_of_means: Placement
    beside: tuple[Option, ...]
    bound: Estimate
    bound_of: str
    proof: Proof
    memory: tuple[MemoryUse, ...]
    warnings: tuple[str, ...]


def search(
    scenario: Scenario,
    objective: Objective = "chat",
    chats: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    begin: Callable[[Scenario, int], None] | None = None,
) -> PlacementAnswer:
    """The best placement of the scenario's devices for an objective.

    The scenario's own rule, order and layers are only shown beside; its roles and
    `min_devices` are kept. `chats` replaces the concurrency of the scenario. `begin` hears of
    a scenario, and how many tokens of such ones will be simulated, before any is; what it raises ends all.
    Raises PlacementError where nothing fits, and what `prepare` raises.
    """
    base = ground(asked(scenario, objective, chats))
    base.request.check()
    splits, exact = _splits(base, objective)
    names = [device.name for device in base.cluster.devices]
    found = list(dict.fromkeys(_placement(split, names, base) for split in splits))
    rules = _by_rules(scenario, base)
    # under numbers, which no rule is called
    wanted = {str(at): placement for at, placement in enumerate(found)}
    wanted |= {rule: placement for rule, placement in rules.items() if isinstance(placement, Placement)}
    tried = simulated(base, objective, wanted, progress, begin)
    # equal scores: what the search found comes first, the optimum of the means before its runners-up
    best = min(tried, key=lambda option: float(np.median(option.score)))
    bound, bound_of = _bound(base, objective)
    split = splits[0]
    return PlacementAnswer(
        scenario=base.scenario.name,
        engine=base.engine.name,
        objective=objective,
        chats=base.scenario.workload.concurrency,
        meaning=_meaning(base, objective),
        best=_option("best", best),
        optimum_of_means=found[0],
        beside=tuple(_beside(rule, rules[rule], tried, best) for rule in rules),
        bound=bound,
        bound_of=bound_of,
        memory=memory_table(best.placement, base.request),
        warnings=best.prepared.warnings,
        proof=Proof(
            value_s=split.value_s,
            lower_s=split.lower_s,
            gap=max(0.0, split.value_s / split.lower_s - 1),
            exact=exact,
            is_of_average_layers=bool(base.request.by_layer),
            simulated=len(tried),
        ),
    )


def asked(scenario: Scenario, objective: Objective, chats: int | None) -> Scenario:
    """The scenario with the chats of the objective, and no more replications than a comparison needs."""
    if objective not in OBJECTIVES:
        reason = (
            f"{objective!r} is unknown; one of {', '.join(OBJECTIVES)}{did_you_mean(objective, OBJECTIVES)}"
        )
        raise ScenarioError("place", [Fault("objective", reason)])
    several = objective in ("users", "slowest-stage") and scenario.workload.concurrency == 1
    concurrency = chats or (USERS if several else scenario.workload.concurrency)
    return scenario.model_copy(
        update={
            "workload": scenario.workload.model_copy(
                update={"runs": 1, "concurrency": concurrency, "arrivals": None}
            ),
            "replications": min(scenario.replications, MOST_REPLICATIONS),
            "placement": PlacementSpec(
                roles=scenario.placement.roles, min_devices=scenario.placement.min_devices
            ),
        }
    )


def _meaning(base: Ground, objective: Objective) -> str:
    """What is minimised, in words."""
    if objective == "users":
        if fills_pipeline(base):
            return (
                "max(slowest stage, (sum of stages and hops) / chats): seconds per token of all chats "
                "together"
            )
        return (
            f"sum of stages and hops of one batch: {base.engine.name} decodes all chats in step, so the "
            "slowest stage alone does not set the rate"
        )
    return {
        "chat": "sum of stages and hops: seconds per token of one chat",
        "slowest-stage": "slowest stage: seconds per token of very many chats, each at another stage",
        "p99": "99th percentile of the inter-token time: mean and spread of the hops for candidates, then "
        "simulation",
        "first-token": "time to the first token: prompt without overlap for candidates, then simulation",
    }[objective]


def _splits(base: Ground, objective: Objective) -> tuple[list[Split], bool]:
    """Candidates, the optimum of the objective's mean-cost model first; and whether that is exact.

    Raises PlacementError where nothing fits.
    """
    at_once, fills = base.engine.memory_chats(base.scenario.workload.concurrency), fills_pipeline(base)
    batch = 1 if fills else at_once
    costs = prompt_costs(base) if objective == "first-token" else decode_costs(base, batch)
    chats = inf if objective == "slowest-stage" else float(at_once) if objective == "users" and fills else 1.0
    small, chosen = reduced(costs)
    splits = list(solve(small, chats, KEPT))
    if not splits:
        raise PlacementError(_shortage(base, costs))
    if objective == "p99":
        slope = _slope(spread_costs(base, batch, 1.0, chosen), splits[0])
        splits += [
            split
            for factor in TANGENTS
            for split in solve(spread_costs(base, batch, factor * slope, chosen), 1.0, 2)
        ]
    if objective in ("users", "first-token"):  # what a queue or overlapping chunks might prefer
        splits += [split for n in (2.0, 4.0, inf) for split in solve(small, n)]
    splits += reordered(small, splits[0])
    # who was left out before the search is covered by the relaxation alone
    exact = len(chosen) == costs.devices
    if not exact:
        splits[0] = replace(splits[0], lower_s=relaxed_lower_s(costs, chats))
    # the search numbered the chosen devices; outside all are counted
    back = [replace(split, order=tuple(chosen[at] for at in split.order)) for split in splits]
    if base.request.by_layer:  # what was proven holds for average layers
        return by_what_layers_weigh(base, costs, back, slowest=objective == "slowest-stage"), False
    return back, exact


def _shortage(base: Ground, costs: RingCosts) -> str:
    """Why nothing fits: the message of the rule that counts everything, or what the pins leave."""
    try:
        place("even", base.request)
    except PlacementError as error:
        return str(error)
    least = base.scenario.placement.min_devices
    pinned = any(device.pinned for device in base.request.devices)
    limits = [*(["the pinned roles"] if pinned else []), *([f"at least {least} devices"] if least else [])]
    if not limits:  # it fits by paging alone, and the search looks for what needs none
        return (
            f"{costs.layers} layers fit on these devices only if some are read from disk at each token, and "
            "the "
            "search looks for placements that need none; `sim run` says what it costs"
        )
    return (
        f"{costs.layers} layers fit on no ring of these devices with {' and '.join(limits)}; unpin a role or "
        "lower min_devices"
    )


def _slope(with_variance: RingCosts, split: Split) -> float:
    """Weight of the variance at which `mean + weight variance` touches `mean + z sd`
    at a split: `z / (2 sd)`.
    """
    variance_s2 = value_s(with_variance, split.order, split.layers)[0] - split.sum_s
    return Z99 / (2 * sqrt(variance_s2)) if variance_s2 > 0 else 0.0


def _placement(split: Split, names: list[str], base: Ground) -> Placement:
    pairs = [(names[at], count) for at, count in zip(split.order, split.layers, strict=True)]
    pins = {role: base.request.pinned(role) for role in ("embedding", "head")}
    placement = Placement.from_layers(
        pairs, "best", embedding=pins["embedding"], head=pins["head"], devices=names
    )
    return placement.check(base.model.layers)


def _by_rules(scenario: Scenario, base: Ground) -> dict[str, Placement | str]:
    """The usual placements, or why one is refused; that of the scenario too where it is given by hand."""
    found: dict[str, Placement | str] = {}
    by_hand = ["manual"] if scenario.placement.layers else []
    for rule in (*base.engine.own_rules, "speed", "even", *by_hand):
        request = (
            base.request
            if rule != "manual"
            else base.request.model_copy(
                update={"layers": scenario.placement.layers, "order": scenario.placement.order}
            )
        )
        try:
            placement = place(rule, request, rules())
            # a rule that counts weights alone may give what does not fit
            fault = overfull(memory_table(placement, request))
            found[rule] = placement if fault is None else f"{fault}"
        except PlacementError as error:
            found[rule] = str(error)
    return found


def _option(name: str, tried: Tried, best: Tried | None = None) -> Option:
    summary = tried.summary
    return Option(
        name=name,
        placement=tried.placement,
        tokens_per_s=summary.tokens_per_s,
        total_tokens_per_s=summary.total_tokens_per_s,
        inter_token_p99_s=summary.inter_token_p99_s,
        first_token_s=summary.first_token_s,
        gain=estimate(tried.score / best.score) if best else None,
    )


def _beside(rule: str, placement: Placement | str, tried: list[Tried], best: Tried) -> Option:
    if isinstance(placement, str):
        return Option(name=rule, refused=placement)
    return _option(rule, next(option for option in tried if option.name == rule), best)


def _bound(base: Ground, objective: Objective) -> tuple[Estimate, str]:
    """The bound and what it bounds."""
    workload = base.scenario.workload
    # of the same short reply as what is simulated beside it
    short = replace(
        base,
        scenario=base.scenario.model_copy(
            update={
                "workload": workload.model_copy(
                    update={"output_tokens": min(workload.output_tokens, MOST_TOKENS)}
                )
            }
        ),
    )
    if objective == "first-token":
        return estimate(first_token_bound_s(short)), "seconds to the first token, at least"
    fills = fills_pipeline(base)
    at_once = base.engine.memory_chats(workload.concurrency)
    whose = "all chats together" if at_once > 1 else "one chat"
    return estimate(tokens_per_s_bound(short, at_once, fills_pipeline=fills)), f"tokens/s of {whose}, at most"
