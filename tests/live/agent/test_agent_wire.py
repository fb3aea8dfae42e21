"""The handshake and the messages: only the token opens the agent, and nothing old or changed is taken."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live.agent.guard import Guard
from live.agent.server import Agent, Settings
from live.agent.wire import (
    MIN_TOKEN_CHARS,
    AgentConnection,
    NonceCache,
    WireError,
    answer,
    ask,
    check_token,
    new_token,
)

TOKEN = "correct horse battery"
KEY = TOKEN.encode()


@pytest.fixture
def agent():
    with Agent(Settings("here", TOKEN)) as running:
        yield running


def pair(token_a=KEY, token_b=KEY):
    """Two sessions over a real socket, or the error of the asking side and of the answering one."""
    results = {}
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            try:
                results["b"] = answer(connection, token_b, NonceCache(), 0.5)
            except WireError as error:
                results["b"] = error
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            results["a"] = ask(*listener.getsockname(), token_a, 1.0)
        except WireError as error:
            results["a"] = error
        thread.join()
    return results["a"], results["b"]


def test_both_sides_have_the_token():
    a, b = pair()
    with a, b:
        a.send({"op": "x"})
        assert b.receive(1) == {"op": "x"}
        b.send({"n": 1})
        b.send({"n": 2})
        assert [a.receive(1)["n"], a.receive(1)["n"]] == [1, 2]


def test_a_wrong_token_fails_on_both_sides():
    a, b = pair(token_b=b"another token, longer")
    assert isinstance(a, WireError)
    assert isinstance(b, WireError)


def received(address, sent: bytes, wait_s: float = 1.0) -> bytes:
    """All bytes that a server sends back to `sent`."""
    with socket.create_connection(address, timeout=wait_s) as connection:
        got = b""
        with suppress(OSError):
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(4096):
                got += piece
        return got


def recorded_conversation(agent) -> bytes:
    """What a right asker sends, as somebody on the LAN can record it."""
    sent = []

    class Recorder:
        def __init__(self, connection):
            self.connection = connection

    original = socket.socket.sendall

    def tee(self, data, *rest):
        if self.getpeername()[1] == agent.address[1]:
            sent.append(bytes(data))
        return original(self, data, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "sendall", tee)
        with ask(*agent.address, KEY) as session:
            session.send({"op": "facts"})
            assert "facts" in session.receive(20)
    return b"".join(sent)


def test_the_token_never_crosses_the_wire(agent):
    assert KEY not in recorded_conversation(agent)


def test_a_replayed_conversation_gets_nothing(agent):
    assert received(agent.address, recorded_conversation(agent)) == b""


def test_after_a_restart_a_replayed_knock_shows_nothing_but_a_challenge():
    """A new process has forgotten the old nonces; the replay then fails at the challenge."""
    with Agent(Settings("a", TOKEN)) as old:
        recording = recorded_conversation(old)
    with Agent(Settings("a", TOKEN)) as new:
        # A nonce and its code, nothing about the device; the reset that ends it may even take those away.
        assert len(received(new.address, recording)) in (0, 64)


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\n\r\n", b"LSA1", b"LSA1" + bytes(64), bytes(10_000), b"LSA1" * 9999]
)
def test_strangers_hear_nothing(agent, sent):
    assert received(agent.address, sent) == b""


def test_a_silent_stranger_is_hung_up_on(agent, monkeypatch):
    monkeypatch.setattr("live.agent.server.answer", partial(answer, timeout_s=0.5))
    begin_s = time.monotonic()
    with socket.create_connection(agent.address, timeout=60) as connection:
        assert connection.recv(10) == b""
    assert 0.4 < time.monotonic() - begin_s < 50  # hung up on, not timed out here


def test_messages_of_another_place_direction_or_content_are_refused():
    for spoil in ("bit", "order", "direction"):
        a, b = pair()
        with a, b:
            a.send({"op": "facts"})
            raw = b.connection.recv(4096)
            near, far = socket.socketpair()
            with near, far:
                if spoil == "bit":
                    raw = raw[:6] + bytes([raw[6] ^ 1]) + raw[7:]
                victim = AgentConnection(far, b._key, asking=spoil == "direction")
                if spoil == "order":
                    victim._received = 1
                near.sendall(raw)
                with pytest.raises(WireError, match="changed on the way or replayed"):
                    victim.receive(1)


def test_long_messages_are_refused_before_they_are_read():
    near, far = socket.socketpair()
    with near, far:
        near.sendall(struct.pack(">I", 1 << 31))
        with pytest.raises(WireError, match="at most 65536"):
            AgentConnection(far, KEY, asking=False).receive(1)


def test_tokens_are_long_enough():
    assert len(new_token()) >= MIN_TOKEN_CHARS
    assert new_token() != new_token()
    with pytest.raises(WireError, match="at least 16"):
        check_token("short")
    with pytest.raises(WireError, match="token"):
        Agent(Settings("a", ""))


def test_an_address_that_is_not_ours():
    with pytest.raises(WireError, match="cannot be used"):
        Agent(Settings("a", TOKEN, "198.51.100.1"))


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def test_the_guard_lets_a_burst_through_and_then_two_per_second():
    clock = Clock()
    guard = Guard(burst=20, per_s=2, clock=clock)
    assert sum(guard.admit("10.0.0.1") for _ in range(1000)) == 20
    assert guard.admit("10.0.0.2")
    clock.now_s = 10.0
    assert sum(guard.admit("10.0.0.1") for _ in range(1000)) == 20
    clock.now_s = 11.0
    assert sum(guard.admit("10.0.0.1") for _ in range(1000)) == 2


def test_right_knocks_cost_nothing():
    guard = Guard(burst=3, per_s=0)
    for _ in range(100):
        assert guard.admit("10.0.0.1")
        guard.forgive("10.0.0.1")


def test_an_ipv6_host_cannot_hide_in_its_network():
    guard = Guard(burst=5, per_s=0)
    assert sum(guard.admit(f"fe80::{index:x}%eth0") for index in range(100)) == 5


@given(st.lists(st.text(max_size=20), max_size=50))
def test_the_guard_remembers_a_bounded_number(sources):
    guard = Guard(sources=10)
    for source in sources:
        guard.admit(source)
    assert len(guard._left) <= 10
