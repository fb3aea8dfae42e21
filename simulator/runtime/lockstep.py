"""Lockstep: ranks that all do the same things in the same
order, as arithmetic on arrays and as SimPy processes.

An engine with tensor parallelism is a *program*: an iterable of `Work`,
`Exchange` and `Token` that every rank goes through at its own pace. Both
evaluators below read the same program, so they cannot mean different things.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import tee
from typing import Any, NamedTuple

import numpy as np
import simpy

from simulator.laws.law import Constant, Floats
from simulator.runtime.collective import Round
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.network import Hop, Network
from simulator.runtime.record import Recorder

__all__ = ["Exchange", "Layers", "Op", "Program", "Token", "Wires", "Work", "start", "token_times_s"]


POOL = 1024
ALIKE = 1e-12
"""Relative difference of times that are the same but for rounding."""
STRIDE = 389
"""Places that a decode step is further on in the pool than the one before: a prime, so that all are used."""


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
    delay_s: Sequence[Floats]
    """Of each round's messages beyond their transmission, shape (offsets, ranks, rows)."""
    transmit_s: Floats
    """Of each message, shape (offsets, ranks, rows)."""
    step: int


class Layers(NamedTuple):
    """Layer by layer: each rank computes, then all meet."""

    work: Work
    exchanges: Sequence[Exchange]
    are_equal: bool
    """Whether all meetings are alike, delays and all."""


class Token(NamedTuple):
    """Rank 0 hands out a token."""

    stream: int
    token: int


Op = Work | Exchange | Layers | Token
Program = Callable[[Job, Draws], Iterable[Op]]


@dataclass(frozen=True)
class Wires:
    """The delays of all collectives of one job's rows.

    A token of 80 layers over a ring of four ranks needs 3,840 delays. To draw each would take longer than all
    the rest, so `POOL` of each way are drawn once, and a run of collectives reads on from a place of its own:
    two tokens share some delays, and a token of more rounds than `POOL` meets its first ones again.
    """

    job: Job
    draws: Draws
    _pools: dict[tuple[int, ...], tuple[Floats, Floats, bool]] = field(default_factory=dict)

    def exchange(self, rounds: tuple[Round, ...], step: int, n: int = 1) -> list[Exchange]:
        """`n` collectives of these rounds; `step` is the decode step, negative while a prompt is read."""
        if not rounds:
            return []
        delay_s, per_byte, _ = self._pool(rounds[0].offsets)
        # all rounds of a collective have the same ranks and bytes
        transmit_s, at = rounds[0].size_bytes * per_byte, step * STRIDE
        turns = range(len(rounds))
        return [
            Exchange(
                rounds, [delay_s[(at + one * len(rounds) + turn) % POOL] for turn in turns], transmit_s, step
            )
            for one in range(n)
        ]

    def layers(self, work: Work, rounds: tuple[Round, ...], n: int) -> Layers:
        """`n` times a share of `work`, then a collective of these rounds."""
        share = work._replace(seconds=work.seconds / n) if rounds else work
        are_equal = self._pool(rounds[0].offsets)[2] if rounds else True
        return Layers(share, self.exchange(rounds, work.step, n), are_equal)

    def _pool(self, offsets: tuple[int, ...]) -> tuple[Floats, Floats, bool]:
        if offsets not in self._pools:
            self._pools[offsets] = self._drawn(offsets)
        return self._pools[offsets]

    def _drawn(self, offsets: tuple[int, ...]) -> tuple[Floats, Floats, bool]:
        """Delays (s), shape (POOL, offsets, ranks, rows); seconds per byte, without the first; whether no
        delay is random.
        """
        names = [device.name for device in self.job.ring]
        delay_s = np.empty((POOL, len(offsets), len(names), self.draws.rows))
        per_byte, constant = np.empty(delay_s.shape[1:]), True
        for at, offset in enumerate(offsets):
            for rank, name in enumerate(names):
                path = self.job.cluster.path(name, names[(rank + offset) % len(names)])
                self.draws.delay_s(path, f"collective/{offset}", POOL, out=delay_s[:, at, rank])
                # all ranks send at once: where they share the air, each has its part of it
                crowd = len(names) * len(offsets) if path.medium is not None else 1
                per_byte[at, rank] = crowd * self.draws.seconds_per_byte(path)
                constant = constant and all(isinstance(leg.law, Constant) for leg in path.legs)
        return delay_s, per_byte, constant


