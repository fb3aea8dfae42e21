"""What things cost: the catalogue's prices, the small parts it lacks, and the user's own file on top.

Catalogue prices are US list prices without tax; `PriceBook` turns them into the
plan's currency, tax included.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from simulator import catalog
from simulator.errors import CatalogError, Fault, ScenarioError, did_you_mean
from simulator.files import load
from simulator.own import own_files
from simulator.plan.buy.money import Money, Price, Quote, per_joule, read_money
from simulator.spec import Spec
from simulator.units import GIB, Share, Watts

__all__ = ["PriceBook", "PriceData", "PricesFile", "TensorWiring", "WattsRow", "own_prices", "price_data"]

DATA = Path(__file__).parent / "data" / "prices.yaml"
EnergyPrice = Annotated[Money, BeforeValidator(lambda value: read_money(value, energy=True))]
_MEMORY = re.compile(r"(.*\S)\s+(\d{1,5})\s*Gi?B\Z")
_DATE = re.compile(r"20\d\d(?:-\d\d){0,2}")


class _Sourced(Spec):
    source: str
    confidence: str
    as_of: str = "undated"


class _Currency(_Sourced):
    per_usd: float = Field(gt=0)
    tax: Share
    region: str


class _Accessory(_Sourced):
    what: str
    price: Price


class _MemoryStep(_Sourced):
    word: str
    per_gib: Price


class _Socketed(_Sourced):
    device: str
    per_gib: Price


class _Thunderbolt(Spec):
    word: str
    network: str
    cable: str


class TensorWiring(Spec):
    """What joins machines for tensor parallelism whose name or ports hold `word`."""

    word: str
    network: str
    cable: str
    card: str | None = None
    """For each machine."""
    switch: str | None = None
    """For more than two."""
    most: int | None = None
    """Machines that can be joined without one; none: as many as they have Thunderbolt ports for."""


class WattsRow(_Sourced):
    """Power at the wall of devices whose name or category holds `word`."""

    word: str
    idle: Watts
    load: Watts


class PriceData(Spec):
    """The content of `data/prices.yaml`."""

    currencies: dict[str, _Currency]
    accessories: dict[str, _Accessory]
    memory: tuple[_MemoryStep, ...]
    socketed: tuple[_Socketed, ...]
    thunderbolt: tuple[_Thunderbolt, ...]
    tensor: tuple[TensorWiring, ...]
    quantisations: dict[str, tuple[str, ...]]
    watts: tuple[WattsRow, ...]


@cache
def price_data() -> PriceData:
    """The planner's own price data, read once."""
    return load(DATA, PriceData)


class _OwnCloud(Spec):
    """A provider's price per million tokens."""

    input: Price
    output: Price


class _OwnWatts(Spec):
    idle: Watts
    load: Watts


class PricesFile(Spec):
    """What a user knows better: every entry replaces the catalogue's and is taken
    as it stands, tax included.
    """

    devices: dict[str, Price] = Field(default_factory=dict, description="'Mac mini M4 24 GB': 799 EUR")
    accessories: dict[str, Price] = Field(default_factory=dict)
    electricity: EnergyPrice | None = None
    cloud: dict[str, _OwnCloud] = Field(
        default_factory=dict, description="per million tokens of the scenario's model"
    )
    watts: dict[str, _OwnWatts] = Field(
        default_factory=dict, description="by device of the scenario, or of the catalogue"
    )
    usd_per_eur: float | None = Field(default=None, gt=0.1, lt=10)
    usd_per_gbp: float | None = Field(default=None, gt=0.1, lt=10)
    tax: Share | None = Field(default=None, description="what shops add to the catalogue's US list prices")

    @model_validator(mode="after")
    def _names_are_known(self) -> PricesFile:
        faults = list(self._faults())
        if faults:
            raise ScenarioError("", faults)
        return self

    def _faults(self) -> Iterator[Fault]:
        for name in self.devices:
            try:
                variant(name)
            except CatalogError as error:
                yield Fault(f"devices.{name}", str(error))
        known = list(price_data().accessories)
        for name in set(self.accessories) - set(known):
            near = did_you_mean(name, known)
            yield Fault(f"accessories.{name}", f"{name!r} is no part; parts are {', '.join(known)}{near}")


