"""Thousands of hostile connections: no crash, nothing revealed or measured, rate-limited; odd requests with a token."""

from __future__ import annotations

import os
import random
import resource
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from live.agent import links, work
from live.agent.guard import Guard
from live.agent.pairing import WireError
from live.agent.peers import ask_facts
from live.agent.server import Agent, Settings
from live.agent.wire import KNOCK_BYTES, MAGIC, NONCE_BYTES, ask, make_knock
from simulator.errors import Unreachable

pytestmark = pytest.mark.timed

TOKEN = "correct horse battery"
COUNT = 4_000


def attack(address, source: str, junk: bytes, *, reset: bool) -> bytes:
    """One connection from `source` that sends junk; whatever came back."""
    with socket.socket() as connection:
        connection.settimeout(3)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with suppress(OSError):
            connection.bind((source, 0))
            connection.connect(address)
            connection.sendall(junk)
            if not reset:
                connection.shutdown(socket.SHUT_WR)
                return connection.recv(4096)
    return b""


def junk_of(rng: random.Random) -> bytes:
    shapes = (
        rng.randbytes(rng.randrange(200)),
        MAGIC + rng.randbytes(64),
        MAGIC + rng.randbytes(rng.randrange(64)),
        b"GET /facts HTTP/1.1\r\n\r\n",
        struct.pack(">I", 1 << 30) + rng.randbytes(64),
        b"",
    )
    return rng.choice(shapes)


@pytest.mark.parametrize("guarded", [True, False])
def test_thousands_of_connections(guarded, monkeypatch):
    worked = []
    monkeypatch.setattr(work, "OPERATIONS", {})
    monkeypatch.setattr("live.agent.server.OPERATIONS", {"facts": lambda *_: worked.append(1)})
    count = COUNT if guarded else COUNT // 5
    # without the guard every one of them gets a place at the door
    guard = Guard() if guarded else Guard(burst=1e9)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rng = random.Random(7)
    plans = [(f"127.0.1.{index % 4 + 1}", junk_of(rng), rng.random() < 0.2) for index in range(count)]
    most_threads = 0
    with Agent(Settings("a", TOKEN), guard) as agent, ThreadPoolExecutor(8) as pool:
        got = []
        for answer in pool.map(lambda plan: attack(agent.address, plan[0], plan[1], reset=plan[2]), plans):
            got.append(answer)
            most_threads = max(most_threads, threading.active_count())
        # Another device with the token is served in the middle of it.
        with ask(*agent.address, TOKEN.encode()) as session:
            session.send({"op": "facts"})
            time.sleep(0.1)
    assert set(got) == {b""}
    assert worked == [1]
    assert most_threads < 30  # a stranger gets no thread
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 60 * 1024


def test_a_flood_is_limited_to_the_burst(monkeypatch):
    tried = []
    monkeypatch.setattr("live.agent.wire.NonceCache.is_right", lambda *_: tried.append(1))
    with Agent(Settings("a", TOKEN), Guard(common_per_s=10)) as agent:
        begin_s = time.monotonic()
        for _ in range(150):
            attack(agent.address, "127.0.1.9", bytes(KNOCK_BYTES), reset=False)
        elapsed_s = time.monotonic() - begin_s
    assert 30 <= len(tried) <= 20 + 10 + (2 + 10) * elapsed_s + 2


