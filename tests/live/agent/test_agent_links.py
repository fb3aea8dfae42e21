"""Three agents on loopback aliases: found by mDNS, and an imposed delay comes out of the link matrix within 10 %."""

from __future__ import annotations

import os
import statistics
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import permutations

import pytest
from rich.console import Console

from live.agent import matrix
from live.agent.announce import announced
from live.agent.links import LinkTestPlan, measure_links
from live.agent.peers import ask_facts, read_address
from live.agent.server import Agent, Settings
from live.agent.wire import DEFAULT_PORT, ask
from live.discover.mdns import browse
from simulator.errors import LiveError, MeasurementError, Unreachable
from simulator.result.measurement import read_measurement
from tests.live.agent.relay import Relay

pytestmark = pytest.mark.timed

TOKEN = "correct horse battery"
DELAY_S = 0.04
LINK = f"link {os.getpid()}"  # another test run on this machine has agents too


@pytest.fixture(scope="module")
def cluster():
    """Agents a, b, c at 127.0.0.2 to .4; every way to c leads through a relay that holds bytes back 40 ms."""
    with ExitStack() as stack, ThreadPoolExecutor(3) as pool:
        agents = [
            stack.enter_context(Agent(Settings(name, TOKEN, f"127.0.0.{place}")))
            for name, place in (("a", 2), ("b", 3), ("c", 4))
        ]
        slow = stack.enter_context(Relay(agents[2].address, DELAY_S, "127.0.0.5"))
        places = [agents[0].address, agents[1].address, slow.address]
        contexts = [announced(f"{LINK} {name}", *place) for name, place in zip("abc", places, strict=True)]
        list(pool.map(lambda context: context.__enter__(), contexts))
        for context in contexts:
            stack.push(context)
        seen = browse(1.0, ["127.0.0.1"])
        yield (
            [read_address(found.agent, 1) for found in seen.agents if found.name.startswith(LINK)],
            places,
            slow,
        )


@pytest.fixture(scope="module")
def measured(cluster, tmp_path_factory):
    found, *_ = cluster
    out = tmp_path_factory.mktemp("links") / "links.jsonl"
    plan = LinkTestPlan(
        sizes_bytes=(4, 16_384), seconds=0.25, interval_s=0.002, loaded=False, rate_seconds=0.1
    )
    return measure_links(found, TOKEN, plan, out), out


def test_all_agents_are_found_by_mdns(cluster):
    found, places, _ = cluster
    assert sorted(found) == sorted(places)


@pytest.mark.parametrize("size", [4, 16_384])
def test_the_imposed_delay_is_recovered(measured, cluster, size):
    """2 * 40 ms, or what the relay really held bytes back where other work kept it from its time."""
    links, _ = measured
    imposed_s = 2 * statistics.median(cluster[2].held_s)
    assert imposed_s >= 2 * DELAY_S
    for source, sink in permutations("abc", 2):
        median_s = statistics.median(links.rtt_ns[source, sink, size, False]) / 1e9
        if sink == "c":
            assert median_s == pytest.approx(imposed_s, rel=0.1)
        else:
            assert median_s < DELAY_S / 5


def test_the_slowest_link_is_named(measured):
    worst = matrix.slowest(matrix.rows(measured[0]))
    assert worst.sink == "c"
    console = Console(width=200, record=True, quiet=False, file=None)
    with console.capture() as capture:
        console.print(matrix.render(measured[0]))
    assert f"slowest link: {worst.source} -> c" in capture.get()
    assert matrix.as_json(measured[0])["slowest"]["sink"] == "c"


def test_every_link_has_a_rate(measured):
    links, _ = measured
    assert set(links.bytes_per_s) == set(permutations("abc", 2))
    assert all(rate > 1e6 for rate in links.bytes_per_s.values())


def test_the_file_holds_every_sample(measured):
    links, out = measured
    stored = read_measurement(out)
    assert stored.complete
    assert [device.name for device in stored.provenance.devices] == ["a", "b", "c"]
    by_link: dict = {}
    for event in stored.of("link"):
        key = (event["source"], event["sink"], event["size_bytes"], event["loaded"])
        by_link.setdefault(key, []).append(event["rtt_ns"])
    assert by_link == links.rtt_ns
    assert len(list(stored.of("link_rate"))) == 6


def test_rate_and_queue_of_a_narrow_link_are_seen(cluster, tmp_path):
    """50 MB/s with a deep queue: the rate comes out within 10 %, and under load a token waits behind the bulk."""
    _, (a, b, _), _ = cluster
    with Relay(b, 0.0, "127.0.0.6", 50e6) as narrow:
        plan = LinkTestPlan(sizes_bytes=(16_384,), seconds=0.3, interval_s=0.0, loaded=True, rate_seconds=0.3)
        links = measure_links([a, narrow.address], TOKEN, plan, tmp_path / "x.jsonl")
    assert links.bytes_per_s["a", "b"] == pytest.approx(50e6, rel=0.1)
    idle, full = (links.rtt_ns["a", "b", 16_384, loaded] for loaded in (False, True))
    assert statistics.median(idle) < 5e6
    assert statistics.median(full) > statistics.median(idle) + 10e6


