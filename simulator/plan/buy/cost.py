"""Cost per million tokens of a cluster, and the tokens per day from which it beats a cloud API.

A cluster costs a fixed sum per day (depreciation, and idle watts while it is switched on) and something per
token (the watts of work on top). An API costs per token alone. So they meet at `fixed / (api - marginal)`
tokens a day, if the cluster can make as many, and never where its electricity alone costs more than the API.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from simulator import catalog
from simulator.errors import CatalogError
from simulator.laws.law import Floats
from simulator.plan.buy.money import Money, Quote
from simulator.plan.buy.power import ClusterPower, power
from simulator.plan.buy.prices import PriceBook
from simulator.result.estimate import Estimate, estimate, rounded
from simulator.run.predict import Prediction, predict
from simulator.scenario import Scenario
from simulator.spec import Spec

__all__ = [
    "CloudRow",
    "Cost",
    "Usage",
    "break_even_per_day",
    "cluster_cost",
    "fixed_per_day",
    "marginal_per_token",
]

DAYS_PER_YEAR = 365.25
MILLION = 1e6
HOUR_S = 3600.0


class Usage(Spec):
    """How the cluster is used: switched on for so many hours a day, written off over so many years."""

    hours_per_day: float = Field(default=8.0, gt=0, le=24)
    years: float = Field(default=4.0, gt=0, le=50)


class CloudRow(Spec):
    """One API against the cluster; prices per million tokens of reply, the prompts before them included."""

    provider: str
    model: str
    per_million: float
    break_even_per_day: float | None
    """Tokens of reply per day; None where the cluster never breaks even."""
    share_of_worlds: float
    """How sure: the share of the worlds in which some number of tokens per day breaks even."""
    why_never: str
    as_of: str
    source: str
    label: str


class Cost(Spec):
    """What a cluster's tokens cost; money in `currency`."""

    scenario: str
    model: str
    currency: str
    usage: Usage
    devices: tuple[Quote, ...]
    price: float
    power: ClusterPower
    electricity: Quote
    tokens_per_s: Estimate
    seconds_per_token: Estimate
    """Of a reply with its prompt, over the chats that run together."""
    most_per_day: Estimate
    """Tokens of reply in the hours that it is on."""
    fixed_per_day: float
    electricity_per_million: Estimate
    """Of the work alone, idle watts apart."""
    per_million: Estimate
    """All included, at full use of its hours."""
    cloud: tuple[CloudRow, ...]
    doubts: tuple[str, ...]


def fixed_per_day(price: float, idle_w: float, per_joule: float, usage: Usage) -> float:
    """Money per day that no token changes: `price / (years * 365.25) + idle_w * hours * 3600 * per_joule`."""
    return price / (usage.years * DAYS_PER_YEAR) + idle_w * usage.hours_per_day * HOUR_S * per_joule


def marginal_per_token(busy_w: float, idle_w: float, per_joule: float, token_s: Floats) -> Floats:
    """Money for one more token: `(busy_w - idle_w) * token_s * per_joule`."""
    return np.asarray((busy_w - idle_w) * per_joule * token_s)


def break_even_per_day(fixed: float, marginal: Floats, api_per_token: float, most_per_day: Floats) -> Floats:
    """Tokens per day at which the cluster costs as much as the API; infinite where it never does.

    `fixed / (api - marginal)` where that is positive and no more than the cluster can make in a day.
    """
    saved = api_per_token - marginal
    with np.errstate(divide="ignore"):
        # both branches of `where` are computed, so the division must be harmless in either
        tokens = np.where(saved > 0, fixed / np.where(saved > 0, saved, 1.0), np.inf)
    return np.where(tokens <= most_per_day, tokens, np.inf)


def cluster_cost(
    scenario: Scenario,
    book: PriceBook,
    usage: Usage | None = None,
    *,
    own: Sequence[str] = (),
    electricity: str | None = None,
    prediction: Prediction | None = None,
    price: float | None = None,
) -> Cost:
    """The cost of a scenario's tokens.

    Devices named in `own` are paid already and count nothing; `price` replaces the sum of all.
    Raises CatalogError for a device without a price, and whatever `predict` raises.
    """
    usage = usage or Usage()
    result = prediction or predict(scenario, with_what_ifs=False)
    quotes = () if price is not None else tuple(_quotes(result, book, own))
    total = price if price is not None else sum(quote.amount for quote in quotes)
    rate, watts = book.electricity(electricity), power(result, book.own)
    token_s = _seconds_per_token(result)
    most = usage.hours_per_day * HOUR_S / token_s
    fixed = fixed_per_day(total, watts.idle_w, rate.amount, usage)
    marginal = marginal_per_token(watts.busy_w, watts.idle_w, rate.amount, token_s)
    sums = _Sums(fixed, marginal, most, usage)
    return Cost(
        scenario=scenario.name,
        model=f"{result.scenario.model.name} {result.scenario.model.quantisation or ''}".strip(),
        currency=book.currency,
        usage=usage,
        devices=quotes,
        price=rounded(total),
        power=watts,
        electricity=rate,
        tokens_per_s=result.summary.tokens_per_s,
        seconds_per_token=estimate(token_s),
        most_per_day=estimate(most),
        fixed_per_day=rounded(fixed),
        electricity_per_million=estimate(MILLION * marginal),
        per_million=estimate(MILLION * (fixed / most + marginal)),
        cloud=tuple(_cloud(result.scenario, book, sums)),
        doubts=tuple(_doubts(book, watts)),
    )


