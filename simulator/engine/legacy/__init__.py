"""Legacy EXO (0.0.x): a gRPC ring in which one token travels at a time.

As recorded from real clusters: rank 0 reads the prompt or the last token and runs its layers,
each rank sends the activation on, the last one computes the head, samples, broadcasts the token
to all peers (one of them serves the client) and sends it to rank 0. So a token costs W hops, one
of them with a few bytes only; the client sees it when the broadcast arrives. Requests share
nothing: each has its own round trip, and they meet only in a device's queue.
"""

from __future__ import annotations

from pathlib import Path

from simulator.engine.base import Engine
from simulator.engine.facts import read_facts, read_recovery
from simulator.engine.legacy.mean import mean_costs
from simulator.engine.legacy.placement import RULE
from simulator.engine.legacy.processes import start
from simulator.engine.legacy.recursion import chats, is_recursion_exact, token_times_s

__all__ = ["ENGINE"]

FOLDER = Path(__file__).parent

ENGINE = Engine(
    facts=read_facts(FOLDER),
    token_times_s=token_times_s,
    is_recursion_exact=is_recursion_exact,
    start=start,
    chats=chats,
    embedding_on="first",
    head_on="last",
    own_rules={"exo-legacy": RULE},
    mean_costs=mean_costs,
    recovery=read_recovery(FOLDER),
    serve=start,
    decodes_in_step=False,
    takes_one_processor=True,
)
