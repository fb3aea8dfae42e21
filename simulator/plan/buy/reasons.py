"""Why a mix is as fast as it is: its limit, and what lifting it, or wiring everything,
would change; all simulated.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simulator.laws.law import Floats
from simulator.plan.buy.mix import Mix
from simulator.plan.buy.options import Shelf
from simulator.plan.buy.parts import Parts
from simulator.result.bottleneck import Bottleneck

__all__ = ["gain_of_speed", "gain_of_wiring", "reasons"]

NOTHING = 0.02
"""A change of less than 2 % is called nothing: less than any published spread from run to run."""
TWICE = 2.0
BANDWIDTH, ARITHMETIC = "decode_bandwidth", "prefill_flops"
PARTS = {BANDWIDTH: "memory bandwidth", ARITHMETIC: "arithmetic"}
"""Fields of a device's speed, in words."""


def reasons(mix: Mix, limit: Bottleneck, shelf: Shelf, parts: Parts) -> tuple[str, ...]:
    """The limit of a mix in words, then what was tried against it, in the search's own worlds."""
    found = [limit.sentence if limit.kind != "compute" or limit.device is None else _slow(mix, limit, parts)]
    wired = gain_of_wiring(mix, shelf, parts)
    if wired is not None:
        names, gain = wired
        found.append(f"wiring {names} would {_change(gain)}")
    return tuple(found)


def _slow(mix: Mix, limit: Bottleneck, parts: Parts) -> str:
    """Which part of a slow device holds it back: reading memory, arithmetic, or neither.

    A step takes the longer of the two (`simulator.runtime.cost`), so twice the one helps
    until the other is longer.
    """
    assert limit.device is not None
    kind = next(member.spec.kind or member.name for member in mix.members if member.name == limit.device)
    both = gain_of_speed(mix, limit.device, parts, BANDWIDTH, ARITHMETIC)
    gains = {part: gain_of_speed(mix, limit.device, parts, part) for part in PARTS}
    part = max(gains, key=gains.__getitem__)
    other = next(name for name in PARTS if name != part)
    if both < NOTHING:
        return f"{limit.sentence}; twice its memory bandwidth and arithmetic would {_change(both)}"
    if gains[part] < NOTHING:
        return (
            f"{limit.sentence}; twice its memory bandwidth or its arithmetic alone would change nothing, "
            f"both would {_change(both)}"
        )
    text = (
        f"{PARTS[part]} of {limit.device} ({kind}) is the limit: computing there takes {limit.share:.0%} "
        f"of a token's time, and twice that {PARTS[part]} would {_change(gains[part])}"
    )
    if both - gains[part] > NOTHING:
        text += f", as its {PARTS[other]} limits then; twice both {both:+.0%}"
    return text


def gain_of_speed(mix: Mix, device: str, parts: Parts, *fields: str) -> float:
    """Median gain of tokens/s, as a share, if these fields of this device's speed were twice as high."""
    job = parts.job(mix)
    devices = tuple(
        replace(
            d, speed=d.speed.model_copy(update={field: TWICE * getattr(d.speed, field) for field in fields})
        )
        if d.name == device
        else d
        for d in job.cluster.devices
    )
    return _gain(
        parts.rates_of(job), parts.rates_of(replace(job, cluster=replace(job.cluster, devices=devices)))
    )


def gain_of_wiring(mix: Mix, shelf: Shelf, parts: Parts) -> tuple[str, float] | None:
    """Which devices are wireless, and the median gain, as a share, if all were wired; None where none is."""
    members = tuple(shelf.wired(member) or member for member in mix.members)
    names = [old.name for old, new in zip(mix.members, members, strict=True) if old is not new]
    if not names or len(members) == 1:
        return None
    after = parts.rates_of(parts.job(replace(mix, members=members)))
    return " and ".join(names), _gain(parts.rates(mix), after)


def _gain(before: Floats, after: Floats) -> float:
    return float(np.median(after / before)) - 1


def _change(gain: float) -> str:
    if abs(gain) < NOTHING:
        return f"change nothing ({gain:+.1%})"
    return f"give {gain:+.0%}"