def _seconds_per_token(result: Prediction) -> Floats:
    """Wall seconds per token of reply in each row, the reading of the prompts included."""
    # all chats of a run together: the machine is paid until the last of them has ended
    last_s = result.times_s[:, -1].max(axis=0)
    tokens = result.times_s.shape[1] * sum(result.prepared.engine.chats(result.prepared.job))
    return np.asarray(last_s / tokens)


def _quotes(result: Prediction, book: PriceBook, own: Sequence[str]) -> list[Quote]:
    unknown = [name for name in own if name not in result.scenario.devices]
    if unknown:
        raise CatalogError(
            f"--own {', '.join(unknown)}: no such device; devices are {', '.join(result.scenario.devices)}"
        )
    quotes = []
    for device in result.prepared.job.ring:
        if device.name in own:
            quotes.append(Quote(what=f"{device.name} (owned)", amount=0.0, label="owned"))
            continue
        is_known = device.kind != "unknown" and not device.processors
        facts = catalog.device(device.kind, device.memory_bytes) if is_known else None
        if facts is None:
            raise CatalogError(
                f"{device.name}: nobody sells {device.kind} as one thing with a price; say that you own it "
                f"(--own {device.name}), or give the price of all (--prices)"
            )
        quote = book.device(facts)
        if quote is None:
            raise CatalogError(
                f"{device.name}: the catalogue knows no price of {device.kind}; give it with --prices "
                f"(devices: '{device.kind}': 400 EUR), or say that you own it: --own {device.name}"
            )
        quotes.append(quote)
    return quotes


@dataclass(frozen=True, slots=True)
class _Sums:
    """A cluster's money: fixed per day, marginal per token, and how many tokens a
    day has; arrays over rows.
    """

    fixed: float
    marginal: Floats
    most: Floats
    usage: Usage

    def row(
        self, provider: str, model: str, per_token: float, as_of: str, source: str, label: str
    ) -> CloudRow:
        tokens = break_even_per_day(self.fixed, self.marginal, per_token, self.most)
        middle = float(np.median(tokens))
        return CloudRow(
            provider=provider,
            model=model,
            per_million=rounded(MILLION * per_token),
            as_of=as_of,
            source=source,
            label=label,
            break_even_per_day=rounded(middle) if np.isfinite(middle) else None,
            share_of_worlds=rounded(float(np.mean(np.isfinite(tokens)))),
            why_never="" if np.isfinite(middle) else self._why_never(per_token),
        )

    def _why_never(self, per_token: float) -> str:
        work = float(np.median(self.marginal))
        if work >= per_token:
            return "electricity for the work alone costs more"
        needed, most = self.fixed / (per_token - work), float(np.median(self.most))
        return f"needs {needed:,.0f} tokens a day and makes {most:,.0f} in {self.usage.hours_per_day:g} hours"


def _cloud(scenario: Scenario, book: PriceBook, sums: _Sums) -> list[CloudRow]:
    """The APIs that serve the scenario's model, the user's own prices among them, the cheapest first."""
    # an API charges the prompt as well; here it is in the seconds of a token of reply
    prompt = scenario.workload.prompt_tokens / scenario.workload.output_tokens
    rows = [
        sums.row(
            name,
            scenario.model.name,
            (book.convert(own.output) + prompt * book.convert(own.input)) / MILLION,
            "yours",
            "your price file",
            "yours",
        )
        for name, own in book.own.cloud.items()
    ]
    names = _names(scenario.model.name)
    for price in catalog.cloud_prices():
        if price.model in names:
            per_token = price.output_usd_per_token + prompt * price.input_usd_per_token
            # list prices of APIs have no tax either, and a private buyer pays it
            taxed = book.taxed(Money(amount=MILLION * per_token, currency="USD")) / MILLION
            rows.append(
                sums.row(price.provider, price.model, taxed, price.as_of, price.source, price.confidence)
            )
    return sorted(rows, key=lambda row: row.per_million)


def _names(model: str) -> set[str]:
    try:
        facts = catalog.model(model)
    except CatalogError:
        return {model}
    return {facts.name, *facts.aliases}


def _doubts(book: PriceBook, watts: ClusterPower) -> list[str]:
    doubts = [book.doubt()]
    guessed = [device.device for device in watts.devices if device.label == "assumed"]
    if guessed:
        doubts.append(
            f"watts of {', '.join(guessed)} are assumed from machines of their kind; measure them at the wall"
        )
    doubts.append(
        "one device works at a time, the others idle; hours switched off cost nothing; room, time, and what "
        "else a machine is good for are left out; APIs run the model at 8 or 16 bits as a rule"
    )
    return doubts
