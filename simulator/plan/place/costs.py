"""The mean costs of a scenario's placements: those of its engine, with the scenario's devices and limits."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.errors import PlacementError
from simulator.prepare import Ground, engine_costs
from simulator.runtime.mean_costs import MeanCosts
from simulator.runtime.ring_costs import RingCosts
from simulator.scenario import NoiseSpec

__all__ = ["decode_costs", "mean_parts", "prompt_costs", "spread_costs"]


def mean_parts(ground: Ground, batch: int = 1, variance_weight_per_s: float = 0.0) -> MeanCosts:
    """The parts from which the engine puts its mean costs together, for `batch` chats that decode in step.

    Raises PlacementError where a device has several processors.
    """
    scenario = ground.scenario
    hosts = [device.name for device in ground.cluster.devices if device.processors]
    if hosts:
        raise PlacementError(
            f"placements with {', '.join(hosts)} cannot be searched: what one more layer costs a device of "
            "several processors depends on how many it has; compare some by hand (`placement: {layers: ...}` "
            "and `sim compare`), or sweep its offload"
        )
    return MeanCosts(
        cluster=ground.cluster,
        model=ground.model,
        engine=engine_costs(scenario.engine),
        workload=scenario.workload,
        request=ground.request,
        common_noise=scenario.common_noise or NoiseSpec(sigma=0.0),
        posterior=scenario.posterior,
        contention=scenario.shared_host.contention if scenario.shared_host else 0.0,
        least_devices=scenario.placement.min_devices or 1,
        batch=batch,
        variance_weight_per_s=variance_weight_per_s,
    )


def decode_costs(ground: Ground, batch: int = 1) -> RingCosts:
    """Of one decode step of `batch` chats in the middle of the reply.

    Raises PlacementError for an engine whose costs are not known.
    """
    return ground.engine.mean_ring_costs(mean_parts(ground, batch))


def prompt_costs(ground: Ground) -> RingCosts:
    """From the request to the first token of one chat, chunks one after the other;
    raises as `decode_costs`.
    """
    return ground.engine.mean_ring_costs(mean_parts(ground), prompt=True)


def spread_costs(ground: Ground, batch: int, weight_per_s: float, chosen: Sequence[int]) -> RingCosts:
    """`decode_costs` of the `chosen` devices with `weight_per_s` times the variance
    (s2) of delays in each hop.
    """
    return ground.engine.mean_ring_costs(mean_parts(ground, batch, weight_per_s)).only(chosen)
