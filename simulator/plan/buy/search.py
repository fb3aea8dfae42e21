"""The search: all mixes within the budget, bounded, the promising ones evaluated, the Pareto front kept.

A mix is dropped unevaluated only where an evaluated one is no dearer, runs no
lesser a model, and is already at least as fast as the mix could be with free
links (`Parts.ceiling`); so the front is that of evaluating everything.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, replace
from itertools import combinations, combinations_with_replacement, islice, product

import numpy as np

from simulator.plan.buy.mix import Mix
from simulator.plan.buy.money import Quote
from simulator.plan.buy.options import Cable, Member, ModelChoice, Shelf
from simulator.plan.buy.parts import Parts

__all__ = ["EvaluatedMix", "Search", "expected_work", "mixes", "search"]

MOST_WIRED_SUBSETS = 4
"""Up to so many wireless devices every subset is wired in turn; beyond: none, each alone, all."""
MOST_MIXES = 60_000
MOST_SETS = 200_000
"""Sets of machines that are looked at, whether the model fits on them or not: an hour at most."""
PILOTS = 8
EVALUATED = 0.1
"""Share of mixes that the bound does not rule out; 8 % for `plan_70b_at_home`."""
# half a cent: a sum of floats must not put a mix over its own budget
CENT = 0.005


@dataclass(frozen=True, slots=True)
class EvaluatedMix:
    """An evaluated mix: median tokens/s over the search's worlds."""

    mix: Mix
    tokens_per_s: float

    def beats(self, price: float, quality: tuple[float, float], tokens_per_s: float) -> bool:
        """Whether this one costs no more, runs no lesser a model and is no slower."""
        return (
            self.mix.price <= price + CENT
            and self.mix.choice.quality >= quality
            and self.tokens_per_s >= tokens_per_s
        )


@dataclass(frozen=True, slots=True)
class Search:
    """The front, cheapest first, and how it was found."""

    front: tuple[EvaluatedMix, ...]
    considered: int
    evaluated: int
    ceiling: float
    """No mix with the model as asked can exceed this many tokens/s in the median; 0 where none fits."""
    is_complete: bool

    @property
    def pruned(self) -> int:
        """Mixes that a bound ruled out."""
        return self.considered - self.evaluated


