"""What this device is and how it is now: chip, memory, power, heat, and the network that it is on.

Nothing here fails: what cannot be read on a platform stays None, and the reader decides what that means.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from live.agent import readings
from live.agent.readings import PowerState, Wifi
from live.agent.told import checked, printable

__all__ = [
    "AgentFacts",
    "SystemReader",
    "collect",
    "link_kind_of",
    "own_addresses",
    "platform_name",
    "printable",
]

AIRPORT = "/System/Library/PrivateFrameworks/Apple80211.framework/Versions/Current/Resources/airport"
MOST_ADDRESSES = 256
TOOL_TIMEOUT_S = 8.0  # system_profiler takes several seconds on a cold start


@dataclass(frozen=True, slots=True)
class SystemReader:
    """The two ways to learn something here, replaceable in tests: the output of a
    tool, the content of a file.
    """

    run: Callable[..., str]
    read: Callable[[str], str]
    list: Callable[[str], tuple[str, ...]]


def _run(*command: str) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TOOL_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
            errors="replace",
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _list(folder: str) -> tuple[str, ...]:
    try:
        return tuple(sorted(entry.name for entry in Path(folder).iterdir()))
    except OSError:
        return ()


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """One device; bytes, bits/s, degrees Celsius, seconds since 1970 by its own clock."""

    name: str
    platform: str
    """linux, macos or android"""
    system: str = ""
    chip: str = ""
    cores: int = 0
    memory_total_bytes: float | None = None
    memory_free_bytes: float | None = None
    wifi: Wifi | None = None
    power: PowerState = field(default_factory=PowerState)
    temperature_c: float | None = None
    interface: str = ""
    """that the default route uses"""
    link_kind: str = "unknown"
    """wifi, ethernet, thunderbolt, usb, cellular, vpn, unknown"""
    addresses: tuple[tuple[str, str, int], ...] = ()
    """(interface, address, prefix length)"""
    clock_s: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AgentFacts:
        """Read what another agent sent; unknown keys are left out. Raises ValueError
        for what cannot be facts.
        """
        try:
            wifi, listed = values.get("wifi"), values.get("addresses") or ()
            return cls(
                **checked(cls, values),
                wifi=None if wifi is None else Wifi(**checked(Wifi, wifi)),
                power=PowerState(**checked(PowerState, values.get("power") or {})),
                addresses=tuple((printable(a), printable(b), int(c)) for a, b, c in listed[:MOST_ADDRESSES]),
            )
        except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
            raise ValueError(f"these are no facts of a device: {error}") from error


def platform_name() -> str:
    """linux, macos or android; Termux calls itself linux, so its own marks are asked for."""
    if sys.platform == "darwin":
        return "macos"
    android = sys.platform == "android" or hasattr(sys, "getandroidapilevel") or "ANDROID_ROOT" in os.environ
    return "android" if android else "linux"


def collect(
    reader: SystemReader | None = None, kind: str | None = None, name: str | None = None
) -> AgentFacts:
    """Everything that can be read here without special rights; takes up to some seconds on macOS."""
    source = reader or SystemReader(_run, _read, _list)
    found = AgentFacts(
        name=name or platform.node() or "unnamed",
        platform=kind or platform_name(),
        system=f"{platform.system()} {platform.release()}",
        cores=os.cpu_count() or 0,
        addresses=own_addresses(),
    )
    collected = {"macos": _macos, "android": _android, "linux": _linux}[found.platform](source, found)
    return replace(collected, clock_s=time.time())


def own_addresses() -> tuple[tuple[str, str, int], ...]:
    """(interface, address, prefix length) of every address of this device."""
    try:
        import ifaddr  # comes with zeroconf

        adapters = list(ifaddr.get_adapters())
    except (ImportError, OSError):
        return ()
    found = [
        (adapter.nice_name, ip.ip if isinstance(ip.ip, str) else ip.ip[0], ip.network_prefix)
        for adapter in adapters
        for ip in adapter.ips
    ]
    return tuple((name, address.partition("%")[0], prefix) for name, address, prefix in found)


VPN_NAMES = ("utun", "tun", "tap", "wg", "tailscale", "ppp", "ipsec", "zt", "nordlynx", "proton")


def link_kind_of(interface: str, *, wireless: bool = False, port: str = "") -> str:
    """The kind of link by the name of the interface, its hardware port (macOS), or a wireless mark (Linux).

    >>> link_kind_of("utun4"), link_kind_of("en0", port="Wi-Fi"), link_kind_of("eth0")
    ('vpn', 'wifi', 'ethernet')
    """
    if not interface:
        return "unknown"
    # first of all: whatever lies below it, a tunnel is what our packets meet
    if interface.startswith(VPN_NAMES):
        return "vpn"
    if wireless or port == "Wi-Fi" or interface.startswith(("wl", "swlan", "ap")):
        return "wifi"
    # macOS joins Thunderbolt ports to a bridge and routes through that
    if "Thunderbolt" in port or interface.startswith(("thunderbolt", "tb", "bridge")):
        return "thunderbolt"
    if "iPhone" in port or interface.startswith(("usb", "rndis", "enx")):
        return "usb"
    if interface.startswith(("rmnet", "ccmni", "wwan", "pdp_ip")):
        return "cellular"
    return "ethernet" if port or interface.startswith(("eth", "en")) else "unknown"


def _linux(source: SystemReader, found: AgentFacts) -> AgentFacts:
    interface = readings.default_interface_linux(source.read("/proc/net/route"))
    entries = source.list(f"/sys/class/net/{interface}") if interface else ()
    kind = link_kind_of(interface, wireless=bool({"wireless", "phy80211"} & set(entries)))
    total, free = readings.meminfo(source.read("/proc/meminfo"))
    model = re.search(
        r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", source.read("/proc/cpuinfo"), re.MULTILINE
    )
    return replace(
        found,
        chip=model[1].strip() if model else platform.machine(),
        memory_total_bytes=total,
        memory_free_bytes=free,
        interface=interface,
        link_kind=kind,
        wifi=_linux_wifi(source, interface) if kind == "wifi" else None,
        power=_linux_power(source),
        temperature_c=_hottest(source),
    )


def _linux_wifi(source: SystemReader, interface: str) -> Wifi:
    tools = (
        readings.wifi_iw(source.run("iw", "dev", interface, "link"), interface)
        or readings.wifi_nmcli(
            source.run("nmcli", "-t", "-f", "IN-USE,FREQ,RATE,SIGNAL", "device", "wifi"), interface
        )
        or readings.wifi_proc(source.read("/proc/net/wireless"), interface)
        or Wifi(interface)
    )
    return replace(
        tools, power_save=readings.power_save_iw(source.run("iw", "dev", interface, "get", "power_save"))
    )


def _linux_power(source: SystemReader) -> PowerState:
    root = "/sys/class/power_supply"
    batteries = [
        name for name in source.list(root) if source.read(f"{root}/{name}/type").strip() == "Battery"
    ]
    profile = source.run("powerprofilesctl", "get") or source.read("/sys/firmware/acpi/platform_profile")
    saver = profile.strip() in ("power-saver", "low-power") if profile.strip() else None
    if not batteries:
        return PowerState(on_battery=None, saver=saver)
    charge = source.read(f"{root}/{batteries[0]}/capacity").strip()
    states = {source.read(f"{root}/{name}/status").strip() for name in batteries}
    return PowerState("Discharging" in states, float(charge) if charge.isdigit() else None, saver)


def _hottest(source: SystemReader) -> float | None:
    """The highest believable thermal zone; sensors that are not wired up read absurd values."""
    root = "/sys/class/thermal"
    zones = [zone for zone in source.list(root) if zone.startswith("thermal_zone")]
    texts = [source.read(f"{root}/{zone}/temp").strip() for zone in zones]
    values = [int(text) / 1000 for text in texts if re.fullmatch(r"-?\d{1,7}", text)]
    return max((value for value in values if 0 < value < 130), default=None)


def _macos(source: SystemReader, found: AgentFacts) -> AgentFacts:
    route = re.search(r"interface: (\S+)", source.run("route", "-n", "get", "default"))
    interface = route[1] if route else ""
    ports = readings.hardware_ports_macos(source.run("networksetup", "-listallhardwareports"))
    kind = link_kind_of(interface, port=ports.get(interface, ""))
    memory = source.run("sysctl", "-n", "hw.memsize").strip()
    saver = readings.saver_macos(source.run("pmset", "-g"))
    return replace(
        found,
        chip=source.run("sysctl", "-n", "machdep.cpu.brand_string").strip(),
        memory_total_bytes=float(memory) if memory.isdigit() else None,
        memory_free_bytes=readings.vm_stat_free_bytes(source.run("vm_stat")),
        interface=interface,
        link_kind=kind,
        wifi=_macos_wifi(source, interface) if kind == "wifi" else None,
        power=replace(readings.battery_macos(source.run("pmset", "-g", "batt")), saver=saver),
    )


def _macos_wifi(source: SystemReader, interface: str) -> Wifi:
    return (
        readings.wifi_airport(source.run(AIRPORT, "-I"), interface)
        or readings.wifi_system_profiler(source.run("system_profiler", "SPAirPortDataType"), interface)
        or Wifi(interface)
    )


def _android(source: SystemReader, found: AgentFacts) -> AgentFacts:
    """Termux: `/proc` where Android still shows it, else the tools of the Termux:API app."""
    total, free = readings.meminfo(source.read("/proc/meminfo"))
    chip = source.run("getprop", "ro.soc.model").strip() or source.run("getprop", "ro.board.platform").strip()
    product = source.run("getprop", "ro.product.model").strip()
    wifi = readings.wifi_termux(source.run("termux-wifi-connectioninfo"))
    power, battery_c = readings.battery_termux(source.run("termux-battery-status"))
    low_power = source.run("settings", "get", "global", "low_power").strip()
    saver = low_power == "1" if low_power in ("0", "1") else None
    # Without the Termux:API app the radio stays silent, but an address on wlan0
    # still tells that it is in use.
    interface = (
        wifi.interface
        if wifi
        else next((name for name, *_ in found.addresses if name.startswith("wlan")), "")
    )
    return replace(
        found,
        chip=" ".join(part for part in (product, chip) if part) or platform.machine(),
        memory_total_bytes=total,
        memory_free_bytes=free,
        interface=interface,
        link_kind=link_kind_of(interface),
        wifi=wifi,
        power=replace(power, saver=saver),
        temperature_c=_hottest(source) or battery_c,
    )
