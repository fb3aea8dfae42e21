"""Probing hosts over real sockets: every generation of EXO, and servers that are broken or hostile."""

from __future__ import annotations

import copy
import socket
import threading
import time
import tracemalloc

import pytest

from live.discover.found import LEGACY, LIBP2P, ZENOH
from live.discover.get import get
from live.discover.hosts import Probe, probe, probe_all
from live.discover.look import read_host
from live.discover.state import departed, nodes_of_network, one_way
from live.exo.casing import snake
from live.exo.state import StateNetwork, parse_network
from simulator.errors import ApiChanged, LiveError, Unreachable
from tests.live.discover.fakes import HTTP, NOT_FOUND, answer, head_pages, legacy_pages, pages, server

STATE = HTTP["state_idle_3nodes"]


def quick(host, port, path):
    return get(host, port, path, deadline_s=0.4, limit_bytes=1 << 20)


def test_recorded_head_cluster():
    with server(pages(head_pages())) as port:
        result = probe("127.0.0.1", port)
    assert (result.outcome, result.generation, result.version) == ("exo", ZENOH, "after 1.0.71")
    assert {found.name for found in result.found} == {"node-a", "node-b", "node-c"}
    here = next(found for found in result.found if found.name == "node-a")
    assert here.api == f"127.0.0.1:{port}"
    assert here.memory_free_bytes == 8_589_934_592
    assert here.memory_total_bytes == 25_276_514_304
    assert here.addresses[:2] == ("127.0.0.1", "10.99.0.1")
    assert here.link_kind == "unknown"  # Linux nodes cannot tell
    assert here.chip == ""  # "Unknown Chip" is no chip
    assert result.one_way == ()
    assert result.clock_offset_s is not None


@pytest.mark.parametrize(
    ("missing", "version"),
    [
        (["/v1/feature-flags"], ">= 1.0.70"),
        (["/v1/feature-flags", "/state/{path}"], "1.0.69"),
        (["/v1/feature-flags", "/state/{path}", "/v1/cancel/{command_id}"], "1.0.68"),
    ],
)
def test_older_versions_by_their_features(missing, version):
    paths = {path: value for path, value in HTTP["openapi_paths"]["paths"].items() if path not in missing}
    with server(
        pages(head_pages(**{"/openapi.json": answer({"paths": paths}), "/v1/feature-flags": NOT_FOUND}))
    ) as port:
        result = probe("127.0.0.1", port)
    assert (result.generation, result.version) == (LIBP2P, version)


def test_without_openapi_the_flags_decide():
    with server(pages(head_pages(**{"/openapi.json": NOT_FOUND}))) as port:
        assert probe("127.0.0.1", port).generation == ZENOH
    with server(pages(head_pages(**{"/openapi.json": NOT_FOUND, "/v1/feature-flags": NOT_FOUND}))) as port:
        assert probe("127.0.0.1", port).generation == LIBP2P


