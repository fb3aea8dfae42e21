"""plan: a scenario, a budget and a goal in; the Pareto front of price against tokens/s out, with reasons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from simulator.engine.base import engine, engines
from simulator.errors import PlacementError, SimulatorError
from simulator.hosts import one_processor_each
from simulator.plan.buy.cost import HOUR_S, MILLION, Usage, fixed_per_day, marginal_per_token
from simulator.plan.buy.mix import Mix, scenario_of
from simulator.plan.buy.money import Money, Quote
from simulator.plan.buy.options import ALLOWED, Shelf, shelf
from simulator.plan.buy.parts import Parts
from simulator.plan.buy.power import ClusterPower, power
from simulator.plan.buy.prices import PriceBook, PricesFile
from simulator.plan.buy.reasons import reasons
from simulator.plan.buy.search import EvaluatedMix, Search, expected_work, search
from simulator.result.estimate import Estimate, estimate, rounded
from simulator.result.summary import rates
from simulator.run.predict import Prediction, predict
from simulator.scenario import Scenario
from simulator.spec import Spec

__all__ = ["Plan", "PlanOption", "Planned", "plan"]

MATERIAL = 0.05
"""A dearer option is shown where it is at least 5 % faster than any cheaper one: nobody pays for less."""
MOST_REPLICATIONS = 200
MOST_TOKENS = 64
LIKELY = 0.9


class PlanOption(Spec):
    """One way to spend money, and what it gives; figures of one chat."""

    name: str
    model: str
    is_asked_model: bool
    price: float
    currency: str
    quotes: tuple[Quote, ...]
    actions: tuple[str, ...]
    placement: dict[str, int]
    tokens_per_s: Estimate
    goal_probability: float | None
    """Share of the worlds in which the goal is reached."""
    busy_w: float
    idle_w: float
    per_million: Estimate
    """Money per million tokens at full use: purchases written off, and electricity;
    what is owned counts nothing.
    """
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]


class Plan(Spec):
    """The answer: the front, cheapest first, the model as asked before lesser ones."""

    scenario: str
    budget: Money
    goal_tokens_per_s: float | None
    as_it_is: PlanOption | None
    """The scenario as written, its own placement included; None where it does not fit."""
    options: tuple[PlanOption, ...]
    answer: str
    considered: int
    pruned: int
    evaluated: int
    ceiling_tokens_per_s: float
    """What no mix with the model as asked can exceed in the median, were every link free."""
    is_complete: bool
    doubts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan and, in the order of its options, the scenarios that show them."""

    plan: Plan
    scenarios: tuple[Scenario, ...]


