"""Membership: who is there, who can be placed on, and what slows whom, at this moment of one replication."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import simpy

from simulator.cluster.cluster import Cluster, Device
from simulator.laws.law import scaled

__all__ = ["NORMAL", "Condition", "Departure", "Membership", "altered"]


@dataclass(frozen=True, slots=True)
class Condition:
    """What an event does to a device as long as it lasts."""

    slow: float = 1.0
    """Multiplies all of the device's computing times."""
    load: float = 0.0
    """Share of the device that other work takes."""
    delay: float = 1.0
    """Multiplies the delays of its link."""
    rate: float = 1.0
    """Multiplies the throughput of its link."""

    def __and__(self, other: Condition) -> Condition:
        """Both at once: the tighter governor rules, each load leaves its share of what the
        other left, links multiply.
        """
        return Condition(
            max(self.slow, other.slow),
            1 - (1 - self.load) * (1 - other.load),
            self.delay * other.delay,
            self.rate * other.rate,
        )


NORMAL = Condition()


@dataclass(frozen=True, slots=True)
class Departure:
    """When a device left, and whether anybody was told."""

    time_s: float
    silent: bool


class Membership:
    """The devices of one replication; `changed` is the event of the next change of any kind."""

    def __init__(self, env: simpy.Environment, devices: Iterable[str]) -> None:
        self.env = env
        self.changed: simpy.Event = env.event()
        self.starts: dict[str, int] = {}
        """How often each device has started: a device that left and came back has nothing in memory."""
        self.departures: dict[str, Departure] = {}
        """The latest departure of each device that is away."""
        self._ready: dict[str, int] = {}
        self._conditions: dict[int, tuple[str, Condition]] = {}
        self._numbers = 0
        for name in devices:
            self.starts[name] = 1
            self._ready[name] = 1

    def ready(self) -> tuple[str, ...]:
        """The devices that a placement may use, in the order in which they joined."""
        return tuple(self._ready)

    def is_present(self, name: str) -> bool:
        """Whether the device runs, ready for a placement or not yet."""
        return name in self.starts and name not in self.departures

    def same_start(self, name: str, start: int) -> bool:
        """Whether the device is ready and has not restarted since its start number `start`."""
        return self._ready.get(name) == start

    def leave(self, name: str, silent: bool) -> bool:
        """The device goes; False where it was not there."""
        if not self.is_present(name):
            return False
        self.departures[name] = Departure(self.env.now, silent)
        self._ready.pop(name, None)
        self._tell()
        return True

    def arrive(self, name: str, ready_after_s: float) -> bool:
        """The device starts and can be placed on after `ready_after_s`; False where it runs already."""
        if self.is_present(name):
            return False
        self.departures.pop(name, None)
        self.starts[name] = self.starts.get(name, 0) + 1
        self.env.process(self._get_ready(name, self.starts[name], ready_after_s))
        return True

    def _get_ready(self, name: str, start: int, after_s: float) -> Generator[simpy.Event, Any, None]:
        yield self.env.timeout(after_s)
        # it may have left, and even have come back, while it started
        if self.is_present(name) and self.starts[name] == start:
            self._ready[name] = start
            self._tell()

    def begin(self, name: str, condition: Condition) -> int:
        """Something changes for a device; the number ends it again."""
        self._numbers += 1
        self._conditions[self._numbers] = (name, condition)
        self._tell()
        return self._numbers

    def end(self, number: int) -> None:
        """What `begin` began is over."""
        del self._conditions[number]
        self._tell()

    def conditions(self, names: Sequence[str]) -> tuple[tuple[str, Condition], ...]:
        """What holds for those of `names` for which anything does, in their order."""
        found: dict[str, Condition] = {}
        for name, condition in self._conditions.values():
            found[name] = found.get(name, NORMAL) & condition
        return tuple((name, found[name]) for name in names if found.get(name, NORMAL) != NORMAL)

    def _tell(self) -> None:
        # the next event is in place before anybody wakes, or they would wait for one that is over
        happened, self.changed = self.changed, self.env.event()
        happened.succeed()


def altered(cluster: Cluster, conditions: Sequence[tuple[str, Condition]]) -> Cluster:
    """The cluster under these conditions."""
    if not conditions:
        return cluster
    by_name = dict(conditions)
    devices = tuple(_altered(device, by_name.get(device.name, NORMAL)) for device in cluster.devices)
    return replace(cluster, devices=devices)


def _altered(device: Device, condition: Condition) -> Device:
    """The device under a condition.

    `slow` has a field of its own, because a calibration redraws `contention` in each world.
    """
    link = replace(
        device.link,
        delay=scaled(device.link.delay, condition.delay),
        rate_bytes_per_s=device.link.rate_bytes_per_s * condition.rate,
    )
    return replace(
        device,
        slow_down=device.slow_down * condition.slow,
        link=link,
        background_load=1 - (1 - device.background_load) * (1 - condition.load),
    )
