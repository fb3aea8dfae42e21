"""The local Petals swarm for real: published servers and client behind the relay, small."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from calibrate.samples import sample
from live.local.cluster import Run
from live.local.conversation import Callbacks, LocalReply, PlainConversation
from live.local.petals.cluster import PetalsCluster, load_alone
from live.local.petals.dropout import SwarmLoss, run_loss
from live.local.petals.environment import PETALS
from live.local.petals.foreign import swarm_addresses
from live.local.petals.nursery import Nestling, nursery
from live.local.petals.plan import plan_petals
from live.local.petals.processes import memory_bytes
from live.local.petals.quick import quick_scenario
from live.local.petals.weights import model_file
from live.local.run import run_scenario
from simulator.result.measurement import read_measurement
from tests.live.local.parts import is_running, until

pytestmark = [
    pytest.mark.local,
    pytest.mark.skipif(
        not PETALS.is_installed(),
        reason="Petals is not installed for the local swarm: `sim live local install --engine petals`",
    ),
]
TOKENS = 10  # a sample needs eight gaps
PROMPT = 5
SERVERS = 3


@pytest.fixture(scope="module")
def swarm() -> Iterator[PetalsCluster]:
    """Three servers and room for two chats; what a test takes away it does not need any more."""
    scenario = quick_scenario(SERVERS, delay="2 ms", chats=2, prompt_tokens=PROMPT, output_tokens=TOKENS)
    with PetalsCluster(plan_petals(scenario)) as cluster:
        yield cluster


def replies(cluster: PetalsCluster, seed: int) -> tuple[list[LocalReply], Run]:
    """What two chats at once said, and what was seen of the first."""
    before, heard = cluster.begin_watch(), [LocalReply(TOKENS, chat=chat) for chat in range(2)]
    calls = Callbacks(lambda reply: None, lambda reply, token: None)
    PlainConversation(cluster.plan, cluster, calls).chats(heard, seed)
    first = heard[0]
    return heard, cluster.end_watch(before, first.sent_ns, tuple(first.times_ns), first.busy_ns)


def alone(chats: int, seed: int, tokens: int = TOKENS, prompt: int = PROMPT) -> list[list[int]]:
    """The same chats with all blocks in one process."""
    client = Nestling("alone", "client", {})
    try:
        load_alone(client, model_file("petals-18").parent)
        client.wait_for("loaded", 60)
        client.command("generate", prompt_tokens=prompt, output_tokens=tokens, seed=seed, chats=chats)
        found: list[list[int]] = [[] for _ in range(chats)]
        while (event := client.next_event(60))["event"] != "done":
            if event["event"] == "token":
                found[event["chat"]].append(event["id"])
        return found
    finally:
        client.end()


def test_the_tokens_are_those_of_a_single_process(swarm: PetalsCluster) -> None:
    """Of each chat; and the client's spans name each server once a token, in the order of the route."""
    heard, run = replies(swarm, seed=1)
    assert [reply.tokens for reply in heard] == alone(2, seed=1)
    assert len({token for reply in heard for token in reply.tokens}) > 3, (
        "one token over and over compares nothing"
    )
    for reply in heard:
        assert [name for name, *_ in reply.spans] == ["server1", "server2", "server3"]
        # 6 blocks of 4 ms, and the way there and back
        assert all(end_ns - begin_ns > 28e6 for _, begin_ns, end_ns in reply.spans)
    imposed_ns = [one["imposed_ns"] for one in run.flights if one["source"] == "client"]
    assert np.median(imposed_ns) == pytest.approx(2e6, abs=1e5)


def test_nothing_leaves_this_machine(swarm: PetalsCluster) -> None:
    """All sockets of all processes have loopback at both ends, or listen there."""
    inodes = set()
    for pid in (*swarm.pids, nursery().process.pid):
        for handle in Path(f"/proc/{pid}/fd").glob("*"):
            inodes.add(str(handle.readlink()))
    found = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if f"socket:[{fields[9]}]" in inodes:
                found.append((table, fields[1].partition(":")[0], fields[2].partition(":")[0]))
    assert len(found) > 10, "a swarm talks"
    loopback = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
    nobody = {"00000000", "0" * 32}
    for table, own, other in found:
        assert own in loopback, (table, own, other)
        assert other in loopback | nobody, (table, own, other)