def plan(
    scenario: Scenario,
    budget: Money,
    goal_tokens_per_s: float | None = None,
    *,
    own: Sequence[str] | None = None,
    allow: Sequence[str] = ALLOWED,
    prices: PricesFile | None = None,
    usage: Usage | None = None,
    most_purchases: int = 2,
    begin: Callable[[int, float], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Planned:
    """What gets `scenario` nearest to the goal within the budget.

    `begin` hears beforehand how many sets of machines there are to look at, and about how many seconds that
    takes; what it raises ends the plan.

    Raises SimulatorError where a wish cannot be planned, PlacementError where nothing
    affordable holds the model.
    """
    _check(scenario)
    book = PriceBook(budget.currency, prices)
    options = shelf(scenario, book, budget.amount, own, allow)
    parts = Parts(scenario)
    if begin is not None:
        begin(*expected_work(options, parts, budget.amount, most_purchases))
    found = search(options, parts, budget.amount, most_purchases=most_purchases, progress=progress)
    if not found.front:
        raise PlacementError(
            f"no mix of devices within {budget.amount:,.10g} {budget.currency} holds {scenario.model.name}; "
            "allow more "
            f"(--allow {','.join(ALLOWED)}), raise the budget, or ask for fewer bits or a smaller model"
        )
    judge = _Judge(scenario, options, parts, goal_tokens_per_s, usage or Usage(), prices)
    # the search saw few worlds and tokens; what is shown is evaluated with the scenario's own
    judged = _front([judge.option(best, number) for number, best in enumerate(_material(found.front), 1)])
    as_it_is = judge.as_it_is(own)
    rows = tuple(option for option, _ in judged)
    result = Plan(
        scenario=scenario.name,
        budget=budget,
        goal_tokens_per_s=goal_tokens_per_s,
        as_it_is=as_it_is,
        options=rows,
        answer=_answer(rows, found, budget, goal_tokens_per_s, scenario),
        considered=found.considered,
        pruned=found.pruned,
        evaluated=found.evaluated,
        ceiling_tokens_per_s=rounded(found.ceiling),
        is_complete=found.is_complete,
        doubts=tuple(_doubts(book, found)),
    )
    return Planned(result, tuple(made for _, made in judged))


def _check(scenario: Scenario) -> None:
    one_processor_each(
        scenario, "`sim plan`", ", or compare what you would buy as scenarios of their own (`sim compare`)"
    )
    if scenario.placement.roles:
        raise SimulatorError("plan chooses the placement itself; remove placement.roles from the scenario")
    flow = engine(scenario.engine.name)
    if scenario.workload.concurrency > 1 and not flow.decodes_in_step:
        others = " or ".join(name for name, other in engines().items() if other.decodes_in_step)
        raise SimulatorError(
            f"plan looks at one chat with {flow.name}, whose chats queue for each other's devices; set "
            f"workload.concurrency to 1, or take engine {others}"
        )


def _material(front: Sequence[EvaluatedMix]) -> list[EvaluatedMix]:
    """The front without steps too small to notice: each at least 5 % faster than any
    cheaper one of its quality.
    """
    kept: list[EvaluatedMix] = []
    for best in front:
        least = best.tokens_per_s / (1 + MATERIAL)
        if not any(other.beats(best.mix.price, best.mix.choice.quality, least) for other in kept):
            kept.append(best)
    return sorted(kept, key=lambda best: (tuple(-q for q in best.mix.choice.quality), best.mix.price))


@dataclass(frozen=True, slots=True)
class _Judge:
    """Evaluates an option in full: the scenario's replications, its bottleneck, its watts."""

    scenario: Scenario
    shelf: Shelf
    parts: Parts
    goal: float | None
    usage: Usage
    prices: PricesFile | None

    def option(self, best: EvaluatedMix, number: int) -> tuple[PlanOption, Scenario]:
        mix = best.mix
        # short of the 60 characters of a name
        made = scenario_of(mix, self.scenario, f"{self.scenario.name[:50]}_{number}")
        prediction = _predict(made)
        why = reasons(mix, prediction.bottleneck, self.shelf, self.parts)
        return self._row(prediction, mix.choice.title, mix.choice.is_asked, mix, why), made

    def as_it_is(self, own: Sequence[str] | None) -> PlanOption | None:
        """The scenario as written; None where it does not fit, or where parts of
        it are still to be bought.
        """
        if own is not None and set(own) != set(self.scenario.devices):
            return None
        try:
            prediction = _predict(self.scenario)
        except PlacementError:
            return None
        # the first choice is the model as asked
        title = self.shelf.choices[0].title
        return self._row(prediction, title, True, None, (prediction.bottleneck.sentence,))

    def _row(
        self, prediction: Prediction, title: str, is_asked: bool, mix: Mix | None, why: tuple[str, ...]
    ) -> PlanOption:
        found = rates(prediction.times_s)
        watts = power(prediction, self.prices)
        layers = {shard.device: shard.layers for shard in prediction.prepared.job.shards}
        return PlanOption(
            name=prediction.scenario.name,
            model=title,
            is_asked_model=is_asked,
            price=round(mix.price, 2) if mix else 0.0,
            currency=self.shelf.book.currency,
            quotes=mix.quotes if mix else (),
            actions=mix.actions if mix else (),
            placement=layers,
            tokens_per_s=estimate(found, prediction.summary.tokens_per_s.label),
            goal_probability=None if self.goal is None else rounded(float(np.mean(found >= self.goal))),
            busy_w=rounded(watts.busy_w),
            idle_w=rounded(watts.idle_w),
            reasons=why,
            per_million=self._per_million(prediction, mix.price if mix else 0.0, watts),
            warnings=prediction.prepared.warnings,
        )

    def _per_million(self, prediction: Prediction, price: float, watts: ClusterPower) -> Estimate:
        """Of replies as long as the scenario's; the prediction's own may be shorter."""
        tokens = self.scenario.workload.output_tokens
        token_s = (prediction.times_s[:, 0].max(axis=0) + (tokens - 1) / rates(prediction.times_s)) / tokens
        token_s = token_s / self.scenario.workload.concurrency
        rate = self.shelf.book.electricity().amount
        fixed = fixed_per_day(price, watts.idle_w, rate, self.usage)
        most = self.usage.hours_per_day * HOUR_S / token_s
        return estimate(
            MILLION * (fixed / most + marginal_per_token(watts.busy_w, watts.idle_w, rate, token_s))
        )


def _predict(scenario: Scenario) -> Prediction:
    """The prediction without what-ifs; by recursion unless a radio dozes.

    Where the recursion is not exact otherwise, only the prompt is concerned, which tokens/s leaves out.
    """
    dozes = any(device.link.power_save for device in scenario.devices.values())
    return predict(_short(scenario), evaluator="auto" if dozes else "recursion", with_what_ifs=False)


def _short(scenario: Scenario) -> Scenario:
    """One run of at most 64 tokens in at most 200 worlds."""
    asked = scenario.workload
    workload = asked.model_copy(update={"runs": 1, "output_tokens": min(MOST_TOKENS, asked.output_tokens)})
    return scenario.model_copy(
        update={"workload": workload, "replications": min(MOST_REPLICATIONS, scenario.replications)}
    )


def _front(judged: list[tuple[PlanOption, Scenario]]) -> list[tuple[PlanOption, Scenario]]:
    """Without options that the full evaluation shows to be no faster than a cheaper one of the same model."""
    kept: list[tuple[PlanOption, Scenario]] = []
    for option, made in judged:
        same = [other for other, _ in kept if other.model == option.model]
        if all(option.tokens_per_s.median > other.tokens_per_s.median for other in same):
            kept.append((option, made))
    return kept


def _answer(
    rows: Sequence[PlanOption], found: Search, budget: Money, goal: float | None, scenario: Scenario
) -> str:
    """The answer in one or two sentences."""
    asked = [row for row in rows if row.is_asked_model]
    limit = f"{budget.amount:,.10g} {budget.currency}"
    if not asked:
        return f"{scenario.model.name} as asked fits on nothing within {limit}; " + _lesser(rows, goal)
    best = max(asked, key=lambda row: row.tokens_per_s.median)
    if goal is None:
        return f"the fastest within {limit}: {_how(best)}"
    reached = [row for row in asked if row.tokens_per_s.median >= goal]
    if not reached:
        return (
            f"nothing within {limit} is expected to reach {goal:g} tokens/s with {best.model}. "
            f"The fastest: {_how(best)}; "
            f"even with free links no mix would exceed {found.ceiling:.3g} tokens/s. " + _lesser(rows, goal)
        ).rstrip()
    cheapest = min(reached, key=lambda row: row.price)
    sentence = f"the cheapest that is expected to reach {goal:g} tokens/s: {_how(cheapest)}"
    sure = [row for row in asked if (row.goal_probability or 0) >= LIKELY]
    if sure and min(sure, key=lambda row: row.price) is not cheapest:
        sentence += f"; to be 90 % sure: {_how(min(sure, key=lambda row: row.price))}"
    return sentence


def _how(row: PlanOption) -> str:
    what = ", ".join(row.actions) or "only place the layers anew"
    chance = (
        "" if row.goal_probability is None else f" (goal reached in {row.goal_probability:.0%} of the worlds)"
    )
    return f"{what} for {row.price:.0f} {row.currency}: {row.tokens_per_s.text('tokens/s')}{chance}"


def _lesser(rows: Sequence[PlanOption], goal: float | None) -> str:
    """What a lesser model or fewer bits would do."""
    others = [
        row for row in rows if not row.is_asked_model and (goal is None or row.tokens_per_s.median >= goal)
    ]
    if not others:
        return ""
    return f"With another file: {_how(others[0])}"


def _doubts(book: PriceBook, found: Search) -> list[str]:
    doubts = [book.doubt()]
    if not found.is_complete:
        doubts.append(
            f"only the first {found.considered} mixes that fit were looked at, few purchases first; narrow "
            "with --allow"
        )
    doubts.append("quality of the answers is not modelled: fewer bits or a smaller model answer worse")
    return doubts
