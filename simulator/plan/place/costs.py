"""Mean costs of one step for every device and pair of devices: what the exact search minimises.

They are those of the middle world: what is drawn once per world or run is at its median, what is
drawn for each token or message at its mean. Left out, and therefore checked by simulation
afterwards: that a gather waits for the latest of several messages (the mean of a maximum is
above the maximum of means), radios that doze, and chunks that overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import exp

import numpy as np

from simulator.cluster.cluster import Device, Path
from simulator.engine.exo_legacy import TENSOR_OVERHEAD_BYTES, TOKEN_BYTES
from simulator.engine.llama_star import LlamaStar
from simulator.errors import PlacementError
from simulator.laws.law import Floats
from simulator.placement.memory import fixed_bytes
from simulator.placement.shard import Placement
from simulator.plan.place.solve import Ints, RingCosts
from simulator.prepare import Ground
from simulator.runtime.cost import crowding, decode_s, head_s, prefill_s
from simulator.runtime.draws import Draws
from simulator.runtime.job import EngineCosts, Job

__all__ = ["SEARCHABLE", "MeanCosts", "decode_costs", "prompt_costs", "with_spread"]


@dataclass(frozen=True)
class MeanCosts:
    """The parts from which an engine's costs are put together; `batch` chats decode in step."""

    ground: Ground
    batch: int = 1

    @property
    def devices(self) -> tuple[Device, ...]:
        """All devices of the cluster, in the order in which they joined."""
        return self.ground.cluster.devices

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """All pairs of different devices."""
        size = len(self.devices)
        return tuple((a, b) for a in range(size) for b in range(size) if a != b)

    @property
    def context(self) -> float:
        """Tokens in the cache in the middle of the reply."""
        workload = self.ground.scenario.workload
        return workload.prompt_tokens + workload.output_tokens / 2

    def world(self, name: str) -> float:
        """The median of a world's factor: 1 unless a calibration has shifted it."""
        posterior = self.ground.scenario.posterior
        if posterior is None or name not in posterior.names:
            return 1.0
        column = posterior.names.index(name)
        return float(np.median([draw[column] for draw in posterior.draws]))

    def noise(self, device: Device) -> float:
        """Mean of what multiplies one token's work: `exp(sigma**2
        / 2)` of its own noise and of the common one.
        """
        common = self.ground.scenario.common_noise
        mean = exp((device.noise.sigma**2 + common.sigma**2) / 2)
        return mean * self.world(f"session/{device.name}") * self.world("session/common")

    def per_device(self, seconds: Callable[[Device], float], part: str = "decode") -> Floats:
        """Seconds of the same work on each device, with its
        noise and, for `part` decode or prefill, its world.
        """
        return np.array(
            [
                seconds(device)
                * self.noise(device)
                * (self.world(f"world/{device.name}/{part}") if part else 1.0)
                for device in self.devices
            ]
        )

    def host_s(self, device: Device, *, step: bool = True) -> float:
        """The device's own fixed time per token and, with `step`, that of the engine."""
        overhead = self.ground.scenario.engine.step_overhead or 0.0
        engine_s = overhead * self.world("world/engine/step") if step else 0.0
        return (device.speed.stage_overhead + engine_s) * crowding(device, self.batch)

    def per_pair(self, seconds: Callable[[int, int], float]) -> Floats:
        """(D, D) of what a pair costs, 0 on the diagonal."""
        table = np.zeros((len(self.devices), len(self.devices)))
        for a, b in self.pairs:
            table[a, b] = seconds(a, b)
        return table

    def hop_s(self, a: int, b: int, size_bytes: float) -> float:
        """Mean seconds of one message: `sum of both sides' delays + engine's own + bytes / rate`."""
        path = self._path(a, b)
        crowd = 1 + self.devices[a].speed.batch_cost * (self.batch - 1)
        engine_s = crowd * (self.ground.scenario.engine.hop_overhead or 0.0) * self.world("world/engine/hop")
        delay_s = sum(
            leg.law.mean_s * leg.stretch * self.world(leg.scale_name) + leg.extra_s for leg in path.legs
        )
        return delay_s + engine_s + size_bytes * self._seconds_per_byte(path)

    def hop_variance_s2(self, a: int, b: int) -> float:
        """Variance of one message's delay."""
        legs = self._path(a, b).legs
        return sum(leg.law.variance_s2 * (leg.stretch * self.world(leg.scale_name)) ** 2 for leg in legs)

    def _path(self, a: int, b: int) -> Path:
        return self.ground.cluster.path(self.devices[a].name, self.devices[b].name)

    def _seconds_per_byte(self, path: Path) -> float:
        legs = [1 / (leg.rate_bytes_per_s * self.world(leg.rate_name)) for leg in path.legs]
        return sum(legs) if path.airtime_adds else max(legs)

    def ring(self, **parts: Floats) -> RingCosts:
        """RingCosts with these parts; what is not named is 0."""
        size, scenario = len(self.devices), self.ground.scenario
        names = [device.name for device in self.devices]
        pins = {role: self.ground.request.pinned(role) for role in ("embedding", "head")}
        zero = {name: np.zeros(size) for name in ("layer_s", "each_s", "first_s", "last_s", "most_s")}
        zero |= {name: np.zeros((size, size)) for name in ("walk_s", "close_s", "star_s")}
        return RingCosts(
            layers=self.ground.model.layers,
            caps=self._caps(),
            contention=scenario.shared_host.contention if scenario.shared_host else 0.0,
            embedding=names.index(pins["embedding"]) if pins["embedding"] else None,
            head=names.index(pins["head"]) if pins["head"] else None,
            least_devices=scenario.placement.min_devices or 1,
            **(zero | parts),
        )

    def _caps(self) -> Ints:
        """Whole layers with their KV cache that fit beside
        the fixed bytes, as `placement.memory` counts them.
        """
        request = self.ground.request
        per_layer = request.layer_bytes + request.kv_bytes_per_layer

        def room(device: Device, ring: tuple[str, ...]) -> int:
            free = device.usable_bytes + 1 - sum(fixed_bytes(request, ring, device.name))
            return max(0, int(free // per_layer))

        def caps(device: Device) -> list[int]:
            me, other = device.name, ""  # nobody is called that
            return [room(device, ring) for ring in ((other, me, other), (me, other), (other, me), (me,))]

        return np.array([caps(device) for device in self.devices]).T


def _exo(costs: MeanCosts, *, prompt: bool) -> RingCosts:
    """Hidden states go right and come back left, hop by hop; all ranks compute the head at once.

    The slowest head is waited for by a notice, which is
    lighter than the hidden state: its hops cost a little less.
    """
    model, workload = costs.ground.model, costs.ground.scenario.workload
    if prompt:  # the last two prompt tokens go through as decode steps
        tokens = max(0, workload.prompt_tokens - 2)
        size = tokens * model.activation_bytes
        passes = costs.ring(
            layer_s=costs.per_device(lambda d: prefill_s(d, model, 1, tokens), "prefill"),
            walk_s=costs.per_pair(lambda a, b: costs.hop_s(a, b, size) if tokens else 0.0),
        )
        return passes.plus(_exo(replace(costs, batch=1), prompt=False), 2.0)
    hidden = costs.batch * model.activation_bytes
    head = costs.per_device(lambda d: head_s(d, model, costs.batch))
    return costs.ring(
        layer_s=costs.per_device(lambda d: float(decode_s(d, model, 1, costs.context, costs.batch))),
        most_s=head + costs.per_device(costs.host_s, ""),
        walk_s=costs.per_pair(lambda a, b: costs.hop_s(a, b, hidden) + costs.hop_s(b, a, hidden)),
    )


def _legacy(costs: MeanCosts, *, prompt: bool) -> RingCosts:
    """Each rank sends the activation on, the last one computes the head and sends the token to the first."""
    model, tokens = costs.ground.model, costs.ground.scenario.workload.prompt_tokens if prompt else 1
    size = tokens * model.activation_bytes + TENSOR_OVERHEAD_BYTES
    part = "prefill" if prompt else "decode"

    def layer_s(device: Device) -> float:
        return (
            prefill_s(device, model, 1, tokens)
            if prompt
            else float(decode_s(device, model, 1, costs.context))
        )

    return costs.ring(
        layer_s=costs.per_device(layer_s, part),
        each_s=costs.per_device(costs.host_s, ""),
        last_s=costs.per_device(lambda d: head_s(d, model), part),
        walk_s=costs.per_pair(lambda a, b: costs.hop_s(a, b, size)),
        close_s=costs.per_pair(lambda a, b: costs.hop_s(a, b, TOKEN_BYTES)),
    )


def _star(costs: MeanCosts, *, prompt: bool) -> RingCosts:
    """The client asks each server in turn; the last one's reply is the logits."""
    model, workload, part = (
        costs.ground.model,
        costs.ground.scenario.workload,
        "prefill" if prompt else "decode",
    )
    middle, end = _star_bytes(costs, prompt=prompt)

    def ask_s(client: int, server: int, sizes: tuple[float, float]) -> float:
        return costs.hop_s(client, server, sizes[0]) + costs.hop_s(server, client, sizes[1])

    def layer_s(device: Device) -> float:
        if prompt:
            return prefill_s(device, model, 1, workload.prompt_tokens * costs.batch)
        return float(decode_s(device, model, 1, costs.context, costs.batch))

    return costs.ring(
        layer_s=costs.per_device(layer_s, part),
        each_s=costs.per_device(lambda d: costs.host_s(d, step=False), ""),
        first_s=costs.per_device(lambda d: costs.host_s(d) - costs.host_s(d, step=False), ""),
        last_s=costs.per_device(lambda d: head_s(d, model, costs.batch), part),
        star_s=costs.per_pair(lambda a, b: ask_s(a, b, middle)),
        close_s=costs.per_pair(lambda last, first: ask_s(first, last, end) - ask_s(first, last, middle)),
    )


def _star_bytes(costs: MeanCosts, *, prompt: bool) -> tuple[tuple[float, float], tuple[float, float]]:
    """Mean bytes of (request, reply) for a server between
    others and for the last one, with layers evenly spread.
    """
    ground, names = costs.ground, [device.name for device in costs.devices]
    if len(names) == 1:
        return (0.0, 0.0), (0.0, 0.0)
    whole, rest = divmod(ground.model.layers, len(names))
    even = [(name, whole + (at < rest)) for at, name in enumerate(names)]
    job = Job(
        ground.cluster,
        ground.model,
        Placement.from_layers(even, "even"),
        EngineCosts("llama-rpc", 0, 0, 0, 0),
        ground.scenario.workload,
        0,
    )
    star = LlamaStar(job, Draws(job, 0, 1))

    def sizes(server: int) -> tuple[float, float]:
        if prompt:
            chunks = range(len(star.chunks))
            back = sum(star.reply_bytes(server, star.chunks[c]) for c in chunks)
            return sum(star.prompt_request_bytes(server, c) for c in chunks), back
        return float(np.mean(star.decode_request_bytes(server))), star.reply_bytes(server, star.batch)

    return sizes(max(1, star.servers - 1)), sizes(star.servers)


SEARCHABLE = {"exo": _exo, "exo-legacy": _legacy, "llama-rpc": _star}
"""Engines whose costs are known here; another engine needs a function like these to be searched."""


def _engine_costs(costs: MeanCosts, *, prompt: bool) -> RingCosts:
    name = costs.ground.engine.name
    if name not in SEARCHABLE:
        raise PlacementError(
            f"placements for engine {name!r} cannot be searched; engines are {', '.join(SEARCHABLE)}; "
            "compare some by hand with `sim compare`"
        )
    return SEARCHABLE[name](costs, prompt=prompt)


def decode_costs(ground: Ground, batch: int = 1) -> RingCosts:
    """Of one decode step of `batch` chats in the middle of
    the reply; raises PlacementError for an unknown engine.
    """
    return _engine_costs(MeanCosts(ground, batch), prompt=False)


def prompt_costs(ground: Ground) -> RingCosts:
    """From the request to the first token of one chat, chunks
    one after the other; raises as `decode_costs` does.
    """
    return _engine_costs(MeanCosts(ground), prompt=True)


def with_spread(ground: Ground, costs: RingCosts, weight_per_s: float, chosen: Sequence[int]) -> RingCosts:
    """`costs` of the `chosen` devices with `weight_per_s`
    times the variance (s2) of the delays added to each hop.

    Both are sums over hops, so a high quantile `mean + z sd` of the normal
    approximation, which is a quasi-concave function of the two, has its
    least value at a minimum of `mean + weight variance` for some weight.
    """
    parts = MeanCosts(ground)
    variance_s2 = parts.per_pair(parts.hop_variance_s2)[np.ix_(chosen, chosen)]
    if ground.engine.name == "exo-legacy":
        extra = weight_per_s * variance_s2
        return replace(costs, walk_s=costs.walk_s + extra, close_s=costs.close_s + extra)
    extra = weight_per_s * (variance_s2 + variance_s2.T)  # messages go both ways
    field = "star_s" if ground.engine.name == "llama-rpc" else "walk_s"
    return replace(costs, **{field: getattr(costs, field) + extra})
