"""Petals: a client with embedding and head walks a chain of servers, each of which holds a run of blocks.

As recorded from real processes (2.2.0.post1) and read in its source:

1. For each token the client asks one server after the other and waits for each reply: 2 N one-way delays
   for N servers, nothing hidden. Where servers push what they computed to the next one (`push`: versions
   2.0.0 and 2.0.1), the next one starts from that, and a token costs N + 1; the client still sends its own
   copy of each step and takes every reply, and the copy that comes second is dropped.
2. A prompt goes to each server as one message, never pushed. Up to 128 tokens it is one task of the server's
   queue, above that one for each block, between which other chats slip in.
3. Chats are not batched: each server serves steps one by one, in the order in which they come.
4. A server takes room in its cache for the whole chat at its first step and keeps it until the end. Who
   finds none is refused at once, and comes again after 0, 1, 2, 4 .. 60 s.
"""

from __future__ import annotations

from pathlib import Path

from simulator.engine.base import Engine
from simulator.engine.facts import read_facts
from simulator.engine.petals.mean import mean_costs
from simulator.engine.petals.placement import RULE
from simulator.engine.petals.processes import start
from simulator.engine.petals.recursion import chats, is_recursion_exact, token_times_s

__all__ = ["ENGINE"]

ENGINE = Engine(
    facts=read_facts(Path(__file__).parent),
    token_times_s=token_times_s,
    is_recursion_exact=is_recursion_exact,
    start=start,
    chats=chats,
    embedding_on="first",
    head_on="first",
    own_rules={"petals": RULE},
    mean_costs=mean_costs,
    serve=start,
    decodes_in_step=False,
    takes_one_processor=True,
    forms_swarm=True,
    client_is_first=True,
)
