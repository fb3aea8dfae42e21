"""Heat: a device without enough cooling slows down while it works and recovers while it waits.

One lumped body and a governor, two parameters. The heat h of a device follows `tau dh/dt = u f - h`: it is
fed by the share u of the time that the device works, at speed f (a share of the cold speed), and cools by
itself. The governor slows down in proportion: `f = 1 - k h` with `k = (1 - s) / s`. Working without pause (u
= 1) that gives `f(t) = s + (1 - s) exp(-t / (tau s))`, an exponential approach to the sustained share s; so
the scenario's `approach` is `tau s`. A device that waits for others in a ring (u < 1) settles at `f = 1 / (1
+ u k)`; one that idles cools with the time constant tau. `scripts/fit_heat.py` fits both parameters and says
how well they predict runs left out; cooling follows from the equation and has no recording of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, inf, log1p

from simulator.churn.spec import HeatSpec

__all__ = ["Heat", "busy_speed", "settled_slow_down"]

ROUNDS = 100  # of a contraction: far more than its digits need
SPEED_STEP = 0.02  # a device's speed is renewed when it has changed by about this share


def busy_speed(spec: HeatSpec, elapsed_s: float) -> float:
    """Share of the cold speed after `elapsed_s` of work without pause: `s + (1 - s) exp(-t / approach)`.

    >>> busy_speed(HeatSpec(approach="40 s", sustained="50 %"), 0.0)
    1.0
    """
    return spec.sustained + (1 - spec.sustained) * exp(-elapsed_s / spec.approach)


def settled_slow_down(shares: Mapping[str, float], laws: Mapping[str, HeatSpec]) -> float:
    """How many times as long a token takes once every hot device is steady; `shares` of a cold token's time.

    Device d works `f_d s_d` of a token's `G = 1 + sum (f_d - 1) s_d` and settles at `f_d = 1 + k_d f_d s_d /
    G`: a fixed point, found by going round, because the slower one device is the more the others rest.

    >>> settled_slow_down({"phone": 1.0}, {"phone": HeatSpec(approach="40 s", sustained="50 %")})
    2.0
    """
    slow = dict.fromkeys(laws, 1.0)
    for _ in range(ROUNDS):
        token = 1 + sum((slow[name] - 1) * shares.get(name, 0.0) for name in laws)
        slow = {
            name: 1 + (1 / law.sustained - 1) * min(1.0, slow[name] * shares.get(name, 0.0) / token)
            for name, law in laws.items()
        }
    return 1 + sum((slow[name] - 1) * shares.get(name, 0.0) for name in laws)


@dataclass(slots=True)
class Heat:
    """The heat of one device in one replication; `heat` is 0 when cold."""

    approach_s: float
    sustained: float
    heat: float = 0.0
    since_s: float = 0.0
    """Time up to which `heat` holds."""

    @property
    def gain(self) -> float:
        """K of the governor: `(1 - s) / s`."""
        return (1 - self.sustained) / self.sustained

    @property
    def slow(self) -> float:
        """What multiplies the device's times: `1 / (1 - k h)`."""
        return 1 / (1 - self.gain * self.heat)

    def advance(self, now_s: float, busy: float) -> None:
        """Let time pass up to `now_s`, working a share `busy` of it: an exponential
        approach to `u / (1 + u k)`.
        """
        if now_s > self.since_s:
            end, rate = self._towards(busy)
            self.heat = end + (self.heat - end) * exp(-rate * (now_s - self.since_s))
            self.since_s = now_s

    def step_s(self, busy: float) -> float:
        """How long (s) its speed stays within a step, working a share `busy` of the
        time; inf once it is steady.
        """
        end, rate = self._towards(busy)
        change = self.gain * abs(end - self.heat) * self.slow
        return inf if change <= SPEED_STEP else -log1p(-SPEED_STEP / change) / rate

    def _towards(self, busy: float) -> tuple[float, float]:
        """Final heat and rate (1/s) of the approach: `h' = (u - (1 + u k) h) / tau`, `tau = approach / s`."""
        stiffness = 1 + busy * self.gain
        return busy / stiffness, stiffness * self.sustained / self.approach_s