@pytest.fixture(scope="module")
def agent():
    with Agent(Settings("a", TOKEN)) as running:
        yield running


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
FIELDS = st.sampled_from(["op", "size_bytes", "seconds", "host", "port", "interval_s", "loaded"])
# Operations that would really measure are left to other tests.
REQUESTS = st.dictionaries(FIELDS, JSON, max_size=5).map(
    lambda request: {} if request.get("op") in list(work.OPERATIONS) else request
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(REQUESTS)
def test_odd_requests_get_an_answer_and_the_session_goes_on(agent, request_):
    with ask(*agent.address, TOKEN.encode()) as session:
        for message in (request_, {"op": "memory", "seconds": -1}):
            session.send(message)
            assert "error" in session.receive(5)


@pytest.mark.parametrize(
    ("request_", "rule"),
    [
        ({"op": "echo", "size_bytes": 1e12}, "size_bytes=1000000000000.0 must be a number from 1 to"),
        ({"op": "echo", "size_bytes": float("nan")}, "must be a number"),
        ({"op": "echo", "size_bytes": True}, "must be a number"),
        ({"op": "trips", "host": "x" * 300, "port": 1}, "host="),
        ({"op": "trips", "host": "127.0.0.1", "port": 0}, "port=0 must be a number from 1 to 65535"),
        ({"op": "trips", "host": "127.0.0.1", "port": 1, "seconds": 1e9}, "to 3600"),
        ({"op": "trips", "host": "phone.local", "port": 1}, "must be an address"),
        ({"op": "trips", "host": "8.8.8.8", "port": 1}, "no address of another device on this LAN"),
        ({"op": "trips", "host": "::ffff:8.8.8.8", "port": 1}, "no address of another device on this LAN"),
        ({"op": "trips", "host": "0.0.0.0", "port": 1}, "no address of another device on this LAN"),
        ({"op": "echo", "size_bytes": 10**400}, "must be a number"),
        ({"op": "disk"}, "--model-file"),
        ({"op": ["facts"]}, "is none of"),
    ],
)
def test_wrong_requests_say_the_rule(agent, request_, rule):
    with ask(*agent.address, TOKEN.encode()) as session:
        session.send(request_)
        answered = session.receive(10)
    assert rule in answered["error"]


def test_no_path_of_the_network_is_ever_read(agent, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    with ask(*agent.address, TOKEN.encode()) as session:
        session.send({"op": "disk", "path": str(secret), "model_file": str(secret), "file": str(secret)})
        assert "--model-file" in session.receive(5)["error"]


class Other:
    """What may stand where an agent is looked for: it keeps all that it is sent."""

    def __init__(self, answer):
        self.got, self.answer = [], answer
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                with connection:
                    connection.settimeout(2)
                    with suppress(OSError):
                        self.got.append(connection.recv(65536))
                        if self.answer is None:
                            self.got.append(connection.recv(65536))  # silent until the other side gives up
                        else:
                            connection.sendall(self.answer)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_a_probe_tells_nothing_of_what_is_not_paired(agent, monkeypatch):
    """Closed, silent, another program, an agent with another token: one answer, and after the same time."""
    monkeypatch.setattr(work, "MEET_S", 0.25)
    said, took_s = set(), []
    with (
        Other(None) as silent,
        Other(b"HTTP/1.1 400 Bad Request\r\n\r\n") as web,
        Other(b"") as closing,
        Agent(Settings("b", "another token, longer")) as unpaired,
        ask(*agent.address, TOKEN.encode()) as session,
    ):
        for port in (closed_port(), silent.port, web.port, closing.port, unpaired.address[1]):
            for operation in ("rate", "trips"):
                begin_s = time.monotonic()
                session.send({"op": operation, "host": "127.0.0.1", "port": port, "seconds": 0.1})
                said.add(session.receive(10)["error"].replace(str(port), "PORT"))
                took_s.append(time.monotonic() - begin_s)
        for other in (silent, web, closing):
            # the knock and the beginning of TLS, and no measurement
            assert 0 < sum(map(len, other.got)) < 4000
    assert len(said) == 1
    assert "no agent with this token" in said.pop()
    assert min(took_s) >= 0.25
    assert max(took_s) - min(took_s) < 0.2


def test_many_wrong_targets_are_refused_untried(monkeypatch):
    monkeypatch.setattr(work, "MEET_S", 0.0)
    with (
        Other(None) as other,
        Agent(Settings("a", TOKEN)) as agent,
        ask(*agent.address, TOKEN.encode()) as session,
    ):
        answers = []
        for port in (*[closed_port()] * 30, other.port):
            session.send({"op": "rate", "host": "127.0.0.1", "port": port})
            answers.append(session.receive(10)["error"])
    assert "too many peers" in answers[-1]
    assert other.got == []


def test_an_agent_for_the_lan_follows_nobody_to_its_own_loopback():
    """What listens on loopback there trusts that machine, and not whoever has the token."""
    with Other(b"") as other, Agent(Settings("a", TOKEN, "0.0.0.0")) as agent:
        with ask("127.0.0.1", agent.address[1], TOKEN.encode()) as session:
            for host in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "127.1.2.3"):
                session.send({"op": "rate", "host": host, "port": other.port})
                assert "no address of another device" in session.receive(10)["error"]
        assert other.got == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda junk: b"\x16\x03\x01\x00\xc8\x01" + junk))
