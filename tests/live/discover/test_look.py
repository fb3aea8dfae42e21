"""All sources together: one row per device, speeds from the catalogue, and what is said when some are missing."""

from __future__ import annotations

import json
import socket
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from live.agent.addresses import is_local
from live.agent.server import Agent, Settings
from live.discover import FoundDevice, Options, discover
from live.discover.catalogue import with_speed
from live.discover.exo_udp import Heard
from live.discover.found import AGENT, LEGACY, LIBP2P, ZENOH, clean, merge
from live.discover.hosts import Probe, probe
from live.discover.look import Sources, networks_here, sweep
from live.discover.mdns import Announced
from live.discover.table import as_json, missing, nothing, render
from simulator.errors import LiveError
from tests.live.discover.fakes import HTTP, head_pages, pages, server

ID = HTTP["node_id_a"]


def sources(**changes):
    quiet = Sources(
        multicast=lambda seconds, namespaces: Heard(),
        legacy=lambda seconds: (),
        announced=lambda seconds: Announced(),
        probe=lambda hosts: tuple(Probe(host, port, "refused", "connection refused") for host, port in hosts),
    )
    return replace(quiet, **changes)


def text_of(renderable):
    console = Console(width=240, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    with console.file:
        console.print(renderable)
    return console.export_text()


def test_one_row_per_device_from_every_source():
    heard = Heard(answers={ID: ("fe80::1%2", 52414)}, hellos={"fe80::1%2": bytes(8)})
    agent = FoundDevice(
        name="node-a",
        generation=AGENT,
        agent="10.99.0.1:52425",
        addresses=("10.99.0.1",),
        seen_by=("agent mDNS",),
    )
    with server(pages(head_pages())) as port:
        found = discover(
            Options(hosts=(("127.0.0.1", port),)),
            sources(
                multicast=lambda *_: heard,
                announced=lambda _: Announced((agent,)),
                probe=lambda hosts: tuple(probe(*host) for host in hosts if host[1] == port),
            ),
        ).found
    assert len(found) == 3
    row = next(row for row in found if row.name == "node-a")
    assert set(row.seen_by) == {"EXO multicast", "EXO state", "agent mDNS"}
    assert row.agent == "10.99.0.1:52425"
    assert row.generation == ZENOH


def test_announced_devices_are_asked_but_never_beyond_the_lan():
    asked = []

    def ask(hosts):
        asked.extend(hosts)
        return ()

    legacy = [
        FoundDevice(node_id="a", addresses=("10.0.0.7",)),
        FoundDevice(node_id="b", addresses=("93.184.216.34",)),
    ]
    discover(Options(), sources(legacy=lambda _: tuple(legacy), probe=ask))
    assert asked == [("127.0.0.1", 52415), ("10.0.0.7", 52415)]


def test_agents_complete_what_exo_does_not_know():
    token = "correct horse battery"
    with Agent(Settings("here", token)) as agent:
        where = f"127.0.0.1:{agent.address[1]}"
        rows = [
            FoundDevice(name="here", generation=AGENT, agent=where, addresses=("127.0.0.1",)),
            FoundDevice(name="gone", generation=AGENT, agent="127.0.0.9:1", addresses=("127.0.0.9",)),
        ]
        announced = sources(announced=lambda _: Announced(tuple(rows)))
        found = {row.name: row for row in discover(Options(token=token), announced).found}
        without = discover(Options(), announced).found
    assert found["here"].chip
    assert found["here"].memory_total_bytes > found["here"].memory_free_bytes > 0
    assert "no agent at 127.0.0.9:1" in found["gone"].notes[0]
    assert all(not row.chip for row in without)


def test_a_libp2p_program_that_is_no_exo_is_no_row():
    ipfs = FoundDevice(node_id="12D3Koo", generation=LIBP2P, addresses=("10.0.0.9",))
    discovery = discover(Options(), sources(announced=lambda _: Announced((), (ipfs,))))
    assert discovery.found == ()
    assert "do not answer as EXO" in text_of(render(discovery))


def test_a_source_that_fails_is_only_a_note():
    def broken(*_):
        raise OSError(98, "Address already in use")

    discovery = discover(Options(), sources(legacy=broken, multicast=broken))
    assert discovery.found == ()
    assert sum("Address already in use" in fault for fault in discovery.faults) == 2


def test_missing_devices_are_named_with_causes():
    options = Options(hosts=(("10.0.0.5", 52415),))
    discovery = discover(options, sources())
    lines = missing(discovery, 4, options.hosts)
    assert lines[0] == "found 0 of 4 devices, 4 missing"
    assert any("missing: 10.0.0.5:52415 (refused" in line for line in lines)
    assert any("EXO does not run" in line for line in lines)
    assert any("multicast is blocked" in line for line in lines)


def test_nothing_is_missing_when_all_are_there():
    with server(pages(head_pages())) as port:
        asked = sources(probe=lambda hosts: tuple(probe(*host) for host in hosts if host[1] == port))
        discovery = discover(Options(hosts=(("127.0.0.1", port),)), asked)
    assert missing(discovery, 3) == []
    assert missing(discovery, 4)[0] == "found 3 of 4 devices, 1 missing"


def test_a_node_that_left_is_named():
    state = json.loads(json.dumps(HTTP["state_idle_3nodes"]))
    state["topology"]["nodes"] = [node for node in state["topology"]["nodes"] if node != HTTP["node_id_b"]]
    from tests.live.discover.fakes import answer

    with server(pages(head_pages(**{"/state": answer(state)}))) as port:
        asked = sources(probe=lambda hosts: tuple(probe(*host) for host in hosts if host[1] == port))
        discovery = discover(Options(hosts=(("127.0.0.1", port),)), asked)
    assert any("node-b was in this cluster" in line for line in missing(discovery, 3))


def test_speeds_come_from_the_catalogue():
    row = with_speed(FoundDevice(chip="Apple M4 Pro", memory_total_bytes=24 * 2**30))
    assert row.memory_bytes_per_s == pytest.approx(273e9)
    assert row.flop_per_s is not None
    told = with_speed(
        FoundDevice(chip="NVIDIA GEFORCE RTX 3060", memory_total_bytes=12 * 2**30, flop_per_s=26e12)
    )
    assert told.flop_per_s == 26e12  # what the node said itself
    assert told.memory_bytes_per_s == pytest.approx(360e9)
    assert with_speed(FoundDevice(chip="Unknown Chip (Device: CLANG)")).flop_per_s is None


def test_an_empty_table_names_causes_and_the_way_out():
    empty = discover(Options(), sources())
    lines = nothing(empty)
    assert lines[0] == "found no devices"
    assert any(line.startswith("likely cause: ") and "this machine included" in line for line in lines)
    assert any(line.startswith("way out: ") and "--host" in line for line in lines)
    refused = "\n".join(nothing(discover(Options(hosts=(("10.0.0.9", 1),)), sources()), (("10.0.0.9", 1),)))
    assert "missing: 10.0.0.9:1 (refused" in refused
    assert "this machine included" not in refused
    row = FoundDevice(name="a", node_id="1", generation=LEGACY)
    assert nothing(discover(Options(), sources(legacy=lambda _: (row,)))) == []


def test_the_table_cannot_be_steered_by_names():
    row = FoundDevice(name="[red]x[/red]", chip=clean("a\x1b[2Jb\nc"), node_id="1", generation=LEGACY)
    shown = text_of(render(discover(Options(), sources(legacy=lambda _: (row,)))))
    assert "[red]x[/red]" in shown
    assert "\x1b" not in shown


def test_json_holds_all_rows():
    row = FoundDevice(name="a", node_id="1", generation=LEGACY, memory_total_bytes=8e9)
    document = as_json(discover(Options(), sources(legacy=lambda _: (row,))))
    assert json.loads(json.dumps(document))["devices"][0]["memory_total_bytes"] == 8e9


def test_shared_addresses_join_nothing():
    bridge = "172.17.0.1"
    rows = merge(
        [
            FoundDevice(node_id="1", addresses=(bridge, "10.0.0.1")),
            FoundDevice(node_id="2", addresses=(bridge, "10.0.0.2")),
            FoundDevice(name="agent", addresses=(bridge,)),
            FoundDevice(name="b", addresses=("10.0.0.2",), agent="x"),
        ]
    )
    assert len(rows) == 3
    assert next(row for row in rows if row.node_id == "2").agent == "x"


FOUND = st.builds(
    FoundDevice,
    name=st.sampled_from(["", "a", "b"]),
    node_id=st.sampled_from(["", "1", "2", "3"]),
    addresses=st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "fe80::1"]), max_size=2).map(tuple),
)