class _InCatalogue(Spec):
    """A file of the user's own catalogue, of which only the prices are read."""

    model_config = ConfigDict(extra="ignore")
    prices: PricesFile = PricesFile()

    @field_validator("prices", mode="wrap")
    @classmethod
    def _faults_lie_deeper(cls, value: Any, check: ValidatorFunctionWrapHandler) -> PricesFile:
        """Say `prices.devices.x` of what a file of prices alone would call `devices.x`."""
        try:
            checked: PricesFile = check(value)
        except ScenarioError as error:
            deeper = [Fault(f"prices.{fault.path}", fault.reason) for fault in error.faults]
            raise ScenarioError("", deeper) from None
        return checked


def own_prices() -> PricesFile | None:
    """The prices of the user's own catalogue, a later file's before an earlier one's; None without any.

    Raises ScenarioError with every fault of a file.
    """
    found = [load(file, _InCatalogue).prices for file in own_files()]
    told: dict[str, Any] = {}
    for prices in found:
        for key in prices.model_fields_set:
            value = getattr(prices, key)
            told[key] = {**told.get(key, {}), **value} if isinstance(value, dict) else value
    return PricesFile().model_copy(update=told) if told else None


def variant(text: str) -> tuple[str, float | None]:
    """Catalogue name and memory (bytes) that a price is for: 'Mac mini M4 24 GB'; raises CatalogError."""
    try:
        return catalog.device(text).name, None
    except CatalogError:
        match = _MEMORY.match(text)
        if match is None:
            raise
        facts = catalog.device(match[1], int(match[2]) * GIB)
        return facts.name, facts.memory_bytes


