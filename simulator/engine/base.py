"""Engine: everything that is an engine's own, and the registry that finds them.

An engine is one folder of this package (or one module elsewhere that calls `register`) with a
constant `ENGINE`; adding one touches nothing else. Whatever it does not offer is refused by its name,
never computed as another's.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Protocol

import simpy

from simulator.catalog.tables import pick
from simulator.engine.facts import EngineFacts, RecoveryFacts
from simulator.engine.form import PlacementForm
from simulator.errors import CatalogError, PlacementError, SimulatorError
from simulator.laws.law import Floats
from simulator.placement.rules import RULES, Rule
from simulator.placement.shard import Placement
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.mean_costs import MeanCosts
from simulator.runtime.portions import DivideHost
from simulator.runtime.record import Recorder
from simulator.runtime.ring_costs import RingCosts

__all__ = ["Engine", "MeanCostOf", "engine", "engines", "flows_of", "plugins", "register", "rules"]


class MeanCostOf(Protocol):
    """Mean seconds of one decode step, or with `prompt` from the request to the first token of one chat."""

    def __call__(self, costs: MeanCosts, *, prompt: bool) -> RingCosts: ...


@dataclass(frozen=True, slots=True)
class Engine:
    """How one token travels: who sends which bytes to whom, what waits for what, and what else it decides."""

    facts: EngineFacts
    """Costs, formats and platforms, from its data file."""
    token_times_s: Callable[[Job, Draws], Floats]
    """Token times (s after the request) of all rows at once, shape (streams, output tokens, rows)."""
    is_recursion_exact: Callable[[Job], bool]
    """Whether `token_times_s` gives the same times as SimPy for this job (no queueing feedback)."""
    start: Callable[[simpy.Environment, Job, Draws, Recorder], Any]
    """Start the SimPy processes of row 0."""
    chats: Callable[[Job], tuple[int, ...]]
    """How many chats each stream of tokens stands for (a batch decodes in step)."""
    embedding_on: Literal["all", "first"]
    """Which ranks hold the embedding."""
    head_on: Literal["all", "last", "first"]
    """Which ranks hold the output head."""
    own_rules: Mapping[str, Rule] = field(default_factory=dict)
    """Placement rules that are this engine's, by the names that scenarios use."""
    mean_costs: MeanCostOf | None = None
    """For the searches over placements and purchases; None where nobody has worked them out."""
    recovery: RecoveryFacts | None = None
    """How it gets over the loss of a device; None where that is not known."""
    serve: Callable[[simpy.Environment, Job, Draws, Recorder, Sequence[float]], Any] | None = None
    """Start the SimPy processes of row 0 for chats that arrive at these times (s); a
    token's session is its chat.

    No more than `workload.concurrency` chats are let in at once. None where it is not
    known how the engine does it.
    """
    form: Callable[[Placement], PlacementForm] | None = None
    """A placement in the engine's own words; None where nobody can tell it one."""
    decodes_in_step: bool = True
    """Whether chats decode as one batch; else each goes its own way, and they queue for devices."""
    overlaps_prompt_from_tokens: int | None = None
    """Prompts of at least so many tokens keep several stages busy at once; None: no prompt does."""
    steps_behind: int = 0
    """Decode steps before a first token that do not read the prompt: repeated ones, and those ahead of what
    is handed out. A prompt's rate, as benchmarks state it, is without them.
    """
    passes_in_flight: int = 0
    """How many of a prompt's passes begin before the one ahead of them has left the last stage."""
    waits_by_polling: bool = False
    """Whether a rank that waits for a message takes processor time (which matters
    where ranks share a machine).
    """
    divide_host: DivideHost | None = None
    """Who of a device's processors holds which of its layers; None where it does not divide them."""
    takes_one_processor: bool = False
    """Whether it then computes on the first card alone; if it neither does, such a device is refused."""
    splits_layers: bool = False
    """Whether each device of a placement holds a part of every layer (tensor parallelism)."""
    forms_swarm: bool = False
    """Whether its servers choose their layers themselves, come and go (`sim swarm`)."""
    client_is_first: bool = False
    """Whether the first device is the one that the chat runs on, so that no
    placement can begin with another.
    """

    @property
    def name(self) -> str:
        """The name that scenarios use."""
        return self.facts.name

    @property
    def software(self) -> str:
        """The name that its strategies have in common, under which it is calibrated."""
        return self.facts.software or self.facts.name

    @property
    def default_rule(self) -> str:
        """The placement rule that the engine uses when nobody chooses."""
        return self.facts.placement

    @property
    def clients_without_head(self) -> tuple[str, ...] | None:
        """Platforms of clients that leave the head to the last device; None where none decides it."""
        # of a device that is given by its speed alone nobody knows whether it has a card
        return (*self.facts.client_idles_on, "unknown") if self.facts.client_idles_on else None

    def memory_chats(self, concurrency: int) -> int:
        """Chats, of those that come together, whose KV caches are in memory at once; further ones wait."""
        return min(concurrency, self.facts.chats_at_once or concurrency)

    def mean_ring_costs(self, costs: MeanCosts, *, prompt: bool = False) -> RingCosts:
        """`mean_costs` of these parts; raises PlacementError where the engine has none."""
        if self.mean_costs is None:
            raise PlacementError(
                f"placements for engine {self.name!r} cannot be searched: its mean costs are not known; "
                f"compare some by hand with `sim compare`, or take {_offering('mean_costs')}"
            )
        return self.mean_costs(costs, prompt=prompt)

    def recovers(self) -> RecoveryFacts:
        """`recovery`; raises CatalogError where it is not known."""
        if self.recovery is None and self.forms_swarm:
            raise CatalogError(
                f"nobody places engine {self.name!r} anew after a loss: servers and clients see to it "
                "themselves; `sim swarm` plays that, with `swarm: {losses: ..}` in the scenario"
            )
        if self.recovery is None:
            raise CatalogError(
                f"how engine {self.name!r} gets over the loss of a device is not known; leave events out, "
                f"or take {_offering('recovery')}"
            )
        return self.recovery


