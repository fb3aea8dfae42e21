"""Every check of the doctor with a network that is ill and one that is well."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from rich.console import Console

from live.agent.facts import AgentFacts
from live.agent.readings import PowerState, Wifi
from live.discover import Discovery, FoundDevice
from live.discover.exo_udp import Heard
from live.discover.found import AGENT, LEGACY, LIBP2P, ZENOH
from live.discover.hosts import Probe
from live.discover.mdns import Announced
from live.doctor import DoctorFinding, Surroundings, cluster, device, examine, exit_code, network
from live.doctor.gather import Need
from live.doctor.run import as_json, render

HERE = AgentFacts(
    "here",
    "linux",
    addresses=(("lo", "127.0.0.1", 8), ("eth0", "192.168.1.2", 24)),
    link_kind="ethernet",
    interface="eth0",
    power=PowerState(on_battery=False),
)


def node(name="mini", address="192.168.1.5", **changes):
    return replace(
        FoundDevice(
            name=name,
            node_id=name,
            generation=ZENOH,
            version="after 1.0.71",
            addresses=(address,),
            api=f"{address}:52415",
            memory_free_bytes=20e9,
            seen_by=("EXO state", "EXO multicast"),
        ),
        **changes,
    )


def probe(host="192.168.1.5", outcome="exo", **changes):
    return Probe(host, 52415, outcome, **changes)


def seen(*found, probes=(), facts=(HERE,), heard=None, announced=None, **changes):
    found = found or (node(), node("air", "192.168.1.6"))
    discovery = Discovery(tuple(found), tuple(probes), heard or Heard(greeted=1), announced or Announced())
    return Surroundings(discovery, tuple(facts), **changes)


def with_wifi(**changes):
    radio = replace(Wifi("wlan0", 5180.0, -50.0, 600e6, False), **changes)
    return replace(HERE, name="laptop", link_kind="wifi", wifi=radio)


def phone(address, prefix=24):
    return replace(HERE, name="phone", addresses=(("wlan0", address, prefix),))


HELLOS = {"fe80::1": b"12345678", "fe80::2": b"12345678"}
NEED = Need("Llama 3.3 70B", 39e9, "catalogue")

# check, level, words of the finding, an ill network, a well one
CASES = {
    "another subnet": (
        network.different_networks,
        "problem",
        "another subnet",
        seen(node(address="192.168.7.5")),
        seen(),
    ),
    "an agent in another subnet": (
        network.different_networks,
        "problem",
        "phone is in another subnet",
        seen(facts=(HERE, phone("10.1.1.4"))),
        seen(facts=(HERE, phone("192.168.1.77"))),
    ),
    "no own network": (
        network.different_networks,
        "unknown",
        "own network",
        seen(facts=(replace(HERE, addresses=()),)),
        seen(),
    ),
    "multicast is not heard": (
        network.multicast,
        "problem",
        "cannot be heard",
        seen(node(seen_by=("EXO state",))),
        seen(),
    ),
    "mDNS of libp2p is not heard": (
        network.multicast,
        "problem",
        "cannot be heard",
        seen(node(generation=LIBP2P, seen_by=("EXO state",))),
        seen(node(generation=LIBP2P, seen_by=("EXO state", "libp2p mDNS"))),
    ),
    "a node on this machine needs no multicast": (
        network.multicast,
        "problem",
        "cannot be heard",
        seen(node(seen_by=("EXO state",))),
        seen(node(seen_by=("EXO state",), api="127.0.0.1:52415")),
    ),
    "multicast cannot be sent": (
        network.multicast,
        "problem",
        "cannot be sent",
        seen(heard=Heard(faults=["Network is unreachable"])),
        seen(),
    ),
    "mDNS of the agents": (
        network.multicast,
        "warning",
        "by mDNS",
        seen(agents=(("192.168.1.9", 52425),)),
        seen(
            agents=(("192.168.1.9", 52425),),
            announced=Announced((FoundDevice(addresses=("192.168.1.9",), generation=AGENT),)),
        ),
    ),
    "2.4 GHz": (
        network.wifi,
        "warning",
        "2.4 GHz",
        seen(facts=(with_wifi(frequency_mhz=2462.0),)),
        seen(facts=(with_wifi(),)),
    ),
    "power-save": (
        network.wifi,
        "warning",
        "radio sleep",
        seen(facts=(with_wifi(power_save=True),)),
        seen(facts=(with_wifi(),)),
    ),
    "weak signal": (
        network.wifi,
        "warning",
        "weak signal",
        seen(facts=(with_wifi(signal_dbm=-80.0),)),
        seen(facts=(with_wifi(),)),
    ),
    "unknown band": (
        network.wifi,
        "unknown",
        "Wi-Fi band of laptop",
        seen(facts=(with_wifi(frequency_mhz=None),)),
        seen(facts=(with_wifi(),)),
    ),
    "iPhone hotspot": (
        network.hotspot,
        "warning",
        "is on an iPhone's hotspot",
        seen(facts=(HERE, phone("172.20.10.3", 28))),
        seen(facts=(HERE, phone("172.20.10.17"))),
    ),
    "Android hotspot": (
        network.hotspot,
        "warning",
        "probably on an Android phone's hotspot",
        seen(node(address="192.168.43.20")),
        seen(node(address="192.168.45.20")),
    ),
    "USB tethering": (
        network.hotspot,
        "warning",
        "USB tethering",
        seen(node(address="192.168.42.129")),
        seen(),
    ),
    "VPN around a device": (
        network.vpn,
        "warning",
        "everything through a VPN",
        seen(facts=(replace(HERE, link_kind="vpn", interface="utun4"),)),
        seen(),
    ),
    "VPN between devices": (
        network.vpn,
        "warning",
        "leads through a VPN",
        seen(routes=(("192.168.1.5", "wg0"),)),
        seen(routes=(("192.168.1.5", "eth0"),)),
    ),
    "Tailscale between devices": (
        network.vpn,
        "warning",
        "leads through a VPN",
        seen(routes=(("100.101.102.103", "tailscale0"),)),
        seen(routes=(("100.128.0.1", "eth0"),)),
    ),
    "one-way connections": (
        network.mesh,
        "problem",
        "air cannot reach mini",
        seen(probes=(probe(one_way=(("air", "mini"),)),)),
        seen(probes=(probe(),)),
    ),
    "EXO missing": (
        cluster.exo_missing,
        "problem",
        "EXO does not run on 192.168.1.5",
        seen(probes=(probe(outcome="refused"),)),
        seen(probes=(probe(),)),
    ),
    "something else": (
        cluster.exo_missing,
        "problem",
        "is no EXO",
        seen(probes=(probe(outcome="other", detail="no EXO that we know"),)),
        seen(),
    ),
    "no EXO at all": (
        cluster.exo_missing,
        "problem",
        "no EXO anywhere",
        Surroundings(Discovery(()), (HERE,)),
        seen(),
    ),
    "agent without EXO": (
        cluster.exo_missing,
        "warning",
        "our agent but no EXO",
        seen(node(), FoundDevice(name="pixel", generation=AGENT, agent="x:1")),
        seen(node(agent="x:1")),
    ),
    "port closed": (
        cluster.ports,
        "problem",
        "does not answer",
        seen(probes=(probe(outcome="silent", detail="no answer in time"),)),
        seen(probes=(probe(),)),
    ),
    "generations mixed": (
        cluster.versions,
        "problem",
        "several generations",
        seen(node(), node("old", generation=LEGACY)),
        seen(),
    ),
    "versions mixed": (
        cluster.versions,
        "problem",
        "several versions",
        seen(node(), node("b", version=">= 1.0.70")),
        seen(),
    ),
    "old EXO": (
        cluster.versions,
        "warning",
        "runs an old EXO",
        seen(node(generation=LIBP2P, version="1.0.60 to 1.0.63")),
        seen(node(generation=LIBP2P, version=">= 1.0.70")),
    ),
    "legacy EXO": (cluster.versions, "warning", "runs an old EXO", seen(node(generation=LEGACY)), seen()),
    "namespaces mixed": (
        cluster.versions,
        "problem",
        "several EXO namespaces",
        seen(heard=Heard(hellos={**HELLOS, "fe80::3": b"87654321"})),
        seen(heard=Heard(hellos=HELLOS)),
    ),
    "too little memory": (
        cluster.memory,
        "problem",
        "too little free memory",
        seen(node(memory_free_bytes=8e9), need=NEED),
        seen(node(memory_free_bytes=64e9), need=NEED),
    ),
    "hardly enough memory": (
        cluster.memory,
        "warning",
        "hardly enough",
        seen(node(memory_free_bytes=42e9), need=NEED),
        seen(node(memory_free_bytes=64e9), need=NEED),
    ),
    "unknown model": (
        cluster.memory,
        "problem",
        "unknown model",
        seen(need=Need("Lama", None, "did you mean Llama")),
        seen(node(memory_free_bytes=64e9), need=NEED),
    ),
    "memory not told": (
        cluster.memory,
        "unknown",
        "free memory",
        seen(node(memory_free_bytes=None), need=NEED),
        seen(),
    ),
    "clock skew": (
        cluster.clocks,
        "warning",
        "ahead",
        seen(probes=(probe(clock_offset_s=9.0),)),
        seen(probes=(probe(clock_offset_s=0.9),)),
    ),
    "large clock skew": (
        cluster.clocks,
        "problem",
        "behind",
        seen(probes=(probe(clock_offset_s=-3600.0),)),
        seen(probes=(probe(clock_offset_s=None),)),
    ),
    "battery saver": (
        device.power,
        "problem",
        "saves energy",
        seen(facts=(replace(HERE, power=PowerState(saver=True)),)),
        seen(facts=(replace(HERE, power=PowerState(saver=False)),)),
    ),
    "on battery": (
        device.power,
        "warning",
        "runs on battery",
        seen(facts=(replace(HERE, power=PowerState(True, 40.0)),)),
        seen(),
    ),
    "hot": (
        device.heat,
        "warning",
        "is hot",
        seen(facts=(replace(HERE, temperature_c=95.0),)),
        seen(facts=(replace(HERE, temperature_c=60.0),)),
    ),
    "no model named": (
        cluster.memory,
        "unknown",
        "whether a model fits",
        seen(),
        seen(node(memory_free_bytes=64e9), need=NEED),
    ),
    "no clock told": (cluster.clocks, "unknown", "clocks", seen(), seen(probes=(probe(clock_offset_s=0.1),))),
    "a device without an agent": (
        device.unseen,
        "unknown",
        "Wi-Fi, power and heat of air, mini",
        seen(),
        seen(node(address="192.168.1.2")),
    ),
    "agent gone": (
        device.agents,
        "problem",
        "the agent at x:1 does not answer",
        seen(agents=(("x", 1), ("x", 12)), silent_agents=((("x", 1), "nothing answers"),)),
        seen(agents=(("x", 12),)),
    ),
    "agents without a token": (
        device.agents,
        "problem",
        "the agents at x:1 could not be asked",
        seen(agents=(("x", 1),), unasked="no token was given"),
        seen(agents=(("x", 1),)),
    ),
    "an agent that is gone": (
        network.multicast,
        "warning",
        "192.168.1.9:52425 cannot be heard by mDNS",
        seen(agents=(("192.168.1.9", 52425),)),
        seen(agents=(("192.168.1.9", 52425),), silent_agents=((("192.168.1.9", 52425), "nothing answers"),)),
    ),
    "an agent that was not asked": (
        network.multicast,
        "warning",
        "cannot be heard by mDNS",
        seen(agents=(("192.168.1.9", 52425),)),
        seen(agents=(("192.168.1.9", 52425),), unasked="no token was given"),
    ),
    "an agent on this machine": (
        network.multicast,
        "warning",
        "cannot be heard by mDNS",
        seen(agents=(("192.168.1.9", 52425),)),
        seen(agents=(("127.0.0.1", 52425),)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_ill_network_is_found_out(name):
    check, level, words, ill, _ = CASES[name]
    findings = [finding for finding in check(ill) if words in finding.what]
    assert [finding.level for finding in findings] == [level]
    assert findings[0].way_out
    assert level == "unknown" or (findings[0].rule and findings[0].value)


@pytest.mark.parametrize("name", CASES)
def test_a_well_network_is_left_alone(name):
    check, _, words, _, well = CASES[name]
    assert [finding for finding in check(well) if words in finding.what] == []


@pytest.mark.parametrize(
    ("level", "plain", "strict"), [("ok", 0, 0), ("unknown", 0, 0), ("warning", 0, 1), ("problem", 1, 1)]
)
def test_exit_codes(level, plain, strict):
    findings = (DoctorFinding("ok", "x"), DoctorFinding(level, "y"))
    assert exit_code(findings) == plain
    assert exit_code(findings, strict=True) == strict


def test_the_report_puts_problems_first_and_cannot_be_steered():
    findings = examine(seen(node("[red]x\x1b[2J", "192.168.7.5"), facts=(with_wifi(power_save=True),)))
    console = Console(width=200)
    with console.capture() as capture:
        console.print(render(findings))
    text = capture.get()
    assert text.index("problem") < text.index("warning") < text.index("ok ")
    assert "[red]x" in text
    assert "\x1b" not in text
    document = json.loads(json.dumps(as_json(findings)))
    assert document["counts"]["problem"] >= 1
