"""Draws: every random number that a job's evaluation needs, the same for both evaluators.

Two kinds: *world* factors say how wrong the catalogue may be (one per replication, kept over its
runs), the others change from token to token. Rows are replications times runs: row `i` is run
`i % runs` of world `i // runs`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import hypot
from typing import Any, Literal, TypeVar

import numpy as np

from simulator.cluster.cluster import Device, Leg, Path
from simulator.laws.factors import (
    BATCH,
    COMMON,
    CONTENTION,
    CONTEXT,
    THIS_MODEL,
    WorldFactor,
    device_factor,
    engine_factor,
    parted,
    session_factor,
)
from simulator.laws.law import Constant, Floats, median_s
from simulator.laws.streams import Room, Streams
from simulator.model.stretch import Stretch
from simulator.runtime.cost import decode_parts, prefill_parts
from simulator.runtime.job import Job
from simulator.runtime.pauses import slow_downs, usual_step_s
from simulator.runtime.portions import Divided
from simulator.scenario import NoiseSpec
from simulator.spec import SharedSpec

__all__ = ["Draws", "speed_factors"]

Made = TypeVar("Made")
WAKES_PER_BLOCK = 1024
LOAD_LOG_SD = 0.1
"""How far what other work leaves of a device is from what was said of it (natural logarithm). Eight devices
of the local cluster that were to run at 25 to 60 % of their speed ran at 28 to 64 %, in a first study off by
0.11 (root mean square), in a second by 0.10; a person's guess is hardly better than a scheduler's quota.
"""


@dataclass(frozen=True, slots=True)
class Draws:
    """Rows `first` to `first + rows` of a job's random numbers."""

    job: Job
    first: int
    rows: int
    certain: bool = False
    """True: the catalogue is taken at its word and nothing is noisy; only delays are drawn."""
    stretched: tuple[str, float] = ("", 1.0)
    """A device, or `source -> sink`, and what multiplies all of its time: that tells its share."""
    block: Draws | None = None
    """Draws of more rows, of which these are one."""
    _worlds: dict[WorldFactor, Floats] = field(default_factory=dict, repr=False, compare=False)
    _rooms: dict[int, Room] = field(default_factory=dict, repr=False, compare=False)
    _made: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def each_row(self) -> Iterator[Draws]:
        """These rows one by one, for SimPy."""
        for at in range(self.rows):
            yield Draws(self.job, self.first + at, 1, self.certain, self.stretched, self)

    def shared(self, make: Callable[[Job, Draws], Made]) -> tuple[Made, int]:
        """`make(job, draws)` for all rows of the block, made once, and this row's place in it.

        To set up a random stream takes longer than to draw what one reply needs of it. So who goes through
        rows one by one computes all durations of a block at once, and takes a column for each row.
        """
        block = self.block or self
        if make not in block._made:
            block._made[make] = make(block.job, block)
        return block._made[make], self.first - block.first

    @property
    def _streams(self) -> Streams:
        return Streams(self.job.seed, self.first, self.rows)

    def world(self, name: str, log_sd: float) -> Floats:
        """The world's factor of that name, shape (rows,), median 1."""
        # by size too: of two devices with shares of one error, of different size, both have its luck
        wanted = WorldFactor(name, log_sd)
        if wanted not in self._worlds:
            self._worlds[wanted] = self._draw_world(name, log_sd)
        return self._worlds[wanted]

    def product(self, factors: tuple[WorldFactor, ...]) -> Floats:
        """The product of world factors, shape (rows,)."""
        total = self.world(*factors[0])
        for factor in factors[1:]:
            total = total * self.world(*factor)
        return total

    def _draw_world(self, name: str, log_sd: float) -> Floats:
        if self.block is not None:
            at = self.first - self.block.first
            return self.block.world(name, log_sd)[at : at + self.rows]
        posterior = self.job.posterior
        known = posterior is not None and name in posterior.names
        if self.certain or (log_sd == 0 and not known):
            return np.ones(self.rows)
        runs = self.job.workload.runs
        # the runs of one replication meet the same world
        worlds = (self.first + np.arange(self.rows)) // runs
        if posterior is not None and known:
            column = posterior.names.index(name)
            drawn: Floats = np.array([draw[column] for draw in posterior.draws])
            # the same draw for every name: what a fit found together (fast layers, slow hops) stays together
            return np.asarray(drawn[worlds % len(posterior.draws)])
        # by world and not by row, so that a world stays what it is when more runs are asked for
        streams = Streams(self.job.seed, int(worlds[0]), int(worlds[-1] - worlds[0]) + 1)
        return np.asarray(streams.factors(name, log_sd * self._reach(name, streams))[worlds - worlds[0]])

    def _reach(self, name: str, streams: Streams) -> Floats | float:
        """What stretches a world's spreads: all of them at once, so that its factors are Student's t
        together. Who is odd (another build, a cable that is none) is so in more than one figure. How sessions
        and background loads scatter was recorded as it is.
        """
        tails = self.job.tails
        if tails is None or name.startswith("session/") or name.endswith("/load"):
            return 1.0
        return streams.student_scales("tails", tails)

    def speed_factor(self, device: Device, part: str) -> Floats:
        """What multiplies the cost of a device's layers and head in this world, shape
        (rows,); part as in `noise`.
        """
        return self.product(speed_factors(self.job, device, "prefill" if part == "prefill" else "decode"))

    def decode_s(
        self, device: Device, held: Stretch | Divided, context: Floats, batch: int = 1, fixed_s: float = 0.0
    ) -> Floats:
        """`cost.decode_s` plus `fixed_s` in this world, without noise, shape (len(context), rows).

        A calibration may leave open what context and batches cost; then its draws stretch those parts alone.
        `fixed_s` is of the processor with the head, where a device has several.
        """
        parts = decode_parts(device, held, context, batch)
        if len(parts) == 1:
            return self._decode_s(*parts[0], held, context, batch, fixed_s)
        # each processor has its own error: that of a card says nothing of the memory beside it
        factors = [self.speed_factor(one, "decode") for one, _ in parts]
        total: Floats = np.sum(
            [np.multiply.outer(base, factor) for (_, base), factor in zip(parts, factors, strict=True)],
            axis=0,
        )
        return total + fixed_s * factors[-1]

    def _decode_s(
        self,
        device: Device,
        base: Floats,
        held: Stretch | Divided,
        context: Floats,
        batch: int,
        fixed_s: float,
    ) -> Floats:
        base = base + fixed_s
        # one factor for layers, head and disk: they share what the catalogue has wrong about the device
        total = np.multiply.outer(base, self.speed_factor(device, "decode"))
        if self._is_open(CONTEXT):
            (_, bare), *_ = decode_parts(device, held, np.zeros_like(context), batch)
            total += np.multiply.outer(
                base - (bare + fixed_s), self.speed_factor(device, "decode") * (self.world(CONTEXT, 0) - 1)
            )
        total *= self.batch_factor(device, batch)
        return total

    def prefill_s(
        self, device: Device, held: Stretch | Divided, chunks: Sequence[tuple[int, int]], fixed_s: float = 0.0
    ) -> Floats:
        """`cost.prefill_s` plus `fixed_s` in this world for each chunk (tokens, tokens
        before it), without noise, shape (chunks, rows).
        """
        parts = [prefill_parts(device, held, tokens, start) for tokens, start in chunks]
        total: Floats = np.zeros((len(chunks), self.rows))
        # the same processors for each chunk, in the same order
        for at, (one, _) in enumerate(parts[0]):
            seconds = np.array([chunk[at][1] for chunk in parts])
            last = at == len(parts[0]) - 1
            total += np.multiply.outer(
                seconds + fixed_s if last else seconds, self.speed_factor(one, "prefill")
            )
        return total

    def batch_factor(self, device: Device, batch: int) -> Floats | float:
        """How much more, or less, a batch costs in this world than `speed.batch_cost` says, shape (rows,)."""
        if batch == 1 or not self._is_open(BATCH):
            return 1.0
        extra = device.speed.batch_cost * (batch - 1)
        return np.asarray((1 + extra * self.world(BATCH, 0)) / (1 + extra))

    def _is_open(self, name: str) -> bool:
        return self.job.posterior is not None and name in self.job.posterior.names

    def noise(self, device: Device, part: str, n: int) -> Floats:
        """What multiplies all work of `n` successive steps on a device, shape (n, rows): its own
        noise and the common one.

        `part` names the stream: `prefill`, `decode`, or `decode<chat>` where chats are drawn one by one.
        """
        own = self._noise(device.name, device.noise, part, n)
        if device.contention and self._is_open(CONTENTION):
            crowd = device.contention * self.world(CONTENTION, 0)
            # a ratio, because `cost.crowding` has the calibration's best value in it already
            own = own * ((1 + crowd) / (1 + device.contention))
        if device.background_load:
            own = own * self.world(device_factor(device.name, "load"), LOAD_LOG_SD)
        if device.name == self.stretched[0]:
            own = own * self.stretched[1]
        common = self.job.common_noise
        for law in (device.noise, common):
            if law.pauses_per_s * law.pause and not self.certain:
                # devices have pauses of their own, also those of one host: they work one after the other
                stream = f"pause/{'common/' if law is common else ''}{device.name}/{part}"
                own = own * slow_downs(self._streams, stream, law, usual_step_s(self.job, device, part, n), n)
        return own if common.is_silent else own * self._noise(COMMON, common, part, n)

    def _noise(self, name: str, law: NoiseSpec, part: str, n: int) -> Floats:
        factor = self.world(session_factor(name), law.session_sigma)
        if law.run_sigma and not self.certain:
            factor = factor * self._streams.factors(f"run/{name}", law.run_sigma)
        if law.sigma == 0 or self.certain:
            # a view without copies: who multiplies by it makes an array of its own
            return np.broadcast_to(factor, (n, self.rows))
        walk = autoregression(self._streams.normals(f"noise/{name}/{part}", n), law.correlation)
        walk *= law.sigma
        np.exp(walk, out=walk)
        walk *= factor
        return walk

    def overhead(self, part: Literal["step", "hop", "request"]) -> Floats:
        """The world's factor of the engine's own overhead per step, message or request, shape (rows,)."""
        return self.world(engine_factor(part), self.job.engine.log_sd(part))

    def delay_s(
        self, path: Path, slot: str, n: int, crowd: Floats | float = 1.0, out: Floats | None = None
    ) -> Floats:
        """Delay (s) of the `n` messages of one slot on a path, beyond transmission, shape (n, rows).

        `crowd`, of shape (n, 1), multiplies the engine's own work for a message: that of a batch costs more.
        `out` is where to put them.
        """
        out = np.empty((n, self.rows)) if out is None else out
        own_s = crowd * (self.job.engine.hop_overhead_s * self.overhead("hop"))
        # added up leg by leg: what a leg draws is overwritten by the next one
        np.add(self._leg_delay_s(path.legs[0], slot, n), own_s, out=out)
        for leg in path.legs[1:]:
            np.add(out, self._leg_delay_s(leg, slot, n), out=out)
        out *= self._stretch(path)
        return out

    def usual_delay_s(self, path: Path) -> Floats:
        """Median delay (s) of a path in this world, beyond transmission and engine, shape (rows,)."""
        legs = [median_s(leg.law) * leg.stretch * self.product(leg.scales) + leg.extra_s for leg in path.legs]
        return np.asarray(np.sum(legs, axis=0) * self._stretch(path))

    def wake_s(self, device: Device) -> Iterator[float]:
        """Wake-up delays (s) of a dozing radio, one after the other, for row 0."""
        block = 0
        while device.link.power_save is not None:
            # in blocks: how often a radio dozes turns out on the way
            draws = self._streams.draws(
                f"wake/{device.name}/{block}", device.link.power_save.wake, WAKES_PER_BLOCK
            )
            yield from draws[:, 0].tolist()
            block += 1

    def _leg_delay_s(self, leg: Leg, slot: str, n: int) -> Floats:
        """Shape (n, rows), or (rows,) where nothing is drawn; gone with the next call."""
        scale = leg.stretch * self.product(leg.scales)
        if isinstance(leg.law, Constant):
            return np.asarray(leg.law.value * scale + leg.extra_s)
        if n not in self._rooms:
            self._rooms[n] = Room.of(n, self.rows)
        delay_s = self._streams.draws(f"{leg.name}/{slot}", leg.law, n, self._rooms[n])
        # in place: these arrays are the largest of an evaluation
        delay_s *= scale
        if leg.extra_s:
            delay_s += leg.extra_s
        return delay_s

    def seconds_per_byte(self, path: Path) -> Floats:
        """Transmission time of one byte on a path, shape (rows,).

        `1 / rate_a + 1 / rate_b` where both legs share one air (half duplex: the access point repeats what it
        heard), else `1 / min(rate_a, rate_b)`: a switch forwards while it receives.
        """
        per_leg = [1 / (leg.rate_bytes_per_s * self.product(leg.rates)) for leg in path.legs]
        total: Floats = np.sum(per_leg, axis=0) if path.airtime_adds else np.max(per_leg, axis=0)
        return total * self._stretch(path)

    def _stretch(self, path: Path) -> float:
        return self.stretched[1] if self.stretched[0] == f"{path.source} -> {path.sink}" else 1.0


