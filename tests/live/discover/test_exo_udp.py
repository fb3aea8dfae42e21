"""EXO's multicast hello: the bytes, a real exchange over sockets, and packets that no EXO sends."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live.discover.blake3 import blake3_block
from live.discover.exo_udp import Heard, Hello, WhatsUp, _receive, hello, namespace_of, parse, seek

pytestmark = pytest.mark.timed

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (b"", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
        (b"abc", "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"),
        (b"\x00", "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"),
    ],
)
def test_blake3_published_vectors(data, digest):
    assert blake3_block(data).hex() == digest


def test_blake3_refuses_what_it_cannot():
    with pytest.raises(ValueError, match="at most 64"):
        blake3_block(bytes(65))


def test_packets_have_the_documented_bytes():
    packet = hello(bytes(range(8)), namespace_of("0.3.70"))
    assert len(packet) == 20
    assert packet[:4] == bytes.fromhex("45584f00")
    assert parse(packet) == Hello(bytes(range(8)), namespace_of("0.3.70"))


def test_node_id_is_the_little_endian_number_without_leading_zeros():
    number = 0x0BE1351091C5FEA37EE056335B39D0
    packet = b"EXO\x01" + bytes(8) + number.to_bytes(16, "little") + (52414).to_bytes(2, "little")
    assert parse(packet) == WhatsUp(bytes(8), "be1351091c5fea37ee056335b39d0", 52414)


@given(st.binary(max_size=64) | st.binary(max_size=40).map(lambda tail: b"EXO" + tail))
def test_parse_takes_anything(packet):
    message = parse(packet)
    assert message is None or len(packet) in (20, 30)


class Node(threading.Thread):
    """Answers a Hello of its namespace as EXO does; says hello to `greets` when asked to."""

    def __init__(self, node_id: int, namespace: str, address: str = "::1") -> None:
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self.socket.bind((address, 0))
        self.socket.settimeout(0.05)
        self.node_id, self.namespace, self.over = node_id, namespace_of(namespace), False
        self.address = (address, self.socket.getsockname()[1], 0, 0)

    def run(self) -> None:
        while not self.over:
            with contextlib.suppress(TimeoutError):
                packet, source = self.socket.recvfrom(100)
                message = parse(packet)
                if isinstance(message, Hello) and message.namespace == self.namespace:
                    port = (52414).to_bytes(2, "little")
                    self.socket.sendto(
                        b"EXO\x01" + message.nonce + self.node_id.to_bytes(16, "little") + port, source
                    )

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over = True
        self.join()
        self.socket.close()


def _listener():
    listener = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    listener.bind(("::1", 0))
    return listener


def test_seek_finds_nodes_of_its_namespace_only():
    with Node(0xABC, "0.3.70") as one, Node(0xDEF, "0.3.70") as two, Node(0x123, "other") as stranger:
        heard = seek(0.4, [one.address, two.address, stranger.address])
    assert set(heard.answers) == {"abc", "def"}
    assert heard.answers["abc"] == ("::1", 52414)
    assert {found.node_id for found in heard.found()} == {"abc", "def"}


def test_a_namespace_that_is_heard_is_greeted_too():
    with Node(0x123, "private") as node, _listener() as listener, _listener() as peer:
        sender = threading.Timer(0.1, peer.sendto, (hello(bytes(8), node.namespace), listener.getsockname()))
        sender.start()
        heard = seek(0.6, [node.address], [listener])
        sender.join()
    assert set(heard.answers) == {"123"}
    assert list(heard.hellos.values()) == [node.namespace]


def test_answers_that_were_not_asked_for_are_ignored():
    with _listener() as listener, _listener() as liar:
        packet = b"EXO\x01" + secrets.token_bytes(8) + secrets.token_bytes(16) + b"\0\0"
        liar.sendto(packet, listener.getsockname())
        assert seek(0.2, [], [listener]).answers == {}


def test_ten_thousand_packets_of_junk_leave_bounded_traces():
    rng = random.Random(4)
    heard, spaces, nonces = Heard(), [namespace_of("0.3.70")], {bytes(8)}
    with _listener() as listener, _listener() as sender:
        listener.setblocking(False)
        for index in range(10_000):
            junk = rng.randbytes(rng.randrange(64))
            kinds = (
                junk,
                b"EXO\x00" + rng.randbytes(16),
                b"EXO\x01" + bytes(8) + rng.randbytes(18),
                b"EXO" + junk,
            )
            sender.sendto(kinds[index % 4], listener.getsockname())
            _receive(listener, heard, spaces, nonces)
    assert 100 < len(heard.answers) <= 256  # the right nonce was guessed on purpose
    assert len(heard.hellos) <= 256
    assert len(spaces) <= 8


MULTICAST = """
import socket, struct, sys, threading
from live.discover.exo_udp import GROUP, PORT, Hello, namespace_of, parse, seek_everywhere
index = socket.if_nametoindex("lan1")
node = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
node.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
node.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
node.bind(("::", PORT))
member = socket.inet_pton(socket.AF_INET6, GROUP) + struct.pack("@I", index)
node.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
def run():
    while True:
        packet, source = node.recvfrom(100)
        message = parse(packet)
        if isinstance(message, Hello) and message.namespace == namespace_of("0.3.70"):
            body = message.nonce + (0xabc).to_bytes(16, "little") + (52414).to_bytes(2, "little")
            node.sendto(b"EXO\\x01" + body, source)
threading.Thread(target=run, daemon=True).start()
print(*seek_everywhere(1.2).answers)
"""


def test_real_multicast_in_a_network_of_its_own():
    """The group, the interface and the shared port as on a LAN: an own network namespace, where that is permitted."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        pytest.skip("needs unshare and ip")
    start = (
        "ip link add lan0 type veth peer name lan1 && ip link set lan0 up && ip link set lan1 up && sleep 0.2"
    )
    setup = f'echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad; {start} && exec "$0" -c "$1"'
    command = ["unshare", "-rn", "sh", "-c", setup, sys.executable, MULTICAST]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=environment)
    if not done.stdout and "Traceback" not in done.stderr:
        pytest.skip(f"no namespaces here: {done.stderr[:100]}")
    assert done.stdout.strip() == "abc", done.stderr


def test_seek_ends_in_time_without_anybody():
    begin_s = time.monotonic()
    assert seek(0.3, [("::1", 9, 0, 0)]).answers == {}
    assert 0.25 < time.monotonic() - begin_s < 10