def test_an_agent_that_is_gone_is_a_warning(cluster, tmp_path):
    _, (a, b, _), _ = cluster
    links = measure_links(
        [a, b, ("127.0.0.9", 1)], TOKEN, LinkTestPlan((4,), 0.1, 0.0, False, 0.05), tmp_path / "x.jsonl"
    )
    assert len(links.peers) == 2
    assert "127.0.0.9:1" in links.warnings[0]
    assert read_measurement(tmp_path / "x.jsonl").warnings == tuple(links.warnings)


def test_an_agent_that_dies_while_measuring_leaves_the_rest(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("live.agent.work.MEET_S", 0.3)
    _, (a, b, _), _ = cluster
    mortal = Agent(Settings("mortal", TOKEN, "127.0.0.7")).__enter__()

    def progress(text):
        if "a -> mortal" in text:
            mortal.__exit__()

    plan = LinkTestPlan((4,), 0.1, 0.0, False, 0.05)
    links = measure_links([a, b, mortal.address], TOKEN, plan, tmp_path / "x.jsonl", progress)
    assert ("a", "b", 4, False) in links.rtt_ns
    assert any("mortal" in warning and "not measured" in warning for warning in links.warnings)
    assert read_measurement(tmp_path / "x.jsonl").complete


def test_fewer_than_two_agents_is_an_error(cluster, tmp_path):
    _, (a, *_), _ = cluster
    with pytest.raises(Unreachable, match="a link needs two"):
        measure_links([a, ("127.0.0.9", 1)], TOKEN, LinkTestPlan(), tmp_path / "x.jsonl")
    with pytest.raises(Unreachable, match="same token"):
        ask_facts(a, "another token, long enough")
    with pytest.raises(LiveError, match="at least 16.*`sim live agent` printed"):
        measure_links([a], "short", LinkTestPlan(), tmp_path / "x.jsonl")
    with pytest.raises(LiveError, match="no token was given.*LANSIM_TOKEN"):
        measure_links([a], "", LinkTestPlan(), tmp_path / "x.jsonl")
    with pytest.raises(Unreachable, match="none was named with --agents"):
        measure_links([], TOKEN, LinkTestPlan(), tmp_path / "x.jsonl")
    assert not (tmp_path / "x.jsonl").exists()


def test_devices_measure_themselves_when_asked(tmp_path):
    model = tmp_path / "model.gguf"
    model.write_bytes(bytes(4 << 20))
    with (
        Agent(Settings("[red]a", TOKEN, "127.0.0.2", 0, model)) as a,
        Agent(Settings("b", TOKEN, "127.0.0.3")) as b,
    ):
        plan = LinkTestPlan((4,), 0.05, 0.0, False, 0.05, speed_seconds=0.1)
        links = measure_links([a.address, b.address], TOKEN, plan, tmp_path / "x.jsonl")
    assert links.speeds["[red]a"]["disk_bytes_per_s"] > 1e6
    assert "disk_bytes_per_s" not in links.speeds["b"]  # it was given no file
    assert all(speeds["memory_bytes_per_s"] > 1e8 for speeds in links.speeds.values())
    assert [event["device"] for event in read_measurement(tmp_path / "x.jsonl").of("speed")] == [
        "[red]a",
        "b",
    ]
    console = Console(width=200)
    with console.capture() as capture:
        console.print(matrix.render(links))
    assert "[red]a" in capture.get()


def test_old_measurements_are_not_overwritten(cluster, tmp_path):
    _, (a, b, _), _ = cluster
    (tmp_path / "x.jsonl").write_text("mine")
    with pytest.raises(MeasurementError, match="never overwritten"):
        measure_links([a, b], TOKEN, LinkTestPlan(), tmp_path / "x.jsonl")


@pytest.mark.parametrize(
    "plan", [{"sizes_bytes": ()}, {"sizes_bytes": (0,)}, {"sizes_bytes": (1 << 30,)}, {"seconds": 0}]
)
def test_impossible_plans(plan):
    with pytest.raises(LiveError):
        LinkTestPlan(**plan)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("a", ("a", DEFAULT_PORT)),
        ("a:1", ("a", 1)),
        ("[::1]:2", ("::1", 2)),
        ("[::1]", ("::1", DEFAULT_PORT)),
        ("fe80::1", ("fe80::1", DEFAULT_PORT)),
    ],
)
def test_addresses(text, address):
    assert read_address(text, DEFAULT_PORT) == address


@pytest.mark.parametrize("text", [":1", "a:0", "a:99999", "a:b"])
def test_wrong_addresses(text):
    with pytest.raises(LiveError, match="is no address"):
        read_address(text, 1)


def test_one_heavy_measurement_at_a_time(cluster):
    _, (a, *_), _ = cluster
    answers = []

    def memory():
        with ask(*a, TOKEN.encode()) as session:
            session.send({"op": "memory", "seconds": 0.5})
            answers.append(session.receive(20))

    threads = [threading.Thread(target=memory) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("error" in answered for answered in answers) == 2
    done = next(answered for answered in answers if "error" not in answered)
    assert 1e8 < done["one_thread_bytes_per_s"] < 1e12
    assert done["all_threads_bytes_per_s"] > 1e8