def _offering(part: str) -> str:
    """The engines that have something another lacks, in words."""
    return "engine " + " or ".join(
        name for name, flow in engines().items() if getattr(flow, part) is not None
    )


_PLUGINS: dict[str, Engine] = {}


def register(flow: Engine) -> None:
    """Make an engine known that is no folder of this package.

    Raises SimulatorError where the name is taken. Its functions must be importable by name, as sweeps
    hand them to other processes.
    """
    # the same engine again is welcome: each process of a sweep registers what its parent had
    if engines().get(flow.name, flow) != flow:
        raise SimulatorError(f"an engine called {flow.name!r} is known already; give yours another name")
    _PLUGINS[flow.name] = flow


def plugins() -> tuple[Engine, ...]:
    """The registered engines, for processes that have to register them too."""
    return tuple(_PLUGINS.values())


@cache
def _shipped() -> dict[str, Engine]:
    # at the first question and not above: the engines import this module
    import simulator.engine as package

    found = (module.name for module in pkgutil.iter_modules(package.__path__) if module.ispkg)
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in found]
    # a folder may hold one flow for each strategy
    flows = [flow for module in modules for flow in getattr(module, "ENGINES", (module.ENGINE,))]
    return {flow.name: flow for flow in flows}


def engines() -> Mapping[str, Engine]:
    """All engines by name."""
    return _shipped() | _PLUGINS


def flows_of(software: str) -> tuple[Engine, ...]:
    """The engines that one software is: one for each strategy in which it divides a model."""
    return tuple(flow for flow in engines().values() if flow.software == software)


def engine(name: str) -> Engine:
    """The engine called `name`, or of which that is an alias; raises CatalogError for an unknown one."""
    found: Engine = pick(
        "engine", name, list(engines().values()), lambda flow: (flow.name, *flow.facts.aliases)
    )[0]
    return found


def rules() -> Mapping[str, Rule]:
    """All placement rules by name: the engines' and ours."""
    # ours last, so that no engine changes what speed, even or manual mean
    return {name: rule for flow in engines().values() for name, rule in flow.own_rules.items()} | dict(RULES)
