"""Engine: what every engine module offers, and the registry that finds them.

An engine is one module of this package with a constant `ENGINE`; adding one touches no other file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import simpy

from simulator.errors import CatalogError, did_you_mean
from simulator.laws.law import Floats
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.record import Recorder

__all__ = ["Engine", "engine", "engines"]


@dataclass(frozen=True, slots=True)
class Engine:
    """How one token travels: who sends which bytes to whom, and what waits for what."""

    name: str
    default_rule: str
    """The placement rule that the engine uses when nobody chooses."""
    head_on: Literal["all", "last", "first"]
    """Which ranks hold the embedding and the output head."""
    token_times_s: Callable[[Job, Draws], Floats]
    """Token times (s after the request) of all rows at once, shape (streams, output tokens, rows)."""
    is_recursion_exact: Callable[[Job], bool]
    """Whether `token_times_s` gives the same times as SimPy for this job (no queueing feedback)."""
    start: Callable[[simpy.Environment, Job, Draws, Recorder], Any]
    """Start the SimPy processes of row 0."""
    chats: Callable[[Job], tuple[int, ...]]
    """How many chats each stream of tokens stands for (a batch decodes in step)."""
    serve: Callable[[simpy.Environment, Job, Draws, Recorder, Sequence[float]], Any] | None = None
    """Start the SimPy processes of row 0 for chats that
    arrive at these times (s); a token's session is its chat.

    No more than `workload.concurrency` chats are let in at
    once. None where it is not known how the engine does it.
    """
    waits_by_polling: bool = False
    """Whether a rank that waits for a message takes processor
    time (which matters where ranks share a machine).
    """
    client_is_first: bool = False
    """Whether the first device is the one that the chat runs
    on, so that no placement can begin with another.
    """
    chats_at_once: int = 1_000
    """Chats whose KV caches are in memory together; further ones wait."""


@cache
def engines() -> dict[str, Engine]:
    """All engines by name."""
    import simulator.engine as package

    modules = [
        importlib.import_module(f"{package.__name__}.{found.name}")
        for found in pkgutil.iter_modules(package.__path__)
    ]
    return {module.ENGINE.name: module.ENGINE for module in modules if hasattr(module, "ENGINE")}


def engine(name: str) -> Engine:
    """The engine of that name; raises CatalogError for an unknown one."""
    if name not in engines():
        known = sorted(engines())
        raise CatalogError(
            f"engine {name!r} is unknown; engines are {', '.join(known)}{did_you_mean(name, known)}"
        )
    return engines()[name]