def test_any_bytes_after_a_right_knock_open_nothing(agent, junk):
    """Somebody who passes on a knock that he heard: TLS ends it, and the agent serves the next one."""
    with socket.create_connection(agent.address, timeout=5) as connection, suppress(OSError):
        connection.sendall(make_knock(TOKEN.encode(), os.urandom(NONCE_BYTES)) + junk)
        connection.shutdown(socket.SHUT_WR)
        got = b"".join(iter(lambda: connection.recv(4096), b""))
        assert got[:1] in (b"", b"\x15")  # nothing, or an alert of TLS


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"\xff", b"{", b"[" * 60_000, b"1" * 60_000, b'{"op":NaN}', b'{"op":' + b'{"a":' * 9000],
)
def test_messages_that_are_none_end_that_session_alone(agent, payload):
    with ask(*agent.address, TOKEN.encode()) as session:
        framed = struct.pack(">I", len(payload)) + payload
        for start in range(0, len(framed), 16_000):
            session._until_done(
                partial(session._tls.write, framed[start : start + 16_000]), time.monotonic() + 5
            )
        with suppress(WireError):
            assert "is none of" in session.receive(5)["error"]
    with ask(*agent.address, TOKEN.encode()) as session:
        session.send({"op": "nothing"})
        assert "is none of" in session.receive(5)["error"]


class Liar:
    """A session of a paired agent that says anything."""

    def __init__(self, *messages):
        self.messages = list(messages)

    def receive(self, _):
        return self.messages.pop(0) if len(self.messages) > 1 else self.messages[0]


@pytest.mark.parametrize(
    "message",
    [{"rtt_ns": [0]}, {"rtt_ns": [10**400]}, {"rtt_ns": "x"}, {"rtt_ns": [1.5]}, {}, {"error": ["\x1b[2J"]}],
)
def test_round_trips_that_are_none(message):
    with pytest.raises(WireError, match="no positive integers|2J"):
        list(links._batches(Liar(message), links.LinkTestPlan()))


def test_an_agent_that_never_comes_to_an_end(monkeypatch):
    monkeypatch.setattr(links, "ANSWER_S", 0.05)
    with pytest.raises(WireError, match="it goes on after 0.05 s"):
        list(links._batches(Liar({"rtt_ns": [1]}), links.LinkTestPlan(seconds=0.05)))
    for value in (float("nan"), float("inf"), -1, 10**400, "x", None):
        with pytest.raises(WireError, match="an answer without"):
            links._answer({"bytes": 1, "seconds": value}, "bytes", "seconds")


def test_a_busy_agent_says_so(monkeypatch):
    monkeypatch.setattr("live.agent.server.SESSIONS", 1)
    with Agent(Settings("a", TOKEN)) as busy, ask(*busy.address, TOKEN.encode()) as session:
        session.send({"op": "nothing"})
        session.receive(5)
        with pytest.raises(Unreachable, match="busy: 1 sessions are open"):
            ask_facts(busy.address, TOKEN)
