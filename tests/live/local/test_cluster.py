"""The local cluster for real: llama.cpp servers, a client and a relay, small, with everything that can go wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from calibrate.samples import sample
from live.local.children import Child
from live.local.plan import plan
from live.local.rpc import RpcCluster
from live.local.run import measure, run_scenario
from live.local.server import free_port
from live.local.table import markdown, row, split_s
from live.recovery import PHASES
from simulator.engine.llama.star import LlamaStar
from simulator.errors import LiveError
from simulator.files import dump
from simulator.result.measurement import Measurement, read_measurement
from simulator.runtime.draws import Draws
from tests.live.local.parts import is_running, needs_engine, scenario, until

pytestmark = needs_engine
COMMAND = """
import sys
from sim.live_local_cmd import app
from simulator.errors import SimulatorError
try:
    app(["run", *sys.argv[1:]])
except SimulatorError as error:  # as `sim` itself does
    sys.exit(f"error: {error}")
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measurement:
    """Client and three servers, two milliseconds each way; the second server at 20% of its speed."""
    asked = scenario([4, 4, 4, 4], loads=["0 %", "0 %", "80 %", "0 %"])
    return read_measurement(run_scenario(asked, tmp_path_factory.mktemp("local")))


def test_every_token_takes_longer_than_the_delays_imposed_on_it(measured: Measurement) -> None:
    assert measured.complete
    gaps_s = np.diff(measured.token_times_s()[0, 0])
    assert len(gaps_s) == 63
    assert gaps_s.min() > 3 * 2 * 0.002
    imposed_s = sum(event["imposed_ns"] for event in measured.of("hop")) / 1e9
    assert measured.token_times_s()[0, 0][-1] > imposed_s > 64 * 3 * 2 * 0.002


def test_a_throttled_device_is_slower(measured: Measurement) -> None:
    """Same layers at 20% of the speed; on a busy machine the others are slowed down as well."""
    devices_s, hops_s = split_s(measured)
    usual_s = {name: float(np.median(service_s(measured, name))) for name in ("d1", "d2", "d3")}
    assert usual_s["d2"] > 1.25 * min(usual_s["d1"], usual_s["d3"])
    shares = {device.name: device.throttle_achieved for device in measured.provenance.devices}
    assert 0.1 < shares["d2"] < 0.4
    gaps_s = np.diff(measured.token_times_s()[0, 0])
    assert sum(devices_s.values()) + sum(hops_s.values()) == pytest.approx(gaps_s.mean())
    assert "d2 4 at" in markdown([row(measured)])


def service_s(measured: Measurement, server: str) -> list[float]:
    """Time from each delivered request to its reply."""
    hops = [event for event in measured.of("hop") if server in (event["source"], event["sink"])]
    return [
        (reply["sent_ns"] - request["sent_ns"] - request["imposed_ns"] - request["late_ns"]) / 1e9
        for request, reply in pairwise(hops)
        if reply["source"] == server
    ]


def test_messages_are_as_the_simulator_says(measured: Measurement) -> None:
    """One request and one reply per server and token, each as long as the engine's model of them."""
    job = plan(scenario([4, 4, 4, 4])).prepared.job
    star = LlamaStar(job, Draws(job, 0, 1))
    for server in (1, 2, 3):
        sizes = [event["size_bytes"] for event in measured.of("hop") if event["sink"] == f"d{server}"]
        assert sizes[1:] == star.decode_request_bytes(server).tolist()
        replies = {event["size_bytes"] for event in measured.of("hop") if event["source"] == f"d{server}"}
        assert star.reply_bytes(server, 1) in replies


def test_the_header_tells_what_was_measured(measured: Measurement) -> None:
    facts = measured.provenance
    assert (facts.source, facts.engine, facts.model_layers) == ("local", "llama-rpc", 16)
    assert [shard.end_layer for shard in facts.placement] == [4, 8, 12, 16]
    assert facts.cluster["relay_overhead_s"]["median"] < 1e-3
    assert len(facts.cluster["links"]) == 3
    assert facts.software["llama-cpp-python"] != "unknown"
    assert next(measured.of("repeatability"))["run_median_s"]
    assert len(list(measured.of("device"))) == 4


def test_several_scenarios_are_measured_there_and_back(tmp_path: Path) -> None:
    asked = [
        scenario([8, 8], name=name, delay=delay, runs=2, output_tokens=16)
        for name, delay in (("near", "0 s"), ("far", "5 ms"))
    ]
    visited: list[str] = []
    files = measure(asked, tmp_path, visited.append)
    assert [text.split(":")[0] for text in visited if ": run" in text] == ["near", "far", "far", "near"]
    near, far = (read_measurement(file) for file in files)
    quickest_s = [
        min(np.diff(times).min() for times in found.token_times_s().values()) for found in (near, far)
    ]
    assert quickest_s[1] > quickest_s[0] + 0.010, "10 ms more each way, and both may be disturbed"
    assert len(list(far.of("reference"))) == 2
    assert any("only 16 tokens" in text for text in far.warnings)
    with pytest.raises(LiveError, match="never overwritten"):
        measure(asked, tmp_path)


