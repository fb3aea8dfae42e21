"""The chain as arithmetic on arrays: one chat, all rows at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.engine.petals.chain import Chain, Exchange
from simulator.laws.law import Floats
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.lane import Lane, SendQueue

__all__ = ["chats", "is_recursion_exact", "token_times_s"]


@dataclass
class _Wire:
    """An exchange and its lane; a hand-over inside one machine takes no time."""

    exchange: Exchange | None
    lane: Lane | None

    @classmethod
    def of(cls, exchange: Exchange | None, ports: dict[str, SendQueue]) -> _Wire:
        if exchange is None:
            return cls(None, None)
        port = ports.setdefault(exchange.ends[0], SendQueue())
        return cls(exchange, Lane(exchange.seconds_per_byte, port))

    def send(self, now_s: Floats, token: int) -> Floats:
        """When a token's message arrives."""
        if self.exchange is None or self.lane is None:
            return now_s
        return self.lane.send(now_s, self.exchange.size_bytes(token), self.exchange.delay_s[token])


def token_times_s(job: Job, draws: Draws) -> Floats:
    """One chat: each token goes out and back for each server, shape (1, tokens, rows)."""
    chain = Chain(job, draws)
    told = chain.durations(0)
    ports: dict[str, SendQueue] = {}
    forth, back = ([_Wire.of(one, ports) for one in side] for side in (told.requests, told.replies))
    pushes = [_Wire.of(one, ports) for one in told.pushes]
    now_s = chain.opening_s() + np.zeros(draws.rows)
    free_s = [now_s] * len(chain.servers)
    times_s = np.empty((chain.tokens, draws.rows))
    for token in range(chain.tokens):
        pushed_s = None
        for at in range(len(chain.servers)):
            begun_s = forth[at].send(now_s, token)
            if pushed_s is not None:
                begun_s = np.minimum(begun_s, pushed_s)
            free_s[at] = done_s = np.maximum(begun_s, free_s[at]) + told.server_s[token, at]
            # the first step names no next server, so the prompt is not pushed
            pushing = token > 0 and at < len(pushes)
            pushed_s = pushes[at].send(done_s, token) if pushing else None
            # a reply that overtakes the one before it waits: the client takes them in the order of the chain
            now_s = np.maximum(now_s, back[at].send(done_s, token))
        now_s = now_s + told.client_s[token]
        times_s[token] = now_s
    return times_s[None]


def is_recursion_exact(job: Job) -> bool:
    """For one chat without a dozing radio: several chats queue for each other's servers.

    Pushes travel beside the client's own copies: on shared air they meet, and in the port of a client that
    serves blocks in the middle of the chain.
    """
    amid = job.placement.embedding not in (None, job.shards[0].device)
    shares = amid or any(device.link.shared for device in job.ring)
    dozes = any(device.link.power_save for device in job.ring)
    return job.workload.concurrency == 1 and not dozes and not (job.engine.push and shares)


def chats(job: Job) -> tuple[int, ...]:
    """Each chat is a stream of its own, see `Engine.chats`."""
    return (1,) * job.workload.concurrency
