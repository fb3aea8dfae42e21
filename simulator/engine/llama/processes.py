"""The star as SimPy processes, one for the client and one per server."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import simpy

from simulator.engine.llama.star import READ_BYTES, LlamaStar
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.network import Hop, Network
from simulator.runtime.record import Recorder

__all__ = ["StarProcesses", "start"]

Steps = Generator[simpy.Event, Any, int]


@dataclass
class StarProcesses:
    """The star as SimPy processes, one for the client and one per server, for the row of the draws."""

    env: simpy.Environment
    star: LlamaStar
    """Of this row, or of a block of rows."""
    draws: Draws
    recorder: Recorder
    row: int
    """The row's place in the star's arrays."""

    def __post_init__(self) -> None:
        star, servers = self.star, range(1, self.star.servers + 1)
        network = Network(self.env, self.draws, self.recorder, flows=2 if star.overlaps else 1)
        self.forth = {server: network.hop(*star.ends(server, is_reply=False)) for server in servers}
        self.back = {server: network.hop(*star.ends(server, is_reply=True)) for server in servers}
        self.names = [device.name for device in star.job.ring]
        # as lists: SimPy takes durations one by one, where arrays are slow
        self.delay_s = {key: delay_s[:, self.row].tolist() for key, delay_s in star.all_delays_s.items()}
        self.prefill_s, self.decode_s = (
            durations_s[..., self.row].tolist() for durations_s in (star.prefill_s, star.decode_s)
        )
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
        # the last server's answer to its last chunk holds the logits; it was not waited for until now
        if star.servers:
            cause = yield self.back[star.servers].receive()
        self.recorder.token(0, 0, self.env.now, cause)
        sizes = star.decode_sizes_bytes
        for k in range(star.steps):
            cause = yield from self.work(0, self.decode_s[k][0], k, cause)
            for server, forth in self.forth.items():
                forth.send(sizes[server][k], self.delay_s[server, "request"][k], cause, k)
                cause = yield self.back[server].receive()
            self.recorder.token(0, k + 1, self.env.now, cause)

    def ask_prompt(self, server: int, c: int, cause: int) -> Steps:
        """Send one server its chunk, in two parts where the boundary carries two
        tensors; the last answers later.
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
            # nobody asks the last server for the logits of any chunk but the last
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
        size, delay_s = star.reply_bytes(server, star.batch), self.delay_s[server, "reply"]
        for k in range(star.steps):
            cause = yield from self.take(forth, cause)
            cause = yield from self.work(server, self.decode_s[k][server], k, cause)
            back.send(size, delay_s[k], cause, k)

    def take(self, hop: Hop, busy: int) -> Steps:
        """The next message; one that had to wait for the server was released by `busy`,
        what the server did before.
        """
        asked_s = self.env.now
        arrived = yield hop.receive()
        return arrived if self.env.now > asked_s or busy < 0 else busy

    def work(self, rank: int, duration_s: float, step: int, cause: int) -> Steps:
        """Keep a device busy."""
        start_s = self.env.now
        yield self.env.timeout(duration_s)
        kind = "prefill" if step < 0 else "compute"
        return self.recorder.span(kind, self.names[rank], step, start_s, self.env.now, cause)


def start(env: simpy.Environment, job: Job, draws: Draws, recorder: Recorder) -> StarProcesses:
    """Start client and servers for the row of the draws."""
    star, row = draws.shared(LlamaStar)
    return StarProcesses(env, star, draws, recorder, row)
