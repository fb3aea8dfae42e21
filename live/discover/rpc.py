"""Greet a llama.cpp rpc-server: its protocol and its memory, by the two messages that change nothing.

Request: command (1 byte), size (8 bytes, little endian), payload; reply: size, payload (ggml-org/llama.cpp,
ggml/src/ggml-rpc). The greeting is command 14; it carries 24 bytes of abilities in newer servers and none in
older ones, which hang up on the other form.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from simulator.units import format_bytes

__all__ = ["RPC_PORT", "RpcServer", "greet"]

RPC_PORT = 50052  # the default of llama.cpp's rpc-server
HELLO, MEMORY = 14, 11
ABILITIES = bytes(24)
MOST_BYTES = 64  # no answer to these two is longer
DEVICES_SINCE = 3  # from this protocol on a server has several devices, and is asked for one


@dataclass(frozen=True, slots=True)
class RpcServer:
    """What a server says of itself; memory (bytes) of its first device, None where it did not tell."""

    protocol: tuple[int, int, int]
    free_bytes: int | None = None
    total_bytes: int | None = None

    def __str__(self) -> str:
        told = "a llama.cpp rpc-server, protocol " + ".".join(map(str, self.protocol))
        if self.free_bytes is None or self.total_bytes is None:
            return told
        return f"{told}, {format_bytes(self.free_bytes)} free of {format_bytes(self.total_bytes)}"


def greet(host: str, port: int, within_s: float = 2.0) -> RpcServer | None:
    """The server at host:port; None where none greets back: there is none, or it serves another client.

    A server serves one client at a time, so the connection is closed at once.
    """
    for abilities in (ABILITIES, b""):
        try:
            with socket.create_connection((host, port), timeout=within_s) as link:
                link.settimeout(within_s)
                hello = _ask(link, HELLO, abilities)
                if len(hello) in (3, 4 + len(ABILITIES)):
                    return _with_memory(link, (hello[0], hello[1], hello[2]))
        except OSError:
            continue
    return None


def _with_memory(link: socket.socket, protocol: tuple[int, int, int]) -> RpcServer:
    try:
        raw = _ask(link, MEMORY, struct.pack("<I", 0) if protocol[0] >= DEVICES_SINCE else b"")
    except OSError:
        return RpcServer(protocol)
    return RpcServer(protocol, *struct.unpack("<QQ", raw)) if len(raw) == 16 else RpcServer(protocol)


def _ask(link: socket.socket, command: int, payload: bytes) -> bytes:
    """The payload of one reply; raises OSError where it does not come whole, or is too long to be one."""
    link.sendall(bytes([command]) + len(payload).to_bytes(8, "little") + payload)
    size = int.from_bytes(_exactly(link, 8), "little")
    if size > MOST_BYTES:
        raise OSError(f"an answer of {size} bytes")
    return _exactly(link, size)


def _exactly(link: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = link.recv(count - len(found))
        if not part:
            raise OSError("the connection was closed")
        found += part
    return found