def token_times_s(job: Job, draws: Draws, program: Program, streams: int) -> Floats:
    """Token times (s after the request) of all rows at once, shape (streams, output tokens, rows)."""
    state = _State.at_rest(len(job.ring), draws.rows)
    out = np.empty((streams, job.workload.output_tokens, draws.rows))
    for op in program(job, draws):
        if isinstance(op, Work):
            state.ready_s += op.seconds
        elif isinstance(op, Token):
            out[op.stream, op.token] = state.ready_s[0]
        elif isinstance(op, Exchange):
            state.meet(op)
        else:
            state.go_through(op)
    return out


@dataclass
class _State:
    """When each rank is ready, and its port free, shape (ranks, rows)."""

    both_s: Floats
    """The two of them, shape (2, ranks, rows)."""
    arrive_s: Floats

    @classmethod
    def at_rest(cls, ranks: int, rows: int) -> _State:
        return cls(np.zeros((2, ranks, rows)), np.empty((ranks, rows)))

    def __post_init__(self) -> None:
        self.ready_s, self.port_s = self.both_s

    def meet(self, op: Exchange) -> None:
        """One collective, round by round."""
        ready_s, port_s, arrive_s = self.ready_s, self.port_s, self.arrive_s
        for one, delay_s in zip(op.rounds, op.delay_s, strict=True):
            np.maximum(ready_s, port_s, out=port_s)
            for offset, delay, transmit in zip(one.offsets, delay_s, op.transmit_s, strict=True):
                np.add(port_s, transmit, out=port_s)
                np.add(port_s, delay, out=arrive_s)
                # what rank r sends arrives at rank r + offset; all have sent before anybody waits
                turn = offset % len(ready_s)
                np.maximum(ready_s[turn:], arrive_s[:-turn], out=ready_s[turn:])
                np.maximum(ready_s[:turn], arrive_s[-turn:], out=ready_s[:turn])

    def go_through(self, op: Layers) -> None:
        """All layers; where they are alike, and one has moved
        every rank on by the same, all the rest at once.
        """
        if not op.exchanges:  # one rank alone meets nobody
            self.ready_s += op.work.seconds
        for left, one in zip(reversed(range(len(op.exchanges))), op.exchanges, strict=True):
            before_s = self.both_s.copy() if op.are_equal else None
            self.ready_s += op.work.seconds
            self.meet(one)
            if before_s is not None:
                moved_s = self.both_s - before_s
                # sums of maxima: what moves all alike once does so for ever
                if np.ptp(moved_s, axis=(0, 1)).max() <= ALIKE * moved_s.max():
                    self.both_s += left * moved_s[:1, :1]
                    return


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

    def work(op: Work) -> Generator[simpy.Event, Any, None]:
        nonlocal cause
        start_s = env.now
        yield env.timeout(float(op.seconds[rank, 0]))
        cause = recorder.span(op.kind, names[rank], op.step, start_s, env.now, cause)

    def meet(op: Exchange) -> Generator[simpy.Event, Any, None]:
        nonlocal cause
        for one, delay_s in zip(op.rounds, op.delay_s, strict=True):
            began = cause
            for at, offset in enumerate(one.offsets):
                out = hop(rank, (rank + offset) % len(names))
                out.seconds_per_byte = float(op.transmit_s[at, rank, 0]) / one.size_bytes
                out.send(one.size_bytes, float(delay_s[at, rank, 0]), began, op.step)
            for offset in one.offsets:
                arrival = hop((rank - offset) % len(names), rank).receive()
                if not arrival.processed:
                    cause = yield arrival

    for op in ops:
        if isinstance(op, Work):
            yield from work(op)
        elif isinstance(op, Exchange):
            yield from meet(op)
        elif isinstance(op, Layers):
            for one in op.exchanges:
                yield from work(op.work)
                yield from meet(one)
            if not op.exchanges:
                yield from work(op.work)
        elif rank == 0:
            recorder.token(op.stream, op.token, env.now, cause)