def test_four_servers_fit_into_four_gigabytes(swarm: PetalsCluster) -> None:
    """Three are here, so they may have three quarters of
    what remains beside bootstrap, client and nursery.
    """
    children = {child.name: memory_bytes([child.pid]) for child in swarm._children}
    servers = [size for name, size in children.items() if name.startswith("server")]
    rest = sum(children.values()) - sum(servers) + memory_bytes([nursery().process.pid])
    assert 4 * max(servers) + rest < 4e9


def test_a_swarm_of_others_is_measured_by_a_client_alone(swarm: PetalsCluster, tmp_path: Path) -> None:
    """It finds the servers by the bootstrap's address, and
    leaves nothing in the swarm's table: no peer is new.
    """
    scenario = swarm.plan.scenario.replace(
        workload={"prompt_tokens": PROMPT, "output_tokens": TOKENS, "runs": 1, "concurrency": 1}
    )
    (address, *_) = swarm.bootstrap
    file = run_scenario(scenario, tmp_path / "foreign.jsonl", endpoints=swarm_addresses(address))
    found = read_measurement(file)
    assert (found.provenance.source, found.provenance.cluster["links"]) == ("petals", [])
    assert {event["device"] for event in found.of("span")} == {f"..{peer[-6:]}" for peer in swarm.peers}
    assert len(sample(found).gaps_s) == TOKENS - 1


SERVE = """
import json, time
from live.local.petals.cluster import PetalsCluster
from live.local.petals.nursery import nursery
from live.local.petals.plan import plan_petals
from live.local.petals.quick import quick_scenario
with PetalsCluster(plan_petals(quick_scenario(1))) as cluster:
    print(json.dumps([*cluster.pids, nursery().process.pid]), flush=True)
    time.sleep(600)
"""


def test_nothing_is_left_behind_when_the_command_is_killed() -> None:
    """Handlers, tables, p2pd and the process that forked them all: each ends with its pipe."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, env=environment) as command:
        assert command.stdout is not None
        pids = json.loads(command.stdout.readline())
        assert len(pids) > 8
        os.kill(command.pid, signal.SIGKILL)
    assert until(lambda: not any(is_running(pid) for pid in pids), 10)


def test_a_lost_server_is_replaced_at_the_attempt_that_was_predicted(tmp_path: Path) -> None:
    """With a spare that is far, and a loss soon after a look: the next one, 1.6 s later, leaves the dead one
    out, and the attempts come 0, 1 and 3 s after the notice.
    """
    told = quick_scenario(3, delay="3 ms", output_tokens=150).model_dump(mode="json")
    far = {"delay": {"law": "constant", "value": "40 ms"}, "rate": "1 Gbit/s", "label": "measured"}
    scenario = quick_scenario(3).replace(
        devices={**told["devices"], "spare": {**told["devices"]["server1"], "link": far}},
        workload=told["workload"],
        swarm={
            "update_period": "2 s",
            "announce_period": "10 s",
            "patience": "30 s",
            "repairs": ["eof", "replay"],
            "stays": {"spare": {"span": [0, 6]}},
        },
    )
    done = run_loss(scenario, SwarmLoss("server1", 6, "kill", after_look_s=0.3), tmp_path / "loss.jsonl")
    assert done.is_mended
    assert done.predicted is not None
    # on a busy machine the first pings may have sent the client to the far one
    assert done.attempts == done.predicted.likeliest or not done.predicted.is_determined
    assert list(done.recoveries[0].phases_s()) == ["detect", "decide", "resume"]
    assert list(done.tokens) == alone(1, seed=1, tokens=len(done.tokens), prompt=8)[0]
