"""Lockstep: ranks that all do the same things in the same
order, as arithmetic on arrays and as SimPy processes.

An engine with tensor parallelism, or a pipeline whose stages all meet again, is a *program*: an iterable of
`Work`, `Exchange`, `Chain` and `Token` that every rank goes through at its own pace. Both evaluators
below read the same program, so they cannot mean different things.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import tee
from typing import Any, NamedTuple

import numpy as np
import simpy

from simulator.laws.law import Constant, Floats
from simulator.runtime.collective import Operation, Round, rounds
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.network import Hop, Network
from simulator.runtime.record import Recorder

__all__ = [
    "Chain",
    "Exchange",
    "Layers",
    "Op",
    "Program",
    "Token",
    "Wires",
    "Work",
    "never_dozes",
    "start",
    "token_times_s",
]


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


class Delays(NamedTuple):
    """Of the messages of a collective of one size: row by row, `POOL` of each way, drawn once."""

    delay_s: Floats
    """Beyond their transmission, shape (POOL, offsets, ranks, rows)."""
    transmit_s: Floats
    """Of each message, shape (offsets, ranks, rows)."""
    late_s: Floats
    """From the begin of a round to each message's arrival, where no port is busy; shape of `delay_s`."""
    are_equal: bool
    """Whether no delay is random."""

    def exchange(self, rounds: tuple[Round, ...], place: int, step: int) -> Exchange:
        """The collective that reads on in the pool from `place`."""
        turns = range(place, place + len(rounds))
        return Exchange(rounds, [self.delay_s[turn % POOL] for turn in turns], self.transmit_s, step)


class Layers(NamedTuple):
    """Layer by layer: each rank computes, then all meet."""

    work: Work
    """Before each meeting; of all layers where nobody meets."""
    rounds: tuple[Round, ...]
    """Of a meeting; none for one rank alone."""
    places: range
    """Of each meeting's first message in the pool."""
    delays: Delays | None

    def exchanges(self) -> Iterator[Exchange]:
        """The meetings one by one."""
        if self.delays is not None:
            for place in self.places:
                yield self.delays.exchange(self.rounds, place, self.work.step)


class Chain(NamedTuple):
    """Rank after rank computes, and sends what it made to the next one."""

    work: Work
    size_bytes: float
    delay_s: Floats
    """Of each rank's message beyond its transmission, shape (ranks, rows); the last rank sends none."""
    transmit_s: Floats


class Token(NamedTuple):
    """Rank 0 hands out a token."""

    stream: int
    token: int


Op = Work | Exchange | Chain | Layers | Token
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
    _pools: dict[tuple[str, tuple[int, ...]], tuple[Floats, Floats, bool]] = field(default_factory=dict)
    _sizes: dict[tuple[str, tuple[int, ...], float], Delays] = field(default_factory=dict)

    def collective(self, operation: Operation, size_bytes: float, step: int) -> list[Exchange]:
        """One collective, none for one rank; `step` is the decode step, negative while a prompt is read."""
        return self.rounds(rounds(operation, self.job.engine.algorithm, len(self.job.ring), size_bytes), step)

    def rounds(self, of: tuple[Round, ...], step: int, slot: str = "collective") -> list[Exchange]:
        """A collective of these rounds; of one called `chain` one message counts, and has the air alone."""
        return [self._delays(of, slot).exchange(of, step * STRIDE, step)] if of else []

    def chain(self, work: Work, size_bytes: float) -> Chain:
        """`work` rank after rank, `size_bytes` handed on."""
        delay_s, per_byte, _ = self._pool((1,), "chain")
        return Chain(work, size_bytes, delay_s[work.step * STRIDE % POOL, 0], size_bytes * per_byte[0])

    def layers(self, work: Work, size_bytes: float, collectives_per_layer: int) -> Layers:
        """All layers of the model: between two all-reduces of `size_bytes` each rank computes an equal part
        of its time.
        """
        of = rounds("all_reduce", self.job.engine.algorithm, len(self.job.ring), size_bytes)
        if not of:
            return Layers(work, (), range(0), None)
        n, begin = self.job.model.layers * collectives_per_layer, work.step * STRIDE
        share = work._replace(seconds=work.seconds / n)
        return Layers(share, of, range(begin, begin + n * len(of), len(of)), self._delays(of))

    def _delays(self, of: Sequence[Round], slot: str = "collective") -> Delays:
        # all rounds of a collective have the same ranks and bytes
        offsets, size_bytes = of[0]
        if (slot, offsets, size_bytes) not in self._sizes:
            delay_s, per_byte, constant = self._pool(offsets, slot)
            transmit_s = size_bytes * per_byte
            late_s = delay_s + np.cumsum(transmit_s, axis=0)
            self._sizes[slot, offsets, size_bytes] = Delays(delay_s, transmit_s, late_s, constant)
        return self._sizes[slot, offsets, size_bytes]

    def _pool(self, offsets: tuple[int, ...], slot: str) -> tuple[Floats, Floats, bool]:
        if (slot, offsets) not in self._pools:
            self._pools[slot, offsets] = self._drawn(offsets, slot)
        return self._pools[slot, offsets]

    def _drawn(self, offsets: tuple[int, ...], slot: str) -> tuple[Floats, Floats, bool]:
        """Delays (s), shape (POOL, offsets, ranks, rows); seconds per byte, without the first; whether no
        delay is random.
        """
        names = [device.name for device in self.job.ring]
        delay_s = np.empty((POOL, len(offsets), len(names), self.draws.rows))
        per_byte, constant = np.empty(delay_s.shape[1:]), True
        for at, offset in enumerate(offsets):
            for rank, name in enumerate(names):
                path = self.job.cluster.path(name, names[(rank + offset) % len(names)], polled=True)
                self.draws.delay_s(path, f"{slot}/{offset}", POOL, out=delay_s[:, at, rank])
                # all ranks send at once: where they share the air, each has its part of it
                at_once = 1 if slot == "chain" else len(names) * len(offsets)
                crowd = at_once if path.medium is not None else 1
                per_byte[at, rank] = crowd * self.draws.seconds_per_byte(path)
                constant = constant and all(isinstance(leg.law, Constant) for leg in path.legs)
        return delay_s, per_byte, constant


