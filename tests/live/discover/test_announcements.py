"""Legacy broadcasts and mDNS: recorded datagrams and real multicast on loopback, then junk."""

from __future__ import annotations

import json
import os
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zeroconf import DNSOutgoing, DNSPointer, DNSText

from live.agent.announce import announced
from live.agent.wire import SERVICE
from live.discover.found import AGENT, LEGACY
from live.discover.legacy_udp import listen, open_socket, parse
from live.discover.mdns import LIBP2P_SERVICE, browse, libp2p_peers, parse_dnsaddr, parse_texts
from tests.live.discover.fakes import DATA

pytestmark = pytest.mark.timed

PEER = "12D3KooWE3AwZFT9zEWDUxhya62hmvEbRxYBWaosn7Kiqw5wsu73"
RECORDED = [json.loads(line) for line in (DATA / "legacy_udp.jsonl").read_text(encoding="utf-8").splitlines()]


def test_recorded_broadcasts_over_a_real_socket():
    with open_socket(0, "127.0.0.1") as listener, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for record in RECORDED:
            sender.sendto(json.dumps(record["payload"]).encode(), listener.getsockname())
        found = {node.name: node for node in listen(listener, 0.3)}
    assert set(found) == {"alpha", "bravo", "charlie"}
    alpha = found["alpha"]
    assert (alpha.chip, alpha.link_kind, alpha.generation) == ("Apple M4 Pro", "ethernet", LEGACY)
    assert alpha.memory_total_bytes == 24576 * 2**20
    assert alpha.flop_per_s == pytest.approx(11.44e12)


@settings(max_examples=50, deadline=None)
@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["type", "node_id", "device_capabilities", "memory", "flops", "fp16"]), inner
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_a_broadcast_may_be_anything(packet):
    assert parse(packet, "10.0.0.1") is None or b"discovery" in packet


def test_broadcasts_with_hostile_fields():
    base = RECORDED[0]["payload"]
    nasty = [
        {**base, "device_capabilities": value}
        for value in (None, [], {"memory": -1}, {"flops": 3, "memory": "x"})
    ]
    names = [{**base, "node_id": name} for name in ("\x1b[31mred", 7, "", "n" * 10_000)]
    found = [parse(json.dumps(value).encode(), "10.0.0.1") for value in nasty + names]
    assert [node.node_id if node else None for node in found[4:]] == ["[31mred", None, None, None]
    assert all(node is None or node.memory_total_bytes is None for node in found[:4])
    assert parse(b"[" * 100_000, "10.0.0.1") is None


def test_ten_thousand_junk_broadcasts_are_bounded():
    rng = random.Random(1)
    base = RECORDED[0]["payload"]
    with open_socket(0, "127.0.0.1") as listener, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:

        def flood():
            for index in range(10_000):
                named = json.dumps({**base, "node_id": f"n{index}"}).encode()
                sender.sendto(
                    named if index % 2 else rng.randbytes(rng.randrange(300)), listener.getsockname()
                )

        thread = threading.Thread(target=flood)
        thread.start()
        found = listen(listener, 1.0)
        thread.join()
    assert 0 < len(found) <= 256


def test_dnsaddr_of_the_libp2p_specification():
    assert parse_dnsaddr(f"dnsaddr=/ip4/192.168.1.5/tcp/4001/p2p/{PEER}") == ("192.168.1.5", 4001, PEER)
    assert parse_dnsaddr(f"dnsaddr=/ip6/fe80::1/udp/4001/quic-v1/p2p/{PEER}") == ("fe80::1", 4001, PEER)
    for wrong in (
        "",
        "dnsaddr=",
        f"dnsaddr=/ip4/999.1.1.1/tcp/1/p2p/{PEER}",
        f"dnsaddr=/ip4/::1/tcp/1/p2p/{PEER}",
        "dnsaddr=/ip4/1.2.3.4/tcp/1/p2p/0OIl",
        f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}",
    ):
        assert parse_dnsaddr(wrong) is None


@given(st.binary(max_size=600))
def test_txt_records_may_be_anything(record):
    texts = parse_texts(record)
    assert sum(len(text.encode("utf-8", "replace")) for text in texts) <= 3 * len(record)
    libp2p_peers([record])


def test_addresses_outside_the_lan_are_never_followed():
    texts = [
        f"dnsaddr=/ip4/{address}/tcp/4001/p2p/{PEER}" for address in ("8.8.8.8", "224.0.0.1", "10.1.1.1")
    ]
    record = b"".join(bytes([len(text)]) + text.encode() for text in texts)
    assert [peer.addresses for peer in libp2p_peers([record])] == [("10.1.1.1",)]


def _libp2p_announcement() -> bytes:
    """An answer as libp2p sends it: a random instance with a TXT record, no SRV, no address."""
    instance = f"k3n8f0a9zq.{LIBP2P_SERVICE}"
    text = f"dnsaddr=/ip4/127.0.0.9/tcp/4001/p2p/{PEER}".encode()
    out = DNSOutgoing(0x8400)
    out.add_answer_at_time(DNSPointer(LIBP2P_SERVICE, 12, 1, 2500, instance), 0)
    out.add_answer_at_time(DNSText(instance, 16, 1, 2500, bytes([len(text)]) + text), 0)
    return out.packets()[0]


def test_names_without_an_address_keep_nobody_waiting(monkeypatch):
    """A stranger announces forty agents that are nowhere, the first by name; the one that is there is found."""
    monkeypatch.setattr("live.discover.mdns.RESOLVE_S", 0.5)
    out = DNSOutgoing(0x8400)
    for index in range(40):
        out.add_answer_at_time(DNSPointer(SERVICE, 12, 1, 2500, f"!{index}.{SERVICE}"), 0)
    with (
        announced(f"real {os.getpid()}", "127.0.0.2", 7001),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        timer = threading.Timer(0.3, sender.sendto, (out.packets()[0], ("224.0.0.251", 5353)))
        timer.start()
        begin_s = time.monotonic()
        seen = browse(0.8, ["127.0.0.1"])
        assert time.monotonic() - begin_s < 4
        timer.join()
    assert f"real {os.getpid()}" in [found.name for found in seen.agents]


def test_three_agents_and_a_libp2p_peer_by_real_mdns_on_loopback():
    with ExitStack() as stack, ThreadPoolExecutor(3) as pool:
        contexts = [announced(f"device {index}", f"127.0.0.{index}", 7000 + index) for index in (2, 3, 4)]
        for context, _ in [(context, pool.submit(context.__enter__)) for context in contexts]:
            stack.push(context)
        sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        pool.shutdown(wait=True)
        timer = threading.Timer(0.5, sender.sendto, (_libp2p_announcement(), ("224.0.0.251", 5353)))
        timer.start()
        begin_s = time.monotonic()
        seen = browse(1.5, ["127.0.0.1"])
        assert time.monotonic() - begin_s < 20
        timer.join()
    agents = {found.name: found for found in seen.agents if found.name.startswith("device ")}
    assert {name: found.agent for name, found in agents.items()} == {
        f"device {index}": f"127.0.0.{index}:{7000 + index}" for index in (2, 3, 4)
    }
    assert all(found.generation == AGENT and not found.chip for found in agents.values())
    assert [(found.node_id, found.addresses) for found in seen.libp2p] == [(PEER, ("127.0.0.9",))]
