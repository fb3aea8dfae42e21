"""Modern EXO (1.x): a pipeline ring over MLX, everything gathered by everybody.

One decode step, as recorded from real clusters (EXO HEAD of 2026-06-22) and read from MLX's ring backend:

1. *notice*: an all-gather of 4 bytes ("have you got new tasks?"); every rank waits for all others.
2. Rank 0 runs its layers and sends the hidden state to rank 1, and so on to the last rank.
3. An all-gather of the hidden state: in W - 1 rounds each rank passes to its
   left neighbour what it got from its right one in the round before (first
   its own), so the last rank's part needs W - 1 hops to reach rank 0.
4. Every rank computes final norm, output head and sample; nobody sends the token.

So a one-way delay D on each hop costs 2 (W - 1) D per token, and rounds that no one waits
for cost nothing: both come out of the messages below, neither is put in. Up to 8 requests
decode in one batch; prompts are read one after the other, in chunks of 4096 / min(4, W)
tokens that follow each other through the ring when there are 4096 or more.

Before a prompt the ranks agree on the request and meet at a barrier; before and after it, after two single
passes that end it, and at the first token and each hundredth they look for cancelled and new chats: a sum of
a byte, which goes twice round the ring, and two gathers (`ExoRing.script`). The last two prompt tokens then
go through as decode steps, and a token is handed out when the step after its own is done. So 32 (W - 1)
one-way delays pass before the first token of a short prompt, more where TCP's window has to grow for a longer
one.

`ExoRing` holds every duration; `recursion` adds them up for all rows at once, `processes`
lets SimPy do it for one row.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from simulator.engine.base import Engine
from simulator.engine.exo import tensor
from simulator.engine.exo.form import form
from simulator.engine.exo.mean import mean_costs
from simulator.engine.exo.placement import RULE, TENSOR_RULE
from simulator.engine.exo.processes import start
from simulator.engine.exo.recursion import chats, is_recursion_exact, token_times_s
from simulator.engine.exo.ring import CHUNKED_FROM_TOKENS, FACTS, LOOK_AHEAD, SINGLE_PASSES
from simulator.engine.exo.serving import serve
from simulator.engine.facts import read_recovery
from simulator.runtime.lockstep import never_dozes

__all__ = ["ENGINE", "ENGINES", "TENSOR"]

ENGINE = Engine(
    facts=FACTS,
    token_times_s=token_times_s,
    is_recursion_exact=is_recursion_exact,
    start=start,
    chats=chats,
    embedding_on="all",
    head_on="all",
    own_rules={"exo": RULE},
    mean_costs=mean_costs,
    recovery=read_recovery(Path(__file__).parent),
    serve=serve,
    form=form,
    overlaps_prompt_from_tokens=CHUNKED_FROM_TOKENS,
    steps_behind=SINGLE_PASSES + LOOK_AHEAD,
    # no gather ends them, so that the second follows the first through the stages
    passes_in_flight=SINGLE_PASSES - 1,
    waits_by_polling=True,  # MLX polls its sockets
    takes_one_processor=True,
)

# tensor sharding: what is not known of it yet is refused, never computed as the pipeline's
TENSOR = replace(
    ENGINE,
    facts=tensor.TENSOR_FACTS,
    token_times_s=tensor.token_times_s,
    is_recursion_exact=never_dozes,
    start=tensor.start,
    chats=tensor.chats,
    own_rules={"exo-tensor": TENSOR_RULE},
    mean_costs=None,
    recovery=None,
    serve=None,
    form=None,
    overlaps_prompt_from_tokens=None,
    passes_in_flight=0,
    splits_layers=True,
)

ENGINES = (ENGINE, TENSOR)
