"""What could be changed: machines to buy, cables, access points, memory, quantisations and smaller models.

Nothing here is judged; the search does that. Each option knows its quotes and what it says to a person.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations

from simulator import catalog
from simulator.engine.base import engine
from simulator.errors import CatalogError, SimulatorError, did_you_mean
from simulator.plan.buy.money import Quote
from simulator.plan.buy.prices import PriceBook
from simulator.scenario import DeviceSpec, LinkSpec, ModelSpec, Scenario
from simulator.units import GIB

__all__ = ["ALLOWED", "Cable", "Member", "ModelChoice", "Shelf", "read_allowed", "shelf"]

CATEGORIES = {
    "macs": ("Mac",),
    "gpus": ("GPU desktop", "GPU laptop"),
    "minipcs": ("mini PC", "SBC"),
    "pcs": ("laptop", "CPU desktop"),
}
ALLOWED = (*CATEGORIES, "network", "memory", "quantisation", "model")
WIRED = "ethernet_1g"
WIFI = ("wifi24", "wifi5", "wifi6", "wifi6e", "wifi7")
"""Radios from old to new; a link is as new as the older of its two ends."""
ACCESS_POINTS = (("wifi6", "access_point_wifi6"), ("wifi7", "access_point_wifi7"))
SMALLEST_SHARE = 0.1
"""A model with less than a tenth of the weights is another question, not a way to answer this one."""


@dataclass(frozen=True, slots=True)
class Member:
    """A device in one of the states that money can put it in."""

    name: str
    state: str
    spec: DeviceSpec
    owned: bool
    quotes: tuple[Quote, ...] = ()
    words: tuple[str, ...] = ()
    """What to do, for a person."""

    @property
    def key(self) -> str:
        """Name of this device in this state."""
        return f"{self.name}|{self.state}"

    @property
    def price(self) -> float:
        """What the state costs, in the plan's currency."""
        return sum(quote.amount for quote in self.quotes)

    @property
    def radio(self) -> int | None:
        """How new its Wi-Fi link is, None where it has none."""
        name = self.network
        return WIFI.index(name) if name in WIFI else None

    @property
    def network(self) -> str | None:
        """The catalogue's name of its link; None where the scenario gives numbers only."""
        kind = self.spec.link.kind
        return _own_network(self.spec) if kind is None else _network(kind).name


