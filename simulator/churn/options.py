"""Options: would a spare device, or two smaller models on half of the devices each, serve
better than the cluster as is?

All three are compared over many losses of the same device: it leaves `failures_per_hour` times per hour
of decoding, and comes back after `away_s`. Rates and recovery times are those of simulated dropouts;
the long run is arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulator.churn.estimate import HOUR_S, Dropout, predict_dropout
from simulator.churn.placing import survivors
from simulator.churn.spec import Drop, Join
from simulator.errors import PlacementError
from simulator.laws.law import Floats
from simulator.result.estimate import Estimate, estimate
from simulator.scenario import ModelSpec, Scenario
from simulator.spec import Spec

__all__ = ["LossOption", "LossRate", "long_run", "options"]

LEAST_REPLICATIONS = 50


class LossRate(Spec):
    """How often the device leaves, per hour of decoding, and how long (s) it stays away."""

    failures_per_hour: float = 1.0
    away_s: float = 600.0


class LossOption(Spec):
    """One way to live with losses."""

    name: str
    tokens_per_hour: Estimate
    serving: Estimate
    """Share of the time in which tokens are made."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Samples:
    """What the replications say, one value each."""

    before: Floats
    after: Floats
    """0 where the survivors cannot hold the model."""
    recovery_s: Floats


def long_run(before: Floats, after: Floats, recovery_s: Floats, losses: LossRate) -> tuple[Floats, Floats]:
    """(tokens per hour, share of the time in which tokens are made) over many losses.

    A cycle is decoding for 1 / lambda at the rate `before`, recovery R without a token, the
    rest of the absence A at the rate `after`, and another recovery when the device is taken
    in again: `tokens = before / lambda + after max(0, A - R)`, `length = 1 / lambda + max(A,
    R) + R` (renewal reward: Cox, Renewal Theory, 1962). Where the survivors cannot hold the
    model `after` is 0 and the cluster stands still during the absence.
    """
    up_s = HOUR_S / losses.failures_per_hour
    limping_s = np.where(after > 0, np.maximum(0.0, losses.away_s - recovery_s), 0.0)
    length_s = up_s + np.maximum(losses.away_s, recovery_s) + recovery_s
    return HOUR_S * (before * up_s + after * limping_s) / length_s, (up_s + limping_s) / length_s


def options(dropout: Dropout, losses: LossRate, smaller: ModelSpec | None = None) -> tuple[LossOption, ...]:
    """The options for the device of the scenario's first drop, the most tokens first.

    Without `smaller` there is no model for the halves, and that option is left out.
    """
    scenario = dropout.study.scenario
    drop = next((event for event in scenario.events if isinstance(event, Drop)), None)
    if drop is None:
        return ()
    found = [_option("as it is", _samples(dropout), losses), _spare(scenario, drop, losses)]
    if smaller is not None:
        found += _halves(scenario, drop, losses, smaller)
    return tuple(sorted(found, key=lambda option: -option.tokens_per_hour.median))


def _samples(dropout: Dropout) -> _Samples:
    """Rates and recoveries as samples; a slow world is slow in all of them, so each
    is taken in its own order.
    """
    n = len(dropout.traces)
    found = (dropout.before_tokens_per_s, dropout.after_tokens_per_s, dropout.recovery_s)
    return _Samples(*(_spread(value, n) for value in found))


def _spread(value: Estimate | None, n: int) -> Floats:
    """`n` values with the Estimate's quantiles, in order; zeros where there is none."""
    if value is None:
        return np.zeros(n)
    return np.asarray(
        np.interp((np.arange(n) + 0.5) / n, [0.05, 0.5, 0.95], [value.p05, value.median, value.p95])
    )


def _option(name: str, samples: _Samples, losses: LossRate, note: str = "") -> LossOption:
    per_hour, serving = long_run(samples.before, samples.after, samples.recovery_s, losses)
    if not note and not samples.after.any():
        note = "the survivors cannot hold the model"
    return LossOption(name=name, tokens_per_hour=estimate(per_hour), serving=estimate(serving), note=note)


def _spare(scenario: Scenario, drop: Drop, losses: LossRate) -> LossOption:
    """A second device of the same kind stands by and takes the place of the lost one."""
    name = f"spare_{drop.device}"
    others = tuple(event for event in scenario.events if event is not drop)
    # there from the first moment but not in the first placement: a `join` keeps it out until then
    standby = Join(device=name, at="0 s")
    changed = scenario.model_copy(
        update={
            "devices": {**scenario.devices, name: scenario.devices[drop.device]},
            "events": (standby, drop, *others),
        }
    )
    samples = _samples(predict_dropout(changed, _enough(scenario)))
    # the lost device comes back as the next spare, so nobody waits for it and nothing is placed again
    up_s = HOUR_S / losses.failures_per_hour
    serving = up_s / (up_s + samples.recovery_s)
    return LossOption(
        name=f"a spare {drop.device}",
        tokens_per_hour=estimate(HOUR_S * samples.before * serving),
        serving=estimate(serving),
        note=f"one more device like {drop.device}, idle until it is needed",
    )


def _halves(scenario: Scenario, drop: Drop, losses: LossRate, smaller: ModelSpec) -> list[LossOption]:
    """A smaller model on each half of the devices: a loss stops one half only."""
    hit, spared = _split(scenario, drop.device)
    halves = []
    for names, events in ((hit, (drop,)), (spared, ())):
        half = survivors(scenario, names).model_copy(update={"model": smaller, "events": events})
        try:
            halves.append(predict_dropout(half, _enough(scenario)))
        except PlacementError:
            return []
    samples, other = _samples(halves[0]), _samples(halves[1])
    own, serving = long_run(samples.before, samples.after, samples.recovery_s, losses)
    total = own + HOUR_S * other.before
    note = (
        f"{', '.join(hit)} and {', '.join(spared)}, each with {smaller.name}; two chats at once, "
        "each of a smaller model"
    )
    return [
        LossOption(
            name=f"two times {smaller.name}",
            tokens_per_hour=estimate(total),
            serving=estimate(serving),
            note=note,
        )
    ]


def _split(scenario: Scenario, device: str) -> tuple[Sequence[str], Sequence[str]]:
    """Two halves of about the same memory, the one with `device` first: largest first,
    always to the smaller half.
    """
    halves: list[list[str]] = [[], []]
    held = [0.0, 0.0]
    sizes = {name: spec.usable_memory or 0.0 for name, spec in scenario.devices.items()}
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        side = held.index(min(held))
        halves[side].append(name)
        held[side] += sizes[name]
    with_device = next(half for half in halves if device in half)
    return with_device, next(half for half in halves if half is not with_device)


def _enough(scenario: Scenario) -> int:
    return min(LEAST_REPLICATIONS, scenario.replications)
