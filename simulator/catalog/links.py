"""Networks of a home: throughput, delay laws of one side, VPN overlays, and the naps of phone radios."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from simulator.catalog.tables import Facts, normalise, pick, tree
from simulator.errors import CatalogError
from simulator.units import RATE, TIME, read_quantity

__all__ = [
    "BusFacts",
    "NetworkFacts",
    "PowerSaveFacts",
    "VpnFacts",
    "bus",
    "buses",
    "network",
    "networks",
    "power_save",
    "vpn",
    "vpns",
]

Medium = Literal["wifi", "wired", "direct"]


class PowerSaveFacts(Facts):
    """A radio that dozes after `awake_s` without traffic;
    `wake` is the law of the delay of the next message.
    """

    awake_s: float
    wake: dict[str, Any]
    source: str
    confidence: str
    assumed_fields: tuple[str, ...] = ()


class VpnFacts(Facts):
    """An overlay: `added_delay_s` end to end for one
    message, and the share of the throughput that is left.
    """

    name: str
    title: str
    medium: Literal["vpn"] = "vpn"
    added_delay_s: float
    rate_share: float
    rate_share_log_sd: float
    source: str
    confidence: str
    assumed_fields: tuple[str, ...] = ()


class CollectiveFacts(Facts):
    """Messages between ranks that poll for them: the law of ONE side, and how much set-ups differ."""

    delay: dict[str, Any]
    scale_log_sd: float
    source: str
    confidence: str


class NetworkFacts(Facts):
    """One kind of link. `delay` is the law (as `simulator.laws` reads it) of one message on ONE side.

    A path from device to device has two sides, a round trip four crossings;
    that holds for a direct cable too. `scale_log_sd` and `rate_log_sd` tell
    how much homes differ (standard deviation of the natural logarithm).
    """

    name: str
    aliases: tuple[str, ...]
    title: str
    medium: Medium
    rate_bytes_per_s: float
    delay: dict[str, Any]
    scale_log_sd: float
    rate_log_sd: float
    collective: CollectiveFacts | None = None
    """The same of a message in a collective, where that differs."""
    over_tcp: str | None = None
    """The network that the same cable is for who cannot use RDMA."""
    home_share: float = 0.0
    """Share of both variances that is the home's, and so the same for all radios of an access point."""
    source: str
    confidence: str
    assumed_fields: tuple[str, ...] = ()

    def power_save(self, platform: str) -> PowerSaveFacts | None:
        """How the radio of a device of this platform dozes; None for cables and for what is no phone."""
        return power_save(platform) if self.medium == "wifi" else None


class BusFacts(Facts):
    """How a graphics card is plugged in: bytes/s each way, and the delay of one side of a hand-over."""

    name: str
    aliases: tuple[str, ...]
    title: str
    rate_bytes_per_s: float
    delay_s: float
    source: str
    confidence: str
    assumed_fields: tuple[str, ...] = ()


@cache
def buses() -> tuple[BusFacts, ...]:
    """All buses, in the order of buses.yaml."""
    found = []
    for entry in tree("buses")["buses"]:
        fields = _fields({key: value for key, value in entry.items() if key != "delay"})
        # a plain time, where the delay of a network is a law
        found.append(BusFacts(**fields, delay_s=read_quantity(entry["delay"], TIME)))
    return tuple(found)


def bus(name: str) -> BusFacts:
    """The bus called `name`: pcie3_x16, pcie4_x4, ...; raises CatalogError for an unknown one."""
    return pick("bus", name, buses(), lambda facts: (facts.name, *facts.aliases))[0]


@cache
def networks() -> tuple[NetworkFacts, ...]:
    """All networks, in the order of networks.yaml."""
    return tuple(NetworkFacts(**_fields(entry)) for entry in tree("networks")["networks"])


@cache
def vpns() -> tuple[VpnFacts, ...]:
    """All overlays."""
    return tuple(VpnFacts(**_fields(entry)) for entry in tree("networks")["vpns"])


def network(name: str) -> NetworkFacts:
    """The network called `name`: wifi6, ethernet_1g, thunderbolt4, ...

    Raises CatalogError for an unknown one, and for an overlay, which is no network but lies on one.
    """
    if normalise(name) in {facts.name for facts in vpns()}:
        raise CatalogError(
            f"{name!r} is an overlay on a network: give the network itself and add `vpn: {normalise(name)}`"
        )
    return pick("network", name, networks(), lambda facts: (facts.name, *facts.aliases))[0]


def vpn(name: str) -> VpnFacts:
    """The overlay called `name`: tailscale or wireguard; raises CatalogError for an unknown one."""
    return pick("network", name, vpns(), lambda facts: (facts.name,))[0]


def power_save(platform: str) -> PowerSaveFacts | None:
    """How a phone's radio dozes, by platform ('ios-metal', 'android-cpu'); None for anything but a phone."""
    entry = tree("networks")["power_save"].get(platform.split("-")[0])
    return None if entry is None else PowerSaveFacts(**_fields(entry))


# keys of the file that carry a unit: the field they fill, and the units it is read in
QUANTITIES = {
    "rate": ("rate_bytes_per_s", RATE),
    "added_delay": ("added_delay_s", TIME),
    "awake": ("awake_s", TIME),
}


def _fields(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of the file as the fields of its facts, in base units."""
    fields = {key: value for key, value in entry.items() if key not in QUANTITIES and key != "assumed"}
    for key, (field, units) in QUANTITIES.items():
        if key in entry:
            fields[field] = read_quantity(entry[key], units)
    return fields | {"assumed_fields": tuple(entry["assumed"])}
