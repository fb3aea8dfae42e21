"""The star as SimPy processes, one for the client and one per server."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import simpy

from simulator.engine.llama.star import ACK_BYTES, READ_BYTES, SET_TENSOR_BYTES, STATUS_BYTES, LlamaStar
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
        star, cause = self.star, -1
        cause = yield from self.prompt_behind() if star.client_is_last else self.prompt_ahead()
        self.recorder.token(0, 0, self.env.now, cause)
        sizes = star.decode_sizes_bytes
        for k in range(star.steps):
            if not star.client_is_last:
                cause = yield from self.work(0, self.decode_s[k][0], k, cause)
            for server in self.forth:
                cause = yield from self.ask(server, sizes[server][k], k, cause)
            if star.client_is_last:
                cause = yield from self.work(0, self.decode_s[k][0], k, cause)
            self.recorder.token(0, k + 1, self.env.now, cause)

    def prompt_ahead(self) -> Steps:
        """The prompt where the client's layers come before the servers'."""
        star, cause, count = self.star, -1, len(self.star.chunks)
        for c in range(count):
            cause = yield from self.work(0, self.prefill_s[c][0], c - count, cause)
            for server in self.forth:
                cause = yield from self.ask_prompt(server, c, cause)
        # the last server's answer to its last chunk holds the logits; it was not waited for until now
        if star.servers and star.waits_for_compute:
            last = star.servers
            self.forth[last].send(READ_BYTES, self.delay_s[last, "prompt-fetch"][-1], cause, -1)
        if star.servers:
            cause = yield self.back[star.servers].receive()
        return cause

    def prompt_behind(self) -> Steps:
        """The prompt where they come behind them: the servers begin the next chunk meanwhile."""
        cause = -1
        own: simpy.Process | None = None
        for c in range(len(self.star.chunks)):
            for server in self.forth:
                cause = yield from self.ask_prompt(server, c, cause)
            own = self.env.process(self.own_chunk(c, cause, own))
        assert own is not None, "a prompt has a chunk"
        done: int = yield own
        return done

    def own_chunk(self, c: int, cause: int, before: simpy.Process | None) -> Steps:
        """The client's layers of a chunk, when it has done the chunk before."""
        if before is not None and before.is_alive:
            cause = yield before
        return (yield from self.work(0, self.prefill_s[c][0], c - len(self.star.chunks), cause))

    def ask(self, server: int, size: float, k: int, cause: int) -> Steps:
        """One decode step of one server: all that is answered singly, then the rest and the result."""
        star, forth, back = self.star, self.forth[server], self.back[server]
        puts = star.puts(server, star.batch)
        cause = yield from self.put(server, range(puts), "", k, k, cause)
        size -= SET_TENSOR_BYTES * puts
        if star.waits_for_compute:
            forth.send(size - READ_BYTES, self.delay_s[server, "request"][k], cause, k)
            cause = yield back.receive()
            forth.send(READ_BYTES, self.delay_s[server, "fetch"][k], cause, k)
        else:
            forth.send(size, self.delay_s[server, "request"][k], cause, k)
        cause = yield back.receive()
        return cause

    def put(self, server: int, which: range, part: str, at: int, step: int, cause: int) -> Steps:
        """Tensors that are answered one by one. As each waits for the one before, how a request's data is
        shared out among its messages moves nothing: all of it goes with the graph.
        """
        for i in which:
            delay_s = self.delay_s[server, f"{part}put{i}"][at]
            self.forth[server].send(SET_TENSOR_BYTES, delay_s, cause, step)
            cause = yield self.back[server].receive()
        return cause

    def ask_prompt(self, server: int, c: int, cause: int) -> Steps:
        """Send one server its chunk, in two parts where the boundary carries two
        tensors; the last answers later.
        """
        star, tokens, step, slot = self.star, self.star.chunks[c], c - len(self.star.chunks), "prompt"
        size, puts = star.prompt_request_bytes(server, c), range(star.puts(server, self.star.chunks[c]))
        if star.carries_two(server, tokens):
            early, slot = star.early_bytes(tokens), "prompt-rest"
            self.forth[server].send(early, self.delay_s[server, "prompt"][c], cause, step)
            if puts:
                cause, puts = (yield self.back[server].receive()), puts[1:]
            self.forth[server - 1].send(READ_BYTES, self.delay_s[server - 1, "prompt-read"][c], cause, step)
            cause = yield self.back[server - 1].receive()
            size -= early
        cause = yield from self.put(server, puts, "prompt-", c, step, cause)
        size -= SET_TENSOR_BYTES * len(puts)
        if star.waits_for_compute:
            self.forth[server].send(size - READ_BYTES, self.delay_s[server, slot][c], cause, step)
            cause = yield self.back[server].receive()
            if star.hands_on(server):
                self.forth[server].send(READ_BYTES, self.delay_s[server, "prompt-fetch"][c], cause, step)
        else:
            self.forth[server].send(size, self.delay_s[server, slot][c], cause, step)
        if star.hands_on(server):
            cause = yield self.back[server].receive()
        return cause

    def server(self, server: int) -> Generator[simpy.Event, Any, None]:
        """A server's life: take what comes in order, compute, reply."""
        star, count, forth, back = self.star, len(self.star.chunks), self.forth[server], self.back[server]
        cause = -1
        for c, tokens in enumerate(star.chunks):
            puts = range(star.puts(server, tokens))
            if star.carries_two(server, tokens):
                if puts:
                    cause, puts = (
                        (yield from self.answer(server, puts[:1], "prompt-", c, c - count, cause)),
                        puts[1:],
                    )
                else:
                    cause = yield from self.take(forth, cause)
            cause = yield from self.answer(server, puts, "prompt-", c, c - count, cause)
            cause = yield from self.take(forth, cause)
            cause = yield from self.work(server, self.prefill_s[c][server], c - count, cause)
            if star.waits_for_compute:
                back.send(STATUS_BYTES, self.delay_s[server, "reply-prompt-status"][c], cause, c - count)
            # nobody asks the last server for the logits of any chunk but the last
            if star.hands_on(server) or c == count - 1:
                if star.waits_for_compute:
                    cause = yield from self.take(forth, cause)
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
        puts = range(star.puts(server, star.batch))
        for k in range(star.steps):
            cause = yield from self.answer(server, puts, "", k, k, cause)
            cause = yield from self.take(forth, cause)
            cause = yield from self.work(server, self.decode_s[k][server], k, cause)
            if star.waits_for_compute:
                back.send(STATUS_BYTES, self.delay_s[server, "reply-status"][k], cause, k)
                cause = yield from self.take(forth, cause)
            back.send(size, delay_s[k], cause, k)

    def answer(self, server: int, which: range, part: str, at: int, step: int, cause: int) -> Steps:
        """Take tensors one by one and say that each is there."""
        for i in which:
            cause = yield from self.take(self.forth[server], cause)
            self.back[server].send(ACK_BYTES, self.delay_s[server, f"reply-{part}put{i}"][at], cause, step)
        return cause

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
