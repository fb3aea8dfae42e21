"""Legacy EXO as arithmetic on arrays: one chat, all rows at once."""

from __future__ import annotations

import numpy as np

from simulator.engine.legacy.ring import RESULT_BYTES, LegacyRing
from simulator.laws.law import Floats
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job

__all__ = ["chats", "is_recursion_exact", "token_times_s"]


def token_times_s(job: Job, draws: Draws) -> Floats:
    """One chat: a token's time is the sum of what happens to it, shape (1, tokens, rows)."""
    ring = LegacyRing(job, draws)
    stage = ring.stage_s(0)
    if ring.size == 1:
        return np.cumsum(stage[:, 0], axis=0)[None]
    hop = np.empty_like(stage)
    for rank in range(ring.size):
        sizes = np.array([ring.message_bytes(rank, token) for token in range(ring.tokens)])
        hop[:, rank] = ring.delay_s(0, rank) + sizes[:, None] * ring.seconds_per_byte(rank)
    sampled = np.cumsum(np.sum(stage, axis=1) + np.sum(hop[:, :-1], axis=1), axis=0)
    closing = np.concatenate([np.zeros((1, ring.draws.rows)), np.cumsum(hop[:-1, -1], axis=0)])
    per_byte = ring.seconds_per_byte(ring.size - 1)
    # the broadcast leaves before the token does, so only its own transmission stands before it
    arrived = sampled + closing + RESULT_BYTES * per_byte + ring.result_delay_s(0)
    # one connection: what is sent first arrives first
    in_order: Floats = np.maximum.accumulate(arrived, axis=0)
    return in_order[None]


def is_recursion_exact(job: Job) -> bool:
    """For one chat without a dozing radio: several chats queue for each other's devices."""
    return job.workload.concurrency == 1 and not any(device.link.power_save for device in job.ring)


def chats(job: Job) -> tuple[int, ...]:
    """Each chat is a stream of its own, see `Engine.chats`."""
    return (1,) * job.workload.concurrency
