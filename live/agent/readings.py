"""What the tools of Linux, macOS and Android print about Wi-Fi, power and memory, turned into values.

Every function takes the text of one tool and returns what it found, None where the text does not say.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from live.number import finite

__all__ = [
    "PowerState",
    "Wifi",
    "battery_macos",
    "battery_termux",
    "channel_mhz",
    "default_interface_linux",
    "hardware_ports_macos",
    "meminfo",
    "power_save_iw",
    "saver_macos",
    "vm_stat_free_bytes",
    "wifi_airport",
    "wifi_iw",
    "wifi_nmcli",
    "wifi_proc",
    "wifi_system_profiler",
    "wifi_termux",
]


@dataclass(frozen=True, slots=True)
class Wifi:
    """The radio as it is now; None for what no tool told."""

    interface: str = ""
    frequency_mhz: float | None = None
    signal_dbm: float | None = None
    rate_bits_per_s: float | None = None
    power_save: bool | None = None


@dataclass(frozen=True, slots=True)
class PowerState:
    """Mains or battery, charge (percent), and whether the system saves energy at the cost of speed."""

    on_battery: bool | None = None
    percent: float | None = None
    saver: bool | None = None


def _number(pattern: str, text: str) -> float | None:
    match = re.search(pattern, text, re.MULTILINE)
    return float(match[1]) if match else None


def _mega(value: float | None) -> float | None:
    return None if value is None else value * 1e6


def channel_mhz(channel: int, band_ghz: float | None = None) -> float:
    """Centre frequency (MHz) of a Wi-Fi channel, IEEE 802.11-2020 annex E; channels up to
    14 are 2.4 GHz unless told.

    >>> channel_mhz(1), channel_mhz(149), channel_mhz(37, 6)
    (2412.0, 5745.0, 6135.0)
    """
    if band_ghz == 6:
        return 5950.0 + 5 * channel
    # Japan only, and out of the grid
    if channel == 14:
        return 2484.0
    return 2407.0 + 5 * channel if channel < 14 and band_ghz != 5 else 5000.0 + 5 * channel


def wifi_iw(text: str, interface: str = "") -> Wifi | None:
    """`iw dev IF link`."""
    # "Not connected." otherwise, or nothing where the interface is no radio
    if "Connected to" not in text:
        return None
    return Wifi(
        interface,
        _number(r"^\s*freq: ([\d.]+)", text),
        _number(r"^\s*signal: (-?[\d.]+)", text),
        _mega(_number(r"^\s*tx bitrate: ([\d.]+) MBit/s", text)),
    )


def power_save_iw(text: str) -> bool | None:
    """`iw dev IF get power_save`."""
    match = re.search(r"Power save: (on|off)", text)
    return match[1] == "on" if match else None


def wifi_nmcli(text: str, interface: str = "") -> Wifi | None:
    """`nmcli -t -f IN-USE,FREQ,RATE,SIGNAL device wifi`; the row in use starts with a star.

    Its signal is a percentage: dBm = percent / 2 - 100, the usual rule of thumb, hence a rough figure.
    """
    # terse output (-t) is the same in every language
    match = re.search(r"^\*:(\d+) MHz:([\d.]+) Mbit/s:(\d+)", text, re.MULTILINE)
    if not match:
        return None
    return Wifi(interface, float(match[1]), float(match[3]) / 2 - 100, float(match[2]) * 1e6)


def wifi_proc(text: str, interface: str = "") -> Wifi | None:
    """`/proc/net/wireless`: only the signal level (dBm, where the driver gives a negative one)."""
    match = re.search(r"^\s*(\S+):\s+\S+\s+[\d.]+\s+(-?[\d.]+)", text, re.MULTILINE)
    if not match or (interface and match[1] != interface):
        return None
    level = float(match[2])
    return Wifi(match[1], signal_dbm=level if level < 0 else None)


def wifi_airport(text: str, interface: str = "") -> Wifi | None:
    """`airport -I`, which macOS had until 14.4."""
    channel = _number(r"^\s*channel: (\d+)", text)
    if channel is None:
        return None
    return Wifi(
        interface,
        channel_mhz(int(channel)),
        _number(r"^\s*agrCtlRSSI: (-?\d+)", text),
        _mega(_number(r"^\s*lastTxRate: (\d+)", text)),
    )


def wifi_system_profiler(text: str, interface: str = "") -> Wifi | None:
    """`system_profiler SPAirPortDataType`: the part on the current network, not the
    neighbours that follow it.
    """
    _, found, current = text.partition("Current Network Information:")
    # a neighbour's channel would be taken for our own
    current = current.partition("Other Local Wi-Fi Networks:")[0]
    channel = re.search(r"Channel: (\d+)(?: \((\d)(?:\.\d)?GHz)?", current)
    if not found or not channel:
        return None
    return Wifi(
        interface,
        channel_mhz(int(channel[1]), float(channel[2]) if channel[2] else None),
        _number(r"Signal / Noise: (-?\d+) dBm", current),
        _mega(_number(r"Transmit Rate: (\d+)", current)),
    )


def _termux(text: str) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def wifi_termux(text: str, interface: str = "wlan0") -> Wifi | None:
    """`termux-wifi-connectioninfo`; without a connection Android gives -1 as frequency and speed."""
    answer = _termux(text)
    frequency = finite(answer.get("frequency_mhz"))
    if frequency is None or frequency <= 0:
        return None
    speed = finite(answer.get("link_speed_mbps"))
    return Wifi(
        interface, frequency, finite(answer.get("rssi")), _mega(speed if speed and speed > 0 else None)
    )


def battery_termux(text: str) -> tuple[PowerState, float | None]:
    """`termux-battery-status`: power, and the battery's temperature (degrees Celsius)."""
    answer = _termux(text)
    plugged = answer.get("plugged")
    # anything else is a kind of charger: AC, USB, wireless
    on_battery = plugged == "UNPLUGGED" if isinstance(plugged, str) else None
    return PowerState(on_battery, finite(answer.get("percentage"))), finite(answer.get("temperature"))


