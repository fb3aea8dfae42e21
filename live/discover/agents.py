"""Complete the rows of devices on which our agent runs: with the token it tells what EXO does not."""

from __future__ import annotations

from dataclasses import replace

from live.agent.facts import AgentFacts
from live.agent.peers import ask_all, read_address
from live.agent.wire import DEFAULT_PORT
from live.discover.found import FoundDevice, clean
from simulator.errors import LiveError

__all__ = ["with_facts"]


def with_facts(rows: tuple[FoundDevice, ...], token: str) -> tuple[FoundDevice, ...]:
    """The rows with chip, memory and link kind from their agents; a row whose agent
    does not answer gets a note.
    """
    agents = {row.agent: read_address(row.agent, DEFAULT_PORT) for row in rows if row.agent}
    told = dict(zip(agents, ask_all(tuple(agents.values()), token), strict=True))
    return tuple(_completed(row, told[row.agent]) if row.agent else row for row in rows)


def _completed(row: FoundDevice, facts: AgentFacts | LiveError) -> FoundDevice:
    """What EXO said stays; of the chip EXO knows nothing on Linux, and of the link neither."""
    if isinstance(facts, LiveError):
        return replace(row, notes=(*row.notes, clean(str(facts), 200)))
    return replace(
        row,
        chip=row.chip or clean(facts.chip),
        memory_total_bytes=row.memory_total_bytes or facts.memory_total_bytes,
        memory_free_bytes=row.memory_free_bytes
        if row.memory_free_bytes is not None
        else facts.memory_free_bytes,
        link_kind=clean(facts.link_kind) if row.link_kind == "unknown" else row.link_kind,
    )