@given(st.lists(FOUND, max_size=8))
def test_merging_keeps_every_id_once_and_every_address(sightings):
    rows = merge(sightings)
    ids = [row.node_id for row in rows if row.node_id]
    assert sorted(ids) == sorted({found.node_id for found in sightings if found.node_id})
    assert {a for row in rows for a in row.addresses} == {a for found in sightings for a in found.addresses}
    assert set(merge(rows)) == set(rows)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("10.0.0.1", True),
        ("192.168.1.1", True),
        ("127.0.0.1", True),
        ("fe80::1%en0", True),
        ("100.64.0.1", True),
        ("8.8.8.8", False),
        ("2606:4700::1111", False),
        ("224.0.0.251", False),
        ("0.0.0.0", False),
        ("host", False),
        ("", False),
    ],
)
def test_local_addresses(address, local):
    assert is_local(address) is local


def test_a_sweep_finds_open_ports_of_a_local_network_only():
    with socket.create_server(("127.0.0.5", 0)) as listener:
        assert sweep("127.0.0.4/30", listener.getsockname()[1]) == ("127.0.0.5",)
    for network in ("8.8.8.0/24", "10.0.0.0/8", "x"):
        with pytest.raises(LiveError):
            sweep(network)


def test_the_networks_to_sweep_are_those_of_this_machine():
    here = [
        ("lo", "127.0.0.1", 8),
        ("en0", "192.168.7.4", 24),
        ("en0", "fe80::1", 64),
        ("docker0", "172.17.0.1", 16),
        ("utun3", "10.8.0.2", 24),
        ("eth1", "10.20.30.40", 8),
        ("ppp", "8.8.8.8", 24),
    ]
    assert networks_here(here) == ("192.168.7.0/24", "10.20.30.0/24")
    assert any(
        "--sweep 192.168.7.0/24" in line
        for line in nothing(discover(Options(), sources()), (), ("192.168.7.0/24",))
    )