def _snake(value):
    """The same state as a version that writes snake_case."""
    if isinstance(value, list):
        return [_snake(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        "".join(f"_{c.lower()}" if c.isupper() else c for c in key): _snake(item)
        for key, item in value.items()
    }


def rows_of(state, generation):
    return nodes_of_network(parse_network(state), generation)


def test_both_casings_give_the_same_rows():
    assert rows_of(_snake(STATE), ZENOH) == rows_of(STATE, ZENOH)


def test_state_of_1_0_60():
    """Profiles, nodes as objects, connections as a list: the types of the tag v1.0.60-alpha.1."""
    memory = {"ramTotal": {"inBytes": 16e9}, "ramAvailable": {"inBytes": 9e9}}
    profile = {
        "modelId": "Mac mini",
        "chipId": "Apple M4",
        "friendlyName": "mini",
        "memory": memory,
        "networkInterfaces": [{"name": "en0", "ipAddress": "192.168.1.5"}],
    }
    state = {
        "nodeProfiles": {"A": profile, "B": {**profile, "friendlyName": "air"}},
        "topology": {
            "nodes": [{"nodeId": "A", "nodeProfile": profile}, {"nodeId": "B"}],
            "connections": [
                {
                    "localNodeId": "A",
                    "sendBackNodeId": "B",
                    "sendBackMultiaddr": {"address": "/ip4/192.168.1.6/tcp/4001"},
                }
            ],
        },
    }
    rows = {row.name: row for row in rows_of(state, LIBP2P)}
    assert rows["mini"].chip == "Apple M4"
    assert rows["mini"].memory_free_bytes == 9e9
    assert rows["air"].addresses == ("192.168.1.6", "192.168.1.5")
    assert one_way(parse_network(state)) == (("B", "A"),)


def test_who_has_left_is_remembered_unless_it_is_back():
    state = copy.deepcopy(STATE)
    gone, back, *_ = state["topology"]["nodes"]
    state["topology"]["nodes"] = [*state["topology"]["nodes"][1:]]
    state["nodeIdentities"]["of an earlier start"] = state["nodeIdentities"][back]
    assert departed(parse_network(state)) == (state["nodeIdentities"][gone]["friendlyName"],)


def test_json_that_nests_without_end_is_no_state():
    deep = {}
    for _ in range(900):  # fewer than JSON itself bears
        deep = {"nodeIdentities": deep}
    assert parse_network({"topology": deep}) == StateNetwork((), (), {})
    assert snake(deep)


def test_interface_types_of_a_mac():
    state = copy.deepcopy(STATE)
    for network in state["nodeNetwork"].values():
        for interface in network["interfaces"]:
            interface["interfaceType"] = "wifi" if interface["name"] == "eth0" else "unknown"
    assert {row.link_kind for row in rows_of(state, ZENOH)} == {"wifi"}


@pytest.mark.parametrize(("new", "version"), [(True, ">= 0.0.13"), (False, "<= 0.0.12")])
def test_recorded_legacy_cluster(new, version):
    with server(pages(legacy_pages(new))) as port:
        result = probe("127.0.0.1", port)
    assert (result.outcome, result.generation, result.version) == ("legacy", LEGACY, version)
    rows = {row.name: row for row in result.found}
    assert rows["bravo"].chip == "Apple M2"
    assert rows["bravo"].memory_total_bytes == 16384 * 2**20
    assert rows["bravo"].link_kind == "ethernet"


def test_a_state_that_has_grown_too_long_is_read_in_parts():
    parts = {
        f"/state/{name}": answer(STATE[name])
        for name in ("topology", "nodeIdentities", "nodeMemory", "nodeNetwork")
    }
    grown = {**STATE, "tasks": {str(index): "x" * 1000 for index in range(1200)}}
    with server(pages(head_pages(**parts, **{"/state": answer(grown)}))) as port:
        assert {row.name for row in probe("127.0.0.1", port, quick).found} == {"node-a", "node-b", "node-c"}


def test_no_server_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert probe("127.0.0.1", port, quick).outcome == "refused"


def _drip(connection, path):
    for _ in range(100):
        connection.sendall(b"H")
        time.sleep(0.05)


def _endless(prefix, piece):
    def handle(connection, path):
        connection.sendall(prefix)
        for _ in range(20_000):  # 1.3 GB, more than anybody should read
            connection.sendall(piece)

    return handle


OK = b"HTTP/1.1 200 OK\r\n"
HOSTILE = {
    "junk": lambda c, p: c.sendall(bytes(range(256)) * 10),
    "silence": lambda c, p: time.sleep(1.5),
    "closes at once": lambda c, p: None,
    "slow drip": _drip,
    "endless headers": _endless(OK, b"X-Y: " + b"z" * 60_000 + b"\r\n"),
    "one endless header": _endless(OK, b"z" * 65_536),
    "endless body": _endless(OK + b"\r\n", b" " * 65_536),
    "chunk without end": _endless(
        OK + b"Transfer-Encoding: chunked\r\n\r\n", b"ffff\r\n" + b"1" * 65_535 + b"\r\n"
    ),
    "bad chunk": lambda c, p: c.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "lying length": lambda c, p: c.sendall(OK + b"Content-Length: 999999999999\r\n\r\n{}"),
    "negative length": lambda c, p: c.sendall(OK + b"Content-Length: -5\r\n\r\n{}"),
    "redirect": lambda c, p: c.sendall(
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    ),
    "bad UTF-8": lambda c, p: c.sendall(OK + b'Content-Length: 4\r\n\r\n"\xff\xfe"'),
    "deep JSON": lambda c, p: c.sendall(OK + b"\r\n" + b"[" * 200_000),
    "TLS alert": lambda c, p: c.sendall(bytes.fromhex("15030100020232")),
    "wrong JSON": lambda c, p: c.sendall(answer([1, 2, 3])),
    "a web page": lambda c, p: c.sendall(OK + b"Content-Length: 13\r\n\r\n<html></html>"),
    "bad date": lambda c, p: c.sendall(answer(5, extra="Date: yesterday\r\n")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_servers_end_in_time_without_memory(name):
    with server(HOSTILE[name]) as port:
        tracemalloc.start()
        begin_s = time.monotonic()
        result = probe("127.0.0.1", port, quick)
        elapsed_s = time.monotonic() - begin_s
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert result.outcome in ("other", "silent")
    assert not result.found
    assert result.detail
    assert elapsed_s < 15  # for ever without a deadline; a busy machine takes more than the 0.4 s asked for
    assert peak < 50e6


@pytest.mark.parametrize(
    "state",
    [
        None,
        [],
        "x",
        {"topology": None},
        {"topology": {"nodes": {"a": 1}}},
        {"topology": {"nodes": [None, 3, {}]}},
        {
            "topology": {
                "nodes": ["\x1b[2J"] * 9999,
                "connections": {"a": [1], "b": {"c": 3, "d": [None, {"sinkMultiaddr": 4}]}},
            }
        },
        {
            "topology": {"nodes": ["a"]},
            "nodeMemory": {"a": {"ramTotal": {"inBytes": "many"}}},
            "nodeNetwork": {"a": [1]},
        },
    ],
)
def test_a_state_may_be_anything(state):
    rows = rows_of(state, ZENOH)
    assert len(rows) <= 256
    assert all(row.memory_total_bytes is None and "\x1b" not in row.name for row in rows)
    with server(pages(head_pages(**{"/state": answer(state)}))) as port:
        assert probe("127.0.0.1", port, quick).outcome == "exo"  # /node_id was right


def test_many_hosts_are_asked_at_the_same_time_and_each_once():
    together = threading.Barrier(3)

    def probe(host, port):
        together.wait(20)  # raises where they are asked one after the other
        return Probe(host, port, "silent")

    results = probe_all([("a", 1), ("b", 1), ("c", 1), ("a", 1)], probe)
    assert [result.host for result in results] == ["a", "b", "c"]


def test_clock_offset_is_the_date_minus_our_clock():
    def handle(connection, path):
        ahead = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 100))
        connection.sendall(answer("x", extra=f"Date: {ahead}\r\n"))

    with server(handle) as port:
        assert get("127.0.0.1", port, "/").clock_offset_s == pytest.approx(
            100, abs=3
        )  # whole seconds, and the time of the way


def test_errors_belong_to_the_tree():
    with pytest.raises(Unreachable, match=r"name\.invalid"):
        get("name.invalid", 1, "/", deadline_s=2)
    for wrong in ("a..b", "x" * 70):
        with pytest.raises(Unreachable, match="no name of a host"):
            get(wrong, 1, "/", deadline_s=2)
    with server(HOSTILE["junk"]) as port, pytest.raises((ApiChanged, Unreachable), match=r"127\.0\.0\.1"):
        get("127.0.0.1", port, "/")


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("mini.local", ("mini.local", 52415)),
        ("10.0.0.1:80", ("10.0.0.1", 80)),
        ("[fe80::1]:99", ("fe80::1", 99)),
        ("http://a:1/", ("a", 1)),
        ("exo://a", ("a", 52415)),
        ("fe80::1", ("fe80::1", 52415)),
    ],
)
def test_hosts_as_people_write_them(text, host):
    assert read_host(text) == host


@pytest.mark.parametrize(
    "text", ["", ":", "a b", "a:99999", "a:x", "user@host", "a/b", "a:" + "1" * 5000, "http://"]
)
def test_wrong_hosts_say_what_is_right(text):
    with pytest.raises(LiveError, match="is no host"):
        read_host(text)
