"""A check says ok only of what it looked at, and names it; without anything to look at it says what it needs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from live.agent.facts import AgentFacts
from live.agent.readings import PowerState
from live.discover import Discovery, FoundDevice
from live.discover.found import AGENT
from live.discover.mdns import Announced
from live.doctor import CHECKS, Surroundings, examine, exit_code
from live.exo.health import health_of
from tests.live.doctor.states import IDS, changed, downloading
from tests.live.doctor.test_doctor_checks import HERE, NEED, node, probe, seen, with_wifi

NOTHING = Surroundings(Discovery(()), (AgentFacts("here", "linux"),))


def well():
    """A node with an agent, heard by multicast, that another node reaches; nothing is left unknown."""
    told = changed(downloading("Completed"), nodeRdmaCtl={IDS["node-a"]: {"enabled": True}})
    mini, air = node(memory_free_bytes=64e9), node("air", "192.168.1.6")
    laptop = replace(
        with_wifi(),
        addresses=(("eth0", "192.168.1.5", 24),),
        temperature_c=40.0,
        power=PowerState(saver=False),
    )
    return seen(
        mini,
        probes=(probe(clock_offset_s=0.1, found=(mini, air), health=health_of(told)),),
        facts=(HERE, laptop),
        need=NEED,
        agents=(("192.168.1.5", 52425),),
        announced=Announced((FoundDevice(addresses=("192.168.1.5",), generation=AGENT),)),
        routes=(("192.168.1.5", "eth0"),),
    )


def test_a_well_network_gets_one_ok_per_check_and_exit_code_0():
    findings = examine(well())
    assert [(finding.level, finding.what) for finding in findings] == [("ok", check.name) for check in CHECKS]
    assert all(finding.value.startswith("looked at ") for finding in findings)
    assert exit_code(findings) == 0


LOOKED_AT = {  # what the well network shows to each check
    "EXO is there": "mini",
    "ports are open": "192.168.1.5:52415",
    "one subnet": "mini, laptop",
    "multicast works": "mini",
    "every node reaches every other": "192.168.1.5:52415",
    "every node reports": "node-a, node-b, node-c",
    "one id per machine": "node-a, node-b, node-c",
    "runners are ready": "synthetic/Llama-16L-512h-4bit",
    "the ring takes the best way": "synthetic/Llama-16L-512h-4bit",
    "no way through containers": "192.168.1.5:52415",
    "Thunderbolt is set up": "node-a",
    "models are downloaded": "node-b",
    "disks have room": "node-a, node-b, node-c",
    "one EXO version": "mini",
    "no VPN": "here, laptop, the way to 192.168.1.5",
    "no phone as access point": "here, mini, laptop",
    "Wi-Fi is fast and awake": "laptop",
    "the model fits": "mini",
    "clocks agree": "192.168.1.5:52415",
    "no battery saver": "laptop",
    "devices are cool": "laptop",
    "agents answer": "192.168.1.5:52425",
    "every device was looked at": "mini",
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_a_check_says_ok_only_of_what_it_looked_at(check):
    assert list(dict.fromkeys(check.looked_at(well()))) == LOOKED_AT[check.name].split(", ")
    assert list(check.looked_at(NOTHING)) == []
    assert check.needs


def test_nothing_found_is_not_ok():
    findings = examine(NOTHING)
    assert {finding.level for finding in findings} == {"problem", "unknown"}
    assert all(finding.way_out for finding in findings)
    assert exit_code(findings) == 1  # no EXO anywhere
    assert "not checked: agents answer" in {finding.what for finding in findings}


def test_what_this_machine_hears_of_itself_is_not_ok():
    itself = node(address="192.168.1.2", api="127.0.0.1:52415")
    levels = {
        finding.what: finding.level
        for finding in examine(
            seen(itself, probes=(probe("127.0.0.1", found=(itself,)), probe(outcome="refused")))
        )
    }
    for name in ("ports are open", "one subnet", "multicast works", "every node reaches every other"):
        assert levels[f"not checked: {name}"] == "unknown"
        assert name not in levels
    assert levels["EXO does not run on 192.168.1.5"] == "problem"


def test_many_names_are_cut_short():
    many = [node(f"n{count}", f"192.168.1.{count}") for count in range(10, 20)]
    values = {finding.what: finding.value for finding in examine(seen(*many))}
    assert values["EXO is there"] == "looked at n10, n11, n12, n13, n14, n15 and 4 more"
