"""llama.cpp RPC: a star. The client drives one server after
the other and carries the hidden state between them.

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

Chats at once are decoded in one batch, their prompts read as
one long one (an assumption: only one chat was observed).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy

from simulator.engine.base import Engine
from simulator.engine.llama_star import READ_BYTES, LlamaStar
from simulator.laws.law import Floats
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.network import Hop, Network
from simulator.runtime.record import Recorder

__all__ = ["ENGINE", "is_recursion_exact", "token_times_s"]

Steps = Generator[simpy.Event, Any, int]
PROMPT_SLOTS = ("prompt", "prompt-read", "prompt-rest", "reply-prompt", "reply-rest")
DECODE_SLOTS = ("request", "reply")


@dataclass
class _Port:
    """A device's network interface for all rows."""

    free_s: Floats | float = 0.0


@dataclass
class _Lane:
    """One direction of one link for all rows; the arithmetic twin of `Hop`."""

    port: _Port
    seconds_per_byte: Floats
    last_s: Floats | float = 0.0

    def send(self, now_s: Floats, size_bytes: float, delay_s: Floats) -> Floats:
        """When a message sent at `now_s` arrives."""
        self.port.free_s = np.maximum(now_s, self.port.free_s) + size_bytes * self.seconds_per_byte
        self.last_s = arrival_s = np.maximum(self.port.free_s + delay_s, self.last_s)
        return arrival_s


def _prompt_end_s(star: LlamaStar) -> Floats:
    """When the client has the first logits, shape (rows,)."""
    servers, uplink = range(1, star.servers + 1), _Port()
    forth = {server: _Lane(uplink, star.seconds_per_byte(server, is_reply=False)) for server in servers}
    back = {server: _Lane(_Port(), star.seconds_per_byte(server, is_reply=True)) for server in servers}
    delay = {
        (server, slot): star.delay_s(server, slot, len(star.chunks))
        for server in servers
        for slot in PROMPT_SLOTS
    }
    client = free = np.zeros(star.draws.rows)  # `free`: when the last server has done its chunk
    for c, tokens in enumerate(star.chunks):
        client = client + star.prefill_s[c, 0]
        for server in servers:
            size, slot = star.prompt_request_bytes(server, c), "prompt"
            if star.carries_two(server, tokens):
                early, slot = star.early_bytes(tokens), "prompt-rest"
                forth[server].send(client, early, delay[server, "prompt"][c])
                asked = forth[server - 1].send(client, READ_BYTES, delay[server - 1, "prompt-read"][c])
                rest = star.reply_bytes(server - 1, tokens)
                client = back[server - 1].send(asked, rest, delay[server - 1, "reply-rest"][c])
                size -= early
            arrived = forth[server].send(client, size, delay[server, slot][c])
            if server == star.servers:
                free = np.maximum(arrived, free) + star.prefill_s[c, server]
            else:
                done = arrived + star.prefill_s[c, server]
                client = back[server].send(
                    done, star.reply_bytes(server, tokens), delay[server, "reply-prompt"][c]
                )
    if not star.servers:
        return client
    return back[star.servers].send(
        free, star.reply_bytes(star.servers, 1), delay[star.servers, "reply-prompt"][-1]
    )


def token_times_s(star: LlamaStar) -> Floats:
    """One batch: after the prompt a token's time is the sum
    of what happens to it, shape (1, tokens, rows).
    """
    step_s = np.sum(star.decode_s, axis=1)
    for server in range(1, star.servers + 1):
        step_s += star.delay_s(server, "request", star.steps) + star.delay_s(server, "reply", star.steps)
        step_s += star.decode_request_bytes(server)[:, None] * star.seconds_per_byte(server, is_reply=False)
        step_s += star.reply_bytes(server, star.batch) * star.seconds_per_byte(server, is_reply=True)
    first_s = _prompt_end_s(star)
    return np.concatenate([first_s[None], first_s + np.cumsum(step_s, axis=0)])[None]


