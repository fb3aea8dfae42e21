"""Who knocks: buckets by source, and strangers that lock nobody out, in real processes over real sockets."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live.agent.addresses import is_local, is_loopback, networks_of, source_of
from live.agent.guard import Guard
from live.agent.pairing import WireError
from live.agent.wire import MAGIC, NONCE_BYTES, AgentConnection, make_knock
from tests.live.agent.test_agent_process import python

pytestmark = pytest.mark.timed

TOKEN = "correct horse battery"
KEY = TOKEN.encode()
# this device has an address of a global /64 and one of a unique local network, the first as a /128
OWN = (("en0", "2001:db8:1:2::7", 128), ("en0", "fd12:3456:789a:1::7", 64), ("en0", "192.168.1.7", 24))


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.168.1.9", "192.168.1.9"),
        ("::ffff:192.168.1.9", "192.168.1.9"),  # an IPv4 host, as a listener on "::" sees it
        ("fe80::9%2", "fe80::9%2"),
        ("2001:db8:1:2::9", "2001:db8:1:2::9"),
        ("fd12:3456:789a:1::9", "fd12:3456:789a:1::9"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("fd12:3456:789a:2::9", "fd12:3456:789a:2::/64"),
        ("::1", "::1"),
        ("nonsense", "nonsense"),
    ],
)
def test_by_what_knocks_are_counted(address, source):
    assert source_of(address, networks_of(OWN)) == source


@pytest.mark.parametrize(
    ("address", "local"), [("::ffff:8.8.8.8", False), ("::ffff:10.0.0.1", True), ("::ffff:127.0.0.1", True)]
)
def test_a_mapped_address_is_what_it_maps(address, local):
    assert is_local(address) is local
    assert is_loopback(address) is (address.endswith("127.0.0.1"))


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def admitted(guard, sources):
    return sum(guard.admit(source) for source in sources)


def test_the_guard_lets_a_burst_through_and_then_two_per_second():
    clock = Clock()
    guard = Guard(burst=20, per_s=2, clock=clock, common_per_s=0)
    assert admitted(guard, ["10.0.0.1"] * 1000) == 20
    assert guard.admit("10.0.0.2")
    clock.now_s = 10.0
    assert admitted(guard, ["10.0.0.1"] * 1000) == 20
    clock.now_s = 11.0
    assert admitted(guard, ["10.0.0.1"] * 1000) == 2


def test_beyond_it_all_sources_share_fifty_per_second():
    clock = Clock()
    guard = Guard(burst=20, per_s=2, clock=clock)
    assert admitted(guard, ["10.0.0.1"] * 1000) == 20 + 50
    assert admitted(guard, ["10.0.0.2"] * 1000) == 20
    clock.now_s = 1.0
    assert admitted(guard, ["10.0.0.1"] * 1000) == 2 + 50


def test_right_knocks_cost_nothing():
    guard = Guard(burst=3, per_s=0, common_per_s=0)
    for _ in range(100):
        assert guard.admit("10.0.0.1")
        guard.forgive("10.0.0.1")


def test_an_ipv6_host_elsewhere_cannot_hide_in_its_network():
    guard = Guard(burst=5, per_s=0, common_per_s=0, own=lambda: OWN)
    assert admitted(guard, [f"2001:db8:9:9::{index:x}" for index in range(100)]) == 5


def test_neighbours_do_not_lock_each_other_out():
    """One stranger among devices of one /64, of one link, and behind "::"."""
    for stranger, others in (
        ("2001:db8:1:2::66", "2001:db8:1:2::{}"),
        ("fe80::66%2", "fe80::{}%2"),
        ("::ffff:192.168.1.66", "::ffff:192.168.1.{}"),
    ):
        guard = Guard(own=lambda: OWN, common_per_s=0)
        admitted(guard, [stranger] * 1000)
        assert not guard.admit(stranger)
        assert all(guard.admit(others.format(index)) for index in range(1, 60))


def test_a_phone_that_roams_has_other_neighbours():
    clock, own = Clock(), [OWN]
    guard = Guard(burst=1, per_s=0, common_per_s=0, clock=clock, own=lambda: own[0])
    assert admitted(guard, ["2001:db8:1:3::1", "2001:db8:1:3::2"]) == 1
    own[0], clock.now_s = (("en0", "2001:db8:1:3::7", 64),), 61.0
    assert admitted(guard, ["2001:db8:1:3::3", "2001:db8:1:3::4"]) == 2


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(max_size=20), max_size=50))
def test_the_guard_remembers_a_bounded_number(sources):
    guard = Guard(sources=10, own=lambda: OWN)
    for source in sources:
        guard.admit(source)
    assert len(guard._left) <= 10


def loopback_six() -> tuple[str, ...]:
    """ "::1" where this machine has IPv6."""
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return ("::1",)
    return ()


SIX = loopback_six()


@pytest.fixture(scope="module")
def port():
    """An agent as its own process on "::", which takes IPv4 too."""
    options = ("--listen", "::" if SIX else "0.0.0.0", "--port", "0", "--no-announce", "--token", TOKEN)
    with python("-m", "live.agent", *options) as process:
        found = re.search(r"listens on \S+:(\d+)", process.stdout.readline())
        yield int(found[1])
        process.terminate()


def connect(port, source):
    """A connection from `source`, an IPv4 loopback address or ::1."""
    connection = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET)
    connection.settimeout(5)
    connection.bind((source, 0))
    connection.connect(("::1" if ":" in source else "127.0.0.1", port))
    return connection


def served(port, source) -> float:
    """Seconds until an agent answered a question of somebody with the token at `source`; raises WireError."""
    begin_s = time.monotonic()
    with connect(port, source) as connection:
        connection.sendall(make_knock(KEY, os.urandom(NONCE_BYTES)))
        session = AgentConnection(connection, KEY, begin_s + 3, asking=True)
        session.send({"op": "nothing"})
        assert "is none of" in session.receive(3)["error"]
    return time.monotonic() - begin_s


@contextmanager
def knocking(port, source, per_s, burst):
    """A stranger who knocks `burst` times at once, then `per_s` times a second."""
    over = threading.Event()

    def knock():
        with suppress(OSError), connect(port, source) as connection:
            connection.sendall(MAGIC + bytes(64))
            connection.recv(1)

    def go_on():
        while not over.wait(1 / per_s):
            knock()

    for _ in range(burst):
        knock()
    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


CLIENTS = ("127.0.0.2", "127.0.0.3", *SIX, "127.0.0.66")  # the last one shares the stranger's address


def test_ten_knocks_a_second_lock_nobody_out(port):
    with knocking(port, "127.0.0.66", 10, 60):
        for _ in range(6):
            assert all(served(port, source) < 1 for source in CLIENTS)
            time.sleep(0.05)


def test_a_flood_locks_out_its_own_source_alone(port):
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(knocking(port, "127.0.0.67", 500, 40))
        for _ in range(5):
            assert all(served(port, source) < 1 for source in CLIENTS[:-1])


@pytest.mark.parametrize("sources", [("127.0.0.66",), tuple(f"127.0.1.{index}" for index in range(1, 201))])
def test_two_hundred_held_connections_lock_nobody_out(port, sources):
    """Of one stranger, or one each of two hundred addresses; silent, or with half a knock."""
    with ExitStack() as stack:
        for index in range(200):
            held = stack.enter_context(connect(port, sources[index % len(sources)]))
            with suppress(OSError):
                held.sendall(MAGIC[: index % 5])
        for _ in range(3):
            assert all(served(port, source) < 1 for source in CLIENTS)


def test_it_is_the_knock_that_opens(port):
    """The counterproof: a client with another token gets nothing where the others are served."""
    with connect(port, "127.0.0.4") as connection:
        connection.sendall(make_knock(b"another token, longer", bytes(NONCE_BYTES)))
        with pytest.raises(WireError):
            AgentConnection(connection, KEY, time.monotonic() + 2, asking=True)