def battery_macos(text: str) -> PowerState:
    """`pmset -g batt`; a desktop Mac names its mains and no battery."""
    source = re.search(r"Now drawing from '([^']+)'", text)
    return PowerState(source[1] == "Battery Power" if source else None, _number(r"\t(\d+)%;", text))


def saver_macos(text: str) -> bool | None:
    """`pmset -g`: low power mode."""
    # older systems say lowpowermode, newer ones powermode
    value = _number(r"^\s*(?:lowpowermode|powermode)\s+(\d)", text)
    return None if value is None else value == 1


def hardware_ports_macos(text: str) -> dict[str, str]:
    """`networksetup -listallhardwareports`: device -> name of the port."""
    return {device: port for port, device in re.findall(r"Hardware Port: (.+)\nDevice: (\S+)", text)}


def meminfo(text: str) -> tuple[float | None, float | None]:
    """`/proc/meminfo`: total and available memory (bytes)."""
    total, free = (_number(rf"^{key}:\s+(\d+) kB", text) for key in ("MemTotal", "MemAvailable"))
    return (None if total is None else total * 1024), (None if free is None else free * 1024)


def vm_stat_free_bytes(text: str) -> float | None:
    """`vm_stat`: free + inactive + purgeable pages, what macOS can hand out without swapping (bytes)."""
    page = _number(r"page size of (\d+) bytes", text)
    counts = [_number(rf"^Pages {kind}:\s+(\d+)", text) for kind in ("free", "inactive", "purgeable")]
    if page is None or counts[0] is None:
        return None
    return page * sum(count or 0.0 for count in counts)


def default_interface_linux(text: str) -> str:
    """`/proc/net/route`: the interface of the default route with the lowest metric, or an empty string."""
    rows = [line.split() for line in text.splitlines()[1:]]
    default = [
        (int(row[6]), row[0])
        for row in rows
        if len(row) > 7 and row[1] == "00000000" and row[7] == "00000000"
    ]
    return min(default)[1] if default else ""
