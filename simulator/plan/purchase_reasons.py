"""Why a mix is as fast as it is: its limit, and what lifting it, or wiring everything, would change; all simulated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simulator.laws.law import Floats
from simulator.plan.purchase_mix import Mix
from simulator.plan.purchase_options import Shelf
from simulator.plan.purchase_parts import Parts
from simulator.result.bottleneck import Bottleneck

__all__ = ["gain_of_bandwidth", "gain_of_wiring", "reasons"]

NOTHING = 0.02
"""A change of less than 2 % is called nothing: less than any published spread from run to run."""
TWICE = 2.0


def reasons(mix: Mix, limit: Bottleneck, shelf: Shelf, parts: Parts) -> tuple[str, ...]:
    """The limit of a mix in words, then what was tried against it, in the search's own worlds."""
    found = []
    if limit.kind == "compute" and limit.device is not None:
        gain = gain_of_bandwidth(mix, limit.device, parts)
        kind = next(member.spec.kind or member.name for member in mix.members if member.name == limit.device)
        if gain > NOTHING:
            found.append(
                f"memory bandwidth of {limit.device} ({kind}) is the limit: {limit.share:.0%} of a token's time, "
                f"and twice the bandwidth there would {_change(gain)}"
            )
        else:
            found.append(f"{limit.sentence}; twice its memory bandwidth would {_change(gain)}")
    else:
        found.append(limit.sentence)
    wired = gain_of_wiring(mix, shelf, parts)
    if wired is not None:
        names, gain = wired
        found.append(f"wiring {names} would {_change(gain)}")
    return tuple(found)


def gain_of_bandwidth(mix: Mix, device: str, parts: Parts) -> float:
    """Median gain of tokens/s, as a share, if this device read its memory twice as fast."""
    job = parts.job(mix)
    devices = tuple(
        replace(d, speed=d.speed.model_copy(update={"decode_bandwidth": TWICE * d.speed.decode_bandwidth}))
        if d.name == device else d for d in job.cluster.devices
    )
    return _gain(parts.rates_of(job), parts.rates_of(replace(job, cluster=replace(job.cluster, devices=devices))))


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
