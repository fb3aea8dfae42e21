"""Power of a cluster at the wall: what it draws while it decodes and while it waits."""

from __future__ import annotations

from collections.abc import Mapping

from simulator import catalog
from simulator.plan.buy.prices import PricesFile, price_data
from simulator.result.estimate import rounded
from simulator.run.predict import Prediction
from simulator.spec import Spec

__all__ = ["ClusterPower", "DevicePower", "busy_shares", "device_power", "power"]


class DevicePower(Spec):
    """One device: watts idle and under load, and the share of a token's time in which
    it is the one that works.
    """

    device: str
    idle_w: float
    load_w: float
    busy_share: float
    label: str
    source: str


class ClusterPower(Spec):
    """A cluster: `busy_w` on average while a chat runs, `idle_w` while it waits for one."""

    devices: tuple[DevicePower, ...]

    @property
    def idle_w(self) -> float:
        """All devices idle: `sum idle_i`."""
        return sum(device.idle_w for device in self.devices)

    @property
    def busy_w(self) -> float:
        """In a pipeline one device works while the others wait: `sum idle_i + share_i (load_i - idle_i)`."""
        return sum(
            device.idle_w + device.busy_share * (device.load_w - device.idle_w) for device in self.devices
        )


def power(prediction: Prediction, own: PricesFile | None = None) -> ClusterPower:
    """The power of the devices that hold layers; one that is left out is switched off."""
    shares = busy_shares(prediction)
    kinds = {
        # nobody has measured what a tower of several processors draws
        device.name: ("unknown" if device.processors else device.kind, device.memory_bytes)
        for device in prediction.prepared.job.ring
    }
    return ClusterPower(
        devices=tuple(
            device_power(name, kind, memory, shares[name], own) for name, (kind, memory) in kinds.items()
        )
    )


def busy_shares(prediction: Prediction) -> Mapping[str, float]:
    """Share of a token's time that each device of the ring computes on the critical path.

    Several chats at once may keep more devices busy; their shares sum to more than the path
    shows, so this is low then.
    """
    shares = {device.name: 0.0 for device in prediction.prepared.job.ring}
    for part in prediction.shares:
        if part.where in shares and part.kind != "queue":
            shares[part.where] += part.share
    return {name: rounded(share) for name, share in shares.items()}


def device_power(
    name: str, kind: str, memory_bytes: float | None, busy_share: float, own: PricesFile | None = None
) -> DevicePower:
    """Watts of one device: the user's, else the catalogue's, else those of its kind of machine (assumed)."""
    for key in (name, kind):
        if own is not None and key in own.watts:
            row = own.watts[key]
            return DevicePower(
                device=name,
                idle_w=row.idle,
                load_w=row.load,
                busy_share=busy_share,
                label="yours",
                source="your price file",
            )
    known = kind != "unknown"
    facts = catalog.device(kind, memory_bytes) if known else None
    words = f"{facts.name} {facts.category}" if facts else ""
    usual = next(row for row in price_data().watts if row.word in words)
    idle = facts.idle_w if facts and facts.idle_w is not None else usual.idle
    load = facts.load_w if facts and facts.load_w is not None else usual.load
    sure = facts is not None and facts.idle_w is not None and facts.load_w is not None
    return DevicePower(
        device=name,
        idle_w=idle,
        load_w=max(load, idle),
        busy_share=busy_share,
        label="catalogue" if sure else "assumed",
        source=facts.source if facts and sure else usual.source,
    )