def test_servers_that_already_run(tmp_path: Path) -> None:
    """The way to real devices: the same client, addresses instead of processes."""
    port = free_port()
    server = Child("server", "live.local.server", "--port", str(port), "--supervised")
    try:
        assert until(lambda: _listens(port), 10)
        asked = scenario([8, 8], output_tokens=8)
        with pytest.raises(LiveError, match="needs 1 servers beside the client d0, and 2 addresses"):
            RpcCluster(plan(asked), ("127.0.0.1:1", "127.0.0.1:2"))
        found = read_measurement(run_scenario(asked, tmp_path, endpoints=[f"127.0.0.1:{port}"]))
        assert found.provenance.source == "llama-rpc"
        assert len(found.token_times_s()[0, 0]) == 8
    finally:
        server.end()


def test_nobody_at_the_address(tmp_path: Path) -> None:
    with pytest.raises(LiveError, match=r"d1: nothing answers at 127\.0\.0\.1:1"):
        run_scenario(scenario([8, 8]), tmp_path, endpoints=["127.0.0.1:1"])


def test_a_killed_server_costs_no_token(tmp_path: Path) -> None:
    """`sim live run` itself goes on: the reply is whole, and a second run has all devices again."""
    asked = scenario([4, 4, 4, 4], output_tokens=48, runs=2)
    killed: list[int] = []

    def kill_one(text: str) -> None:
        if "run 1 of 2" in text and not killed:
            timer = threading.Timer(0.3, lambda: killed.append(_kill_a_server()))
            timer.start()

    path = tmp_path / "out.jsonl"
    calm = [asked.workload.output_tokens] * 2
    measure([asked], path, kill_one, rounds=1)
    found = read_measurement(path)
    assert found.complete
    assert killed
    assert [event["tokens"] for event in found.of("result")] == calm
    assert [event["token"] for event in found.of("token")] == 2 * list(range(48))
    phases = [event["phase"] for event in found.of("phase")]
    assert tuple(phases) == PHASES
    assert {event["run"] for event in found.of("phase")} == {1}
    assert any(re.search(r"d[123] \(process \d+\) was killed by SIGKILL", text) for text in found.warnings)
    assert [run.median_s > 0 for run in sample(found).runs] == [True]  # the mended run calibrates nothing
    assert any("run 1: a device was lost in it" in text for text in sample(found).warnings)


def _kill_a_server() -> int:
    """kill -9 of the last server of this process's cluster."""
    listed = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-f", "live.local.server"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    pid = int(listed.split()[-1])
    os.kill(pid, signal.SIGKILL)
    return pid


def test_a_killed_command_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as (command, file, children):
        command.kill()
    assert_nothing_left(children)
    assert len(list(read_measurement(file).of("token"))) >= 5


def test_ctrl_c_stops_everything_and_keeps_what_there_is(tmp_path: Path) -> None:
    with running(tmp_path) as (command, file, children):
        command.send_signal(signal.SIGINT)
        command.communicate(timeout=10)
    assert_nothing_left(children)
    found = read_measurement(file)
    assert not found.complete
    assert list(found.of("end")) == [{"type": "end", "outcome": "interrupted"}]


@contextmanager
def running(folder: Path) -> Iterator[tuple[subprocess.Popen[str], Path, dict[str, list[int]]]]:
    """The command in the middle of a long run: its process, its file, and its children by module."""
    asked = scenario([4, 4, 4, 4], loads=["0 %", "50 %", "0 %", "0 %"], output_tokens=5000)
    dump(asked, folder / "long.yaml")
    file = folder / "out.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(folder / "long.yaml"), "-o", str(file)],
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        try:
            assert until(lambda: file.exists() and file.read_text().count('{"type":"token"') >= 5, 60)
            yield command, file, children_of(command.pid)
        finally:
            command.kill()


def children_of(pid: int) -> dict[str, list[int]]:
    """Child processes by the last part of their module's name."""
    listed = subprocess.run(
        ["pgrep", "-a", "-P", str(pid)], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, list[int]] = {}
    for line in listed.splitlines():
        child, _, words = line.partition(" ")
        module = words.split("live.local.")[1].split()[0]
        found.setdefault(module, []).append(int(child))
    assert len(found["server"]) == 3
    assert {"client", "relay", "guard"} <= set(found)
    return found


def assert_nothing_left(children: dict[str, list[int]]) -> None:
    pids = [pid for group in children.values() for pid in group]
    assert until(lambda: not any(is_running(pid) for pid in pids), 5), "processes are left"
    assert until(lambda: not _deserted_groups(), 3), "groups are left"


def _deserted_groups() -> list[Path]:
    """Groups of ours without a process; those with one belong to another cluster that runs on this machine."""
    found = Path("/sys/fs/cgroup").glob("**/lan-cluster-simulator-*/cgroup.procs")
    return [procs.parent for procs in found if not procs.read_text().strip()]


def _listens(port: int) -> bool:
    import socket

    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_measurement_is_json_lines(measured: Measurement) -> None:
    assert all(json.loads(line)["type"] for line in Path(measured.path).read_text().splitlines())