@dataclass(frozen=True, slots=True)
class Cable:
    """A direct cable between two devices."""

    ends: tuple[str, str]
    network: str
    quote: Quote


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model in a quantisation; `quality` orders choices: more weights first, then more bits for each."""

    model: ModelSpec
    title: str
    quality: tuple[float, float]
    is_asked: bool


@dataclass(frozen=True, slots=True)
class Shelf:
    """All options of a plan."""

    scenario: Scenario
    owned: tuple[tuple[Member, ...], ...]
    """For each owned device its states without a change of network: as it is, with more memory."""
    offers: tuple[Member, ...]
    choices: tuple[ModelChoice, ...]
    book: PriceBook
    has_network: bool

    def wired(self, member: Member) -> Member | None:
        """The member on a cable to the router; None where it has one already."""
        if member.network is None or _network(member.network).medium != "wifi":
            return None
        ports = _facts(member.spec).network_ports if member.spec.kind else ""
        parts = ["ethernet_cable"] if "GbE" in ports else ["ethernet_adapter", "ethernet_cable"]
        quotes = tuple(self.book.accessory(part) for part in parts)
        link = LinkSpec(kind=WIRED, via=member.spec.link.via, vpn=member.spec.link.vpn)
        return replace(
            member,
            state=f"{member.state}+wired",
            spec=member.spec.model_copy(update={"link": link}),
            quotes=(*member.quotes, *quotes),
            words=(*member.words, f"wire {member.name}"),
        )

    def under(self, member: Member, network: str) -> Member:
        """The member at a newer access point: its link becomes as new as the older
        of its own radio and that.
        """
        radio = member.radio
        own = _own_network(member.spec)
        if radio is None or own not in WIFI:
            return member
        reachable = min(WIFI.index(own), WIFI.index(network))
        if reachable <= radio:
            return member
        link = LinkSpec(kind=WIFI[reachable], via=member.spec.link.via, vpn=member.spec.link.vpn)
        return replace(
            member, state=f"{member.state}+{network}", spec=member.spec.model_copy(update={"link": link})
        )

    def access_points(self, members: Sequence[Member]) -> Iterator[tuple[str, Quote]]:
        """Access points from which at least one of these devices gains."""
        gained: list[tuple[Member, ...]] = [tuple(members)]
        for network, part in ACCESS_POINTS:
            after = tuple(self.under(member, network) for member in members)
            if after not in gained:  # a dearer one that gives the same link is no option
                gained.append(after)
                yield network, self.book.accessory(part)

    def cables(self, members: Sequence[Member]) -> Iterator[tuple[Cable, ...]]:
        """Thunderbolt: each pair that has the ports, and all of them joined pair by pair."""
        known = {frozenset(wire.between) for wire in self.scenario.wires}
        able = [(member, port) for member in members if (port := self._thunderbolt(member)) is not None]
        pairs = [self._cable(a, b) for a, b in combinations(able, 2) if {a[0].name, b[0].name} not in known]
        yield from ((pair,) for pair in pairs)
        if len(pairs) > 1:
            yield tuple(pairs)

    def _thunderbolt(self, member: Member) -> int | None:
        """Place of the device's port in the data's list, newest first; None without one."""
        if member.spec.kind is None:
            return None
        facts = _facts(member.spec)
        words = f"{facts.network_ports} {facts.category}"
        rows = self.book.data.thunderbolt
        return next((place for place, row in enumerate(rows) if row.word in words), None)

    def _cable(self, a: tuple[Member, int], b: tuple[Member, int]) -> Cable:
        row = self.book.data.thunderbolt[max(a[1], b[1])]
        return Cable((a[0].name, b[0].name), row.network, self.book.accessory(row.cable))


def read_allowed(text: str | None) -> tuple[str, ...]:
    """The groups of options named in 'macs,network'; all of them for None. Raises
    SimulatorError for an unknown one.
    """
    if text is None:
        return ALLOWED
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in names:
        if name not in ALLOWED:
            raise SimulatorError(
                f"--allow {name!r} is unknown{did_you_mean(name, ALLOWED)}; groups are {', '.join(ALLOWED)}"
            )
    return names


def shelf(
    scenario: Scenario,
    book: PriceBook,
    budget: float,
    own: Sequence[str] | None = None,
    allow: Sequence[str] = ALLOWED,
) -> Shelf:
    """Everything that `budget` could change. Devices of the scenario that are not in
    `own` are candidates to buy.

    Raises SimulatorError for an owned device that is not there, CatalogError for one to buy without a price.
    """
    names = list(scenario.devices) if own is None else list(own)
    unknown = [name for name in names if name not in scenario.devices]
    if unknown:
        raise SimulatorError(
            f"--own {', '.join(unknown)}: no device of {scenario.name}"
            f"{did_you_mean(unknown[0], list(scenario.devices))}; "
            f"devices are {', '.join(scenario.devices)}"
        )
    mine = tuple(tuple(_states(name, scenario.devices[name], book, "memory" in allow)) for name in names)
    wanted = [_to_buy(name, spec, book) for name, spec in scenario.devices.items() if name not in names]
    offers = [*wanted, *_offers(scenario, book, allow)]
    affordable = tuple(offer for offer in offers if offer.price <= budget)
    return Shelf(scenario, mine, affordable, tuple(_choices(scenario, book, allow)), book, "network" in allow)


def _states(name: str, spec: DeviceSpec, book: PriceBook, with_memory: bool) -> Iterator[Member]:
    yield Member(name, "owned", spec, owned=True)
    if not with_memory or spec.kind is None:
        return
    facts = _facts(spec)
    for size in facts.memory_options_bytes:
        quote = book.new_memory(facts.name, size) if size > facts.snap(spec.memory) else None
        if quote is not None:
            words = (f"put {size / GIB:.0f} GB into {name}",)
            more = spec.model_copy(update={"memory": size, "usable_memory": None})
            yield Member(name, f"{size / GIB:.0f}gb", more, True, (quote,), words)


def _to_buy(name: str, spec: DeviceSpec, book: PriceBook) -> Member:
    """A device of the scenario that is not owned yet."""
    quote = book.device(_facts(spec)) if spec.kind else None
    if quote is None:
        raise CatalogError(
            f"{name} is not among --own, so it would have to be bought, and the catalogue knows no price of "
            f"{spec.kind or 'a device without a kind'}; own it, or give its price with --prices"
        )
    return Member(name, "bought", spec, False, (quote,), (f"buy {name} ({quote.what})",))


def _offers(scenario: Scenario, book: PriceBook, allow: Sequence[str]) -> Iterator[Member]:
    """Machines of the allowed categories on which the engine runs, in each memory option that has a price."""
    wanted = {category for group in allow for category in CATEGORIES.get(group, ())}
    software = engine(scenario.engine.name).facts
    for facts in catalog.devices():
        if facts.category not in wanted or facts.platform not in software.runs_on:
            continue
        for size in facts.memory_options_bytes:
            quote = book.device(facts.model_copy(update={"memory_bytes": size}))
            if quote is not None:
                name = _slug(f"{facts.name} {size / GIB:.0f}gb", scenario)
                spec = DeviceSpec(kind=facts.name, memory=f"{size:.0f} B")
                yield Member(name, "bought", spec, False, (quote,), (f"buy {quote.what}",))


def _slug(text: str, scenario: Scenario) -> str:
    """A device name that the scenario does not use yet."""
    # short of the 60 characters of a name, because a second one of the kind gets a number
    name = "_".join("".join(c if c.isalnum() else " " for c in text.lower()).split())[:50]
    while name in scenario.devices:
        name += "_new"
    return name


def _choices(scenario: Scenario, book: PriceBook, allow: Sequence[str]) -> Iterator[ModelChoice]:
    """The model as asked, in fewer bits, and smaller ones of its family; a model told
    by numbers has no others.
    """
    spec = scenario.model
    if spec.layers is not None or spec.gguf or spec.hf_config:
        yield ModelChoice(spec, spec.name, (1.0, 1.0), True)
        return
    file_format = engine(scenario.engine.name).facts.default_format
    asked = catalog.model(spec.name, spec.quantisation, None if spec.quantisation else file_format)
    yield _choice(asked, is_asked=True)
    ladders = book.data.quantisations
    # a file that only servers read comes in fewer bits as the engine's own
    fewer = asked.format if asked.format in ladders else file_format
    for quantisation in ladders[fewer] if "quantisation" in allow else ():
        other = catalog.model(spec.name, quantisation, fewer)
        if other.total_bytes < asked.total_bytes and other.quantisation != asked.quantisation:
            yield _choice(other)
    for shape in catalog.models() if "model" in allow else ():
        if shape.family == asked.family and SMALLEST_SHARE <= shape.params_total / asked.params_total < 0.95:
            yield _choice(catalog.model(shape.name, None, asked.format))


def _choice(facts: catalog.ModelFacts, *, is_asked: bool = False) -> ModelChoice:
    quality = (facts.params_total, facts.total_bytes / facts.params_total)
    return ModelChoice(
        ModelSpec(name=facts.name, quantisation=facts.quantisation),
        f"{facts.name} {facts.quantisation}",
        quality,
        is_asked,
    )


def _facts(spec: DeviceSpec) -> catalog.DeviceFacts:
    assert spec.kind is not None
    return _known(spec.kind, spec.memory)


# the catalogue reads names as people type them, which takes a millisecond; the search
# asks a hundred thousand times
_known = cache(catalog.device)
_network = cache(catalog.network)


def _own_network(spec: DeviceSpec) -> str | None:
    """The network that the catalogue gives the device."""
    return None if spec.kind is None else _network(_facts(spec).network).name