def never_dozes(job: Job) -> bool:
    """Whether the recursion is exact: a radio that dozes wakes by who is waiting, which only SimPy knows."""
    return not any(device.link.power_save for device in job.ring)


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
        elif isinstance(op, Chain):
            state.pass_on(op)
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

    def pass_on(self, op: Chain) -> None:
        """One stage after the other."""
        ready_s, port_s, last = self.ready_s, self.port_s, len(self.ready_s) - 1
        for rank, seconds in enumerate(op.work.seconds):
            ready_s[rank] += seconds
            if rank < last:
                np.maximum(ready_s[rank], port_s[rank], out=port_s[rank])
                port_s[rank] += op.transmit_s[rank]
                np.maximum(ready_s[rank + 1], port_s[rank] + op.delay_s[rank], out=ready_s[rank + 1])

    def go_through(self, op: Layers) -> None:
        """All layers: those that are alike at once, or fast where no port is busy, else one by one."""
        if op.delays is None:  # one rank alone meets nobody
            self.ready_s += op.work.seconds
        elif op.delays.are_equal:
            self._go_through_equal(op)
        elif len(op.places) > 2 and self._frees_ports(op, op.delays):
            first, *_, last = op.exchanges()
            self._layer(op, first)
            self._go_through_free(op, op.delays)
            self._layer(op, last)
        else:
            for one in op.exchanges():
                self._layer(op, one)

    def _layer(self, op: Layers, one: Exchange) -> None:
        self.ready_s += op.work.seconds
        self.meet(one)

    def _go_through_equal(self, op: Layers) -> None:
        """Layer by layer until one has moved every rank on by the same, then all the rest at once."""
        for left, one in zip(reversed(range(len(op.places))), op.exchanges(), strict=True):
            before_s = self.both_s.copy()
            self._layer(op, one)
            moved_s = self.both_s - before_s
            # sums of maxima: what moves all alike once does so for ever
            if np.ptp(moved_s, axis=(0, 1)).max() <= ALIKE * moved_s.max():
                self.both_s += left * moved_s[:1, :1]
                return

    @staticmethod
    def _frees_ports(op: Layers, delays: Delays) -> bool:
        """Whether each rank computes for longer than it sends: then its port is free before it meets again.

        A port is busy until at most all sending of a collective after its rank is ready.
        """
        return bool(np.all(op.work.seconds >= len(op.rounds) * delays.transmit_s.sum(axis=0)))

    def _go_through_free(self, op: Layers, delays: Delays) -> None:
        """All layers but the first and the last one, where ports are free before each collective.

        As `meet`, with fewer operations: this is the inner loop of all that has random delays.
        """
        ready_s, port_s, arrive_s, ranks = self.ready_s, self.port_s, self.arrive_s, len(self.ready_s)
        turns, sent_s = len(op.rounds), delays.transmit_s.sum(axis=0)
        lands = [
            (at, ready_s[turn:], arrive_s[:-turn], ready_s[:turn], arrive_s[-turn:])
            for at, turn in enumerate(offset % ranks for offset in op.rounds[0].offsets)
        ]
        for place in op.places[1:-1]:
            np.add(ready_s, op.work.seconds, out=ready_s)
            for turn in range(turns):
                late_s = delays.late_s[(place + turn) % POOL]
                if turn:  # the round before may still be on its way out
                    np.maximum(ready_s, port_s, out=port_s)
                elif turns > 1 or len(lands) > 1:
                    np.copyto(port_s, ready_s)
                begin_s = port_s if turns > 1 or len(lands) > 1 else ready_s
                for at, behind_s, to_behind_s, before_s, to_before_s in lands:
                    np.add(begin_s, late_s[at], out=arrive_s)
                    np.maximum(behind_s, to_behind_s, out=behind_s)
                    np.maximum(before_s, to_before_s, out=before_s)
                if turn < turns - 1:
                    np.add(port_s, sent_s, out=port_s)


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

    def pass_on(op: Chain) -> Generator[simpy.Event, Any, None]:
        nonlocal cause
        if rank:
            arrival = hop(rank - 1, rank).receive()
            if not arrival.processed:
                cause = yield arrival
        yield from work(op.work)
        if rank < len(names) - 1:
            out = hop(rank, rank + 1)
            out.seconds_per_byte = float(op.transmit_s[rank, 0]) / op.size_bytes
            out.send(op.size_bytes, float(op.delay_s[rank, 0]), cause, op.work.step)

    for op in ops:
        if isinstance(op, Work):
            yield from work(op)
        elif isinstance(op, Exchange):
            yield from meet(op)
        elif isinstance(op, Chain):
            yield from pass_on(op)
        elif isinstance(op, Layers):
            for one in op.exchanges():
                yield from work(op.work)
                yield from meet(one)
            if not op.rounds:
                yield from work(op.work)
        elif rank == 0:
            recorder.token(op.stream, op.token, env.now, cause)