def speed_factors(job: Job, device: Device, part: Literal["decode", "prefill"]) -> tuple[WorldFactor, ...]:
    """What multiplies a device's times: its own factor first, then those that it shares."""
    speed = device.speed
    total, shared = (
        (speed.prefill_spread, speed.prefill_shared)
        if part == "prefill"
        else (speed.decode_spread, speed.decode_shared)
    )
    if part == "prefill" and speed.prefill_latent_spread and any(kind.latent for kind in job.model.kinds):
        # few have measured prompts through latent attention, so whoever reads one shares this doubt
        total = hypot(total or 0.0, speed.prefill_latent_spread)
        shared = (
            *shared,
            SharedSpec(by="every device with latent attention", spread=speed.prefill_latent_spread),
        )
    return parted(
        device_factor(device.name, part),
        total or 0.0,
        (
            WorldFactor(device_factor(one.by.replace(THIS_MODEL, job.model.name), part), one.spread)
            for one in shared
        ),
    )


def autoregression(white: Floats, correlation: float) -> Floats:
    """A stationary first-order autoregression with unit variance along axis 0, from
    white normals of that shape.

    `x[0] = z[0]`, `x[k] = rho x[k-1] + sqrt(1 - rho**2) z[k]`.
    """
    if correlation == 0 or len(white) == 0:
        return white
    x = np.empty(white.shape)
    x[0] = white[0]
    np.multiply(white[1:], np.sqrt(1 - correlation**2), out=x[1:])
    kept = np.empty(white.shape[1:])
    for k in range(1, len(white)):
        x[k] += np.multiply(x[k - 1], correlation, out=kept)
    return x
