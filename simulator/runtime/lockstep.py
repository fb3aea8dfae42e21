"""Lockstep: ranks that all do the same things in the same order, as arithmetic on arrays and as SimPy processes.

An engine with tensor parallelism is a *program*: an iterable of `Work`, `Exchange` and `Token` that every rank
goes through at its own pace. Both evaluators below read the same program, so they cannot mean different things.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import tee
from typing import Any, NamedTuple

import numpy as np
import simpy

from simulator.laws.law import Floats
from simulator.runtime.collective import Round
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.network import Hop, Network
from simulator.runtime.record import Recorder

__all__ = ["Exchange", "Op", "Program", "Token", "Work", "exchange", "start", "token_times_s"]


class Work(NamedTuple):
    """Each rank computes."""

    kind: str
    """compute, head or prefill, as spans are called."""
    seconds: Floats
    """Shape (ranks, rows)."""
    step: int
    """Decode step; negative while the prompt is read."""


class Exchange(NamedTuple):
    """One collective."""

    rounds: tuple[Round, ...]
    delay_s: Floats
    """Of each message beyond its transmission, shape (rounds, offsets, ranks, rows)."""
    seconds_per_byte: Floats
    """Of each sender's way to its offsets, shape (offsets, ranks, rows)."""
    step: int


class Token(NamedTuple):
    """Rank 0 hands out a token."""

    stream: int
    token: int


Op = Work | Exchange | Token
Program = Callable[[Job, Draws], Iterable[Op]]


def exchange(job: Job, draws: Draws, rounds: tuple[Round, ...], slot: str, step: int, n: int) -> Iterator[Op]:
    """`n` collectives of equal rounds, their delays drawn from the streams of `slot` together."""
    if not rounds:
        return iter(())
    names, offsets = [device.name for device in job.ring], rounds[0].offsets
    delay_s = np.empty((n, len(rounds), len(offsets), len(names), draws.rows))
    per_byte = np.empty((len(offsets), len(names), draws.rows))
    for at, offset in enumerate(offsets):
        for rank, name in enumerate(names):
            path = job.cluster.path(name, names[(rank + offset) % len(names)])
            drawn = draws.delay_s(path, f"{slot}/{offset}", n * len(rounds))
            delay_s[:, :, at, rank] = drawn.reshape(n, len(rounds), draws.rows)
            # all ranks send at once: where they share the air, each has its part of it
            crowd = len(names) * len(offsets) if path.medium is not None else 1
            per_byte[at, rank] = crowd * draws.seconds_per_byte(path)
    return (Exchange(rounds, one, per_byte, step) for one in delay_s)


def token_times_s(job: Job, draws: Draws, program: Program, streams: int) -> Floats:
    """Token times (s after the request) of all rows at once, shape (streams, output tokens, rows)."""
    shape = (len(job.ring), draws.rows)
    ready_s, port_s = np.zeros(shape), np.zeros(shape)
    out = np.empty((streams, job.workload.output_tokens, draws.rows))
    for op in program(job, draws):
        if isinstance(op, Work):
            ready_s += op.seconds
        elif isinstance(op, Token):
            out[op.stream, op.token] = ready_s[0]
        else:
            for one, delay_s in zip(op.rounds, op.delay_s, strict=True):
                _round(ready_s, port_s, one, delay_s, op.seconds_per_byte)
    return out


def _round(ready_s: Floats, port_s: Floats, one: Round, delay_s: Floats, per_byte: Floats) -> None:
    """All send what they had when the round began, then each waits for what is sent to it."""
    np.maximum(ready_s, port_s, out=port_s)
    for at, offset in enumerate(one.offsets):
        port_s += one.size_bytes * per_byte[at]
        # what rank r sends arrives at rank r + offset
        np.maximum(ready_s, np.roll(port_s + delay_s[at], offset, axis=0), out=ready_s)


def start(
    env: simpy.Environment, job: Job, draws: Draws, recorder: Recorder, program: Program
) -> list[simpy.Process]:
    """Start one process per rank, for row 0 of the draws."""
    ranks = range(len(job.ring))
    network = Network(env, draws, recorder)
    hops: dict[tuple[int, int], Hop] = {}
    # ranks are at most a collective apart, so little of the program is ever kept
    copies = tee(program(job, draws), len(ranks))
    return [env.process(_rank(env, job, network, recorder, hops, rank, copies[rank])) for rank in ranks]


def _rank(
    env: simpy.Environment,
    job: Job,
    network: Network,
    recorder: Recorder,
    hops: dict[tuple[int, int], Hop],
    rank: int,
    ops: Iterable[Op],
) -> Generator[simpy.Event, Any, None]:
    names, cause = [device.name for device in job.ring], -1

    def hop(source: int, sink: int) -> Hop:
        if (source, sink) not in hops:
            hops[source, sink] = network.hop(names[source], names[sink])
        return hops[source, sink]

    for op in ops:
        if isinstance(op, Work):
            start_s = env.now
            yield env.timeout(float(op.seconds[rank, 0]))
            cause = recorder.span(op.kind, names[rank], op.step, start_s, env.now, cause)
        elif isinstance(op, Token):
            if rank == 0:
                recorder.token(op.stream, op.token, env.now, cause)
        else:
            for one, delay_s in zip(op.rounds, op.delay_s[..., 0].tolist(), strict=True):
                began = cause
                for at, offset in enumerate(one.offsets):
                    out = hop(rank, (rank + offset) % len(names))
                    out.seconds_per_byte = float(op.seconds_per_byte[at, rank, 0])
                    out.send(one.size_bytes, delay_s[at][rank], began, op.step)
                for offset in one.offsets:
                    arrival = hop((rank - offset) % len(names), rank).receive()
                    if not arrival.processed:
                        cause = yield arrival
