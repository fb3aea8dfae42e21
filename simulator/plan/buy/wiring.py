"""wiring: the cables, cards and switches that tensor parallelism wants among machines, and what they give.

A full mesh of Thunderbolt cables for RDMA between Macs (as far as their ports go), one cable between two
machines with fast network ports, cards for those without, a switch for more of them: each is tried with the
strategies of the scenario's engine, on the same random numbers as the machines as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from simulator import catalog
from simulator.engine.base import engine, flows_of
from simulator.errors import PlacementError
from simulator.plan.buy.money import Money, Quote
from simulator.plan.buy.prices import PriceBook, PricesFile, TensorWiring
from simulator.plan.place.strategies import Strategy, strategies
from simulator.result.estimate import Estimate
from simulator.scenario import DeviceSpec, LinkSpec, Scenario, WireSpec
from simulator.spec import Spec

__all__ = ["Wiring", "tensor_plans", "wired"]


class Wiring(Spec):
    """One way to wire the devices for tensor parallelism."""

    words: str
    """What to do, for a person; empty for the machines as they are."""
    price: float
    """In the plan's currency."""
    currency: str
    quotes: tuple[Quote, ...]
    devices: tuple[str, ...]
    strategy: str
    """The best strategy that splits layers, with what carries its collectives."""
    tokens_per_s: Estimate
    first_token_s: Estimate
    scenario: Scenario


def tensor_plans(scenario: Scenario, budget: Money, prices: PricesFile | None = None) -> tuple[Wiring, ...]:
    """What tensor parallelism gives as the machines are, and with each wiring that the budget allows, the
    fastest first; nothing where the engine never splits layers.

    Raises what `prepare` raises.
    """
    if not any(flow.splits_layers for flow in flows_of(engine(scenario.engine.name).software)):
        return ()
    book = PriceBook(budget.currency, prices)
    tried = [_tried(scenario, (), "", book), *(_tried(*one, book) for one in wired(scenario, book))]
    found = [one for one in tried if one is not None and one.price <= budget.amount]
    return tuple(sorted(found, key=lambda one: -one.tokens_per_s.median))


def _tried(scenario: Scenario, quotes: tuple[Quote, ...], words: str, book: PriceBook) -> Wiring | None:
    try:
        ways = strategies(scenario)
    except PlacementError:
        return None
    best = _best_split(ways.ranking if ways else ())
    if best is None or best.tokens_per_s is None or best.first_token_s is None or best.scenario is None:
        return None
    return Wiring(
        words=words,
        price=sum(quote.amount for quote in quotes),
        currency=book.currency,
        quotes=quotes,
        devices=best.placement.devices if best.placement else (),
        strategy=best.name,
        tokens_per_s=best.tokens_per_s,
        first_token_s=best.first_token_s,
        scenario=best.scenario,
    )


def _best_split(ranking: Sequence[Strategy]) -> Strategy | None:
    split = (way for way in ranking if way.backend is not None and way.refused is None)
    return next(split, None)


def wired(scenario: Scenario, book: PriceBook) -> Iterator[tuple[Scenario, tuple[Quote, ...], str]]:
    """Every wiring of the data, for each number of devices that have what it needs."""
    for row in book.data.tensor:
        able = [name for name, spec in scenario.devices.items() if row.word in _words(spec)]
        able.sort(key=lambda name: -_bandwidth(scenario.devices[name]))
        for size in range(2, len(able) + 1):
            names = sorted(able[:size], key=list(scenario.devices).index)
            if row.switch is None and not _has_ports(scenario, row, names):
                continue
            if not _is_wired(scenario, row, names):
                yield _with(scenario, row, names, book)


def _with(
    scenario: Scenario, row: TensorWiring, names: list[str], book: PriceBook
) -> tuple[Scenario, tuple[Quote, ...], str]:
    pairs = list(combinations(names, 2))
    is_mesh = row.switch is None or len(pairs) == 1
    parts = [row.cable] * (len(pairs) if is_mesh else len(names))
    parts += [row.card] * len(names) if row.card else []
    parts += [] if is_mesh or row.switch is None else [row.switch]
    quotes = tuple(book.accessory(part) for part in parts)
    each = {quote.what: sum(one.what == quote.what for one in quotes) for quote in quotes}
    bought = ", ".join(f"{count} x {what}" for what, count in each.items())
    words = f"join {' and '.join(names)} {'each to each' if is_mesh else 'by a switch'} ({bought})"
    joined = {frozenset(pair) for pair in pairs}
    wires = [wire for wire in scenario.wires if frozenset(wire.between) not in joined]
    devices = dict(scenario.devices)
    if is_mesh:
        wires += [WireSpec(between=pair, kind=row.network) for pair in pairs]
    else:
        link = LinkSpec(kind=row.network)
        devices |= {name: devices[name].model_copy(update={"link": link}) for name in names}
    changes = {"wires": tuple(wires), "devices": devices}
    return scenario.model_copy(update=changes), quotes, words


def _is_wired(scenario: Scenario, row: TensorWiring, names: list[str]) -> bool:
    """Whether they are joined like this already."""
    wired = {frozenset(wire.between) for wire in scenario.wires if wire.kind == row.network}
    by_links = all(scenario.devices[name].link.kind == row.network for name in names)
    return by_links or all(frozenset(pair) in wired for pair in combinations(names, 2))


def _has_ports(scenario: Scenario, row: TensorWiring, names: list[str]) -> bool:
    """Whether each has a port for each other one."""
    if row.most is not None:
        return len(names) <= row.most
    for name in names:
        kind = scenario.devices[name].kind
        ports = catalog.thunderbolt_ports(kind) if kind else None
        if ports is not None and ports < len(names) - 1:
            return False
    return True


def _words(spec: DeviceSpec) -> str:
    if spec.kind is None:
        return ""
    facts = catalog.device(spec.kind, spec.memory)
    return f"{facts.name}; {facts.network_ports}"


def _bandwidth(spec: DeviceSpec) -> float:
    return catalog.device(spec.kind, spec.memory).memory_bytes_per_s if spec.kind else 0.0
