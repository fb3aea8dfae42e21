"""The handshake and the messages: only the token opens the agent, and nothing old or changed is taken."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress
from functools import partial

import pytest

from live.agent.pairing import MIN_TOKEN_CHARS, WireError, _identity, check_token, new_token, pairing
from live.agent.server import Agent, Settings
from live.agent.wire import KNOCK_BYTES, MAGIC, answer, ask, make_knock, recv_exact
from tests.live.agent.relay import Relay

TOKEN = "correct horse battery"
KEY = TOKEN.encode()


@pytest.fixture
def agent():
    with Agent(Settings("here", TOKEN)) as running:
        yield running


def pair(token_a=KEY, token_b=KEY, between=None):
    """Two sessions over a real socket, or the error of the asking side and of the answering one.

    `between` takes the address of the listener and gives the one to ask.
    """
    results = {}
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            try:
                recv_exact(connection, KNOCK_BYTES, time.monotonic() + 1)
                results["b"] = answer(connection, token_b, 0.5)
            except WireError as error:
                results["b"] = error
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        address = listener.getsockname()
        try:
            results["a"] = ask(*(between(address) if between else address), token_a, 1.0)
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
        b.send({"n": ["x"] * 100_000})
        assert a.receive(1) == {"n": 1}
        assert len(a.receive(1)["n"]) == 100_000


def test_a_wrong_token_fails_on_both_sides():
    a, b = pair(token_b=b"another token, longer")
    assert isinstance(a, WireError)
    assert isinstance(b, WireError)


def test_the_key_of_a_token_is_the_same_for_ever():
    """Whatever version of Python, OpenSSL or cryptography a device has; found with cryptography 43, 46 and 50."""
    _, certificate = _identity(bytes(range(32)))
    assert (
        hashlib.sha256(certificate.encode()).hexdigest()
        == "bca4988014b6151e872ba78cb63c6ec9dfd498bda3936416f6496a2daa1e223b"
    )
    assert make_knock(KEY, bytes(32)).hex()[-16:] == "62aacb5b23e4d826"


def test_both_sides_show_the_certificate_that_the_token_gives():
    """Pinned: these very bytes and no others; `test_agent_door` has the other side in another process."""
    (a, b), (c, d) = pair(), pair(b"another token, longer", b"another token, longer")
    with a, b, c, d:
        shown = [session._tls.getpeercert(binary_form=True) for session in (a, b, c, d)]
        assert a._tls.version() == "TLSv1.3"
    assert shown[0] == shown[1] != shown[2] == shown[3]


def with_right_knock(agent, context) -> bytes:
    """What an agent says inside TLS to somebody who knocks rightly and speaks TLS by `context`."""
    with socket.create_connection(agent.address, timeout=2) as connection:
        connection.sendall(make_knock(KEY, os.urandom(32)))
        with context.wrap_socket(connection) as tls:
            tls.sendall(struct.pack(">I", 14) + b'{"op":"facts"}')
            return tls.recv(100)


def unpinned(most=ssl.TLSVersion.TLSv1_3):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode, context.maximum_version = False, ssl.CERT_NONE, most
    return context


def test_a_knock_alone_opens_nothing(agent):
    """Whoever passes a right knock on, without the token, has no key for TLS; and no older TLS is spoken."""
    with pytest.raises(OSError, match="ALERT|EOF|reset"):
        with_right_knock(agent, unpinned())
    with pytest.raises(OSError, match="ALERT|EOF|reset|VERSION"):
        with_right_knock(agent, unpinned(ssl.TLSVersion.TLSv1_2))
    stranger = pairing(b"another token, longer").asking
    with pytest.raises(ssl.SSLCertVerificationError):
        with_right_knock(agent, stranger)


def test_who_stands_between_learns_and_changes_nothing():
    """A relay that passes the knock on and answers TLS with a key of its own is found out before a question."""
    fake = pairing(b"the token of an impostor").answering
    heard = []

    def impostor(_):
        listener = socket.create_server(("127.0.0.1", 0))

        def serve():
            with listener, listener.accept()[0] as connection:
                connection.recv(KNOCK_BYTES)
                fake.verify_mode = ssl.CERT_NONE
                with suppress(OSError), fake.wrap_socket(connection, server_side=True) as tls:
                    heard.append(tls.recv(100))

        threading.Thread(target=serve, daemon=True).start()
        return listener.getsockname()

    with pytest.raises(WireError, match="not with this pairing's key"):
        ask(*impostor(None), KEY, 2.0)
    assert heard in ([], [b""])


def test_changed_bytes_are_refused(agent):
    """Each record is authenticated: one flipped bit, in either direction, ends the session."""
    for flipped in (0, 1):
        with Relay(agent.address, 0.0, spoil=flipped) as relay, ask(*relay.address[:2], KEY) as session:
            relay.spoiling = True
            session.send({"op": "nothing"})
            with pytest.raises(WireError):
                session.receive(2)


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


def recorded_conversation(agent) -> Relay:
    """What a right asker and the agent send, as somebody on the LAN can record it."""
    with Relay(agent.address, 0.0) as relay:
        with ask(*relay.address, KEY) as session:
            session.send({"op": "facts"})
            assert session.receive(20)["facts"]["name"] == "here"
        return relay


def test_neither_token_nor_figures_cross_the_wire(agent):
    relay = recorded_conversation(agent)
    for heard in (*relay.there, *relay.back):
        assert not [word for word in (KEY, b"facts", b"here", b"memory", b"lansim") if word in heard]
    assert len(b"".join(relay.back)) > 500


def test_a_replayed_conversation_gets_nothing(agent):
    assert received(agent.address, b"".join(recorded_conversation(agent).there)) == b""


def test_elsewhere_a_replayed_knock_shows_nothing_but_a_hello():
    """Another agent, or the same after a restart, has not heard the knock; the replay then fails in TLS."""
    with Agent(Settings("here", TOKEN)) as old:
        recording = b"".join(recorded_conversation(old).there)
    with Agent(Settings("secret name", TOKEN)) as new:
        got = received(new.address, recording)
    assert b"secret name" not in got
    assert len(got) < 2000


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        MAGIC,
        MAGIC + bytes(64),
        bytes(10_000),
        MAGIC * 9999,
        b"\x16\x03\x01" * 99,
    ],
)
def test_strangers_hear_nothing(agent, sent):
    assert received(agent.address, sent) == b""


def test_a_silent_stranger_is_hung_up_on(monkeypatch):
    monkeypatch.setattr("live.agent.door.HANDSHAKE_S", 0.5)
    begin_s = time.monotonic()
    with (
        Agent(Settings("here", TOKEN)) as agent,
        socket.create_connection(agent.address, timeout=60) as connection,
    ):
        assert connection.recv(10) == b""
    assert 0.4 < time.monotonic() - begin_s < 50  # hung up on, not timed out here


def test_a_knock_without_a_hello_is_hung_up_on(monkeypatch):
    monkeypatch.setattr("live.agent.server.answer", partial(answer, timeout_s=0.3))
    with (
        Agent(Settings("here", TOKEN)) as agent,
        socket.create_connection(agent.address, timeout=60) as connection,
    ):
        connection.sendall(make_knock(KEY, os.urandom(32)))
        assert connection.recv(10) == b""


def test_long_messages_are_refused_before_they_are_read():
    a, b = pair()
    with a, b:
        a._until_done(partial(a._tls.write, struct.pack(">I", 1 << 31)), time.monotonic() + 1)
        with pytest.raises(WireError, match="at most 65536"):
            b.receive(1)


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
