"""What an agent reads on Linux, macOS and Android, from the tools' own words; and that it never fails."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live.agent import readings
from live.agent.facts import AgentFacts, SystemReader, collect, link_kind_of
from live.agent.readings import PowerState, Wifi
from tests.live.agent import tool_samples as sample


def reader(
    tools: dict[str, str],
    files: dict[str, str] | None = None,
    folders: dict[str, tuple[str, ...]] | None = None,
):
    """A machine whose tools print `tools` by their first words."""

    def run(*command):
        line = " ".join(command)
        return next((text for start, text in tools.items() if start in line), "")

    return SystemReader(
        run, lambda path: (files or {}).get(path, ""), lambda folder: (folders or {}).get(folder, ())
    )


def test_linux_on_wifi_with_power_save():
    battery = "/sys/class/power_supply/BAT0"
    files = {
        "/proc/net/route": sample.PROC_ROUTE,
        "/proc/meminfo": sample.MEMINFO,
        "/proc/cpuinfo": sample.CPUINFO,
        f"{battery}/type": "Battery\n",
        f"{battery}/status": "Discharging\n",
        f"{battery}/capacity": "77\n",
        "/sys/class/power_supply/AC/type": "Mains\n",
        "/sys/class/thermal/thermal_zone0/temp": "47000\n",
        "/sys/class/thermal/thermal_zone1/temp": "-274000\n",
    }
    folders = {
        "/sys/class/net/wlp2s0": ("address", "wireless"),
        "/sys/class/power_supply": ("AC", "BAT0"),
        "/sys/class/thermal": ("cooling_device0", "thermal_zone0", "thermal_zone1"),
    }
    tools = {
        "wlp2s0 link": sample.IW_LINK,
        "get power_save": sample.IW_POWER_SAVE,
        "powerprofilesctl": "power-saver\n",
    }
    facts = collect(reader(tools, files, folders), "linux", "laptop")
    assert (facts.name, facts.link_kind, facts.interface) == ("laptop", "wifi", "wlp2s0")
    assert facts.wifi == Wifi("wlp2s0", 5180.0, -52.0, 780e6, True)
    assert facts.power == PowerState(True, 77.0, True)
    assert facts.temperature_c == 47.0
    assert facts.chip == "AMD Ryzen 7 7840U w/ Radeon 780M Graphics"
    assert facts.memory_total_bytes == 16301544 * 1024
    assert facts.memory_free_bytes == 9000000 * 1024


def test_linux_falls_back_from_iw_to_nmcli_to_proc():
    assert readings.wifi_iw(sample.IW_NOT_CONNECTED) is None
    assert readings.wifi_nmcli(sample.NMCLI, "w") == Wifi("w", 2437.0, -68.0, 270e6)
    assert readings.wifi_proc(sample.PROC_WIRELESS, "wlp2s0") == Wifi("wlp2s0", None, -52.0)
    files = {"/proc/net/route": sample.PROC_ROUTE, "/proc/net/wireless": sample.PROC_WIRELESS}
    facts = collect(reader({}, files, {"/sys/class/net/wlp2s0": ("phy80211",)}), "linux")
    assert facts.wifi == Wifi("wlp2s0", None, -52.0)


MAC = {
    "route -n": sample.ROUTE,
    "networksetup": sample.PORTS,
    "hw.memsize": "25769803776\n",
    "brand_string": "Apple M4 Pro\n",
    "vm_stat": sample.VM_STAT,
    "-g batt": sample.PMSET_BATTERY,
    "pmset -g": sample.PMSET,
    "system_profiler": sample.SYSTEM_PROFILER,
}


def test_macos_on_2_4_ghz_and_battery():
    facts = collect(reader(MAC), "macos", "mini")
    assert (facts.chip, facts.memory_total_bytes) == ("Apple M4 Pro", 24 * 2**30)
    assert facts.memory_free_bytes == 260_000 * 16384
    assert facts.wifi == Wifi("en0", 2437.0, -73.0, 144e6)
    assert facts.power == PowerState(True, 85.0, True)
    assert facts.link_kind == "wifi"


def test_older_macos_has_airport():
    facts = collect(reader({**MAC, "airport": sample.AIRPORT}), "macos")
    assert facts.wifi == Wifi("en0", 5745.0, -45.0, 1300e6)


def test_a_desktop_mac_on_mains():
    assert readings.battery_macos(sample.PMSET_MAINS) == PowerState(False, None)


def test_android_in_termux():
    tools = {
        "wifi-connectioninfo": sample.TERMUX_WIFI,
        "battery-status": sample.TERMUX_BATTERY,
        "ro.soc.model": "Tensor G3\n",
        "ro.product.model": "Pixel 8 Pro\n",
        "low_power": "1\n",
    }
    facts = collect(reader(tools, {"/proc/meminfo": sample.MEMINFO}), "android")
    assert facts.chip == "Pixel 8 Pro Tensor G3"
    assert facts.wifi == Wifi("wlan0", 2462.0, -61.0, 72e6)
    assert facts.power == PowerState(True, 42.0, True)
    assert facts.temperature_c == 31.5


def test_android_without_the_api_app():
    facts = collect(reader({}), "android")
    assert facts.wifi is None
    assert facts.power == PowerState()
    assert readings.wifi_termux(sample.TERMUX_NO_WIFI) is None


def test_this_very_machine():
    facts = collect()
    assert facts.memory_total_bytes
    assert facts.memory_free_bytes
    assert facts.memory_total_bytes > facts.memory_free_bytes
    assert any(address == "127.0.0.1" for _, address, _ in facts.addresses)
    assert AgentFacts.from_dict(json.loads(json.dumps(facts.as_dict()))) == facts


@pytest.mark.parametrize(
    ("channel", "band", "mhz"),
    [
        (1, None, 2412),
        (13, None, 2472),
        (14, None, 2484),
        (36, None, 5180),
        (165, None, 5825),
        (1, 6, 5955),
        (233, 6, 7115),
    ],
)
def test_channels_of_the_standard(channel, band, mhz):
    assert readings.channel_mhz(channel, band) == mhz


@pytest.mark.parametrize(
    ("interface", "port", "kind"),
    [
        ("utun4", "", "vpn"),
        ("tailscale0", "", "vpn"),
        ("wg0", "", "vpn"),
        ("en5", "Thunderbolt Ethernet", "thunderbolt"),
        ("bridge0", "Thunderbolt Bridge", "thunderbolt"),
        ("en7", "iPhone USB", "usb"),
        ("en0", "Wi-Fi", "wifi"),
        ("enp3s0", "", "ethernet"),
        ("rmnet0", "", "cellular"),
        ("", "", "unknown"),
        ("xyz", "", "unknown"),
    ],
)
def test_link_kinds(interface, port, kind):
    assert link_kind_of(interface, port=port) == kind


TEXT_READERS = [
    readings.wifi_iw,
    readings.wifi_nmcli,
    readings.wifi_proc,
    readings.wifi_airport,
    readings.power_save_iw,
    readings.wifi_system_profiler,
    readings.wifi_termux,
    readings.battery_termux,
    readings.battery_macos,
    readings.saver_macos,
    readings.hardware_ports_macos,
    readings.meminfo,
    readings.vm_stat_free_bytes,
    readings.default_interface_linux,
]
SAMPLES = [value for name, value in vars(sample).items() if name.isupper()]


@given(
    st.sampled_from(TEXT_READERS),
    st.text(max_size=200)
    | st.tuples(st.sampled_from(SAMPLES), st.integers(0, 500)).map(lambda cut: cut[0][cut[1] :]),
)
def test_any_text_is_read_without_an_error(read, text):
    read(text)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"name": "a"},
        {"name": "a", "platform": "x", "addresses": [[1]]},
        *(
            {"name": "a", "platform": "x", **wrong}
            for wrong in (
                {"power": {"percent": "y"}},
                {"power": {"on_battery": 1}},
                {"power": [1]},
                {"wifi": {"signal_dbm": [1]}},
                {"wifi": "x"},
                {"cores": 10**400},
                {"memory_total_bytes": float("nan")},
                {"clock_s": True},
                {"chip": {"a": 1}},
                {"addresses": {"a": 1}},
                {"addresses": [["a", "b", float("inf")]]},
            )
        ),
        [],
    ],
)
def test_facts_that_are_none(values):
    with pytest.raises(ValueError, match="no facts"):
        AgentFacts.from_dict(values)


def test_facts_of_another_device_steer_nothing():
    """A paired device is believed, but its words neither move the cursor nor fill the screen."""
    facts = AgentFacts.from_dict(
        {"name": "\x1b[31mred", "platform": "linux", "chip": "x" * 9999, "new": 1, "power": {"newer": 2}}
    )
    assert (facts.name, len(facts.chip)) == ("[31mred", 200)
