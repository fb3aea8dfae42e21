"""Ten thousand hostile connections: no crash, nothing revealed or measured, rate-limited; odd requests with a token."""

from __future__ import annotations

import random
import resource
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from live.agent import work
from live.agent.guard import Guard
from live.agent.server import HANDSHAKES, Agent, Settings
from live.agent.wire import MAGIC, ask

pytestmark = pytest.mark.timed

TOKEN = "correct horse battery"
COUNT = 10_000


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
def test_ten_thousand_connections(guarded, monkeypatch):
    worked = []
    monkeypatch.setattr(work, "OPERATIONS", {})
    monkeypatch.setattr("live.agent.server.OPERATIONS", {"facts": lambda *_: worked.append(1)})
    count = COUNT if guarded else COUNT // 5
    guard = (
        Guard() if guarded else Guard(burst=1e9)
    )  # without the guard every one of them reaches the handshake
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
    assert most_threads < HANDSHAKES + 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 60 * 1024


def test_a_flood_is_limited_to_the_burst(monkeypatch):
    tried = []
    monkeypatch.setattr(
        "live.agent.server.answer", lambda *_: tried.append(1) or (_ for _ in ()).throw(OSError())
    )
    with Agent(Settings("a", TOKEN)) as agent:
        begin_s = time.monotonic()
        for _ in range(150):
            attack(agent.address, "127.0.1.9", b"x", reset=True)
        elapsed_s = time.monotonic() - begin_s
        time.sleep(0.1)
    assert 20 <= len(tried) <= 20 + 2 * elapsed_s + 2


def test_places_taken_by_a_silent_stranger_leave_room_for_others():
    with Agent(Settings("a", TOKEN)) as agent:
        held = []
        for _ in range(100):
            connection = socket.socket()
            connection.bind(("127.0.1.1", 0))
            connection.connect(agent.address)
            held.append(connection)
        try:
            with ask(*agent.address, TOKEN.encode()) as session:
                session.send({"op": "nothing"})
                assert "error" in session.receive(5)
        finally:
            for connection in held:
                connection.close()


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


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
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
        ({"op": "trips", "host": "127.0.0.1", "port": 1}, "nothing answers"),
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


def test_a_peer_that_is_no_agent_gets_no_measurement(agent):
    """Who has the token may still not use an agent to flood a third party: the peer must know the token too."""
    with socket.create_server(("127.0.0.1", 0)) as victim:
        got = []

        def accept():
            connection, _ = victim.accept()
            with connection:
                connection.settimeout(1)
                with suppress(OSError):
                    while piece := connection.recv(65536):
                        got.append(piece)

        thread = threading.Thread(target=accept)
        thread.start()
        with ask(*agent.address, TOKEN.encode()) as session:
            session.send({"op": "rate", "host": "127.0.0.1", "port": victim.getsockname()[1], "seconds": 1})
            assert "no agent with this token" in session.receive(10)["error"]
        thread.join()
    assert sum(map(len, got)) <= 100  # the knock, and nothing more