class PriceBook:
    """Prices in one currency: the user's where given, else the catalogue's with conversion and tax."""

    def __init__(self, currency: str, own: PricesFile | None = None) -> None:
        """`currency` is EUR, GBP or USD."""
        self.currency, self.own, self.data = currency, own or PricesFile(), price_data()
        self.facts = self.data.currencies[currency]
        self.tax = self.facts.tax if self.own.tax is None else self.own.tax
        self._variants = {variant(name): price for name, price in self.own.devices.items()}

    def convert(self, money: Money) -> float:
        """The amount in this book's currency, no tax added."""
        return money.amount * self._per_usd(self.currency) / self._per_usd(money.currency)

    def taxed(self, money: Money) -> float:
        """A US list price as a private buyer pays it here: converted, times 1 + tax."""
        return self.convert(money) * (1 + self.tax)

    def usd(self, amount: float) -> float:
        """US dollars as a private buyer pays them here."""
        return self.taxed(Money(amount=amount, currency="USD"))

    def _per_usd(self, currency: str) -> float:
        rate = {"EUR": self.own.usd_per_eur, "GBP": self.own.usd_per_gbp}.get(currency)
        return 1 / rate if rate else self.data.currencies[currency].per_usd

    def device(self, facts: catalog.DeviceFacts) -> Quote | None:
        """The machine with its memory; None where nobody states a price.

        `price = list price of the smallest option + price per GiB * GiB above it (+ a host
        for a bare graphics card)`.
        """
        what = (
            f"{facts.name} {facts.memory_bytes / GIB:.0f} GB"
            if len(facts.memory_options_bytes) > 1
            else facts.name
        )
        # a price for just this memory before one for any
        own = self._variants.get((facts.name, facts.memory_bytes)) or self._variants.get((facts.name, None))
        if own is not None:
            return Quote(
                what=what, amount=self.convert(own), label="yours", source="your price file", as_of="yours"
            )
        if facts.price_usd is None:
            return None
        found = _DATE.search(facts.source)
        total, sure = (
            self.usd(facts.price_usd),
            facts.confidence.startswith("exact") and "price_usd" not in facts.from_memory_fields,
        )
        extra_gib = (facts.memory_bytes - facts.memory_options_bytes[0]) / GIB
        if extra_gib > 0:
            step = self._memory_step(facts)
            if step is None:
                return None
            total, sure = total + self.taxed(step.per_gib) * extra_gib, False
        if facts.category == "GPU desktop":
            total, sure, what = (
                total + self.accessory("desktop_host").amount,
                False,
                f"{what} (card and host)",
            )
        return Quote(
            what=what,
            amount=total,
            label="catalogue" if sure else "assumed",
            source=facts.source,
            as_of=found[0] if found else "undated",
        )

    def _memory_step(self, facts: catalog.DeviceFacts) -> _MemoryStep | None:
        by_chip = [step for step in self.data.memory if step.word in facts.chip]
        by_name = [step for step in self.data.memory if step.word in facts.name]
        return next(iter(by_chip + by_name), None)

    def accessory(self, key: str) -> Quote:
        """A small part of `data/prices.yaml`."""
        part = self.data.accessories[key]
        own = self.own.accessories.get(key)
        if own is not None:
            return Quote(
                what=part.what,
                amount=self.convert(own),
                label="yours",
                source="your price file",
                as_of="yours",
            )
        return Quote(
            what=part.what,
            amount=self.taxed(part.price),
            label="assumed",
            source=part.source,
            as_of=part.as_of,
        )

    def new_memory(self, kind: str, memory_bytes: float) -> Quote | None:
        """A new set of modules for a device whose memory sits in sockets; None for any other."""
        row = next((row for row in self.data.socketed if row.device == kind), None)
        if row is None:
            return None
        gib = memory_bytes / GIB
        return Quote(
            what=f"{gib:.0f} GB of memory modules",
            amount=self.taxed(row.per_gib) * gib,
            label="assumed",
            source=row.source,
            as_of=row.as_of,
        )

    def electricity(self, choice: str | None = None) -> Quote:
        """Price of a joule: '0.30 EUR/kWh', a region of the catalogue, the user's file,
        or the currency's region.
        """
        if choice is not None and any(character.isdigit() for character in choice):
            return self._own_electricity(read_money(choice, energy=True))
        if choice is None and self.own.electricity is not None:
            return self._own_electricity(self.own.electricity)
        regions = {row.region: row for row in catalog.electricity_prices()}
        name = choice or self.facts.region
        if name not in regions:
            near = did_you_mean(name, list(regions))
            raise CatalogError(
                f"electricity region {name!r} is unknown{near}; regions are {', '.join(regions)}, or give "
                "a price: '0.30 EUR/kWh'"
            )
        row = regions[name]
        amount = self.convert(Money.model_validate({"amount": row.price_per_kwh, "currency": row.currency}))
        return Quote(
            what=f"electricity, {row.region}",
            amount=per_joule(amount),
            label="catalogue",
            source=row.source,
            as_of=row.period,
        )

    def _own_electricity(self, price: Money) -> Quote:
        return Quote(what="electricity", amount=per_joule(self.convert(price)), label="yours", as_of="yours")

    def doubt(self) -> str:
        """What a reader must know about every price that comes from the catalogue."""
        if self.currency == "USD" and self.tax == 0:
            return (
                "prices are US list prices without sales tax; shops, used machines and dates differ "
                "(--prices FILE)"
            )
        usd = 1 / self._per_usd(self.currency)
        return (
            f"prices are US list prices turned into {self.currency} at {usd:.3g} USD per {self.currency} "
            f"({self.facts.as_of}, assumed) plus {self.tax:.0%} tax; shops, used machines and dates differ "
            "(--prices FILE)"
        )
