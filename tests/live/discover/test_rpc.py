"""llama.cpp's rpc-server, greeted over real sockets: both forms of the greeting, and those that greet nobody (field case 30)."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from live.discover.hosts import probe
from live.discover.rpc import RpcServer, greet
from live.measure import connect
from simulator.errors import LiveError

GIB = 2**30


@contextmanager
def serving(version: tuple[int, int, int] | None, *, abilities: bool = True) -> Iterator[int]:
    """The port of a server of that protocol, which hangs up on what it does not know; None: on everything."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer(link: socket.socket) -> None:
        while (head := link.recv(9, socket.MSG_WAITALL)) and len(head) == 9 and version:
            size = int.from_bytes(head[1:], "little")
            if size > 64:  # the beginning of an HTTP request
                return
            payload = link.recv(size, socket.MSG_WAITALL) if size else b""
            if head[0] == 14 and len(payload) == (24 if abilities else 0):
                reply = bytes([*version, *(bytes(25) if abilities else b"")])
            elif head[0] == 11 and len(payload) == (4 if version[0] >= 3 else 0):
                reply = struct.pack("<QQ", 3 * GIB, 8 * GIB)
            else:
                return
            link.sendall(len(reply).to_bytes(8, "little") + reply)

    def serve() -> None:
        while True:
            try:
                link, _ = server.accept()
            except OSError:
                return
            with link:
                try:
                    answer(link)
                except OSError:
                    continue

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


@pytest.mark.parametrize(("version", "abilities"), [((3, 6, 0), True), ((2, 0, 0), False)])
def test_a_server_tells_protocol_and_memory(version: tuple[int, int, int], abilities: bool) -> None:
    with serving(version, abilities=abilities) as port:
        assert greet("127.0.0.1", port) == RpcServer(version, 3 * GIB, 8 * GIB)
        found = probe("127.0.0.1", port)
        with pytest.raises(LiveError, match=rf"and no EXO; write llama-rpc://127.0.0.1:{port} for it"):
            connect([f"http://127.0.0.1:{port}"])
    assert found.outcome == "rpc"
    assert f"use it as llama-rpc://127.0.0.1:{port}" in found.detail
    assert f"protocol {'.'.join(map(str, version))}" in found.detail


def test_one_that_greets_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """As field case 30: something accepts and hangs up."""
    with serving(None) as port:
        assert greet("127.0.0.1", port) is None
        monkeypatch.setattr("live.discover.hosts.RPC_PORT", port)
        found = probe("127.0.0.1", port)
    assert found.outcome == "silent"
    assert "serves another client, or one that died" in found.detail
