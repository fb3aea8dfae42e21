"""EXO since June 2026 finds its peers by its own UDP protocol on an IPv6 multicast group, once per second.

Hello (20 bytes): 'EXO' 0, nonce (8), namespace (8: the start of BLAKE3 of its name). WhatsUp (30 bytes,
unicast back): 'EXO' 1, the same nonce, zenoh id (16, little-endian; the node id is this number in hex), TCP
port (2, little-endian). Only nodes of the same namespace answer, so we listen for the namespaces in use and
greet each of them. Facts: recordings of EXO at b5375f8ce.
"""

from __future__ import annotations

import contextlib
import secrets
import selectors
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from live.discover.blake3 import blake3_block
from live.discover.found import ZENOH, FoundDevice, clean
from simulator.errors import LiveError

__all__ = [
    "GROUP",
    "PORT",
    "Heard",
    "Hello",
    "WhatsUp",
    "hello",
    "interfaces",
    "listen_socket",
    "parse",
    "seek",
    "seek_everywhere",
]

GROUP = "ff12::e0a1:de89"
PORT = 52413
DEFAULT_NAMESPACE = "0.3.70"  # the version in EXO's pyproject, which it takes when no namespace is set
MAX_NAMESPACES = 8  # greeted at once; a flood of invented ones must not make us flood the group
MAX_HEARD = 256
HELLO_EVERY_S = 1.0
SOURCE = "EXO multicast"


@dataclass(frozen=True, slots=True)
class Hello:
    """A node looks for others of its namespace."""

    nonce: bytes
    namespace: bytes


@dataclass(frozen=True, slots=True)
class WhatsUp:
    """A node answers; `node_id` as its HTTP interface writes it."""

    nonce: bytes
    node_id: str
    port: int


@dataclass(slots=True)
class Heard:
    """What came in: answers by node id, addresses that said hello by themselves,
    and the namespaces in use.
    """

    answers: dict[str, tuple[str, int]] = field(default_factory=dict)
    hellos: dict[str, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    greeted: int = 0
    """hellos that left this machine"""

    def found(self) -> tuple[FoundDevice, ...]:
        """Rows of the table. Neither packet names the HTTP port, and its addresses
        are IPv6 link-local ones.
        """
        return tuple(
            FoundDevice(node_id=node_id, generation=ZENOH, addresses=(address,), seen_by=(SOURCE,))
            for node_id, (address, _) in self.answers.items()
        )


def namespace_of(text: str) -> bytes:
    """The eight bytes that stand for a namespace in a packet;
    raises LiveError for a text of more than 64 bytes.
    """
    try:
        return blake3_block(text.encode())[:8]
    except ValueError as error:
        raise LiveError(
            f"namespace {text!r:.80}: {error}; leave it away, it is learnt from what is heard"
        ) from error


def hello(nonce: bytes, namespace: bytes) -> bytes:
    """The packet that asks the nodes of a namespace for an answer."""
    return b"EXO\x00" + nonce + namespace


def parse(packet: bytes) -> Hello | WhatsUp | None:
    """The packet, or None for anything that EXO would not send."""
    if packet[:4] == b"EXO\x00" and len(packet) == 20:
        return Hello(packet[4:12], packet[12:20])
    if packet[:4] == b"EXO\x01" and len(packet) == 30:
        # zenoh writes the number backwards; EXO shows it without leading zeros
        number = int.from_bytes(packet[12:28], "little")
        return (
            WhatsUp(packet[4:12], f"{number:x}", int.from_bytes(packet[28:30], "little")) if number else None
        )
    return None


def interfaces() -> tuple[int, ...]:
    """Numbers of all network interfaces but loopback."""
    try:
        return tuple(index for index, name in socket.if_nameindex() if name not in ("lo", "lo0"))
    except OSError:  # Android hides them
        return ()


def listen_socket(interface: int, group: str = GROUP, port: int = PORT) -> socket.socket:
    """A socket that hears the group on one interface; raises OSError.

    It is bound to the group's address, not to all: a node on this machine shares the port, and the answers
    that are sent to that node must not land here.
    """
    listener = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((group, port, 0, interface))
        member = socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", interface)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
    except OSError:
        listener.close()
        raise
    return listener


def seek(
    seconds: float,
    targets: Sequence[tuple[str, int, int, int]],
    listeners: Sequence[socket.socket] = (),
    namespaces: Sequence[str] = (DEFAULT_NAMESPACE,),
) -> Heard:
    """Greet `targets` once per second and collect who answers or greets by itself, for `seconds`.

    `targets` are socket addresses (address, port, 0, interface): the group on each interface, or one host.
    Raises LiveError for a namespace of more than 64 bytes.
    """
    heard = Heard()
    spaces = [namespace_of(text) for text in namespaces]
    nonces: set[bytes] = set()
    end_s = time.monotonic() + seconds
    next_s = time.monotonic()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asker, selectors.DefaultSelector() as ready:
        for listener in (asker, *listeners):
            listener.setblocking(False)
            ready.register(listener, selectors.EVENT_READ)
        while (now_s := time.monotonic()) < end_s:
            if now_s >= next_s:
                _greet(asker, targets, spaces, nonces, heard)
                next_s = now_s + HELLO_EVERY_S
            for key, _ in ready.select(min(next_s, end_s) - now_s):
                known = len(spaces)
                _receive(key.fileobj, heard, spaces, nonces)  # type: ignore[arg-type]
                # a namespace that was just heard is greeted at once, not a second later
                next_s = next_s if len(spaces) == known else time.monotonic()
    return heard


def _greet(
    asker: socket.socket,
    targets: Sequence[tuple[str, int, int, int]],
    spaces: list[bytes],
    nonces: set[bytes],
    heard: Heard,
) -> None:
    if len(nonces) > 64:
        nonces.clear()  # answers come within milliseconds
    for space in spaces:
        # a fresh one each time: an answer to an older question may be of a node that has left
        nonce = secrets.token_bytes(8)
        nonces.add(nonce)
        for target in targets:
            try:
                asker.sendto(hello(nonce, space), target)
                heard.greeted += 1
            except OSError as error:
                fault = f"EXO multicast on interface {target[3]}: {error.strerror}"
                if fault not in heard.faults:
                    heard.faults.append(fault)


def _receive(listener: socket.socket, heard: Heard, spaces: list[bytes], nonces: set[bytes]) -> None:
    with contextlib.suppress(OSError):  # an ICMP refusal of an earlier packet is reported here
        packet, address = listener.recvfrom(256)
        message = parse(packet)
        source = clean(str(address[0]), 80)
        if isinstance(message, WhatsUp) and message.nonce in nonces and len(heard.answers) < MAX_HEARD:
            heard.answers[message.node_id] = (source, message.port)
        elif isinstance(message, Hello) and message.nonce not in nonces and len(heard.hellos) < MAX_HEARD:
            heard.hellos[source] = message.namespace
            if message.namespace not in spaces and len(spaces) < MAX_NAMESPACES:
                spaces.append(message.namespace)


def seek_everywhere(seconds: float, namespaces: Sequence[str] = (DEFAULT_NAMESPACE,)) -> Heard:
    """`seek` on all interfaces of this machine."""
    indices = interfaces()
    with contextlib.ExitStack() as stack:
        listeners = []
        for index in indices:
            with contextlib.suppress(OSError):  # a network without IPv6 is only a network without this EXO
                listeners.append(stack.enter_context(listen_socket(index)))
        return seek(seconds, [(GROUP, PORT, 0, index) for index in indices], listeners, namespaces)