def search(
    shelf: Shelf,
    parts: Parts,
    budget: float,
    *,
    most_purchases: int = 2,
    prune: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Search:
    """The Pareto front of price, model and tokens/s over all mixes that cost at most `budget`."""
    found = list(islice(mixes(shelf, parts, budget, most_purchases), MOST_MIXES + 1))
    is_complete = len(found) <= MOST_MIXES and len(_sets(shelf, budget, most_purchases)) <= MOST_SETS
    found = found[:MOST_MIXES]
    bounds = [parts.ceiling(mix) for mix in found]
    # cheap and promising first, so that dear and slow ones need no evaluation
    turns = sorted(
        range(len(found)),
        key=lambda i: (
            found[i].price,
            tuple(-q for q in found[i].choice.quality),
            -bounds[i],
            # of equals first the one with less to do
            len(found[i].actions),
        ),
    )
    front: list[EvaluatedMix] = []
    evaluated = 0
    for done, i in enumerate(turns):
        if progress is not None and done % 100 == 0:
            progress(done, len(turns))
        price, quality = found[i].price, found[i].choice.quality
        if prune and any(best.beats(price, quality, bounds[i]) for best in front):
            continue
        evaluated += 1
        rate = float(np.median(parts.rates(found[i])))
        if any(best.beats(price, quality, rate) for best in front):
            continue
        better = EvaluatedMix(found[i], rate)
        front = [
            best
            for best in front
            if not better.beats(best.mix.price, best.mix.choice.quality, best.tokens_per_s)
        ]
        front.append(better)
    asked = [bound for mix, bound in zip(found, bounds, strict=True) if mix.choice.is_asked]
    front.sort(key=lambda best: (best.mix.price, best.tokens_per_s))
    return Search(tuple(front), len(found), evaluated, max(asked, default=0.0), is_complete)


def mixes(shelf: Shelf, parts: Parts, budget: float, most_purchases: int = 2) -> Iterator[Mix]:
    """Every mix that fits and costs at most `budget`, few purchases first, of the first `MOST_SETS` sets."""
    for members, left_out in _sets(shelf, budget, most_purchases)[:MOST_SETS]:
        yield from _mixes_of(shelf, parts, members, left_out, budget)


def expected_work(shelf: Shelf, parts: Parts, budget: float, most_purchases: int = 2) -> tuple[int, float]:
    """How many sets of machines `search` looks at, and about how many seconds it takes, by some of them."""
    sets = _sets(shelf, budget, most_purchases)[:MOST_SETS]
    # of all sizes, as what is met first are the smallest; every second one fills what later ones look up
    some = sets[:: max(1, len(sets) // (2 * PILOTS))]
    for members, left in some[::2]:
        list(_mixes_of(shelf, parts, members, left, budget))
    begun_s = time.perf_counter()
    fits = [mix for members, left in some[1::2] for mix in _mixes_of(shelf, parts, members, left, budget)]
    looked_s = (time.perf_counter() - begun_s) / max(1, len(some[1::2]))
    rated = fits[:: max(1, len(fits) // PILOTS)]
    for mix in rated:  # tables of the laws of all networks
        parts.rates(mix)
    begun_s = time.perf_counter()
    for mix in rated:
        parts.rates(mix)
    rated_s = (time.perf_counter() - begun_s) / max(1, len(rated))
    of_a_set = len(fits) / max(1, len(some[1::2]))
    looked = min(len(sets), round(MOST_MIXES / of_a_set)) if of_a_set else len(sets)
    return looked, looked * (looked_s + EVALUATED * of_a_set * rated_s)


def _sets(shelf: Shelf, budget: float, most: int) -> list[tuple[tuple[Member, ...], tuple[str, ...]]]:
    """The sets that are looked at, and one more where that is not all."""
    return list(islice(_member_sets(shelf, budget, most), MOST_SETS + 1))


def _mixes_of(
    shelf: Shelf, parts: Parts, members: tuple[Member, ...], left_out: tuple[str, ...], budget: float
) -> Iterator[Mix]:
    for choice in shelf.choices:
        if parts.mix(members, choice) is not None:
            yield from _with_network(shelf, parts, members, left_out, choice, budget)


def _member_sets(
    shelf: Shelf, budget: float, most: int
) -> Iterator[tuple[tuple[Member, ...], tuple[str, ...]]]:
    """What is bought, and which owned devices stay, each in one of its states."""
    names = [states[0].name for states in shelf.owned]
    for purchases in _purchases(shelf, most):
        if sum(member.price for member in purchases) > budget + CENT:
            continue
        for states in product(*[(*options, None) for options in shelf.owned]):
            kept = tuple(member for member in states if member is not None)
            members = (*kept, *purchases)
            if members and sum(member.price for member in members) <= budget + CENT:
                left = tuple(name for name, member in zip(names, states, strict=True) if member is None)
                yield members, left


def _purchases(shelf: Shelf, most: int) -> Iterator[tuple[Member, ...]]:
    taken = {member.name for states in shelf.owned for member in states}
    taken |= {offer.name for offer in shelf.offers}
    for count in range(most + 1):
        for offers in combinations_with_replacement(shelf.offers, count):
            yield _told_apart(offers, taken)


def _told_apart(offers: tuple[Member, ...], taken: Set[str]) -> tuple[Member, ...]:
    """The same machines; further ones of a kind get a name (`_2`, `_3`), and so luck, of their own."""
    named: dict[str, Member] = {}
    for offer in offers:
        name = offer.name
        if name in named:
            further = (f"{offer.name}_{number}" for number in itertools.count(2))
            name = next(name for name in further if name not in taken and name not in named)
        named[name] = replace(offer, name=name)
    return tuple(named.values())


def _with_network(
    shelf: Shelf,
    parts: Parts,
    members: tuple[Member, ...],
    left_out: tuple[str, ...],
    choice: ModelChoice,
    budget: float,
) -> Iterator[Mix]:
    """The members with every affordable change of the network between them."""
    alone = len(members) == 1 or not shelf.has_network
    cablings = [(), *([] if alone else shelf.cables(members))]
    for wired in [()] if alone else _wired_subsets(shelf, members):
        changed = tuple(_wired(shelf, member) if member.name in wired else member for member in members)
        for point in [None] if alone else [None, *shelf.access_points(changed)]:
            linked = changed if point is None else tuple(shelf.under(member, point[0]) for member in changed)
            shared = () if point is None else (point,)
            for cables in cablings:
                price = _price(linked, shared, cables)
                if price > budget + CENT or (wired and _is_moot(cables, wired)):
                    continue
                mix = parts.mix(linked, choice, cables, shared=shared, left_out=left_out)
                if mix is not None:
                    yield mix


def _price(
    members: tuple[Member, ...], shared: tuple[tuple[str, Quote], ...], cables: tuple[Cable, ...]
) -> float:
    return (
        sum(member.price for member in members)
        + sum(quote.amount for _, quote in shared)
        + sum(cable.quote.amount for cable in cables)
    )


def _is_moot(cables: tuple[Cable, ...], wired: tuple[str, ...]) -> bool:
    """Wiring both ends of a direct cable to the router as well buys nothing that the cable does not give."""
    return any(set(cable.ends) <= set(wired) for cable in cables)


def _wired_subsets(shelf: Shelf, members: tuple[Member, ...]) -> Iterator[tuple[str, ...]]:
    wireless = [member.name for member in members if shelf.wired(member) is not None]
    every = len(wireless) <= MOST_WIRED_SUBSETS
    for count in range(len(wireless) + 1):
        if every or count in (0, 1, len(wireless)):
            yield from combinations(wireless, count)


def _wired(shelf: Shelf, member: Member) -> Member:
    wired = shelf.wired(member)
    assert wired is not None, "only wireless devices are in a subset to wire"
    return wired
