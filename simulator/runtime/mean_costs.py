"""Mean costs of one step for every device and pair of devices: what the exact search minimises.

Each engine puts its own together from these parts (`mean.py` in its folder).

They are those of the middle world: what is drawn once per world or run is at its median, what is
drawn for each token or message at its mean. Left out, and therefore checked by simulation
afterwards: that a gather waits for the latest of several messages (the mean of a maximum is
above the maximum of means), radios that doze, and chunks that overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from math import exp, prod

import numpy as np

from simulator.cluster.cluster import Cluster, Device, Path
from simulator.laws.factors import WorldFactor, device_factor, engine_factor, session_factor
from simulator.laws.law import Floats
from simulator.model.model import Model
from simulator.placement.request import PlacementRequest
from simulator.runtime.cost import crowding
from simulator.runtime.job import EngineCosts
from simulator.runtime.ring_costs import Ints, RingCosts
from simulator.scenario import NoiseSpec, PosteriorSpec, WorkloadSpec

__all__ = ["MeanCosts"]


@dataclass(frozen=True)
class MeanCosts:
    """The parts from which an engine's costs are put together; `batch` chats decode in step."""

    cluster: Cluster
    model: Model
    engine: EngineCosts
    workload: WorkloadSpec
    request: PlacementRequest
    common_noise: NoiseSpec
    posterior: PosteriorSpec | None = None
    contention: float = 0.0
    """Slow-down of all devices by each further one, where one machine plays them all."""
    least_devices: int = 1
    batch: int = 1
    variance_weight_per_s: float = 0.0
    """What a second squared of a message's variance counts for, in seconds of its mean."""

    @property
    def devices(self) -> tuple[Device, ...]:
        """All devices of the cluster, in the order in which they joined."""
        return self.cluster.devices

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """All pairs of different devices."""
        size = len(self.devices)
        return tuple((a, b) for a in range(size) for b in range(size) if a != b)

    @property
    def context(self) -> float:
        """Tokens in the cache in the middle of the reply."""
        # costs are all but linear in the context, so its middle stands for the mean over the reply
        return self.workload.prompt_tokens + self.workload.output_tokens / 2

    def keeps_head(self, client: int) -> bool:
        """Whether this device, as the client of a star, computes the head itself."""
        return self.devices[client].name in self.request.footprint.keep_head

    def world(self, name: str) -> float:
        """The median of a world's factor: 1 unless a calibration has shifted it."""
        if self.posterior is None or name not in self.posterior.names:
            return 1.0
        column = self.posterior.names.index(name)
        return float(np.median([draw[column] for draw in self.posterior.draws]))

    def product(self, factors: Iterable[WorldFactor]) -> float:
        """The same of a product of factors."""
        return prod(self.world(factor.name) for factor in factors)

    def noise(self, device: Device) -> float:
        """Mean of what multiplies one token's work: `exp(sigma**2 / 2) (1 + pauses_per_s pause)` of its own
        noise and of the common one.
        """
        laws = (device.noise, self.common_noise)
        mean = prod(exp(law.sigma**2 / 2) * (1 + law.pauses_per_s * law.pause) for law in laws)
        return mean * self.world(session_factor(device.name)) * self.world(session_factor())

    def per_device(self, seconds: Callable[[Device], float], part: str = "decode") -> Floats:
        """Seconds of the same work on each device, with its noise and, for `part`
        decode or prefill, its world.
        """
        return np.array(
            [
                seconds(device)
                * self.noise(device)
                * (self.world(device_factor(device.name, part)) if part else 1.0)
                for device in self.devices
            ]
        )

    def host_s(self, device: Device, *, step: bool = True) -> float:
        """The device's own fixed time per token and, with `step`, that of the engine."""
        engine_s = self.engine.step_overhead_s * self.world(engine_factor("step")) if step else 0.0
        return (device.speed.stage_overhead + engine_s) * crowding(device, self.batch)

    def served_s(self, server: int) -> float:
        """What a device does for a request of a client, beside its layers."""
        device = self.devices[server]
        asked_s = device.speed.serving_overhead * self.world(engine_factor("hop"))
        return asked_s * crowding(device, self.batch) * self.noise(device)

    def per_pair(self, seconds: Callable[[int, int], float]) -> Floats:
        """(D, D) of what a pair costs, 0 on the diagonal."""
        table = np.zeros((len(self.devices), len(self.devices)))
        for a, b in self.pairs:
            table[a, b] = seconds(a, b)
        return table

    def hop_s(self, a: int, b: int, size_bytes: float) -> float:
        """Mean seconds of one message: `sum of both sides' delays + engine's own + bytes / rate`.

        Plus `variance_weight_per_s` times its variance: both are sums over hops, so a high quantile
        `mean + z sd` of the normal approximation, a quasi-concave function of the two, has its least value at
        a minimum of `mean + weight variance` for some weight.
        """
        path = self._path(a, b)
        # who sends does the work for a message, for each chat of the batch: as in `Draws.delay_s`
        crowd = 1 + self.devices[a].speed.batch_cost * (self.batch - 1)
        engine_s = crowd * self.engine.hop_overhead_s * self.world(engine_factor("hop"))
        delay_s = sum(
            leg.law.mean_s * leg.stretch * self.product(leg.scales) + leg.extra_s for leg in path.legs
        )
        spread_s = self.variance_weight_per_s * sum(
            leg.law.variance_s2 * (leg.stretch * self.product(leg.scales)) ** 2 for leg in path.legs
        )
        return delay_s + spread_s + engine_s + size_bytes * self._seconds_per_byte(path)

    def _path(self, a: int, b: int) -> Path:
        return self.cluster.path(self.devices[a].name, self.devices[b].name)

    def _seconds_per_byte(self, path: Path) -> float:
        legs = [1 / (leg.rate_bytes_per_s * self.product(leg.rates)) for leg in path.legs]
        # the rule of `Draws.seconds_per_byte`, for the middle world
        return sum(legs) if path.airtime_adds else max(legs)

    def ring(self, **parts: Floats) -> RingCosts:
        """RingCosts with these parts; what is not named is 0."""
        size, names = len(self.devices), [device.name for device in self.devices]
        pins = {role: self.request.pinned(role) for role in ("embedding", "head")}
        zero = {name: np.zeros(size) for name in ("layer_s", "each_s", "first_s", "last_s", "most_s")}
        zero |= {name: np.zeros((size, size)) for name in ("walk_s", "close_s", "star_s")}
        return RingCosts(
            layers=self.model.layers,
            caps=self._caps(),
            contention=self.contention,
            embedding=names.index(pins["embedding"]) if pins["embedding"] else None,
            head=names.index(pins["head"]) if pins["head"] else None,
            least_devices=self.least_devices,
            **(zero | parts),
        )

    def _caps(self) -> Ints:
        """Whole layers that each device has room for in the middle, first, last and alone, shape (4, D)."""
        footprint = self.request.footprint

        def caps(device: Device) -> list[int]:
            me, other = device.name, ""  # nobody is called that
            rings = ((other, me, other), (me, other), (other, me), (me,))
            # a byte more: sums of bytes per layer differ from the cap by rounding
            return [footprint.room_layers(ring, me, device.usable_bytes + 1) for ring in rings]

        return np.array([caps(device) for device in self.devices]).T