@dataclass
class _Processes:
    """The star as SimPy processes, one for the client and one per server, for row 0 of the draws."""

    env: simpy.Environment
    star: LlamaStar
    recorder: Recorder

    def __post_init__(self) -> None:
        star, servers = self.star, range(1, self.star.servers + 1)
        network = Network(self.env, star.draws, self.recorder, flows=2 if star.overlaps else 1)
        self.forth = {server: network.hop(*star.ends(server, is_reply=False)) for server in servers}
        self.back = {server: network.hop(*star.ends(server, is_reply=True)) for server in servers}
        counts = dict.fromkeys(PROMPT_SLOTS, len(star.chunks)) | dict.fromkeys(DECODE_SLOTS, star.steps)
        self.delay_s = {
            (server, slot): star.delay_s(server, slot, n)[:, 0].tolist()
            for server in servers
            for slot, n in counts.items()
        }
        self.prefill_s, self.decode_s = star.prefill_s[..., 0].tolist(), star.decode_s[..., 0].tolist()
        for server in servers:
            self.env.process(self.server(server))
        self.env.process(self.client())

    def client(self) -> Generator[simpy.Event, Any, None]:
        """The client's story: read the prompt chunk by chunk, then token by token."""
        star, cause, count = self.star, -1, len(self.star.chunks)
        for c in range(count):
            cause = yield from self.work(0, self.prefill_s[c][0], c - count, cause)
            for server in self.forth:
                cause = yield from self.ask_prompt(server, c, cause)
        if star.servers:
            cause = yield self.back[star.servers].receive()
        self.recorder.token(0, 0, self.env.now, cause)
        sizes = {server: star.decode_request_bytes(server).tolist() for server in self.forth}
        for k in range(star.steps):
            cause = yield from self.work(0, self.decode_s[k][0], k, cause)
            for server, forth in self.forth.items():
                forth.send(sizes[server][k], self.delay_s[server, "request"][k], cause, k)
                cause = yield self.back[server].receive()
            self.recorder.token(0, k + 1, self.env.now, cause)

    def ask_prompt(self, server: int, c: int, cause: int) -> Steps:
        """Send one server its chunk, in two parts where the
        boundary carries two tensors; the last answers later.
        """
        star, tokens, step, slot = self.star, self.star.chunks[c], c - len(self.star.chunks), "prompt"
        size = star.prompt_request_bytes(server, c)
        if star.carries_two(server, tokens):
            early, slot = star.early_bytes(tokens), "prompt-rest"
            self.forth[server].send(early, self.delay_s[server, "prompt"][c], cause, step)
            self.forth[server - 1].send(READ_BYTES, self.delay_s[server - 1, "prompt-read"][c], cause, step)
            cause = yield self.back[server - 1].receive()
            size -= early
        self.forth[server].send(size, self.delay_s[server, slot][c], cause, step)
        if server < star.servers:
            cause = yield self.back[server].receive()
        return cause

    def server(self, server: int) -> Generator[simpy.Event, Any, None]:
        """A server's life: take what comes in order, compute, reply."""
        star, count, forth, back = self.star, len(self.star.chunks), self.forth[server], self.back[server]
        cause = -1
        for c, tokens in enumerate(star.chunks):
            if star.carries_two(server, tokens):
                cause = yield from self.take(forth, cause)
            cause = yield from self.take(forth, cause)
            cause = yield from self.work(server, self.prefill_s[c][server], c - count, cause)
            if server < star.servers or c == count - 1:
                back.send(
                    star.reply_bytes(server, tokens),
                    self.delay_s[server, "reply-prompt"][c],
                    cause,
                    c - count,
                )
            if server < star.servers and star.carries_two(server + 1, tokens):
                cause = yield from self.take(forth, cause)
                back.send(
                    star.reply_bytes(server, tokens), self.delay_s[server, "reply-rest"][c], cause, c - count
                )
        for k in range(star.steps):
            cause = yield from self.take(forth, cause)
            cause = yield from self.work(server, self.decode_s[k][server], k, cause)
            back.send(star.reply_bytes(server, star.batch), self.delay_s[server, "reply"][k], cause, k)

    def take(self, hop: Hop, busy: int) -> Steps:
        """The next message; one that had to wait for the server
        was released by `busy`, what the server did before.
        """
        asked_s = self.env.now
        arrived = yield hop.receive()
        return arrived if self.env.now > asked_s or busy < 0 else busy

    def work(self, rank: int, duration_s: float, step: int, cause: int) -> Steps:
        """Keep a device busy."""
        start_s = self.env.now
        yield self.env.timeout(duration_s)
        kind, where = "prefill" if step < 0 else "compute", self.star.job.ring[rank].name
        return self.recorder.span(kind, where, step, start_s, self.env.now, cause)


def is_recursion_exact(job: Job) -> bool:
    """Unless a radio dozes, or messages that overlap share one air, nothing waits but for what it needs."""
    dozes = any(device.link.power_save for device in job.ring)
    shares = any(device.link.shared for device in job.ring) and LlamaStar(job, Draws(job, 0, 1)).overlaps
    return not dozes and not shares


ENGINE = Engine(
    name="llama-rpc",
    default_rule="speed",
    head_on="last",
    client_is_first=True,
    token_times_s=lambda job, draws: token_times_s(LlamaStar(job, draws)),
    is_recursion_exact=is_recursion_exact,
    start=lambda env, job, draws, recorder: _Processes(env, LlamaStar(job, draws), recorder),
    chats=lambda job: (job.workload.concurrency,),
)
