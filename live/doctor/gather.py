"""Collect once what the checks look at: the discovery, the devices' own facts, the
routes, the model's size.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from live.agent.facts import AgentFacts, collect
from live.agent.pairing import WireError, check_token
from live.agent.peers import Address, ask_all, read_address
from live.agent.wire import DEFAULT_PORT
from live.discover import Discovery, Options, discover
from live.discover.get import Answer, get
from live.discover.hosts import Probe
from live.exo.casing import snake
from live.number import finite
from simulator.errors import CatalogError, LiveError

__all__ = ["Need", "Surroundings", "gather", "model_need", "route_interface"]

MIB = 2.0**20


@dataclass(frozen=True, slots=True)
class Need:
    """How much memory (bytes) a model takes, and who says so; None when nobody knows the model."""

    model: str
    total_bytes: float | None
    source: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Everything that the checks may look at; `facts` begins with this machine."""

    discovery: Discovery
    facts: tuple[AgentFacts, ...]
    named: tuple[tuple[str, int], ...] = ()
    agents: tuple[Address, ...] = ()
    silent_agents: tuple[tuple[Address, str], ...] = ()
    """named agents that gave no facts, and why"""
    unasked: str = ""
    """why no agent could be asked at all"""
    routes: tuple[tuple[str, str], ...] = ()
    """(address, own interface that leads there)"""
    need: Need | None = None

    @property
    def answering_agents(self) -> tuple[Address, ...]:
        """The named agents that gave their facts."""
        silent = {address for address, _ in self.silent_agents}
        return () if self.unasked else tuple(address for address in self.agents if address not in silent)


def route_interface(address: str, facts: AgentFacts) -> str:
    """The own interface that packets to `address` leave by, empty where that
    cannot be told; sends nothing.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))  # connecting a datagram socket only asks the routing table
            own = probe.getsockname()[0].partition("%")[0]
    except OSError:
        return ""
    return next((name for name, mine, _ in facts.addresses if mine == own), "")


def model_need(model: str, probes: Sequence[Probe], get: Callable[[str, int, str], Answer] = get) -> Need:
    """The size of `model`: as a running EXO lists it, which is what EXO itself
    compares, else by the catalogue.
    """
    for probe in probes:
        if probe.outcome != "exo":
            continue
        try:
            answer = snake(get(probe.host, probe.port, "/models").json())
        except LiveError:
            continue
        listed = answer.get("data") if isinstance(answer, dict) else None
        for card in listed if isinstance(listed, list) else []:
            if not isinstance(card, dict):
                continue
            size = finite(card.get("storage_size_megabytes"))
            names = {str(card.get(key)).lower() for key in ("id", "name", "base_model")}
            if model.lower() in names and size and size > 0:
                return Need(model, size * MIB, f"EXO at {probe.where}")
    try:
        from simulator.catalog import model as catalogue_model

        facts = catalogue_model(model)
    except CatalogError as error:
        return Need(model, None, str(error))
    return Need(model, facts.total_bytes, f"catalogue ({facts.quantisation}, {facts.format})")


def _token_fault(token: str) -> str:
    try:
        check_token(token)
    except WireError as error:
        return str(error)
    return ""


def gather(
    options: Options,
    agents: Sequence[Address] = (),
    token: str = "",
    model: str = "",
    look: Callable[[Options], Discovery] = discover,
    own: Callable[[], AgentFacts] = collect,
) -> Surroundings:
    """Look around; agents that do not answer become a finding, not an error."""
    discovery = look(options)
    here = own()
    facts: list[AgentFacts] = [here]
    silent: list[tuple[Address, str]] = []
    unasked = _token_fault(token) if agents else ""
    if token and not _token_fault(token):
        # an agent that announces itself needs no --agents: the token says that it is ours
        heard = (read_address(row.agent, DEFAULT_PORT) for row in discovery.announced.agents)
        agents = tuple(dict.fromkeys((*agents, *heard)))
    told = () if unasked or not agents else ask_all(agents, token)
    for address, answer in zip(agents, told, strict=False):
        if isinstance(answer, LiveError):
            silent.append((address, str(answer)))
        else:
            facts.append(answer)
    targets = [probe.host for probe in discovery.probes if probe.found] + [address for address, _ in agents]
    # IPv4 only, and not endless: each costs a look into the routing table
    targets += [address for found in discovery.found for address in found.addresses if ":" not in address][
        :32
    ]
    routes = [
        (target, route_interface(target, here)) for target in dict.fromkeys(targets) if target[:1].isdigit()
    ]
    return Surroundings(
        discovery=discovery,
        facts=tuple(facts),
        named=options.hosts,
        agents=tuple(agents),
        silent_agents=tuple(silent),
        unasked=unasked,
        routes=tuple(routes),
        need=model_need(model, discovery.probes) if model else None,
    )
