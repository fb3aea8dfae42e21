"""What the doctor reads in EXO's own state, on states of public issues, on recordings, and on EXO's types."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from live.discover import Options, discover
from live.discover.get import get
from live.discover.hosts import Probe, look_again, probe
from live.discover.table import as_json, missing, render
from live.doctor import CHECKS, cluster, examine, gather, health, network, ways
from live.exo.health import health_of
from tests.live.discover.fakes import answer, head_pages, pages, server
from tests.live.discover.test_look import sources, text_of
from tests.live.doctor import states
from tests.live.doctor.states import IDS, field_state, macs, recorded, worker_killed
from tests.live.doctor.test_doctor_checks import CASES, HERE, node, seen
from tests.live.doctor.test_doctor_checks import probe as host
from tests.live.replay import ReplayServer, Request, Script, json_answer


def with_state(raw: Any, later: Any = None, waited_s: float = 4.0) -> Any:
    """A network whose one cluster answered with this state, and then with the later one."""
    found = health_of(raw)
    if later is not None:
        found = replace(health_of(later), state=found.state, later=health_of(later).state, waited_s=waited_s)
    rows = tuple(node(one.name, node_id=one.node_id) for one in found.state.nodes)
    return seen(*rows, probes=(host(found=rows, health=found),))


def running(status: str, **body: Any) -> Any:
    """The recorded cluster, whose runner on node-b is in this state."""
    raw = recorded()
    (instance,) = raw["instances"].values()
    runner = instance["MlxRingInstance"]["shardAssignments"]["nodeToRunner"][IDS["node-b"]]
    raw["runners"][runner] = {status: body}
    return raw


WARMING = field_state("warming")
FULL = {"total": {"inBytes": 250e9}, "available": {"inBytes": 2e8}}
PROGRESS = {
    "total": {"inBytes": 40e9},
    "downloaded": {"inBytes": 10e9},
    "speed": 0.0,
    "etaMs": 0,
    "files": {},
}
TWINS = states.changed(
    recorded(), nodeIdentities={key: {"friendlyName": "mini"} for key in recorded()["nodeIdentities"]}
)
SHARED = json.loads(json.dumps(TWINS).replace("10.99.0.3", "10.99.0.2"))

# check, level, words of the finding, words of its value, an ill cluster, a well one
STATES: dict[str, tuple[Callable[..., Any], str, str, str, Any, Any]] = {
    "a node killed 8 s ago": (
        health.reports,
        "problem",
        "node-c (8f767940) gives no sign of life",
        "8 s",
        with_state(worker_killed(8)),
        with_state(worker_killed(-2)),
    ),
    "a node killed just before": (
        health.reports,
        "problem",
        "node-c",
        "6 s",
        with_state(worker_killed(2.5), worker_killed(6.7, 20)),
        with_state(worker_killed(-3.6), worker_killed(0.5, 20)),
    ),
    "a master killed": (
        health.reports,
        "problem",
        "stands still",
        "event 1179",
        with_state(states.master_killed(3), states.master_killed(7)),
        with_state(states.master_killed(-2), states.aged(recorded(), dict.fromkeys(IDS, 0.3), 20)),
    ),
    "a node that left": (
        health.reports,
        "warning",
        "old was in this cluster and has left it",
        "topology",
        seen(probes=(host(departed=("old",)),)),
        seen(probes=(host(),)),
    ),
    "stale identities": (
        health.identities,
        "warning",
        "3 former ids of mac-1",
        "0000005a",
        with_state(field_state("ghosts")),
        with_state(field_state("bridge_loop")),
    ),
    "two EXO on one machine": (
        health.identities,
        "problem",
        "mini is in the cluster twice",
        "at 10.99.0.2",
        with_state(SHARED),
        with_state(TWINS),
    ),
    "a runner that failed": (
        health.runners,
        "problem",
        "on node-b failed",
        "Metal out of memory; GPU Timeout",
        with_state(
            running(
                "RunnerFailed",
                errorMessage="Metal out of memory",
                diagnostics=[{"RunnerMetalGpuTimeout": {"message": "GPU Timeout", "evidence": []}}],
            )
        ),
        with_state(recorded()),
    ),
    "a failed runner without a word": (
        health.runners,
        "problem",
        "failed",
        "no reason",
        with_state(running("RunnerFailed", errorMessage=None, diagnostics=[])),
        with_state(recorded()),
    ),
    "warming up for ever": (
        health.runners,
        "problem",
        "mac-1 warms up: nothing is generated",
        "for 130 s",
        with_state(WARMING, WARMING, 130),
        with_state(recorded()),
    ),
    "warming up": (
        health.runners,
        "warning",
        "mac-2 warms up",
        "for 4 s",
        with_state(WARMING, WARMING),
        with_state(WARMING, recorded()),
    ),
    "loading, and getting on": (
        health.runners,
        "warning",
        "loads layers (layers_loaded 3, total_layers 16)",
        "for 0 s",
        with_state(
            running("RunnerLoading", layersLoaded=2, totalLayers=16),
            running("RunnerLoading", layersLoaded=3, totalLayers=16),
            300,
        ),
        with_state(recorded()),
    ),
    "loading that hangs": (
        health.runners,
        "problem",
        "loads layers",
        "for 61 s",
        with_state(*[running("RunnerLoading", layersLoaded=2, totalLayers=16)] * 2, 61),
        with_state(recorded()),
    ),
    "connecting for ever": (
        health.runners,
        "problem",
        "connects to its neighbours",
        "for 20 s",
        with_state(*[running("RunnerConnecting")] * 2, 20),
        with_state(recorded()),
    ),
    "a ring on Wi-Fi beside a cable": (
        ways.ring,
        "problem",
        "from mac-1 to mac-2 over Wi-Fi (192.168.1.62, en1)",
        "Thunderbolt (169.254.10.2, en2)",
        with_state(field_state("ring_on_wifi")),
        with_state(states.best_ring()),
    ),
    "a ring on docker0": (
        ways.ring,
        "problem",
        "over a bridge to containers (172.17.0.1, docker0)",
        "no other device",
        with_state(
            states.changed(
                field_state("docker"),
                instances=json.loads(
                    json.dumps(field_state("ring_on_wifi")["instances"])
                    .replace("192.168.1.62", "172.17.0.1")
                    .replace("192.168.1.61", "192.168.1.11")
                ),
            )
        ),
        with_state(states.best_ring()),
    ),
    "docker0 as the only way": (
        ways.edges,
        "problem",
        "mac-1 reaches mac-2 only over a bridge to containers (172.17.0.1, docker0)",
        "of 1",
        with_state(field_state("docker")),
        with_state(field_state("ring_on_wifi")),
    ),
    "a VPN as the only way": (
        ways.edges,
        "warning",
        "mac-2 reaches mac-1 only over a VPN (100.90.1.1, tailscale0)",
        "of 1",
        with_state(field_state("docker")),
        with_state(field_state("ring_on_wifi")),
    ),
    "a loop of bridges": (
        ways.thunderbolt,
        "problem",
        "bridges form a loop",
        "mac-1, mac-2, mac-3",
        with_state(field_state("bridge_loop")),
        with_state(macs()),
    ),
    "a bridge": (
        ways.thunderbolt,
        "warning",
        "the Thunderbolt bridge is on",
        "mac-2",
        with_state(macs(nodeThunderboltBridge={1: {"enabled": True, "exists": True, "serviceName": "TB"}})),
        with_state(macs()),
    ),
    "RDMA off": (
        ways.thunderbolt,
        "warning",
        "RDMA over Thunderbolt is off",
        "mac-3",
        with_state(macs(nodeRdmaCtl={2: {"enabled": False}})),
        with_state(macs()),
    ),
    "RDMA off where it is used": (
        ways.thunderbolt,
        "problem",
        "RDMA over Thunderbolt is off",
        "mac-1, mac-2",
        with_state(WARMING),
        with_state(macs("warming")),
    ),
    "RDMA that joins some": (
        ways.thunderbolt,
        "warning",
        "RDMA does not join every two",
        "no RDMA connection between mac-1 and mac-3; mac-2 and mac-3",
        with_state(states.joined(macs(), (0, 1))),
        with_state(states.joined(macs(), (0, 1), (0, 2), (1, 2))),
    ),
    "RDMA between builds": (
        ways.thunderbolt,
        "warning",
        "several versions of macOS",
        "25C, 25D",
        with_state(macs(nodeIdentities={0: {"friendlyName": "mac-1", "osBuildVersion": "25D"}})),
        with_state(macs()),
    ),
    "a download that failed": (
        health.downloads,
        "problem",
        "on node-b failed",
        "No space left",
        with_state(states.downloading("Failed", errorMessage="[Errno 28] No space left on device")),
        with_state(states.downloading("Completed", total={"inBytes": 21366784})),
    ),
    "a model that is not there yet": (
        health.downloads,
        "warning",
        "on node-b is not downloaded yet",
        "ongoing: 25%, 30 GB missing",
        with_state(states.downloading("Ongoing", downloadProgress=PROGRESS)),
        with_state(states.changed(states.downloading("Ongoing", downloadProgress=PROGRESS), instances={})),
    ),
    "a full disk": (
        health.disks,
        "problem",
        "the disk of node-a is full",
        "200 MB free",
        with_state(states.changed(recorded(), nodeDisk={IDS["node-a"]: FULL})),
        with_state(recorded()),
    ),
    "a disk too full for a download": (
        health.disks,
        "problem",
        "the disk of node-b is full",
        "30 GB needed",
        with_state(
            states.changed(
                states.downloading("Ongoing", downloadProgress=PROGRESS),
                nodeDisk={IDS["node-b"]: {"total": {"inBytes": 250e9}, "available": {"inBytes": 20e9}}},
            )
        ),
        with_state(states.downloading("Ongoing", downloadProgress=PROGRESS)),
    ),
    "a node that is gone is reached by nobody": (
        network.mesh,
        "problem",
        "a cannot reach b",
        "no connection",
        seen(node("a"), node("b"), probes=(host(one_way=(("a", "b"),)),)),
        seen(node("a"), node("b", silent_s=8.0), probes=(host(one_way=(("a", "b"),)),)),
    ),
    "a filtered port": (
        cluster.ports,
        "problem",
        "drops TCP 52415",
        "timed out",
        seen(probes=(host(outcome="filtered", detail="timed out"),)),
        seen(probes=(host(outcome="refused"),)),
    ),
    "nobody there": (
        cluster.ports,
        "problem",
        "is not there",
        "No route",
        seen(probes=(host(outcome="absent", detail="No route to host"),)),
        seen(probes=(host(),)),
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_an_ill_cluster_is_found_out(name: str) -> None:
    check, level, words, value, ill, _ = STATES[name]
    findings = [finding for finding in check(ill) if words in finding.what]
    assert [finding.level for finding in findings] == [level]
    assert value in findings[0].value
    assert findings[0].rule
    assert findings[0].way_out


@pytest.mark.parametrize("name", STATES)
def test_a_well_cluster_is_left_alone(name: str) -> None:
    check, level, words, _, _, well = STATES[name]
    assert [finding for finding in check(well) if words in finding.what and finding.level == level] == []


def test_every_check_has_cases() -> None:
    assert {case[0] for case in (*CASES.values(), *STATES.values())} == {check.find for check in CHECKS}


@pytest.mark.parametrize(
    "hostile",
    [
        {"thunderboltBridgeCycles": [3, ["x"], None]},
        {"downloads": {IDS["node-a"]: [3, {"a": 1, "b": 2}, {"DownloadFailed": []}]}},
        {"nodeDisk": {IDS["node-a"]: {"available": True}}},
        {"nodeThunderbolt": {IDS["node-a"]: {"interfaces": [1, {"linkSpeed": 3}]}}},
        {"nodeRdmaCtl": {IDS["node-a"]: {"enabled": "yes"}}},
        {"lastSeen": {IDS["node-a"]: "2026-11-22T10:40:28", IDS["node-b"]: 7}},
    ],
)
def test_nonsense_in_a_state_is_no_finding(hostile: Any) -> None:
    plain, ill = (with_state(raw) for raw in (recorded(), states.changed(recorded(), **hostile)))
    bad = [[one for one in examine(seen) if one.level in ("problem", "warning")] for seen in (plain, ill)]
    assert bad[0] == bad[1]


def moving(*answers: Any) -> ReplayServer:
    """A node that gives one state after the other, the last for ever."""
    left = list(answers)

    def state(_: Request) -> Script:
        return json_answer(left.pop(0) if len(left) > 1 else left[0])

    routes = {"GET /node_id": json_answer(IDS["node-a"]), "GET /v1/feature-flags": json_answer({})}
    return ReplayServer({**routes, "GET /state": state})


def look(served: ReplayServer) -> Any:
    """The discovery that asks this server only, twice at once."""
    address = ("127.0.0.1", int(served.url.rpartition(":")[2]))
    asked = sources(probe=lambda hosts: tuple(probe(*one) for one in hosts if one == address))
    return discover(Options(hosts=(address,), this_machine=False), asked)


def test_a_node_killed_8_s_ago_is_not_there() -> None:
    """It stays in the topology, with all its edges for 4 to 11 s, as recorded."""
    with moving(worker_killed(4), worker_killed(8, 20)) as served:
        discovery = look(served)
    assert [row.name for row in discovery.found if row.silent_s] == ["node-c"]
    assert missing(discovery, 2) == []
    assert missing(discovery, 3)[0] == "found 2 of 3 devices, 1 missing"
    shown = text_of(render(discovery))
    assert "2 devices, and 1 not heard of" in shown
    assert "node-c is not counted: no sign of life for 8 s" in shown
    assert [row["silent_s"] is None for row in as_json(discovery)["devices"]].count(False) == 1


def test_nobody_is_counted_without_a_master(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("live.exo.health.STANDING_S", 0.0)
    with moving(states.master_killed(3), states.master_killed(7)) as served:
        discovery = look(served)
    assert [row.name for row in discovery.present] == ["node-a"]  # it answered itself
    assert "its master is lost" in text_of(render(discovery))


def test_the_doctor_over_a_socket_on_states_of_public_issues() -> None:
    wanted = {
        "ring_on_wifi": "over Wi-Fi",
        "warming": "warms up",
        "ghosts": "former ids of mac-1",
        "docker": "over a bridge to containers",
        "bridge_loop": "form a loop",
    }
    for name, words in wanted.items():
        with moving(field_state(name)) as served:
            found = gather(Options(), look=lambda _, server=served: look(server), own=lambda: HERE)
        assert any(words in finding.what for finding in examine(found)), name


def test_one_node_of_an_older_version_is_told() -> None:
    """Each node is asked itself: what one of them runs says nothing of the others."""
    old = {
        path: value
        for path, value in answer_paths().items()
        if path not in ("/v1/feature-flags", "/state/{path}")
    }
    pages_old = head_pages(**{"/openapi.json": answer({"paths": old}), "/node_id": answer(IDS["node-b"])})
    with server(pages(head_pages())) as new_port, server(pages(pages_old)) as old_port:
        asked = [("127.0.0.1", new_port), ("127.0.0.1", old_port)]
        found = discover(
            Options(hosts=tuple(asked)),
            sources(probe=lambda hosts: tuple(probe(*one) for one in hosts if one in asked)),
        )
    findings = [
        finding
        for finding in examine(gather(Options(), look=lambda _: found, own=lambda: HERE))
        if "several" in finding.what
    ]
    assert [finding.what for finding in findings] == ["several versions of exo-1.x zenoh"]
    assert {row.name: row.version for row in found.found} == {
        "node-a": "after 1.0.71",
        "node-b": "1.0.69",
        "node-c": "",
    }


def answer_paths() -> Any:
    from tests.live.discover.fakes import HTTP

    return HTTP["openapi_paths"]["paths"]


@contextmanager
def full_port() -> Any:
    """A port of this machine that drops what asks to connect: its queue is full, and nobody accepts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
            waiting.append(one)
        yield listener.getsockname()[1]
        for one in waiting:
            one.close()


def test_a_filtered_port_is_told_from_one_that_refuses() -> None:
    def quick(host: str, port: int, path: str) -> Any:
        return get(host, port, path, deadline_s=0.4)

    with full_port() as port:
        filtered = probe("127.0.0.1", port, quick)
    assert filtered.outcome == "filtered"  # other ports of this machine refuse
    assert "a firewall drops packets" in filtered.detail
    refused = probe("127.0.0.1", port, quick)
    assert (refused.outcome, "refuses the connection" in refused.detail) == ("refused", True)
    absent = probe("no-such-host.invalid", 52415, quick)
    assert (absent.outcome, "no machine of that name" in absent.detail) == ("absent", True)


def test_a_second_look_that_fails_changes_nothing() -> None:
    with moving(recorded()) as served:
        first = probe("127.0.0.1", int(served.url.rpartition(":")[2]))
    assert look_again([first, Probe("x", 1, "silent")]) == (first, Probe("x", 1, "silent"))
