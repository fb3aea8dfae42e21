"""llama.cpp RPC: a star. The client drives one server after the other and carries the
hidden state between them.

As observed on the wire with protocol 7 (docs/llama-rpc-flow.md): the first device is the client. It holds the
embedding and runs the first layers itself; the last server also computes the output head; the client samples.

1. To each server in turn the client sends one *request*, a burst of messages (inputs, compute, read) that
   nobody answers singly; the server computes and its *reply* is the hidden state, or the logits from the last
   server. So a token costs two one-way latencies per server.
2. The graph itself travels again whenever it changes: at the prompt, at the first token after it, and each
   time the cache outgrows a multiple of 256 tokens. Otherwise "compute the same again" suffices.
3. Prompts go in chunks of 512 tokens. The client begins the
   next chunk when it has sent the last server its request.
4. From 32 tokens on, where the client has layers of its own, a boundary between servers carries two tensors
   (the normed and the residual state), and the second one is asked for only after the first has come.

Chats at once are decoded in one batch, their prompts read as one long one (an assumption:
only one chat was observed).
"""

from __future__ import annotations

from pathlib import Path

from simulator.engine.base import Engine
from simulator.engine.facts import read_recovery
from simulator.engine.llama.form import form
from simulator.engine.llama.mean import mean_costs
from simulator.engine.llama.offload import divide
from simulator.engine.llama.processes import start
from simulator.engine.llama.recursion import chats, is_recursion_exact, token_times_s
from simulator.engine.llama.star import CHUNK_TOKENS, FACTS

__all__ = ["ENGINE"]

ENGINE = Engine(
    facts=FACTS,
    token_times_s=token_times_s,
    is_recursion_exact=is_recursion_exact,
    start=start,
    chats=chats,
    embedding_on="first",
    head_on="last",
    mean_costs=mean_costs,
    recovery=read_recovery(Path(__file__).parent),
    form=form,
    overlaps_prompt_from_tokens=CHUNK_TOKENS + 1,
    divide_host=divide,
    client_is_first=True,
)
