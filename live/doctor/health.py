"""Checks of what an EXO 1.x cluster says of itself: who reports, what the runners do, downloads and disks."""

from __future__ import annotations

from collections.abc import Iterator

from live.discover.found import clean
from live.doctor.finding import DoctorFinding, problem, warning
from live.doctor.gather import Surroundings
from live.exo.health import ClusterHealth, Download, StuckRunner
from live.exo.state import ClusterState, StateInstance
from simulator.units import format_bytes

__all__ = ["clusters", "disks", "downloads", "identities", "name_of", "reports", "runners"]

# Recorded from posting an instance: connected after 3.5 to 4 s, warm after 8 s with a model of 21 MB. Both
# have stood still, rather than being slow, when nothing has moved for so long; a warm-up is 50 tokens.
LIMITS_S = {"RunnerConnecting": 20.0, "RunnerWarmingUp": 120.0}
LIMIT_S = 60.0
DOING = {
    "absent": "has no runner yet",
    "RunnerIdle": "has a runner that waits",
    "RunnerConnecting": "connects to its neighbours in the ring",
    "RunnerConnected": "is connected and has not begun to load",
    "RunnerLoading": "loads layers",
    "RunnerLoaded": "has loaded and waits for the others",
    "RunnerWarmingUp": "warms up",
}
FULL_BYTES = 1e9  # less than the smallest model that EXO lists


def clusters(seen: Surroundings) -> Iterator[tuple[str, ClusterHealth]]:
    """Each cluster once, with the address of the node that spoke for it."""
    known: set[str] = set()
    for probe in seen.discovery.probes:
        nodes = {found.node_id for found in probe.found}
        if probe.health and not nodes & known:
            known |= nodes
            yield probe.where, probe.health


def name_of(state: ClusterState, node_id: str) -> str:
    """The node's name, fit for a terminal."""
    return clean(state.name_of(node_id))


def reports(seen: Surroundings) -> Iterator[DoctorFinding]:
    """Nodes that no longer report, clusters without a master, nodes that left."""
    for where, health in clusters(seen):
        if health.is_standing:
            yield problem(
                f"the state of the cluster at {where} stands still",
                f"event {health.newest.event_index} is the last one since {health.waited_s:.0f} s",
                "a living master numbers several events per second",
                "its master is lost: look again in 15 s, EXO elects another and begins with an empty state; "
                "if it still stands still then, restart EXO on all devices",
            )
            continue
        for node_id, quiet_s in health.silent.items():
            yield problem(
                f"{name_of(health.newest, node_id)} ({node_id[:8]}) gives no sign of life",
                f"its last report is {quiet_s:.0f} s old",
                "a living node reports every second; EXO drops a silent one after 30 to 41 s, and the "
                "instances on it 10 s later",
                "start EXO there again or wake the device, wait until the old id is gone, then place the "
                "model again",
            )
    for name in dict.fromkeys(name for probe in seen.discovery.probes for name in probe.departed):
        yield warning(
            f"{name} was in this cluster and has left it",
            "it has an identity in the state and no place in the topology",
            "EXO keeps the name of every node that it ever saw",
            "start EXO there again if it is to take part; else this needs nothing",
        )


def identities(seen: Surroundings) -> Iterator[DoctorFinding]:
    """One machine under several ids: every start of EXO takes a new one."""
    for _, health in clusters(seen):
        for name, ids in health.former_ids.items():
            yield warning(
                f"EXO remembers {len(ids)} former id{'s' * (len(ids) > 1)} of {clean(name)}",
                ", ".join(node_id[-8:] for node_id in ids[:6]),
                "every start of EXO takes a new id, and the state forgets none; they hold no layers",
                "nothing waits for them; restart EXO on all devices at once if the dashboard still shows "
                "them",
            )
        yield from _twins(health)


def _twins(health: ClusterHealth) -> Iterator[DoctorFinding]:
    """Two living ids of one name and address."""
    state = health.newest
    living = [node for node in state.nodes if node.node_id not in health.silent]
    for index, one in enumerate(living):
        own = {edge.ip for edge in state.edges if edge.sink == one.node_id and edge.ip}
        for other in living[index + 1 :]:
            shared = own & {edge.ip for edge in state.edges if edge.sink == other.node_id}
            if shared and one.name == other.name:
                yield problem(
                    f"{clean(one.name)} is in the cluster twice",
                    f"ids {one.node_id[:8]} and {other.node_id[:8]} both report, at {clean(min(shared))}",
                    "one EXO per machine: its memory counts once for each",
                    "quit one of the two (the app, or the one started from a terminal)",
                )


def runners(seen: Surroundings) -> Iterator[DoctorFinding]:
    """Runners that failed, and those that have been on their way to ready for too long."""
    for where, health in clusters(seen):
        state = health.newest
        for instance in state.instances.values():
            for shard, runner in state.runners_of(instance):
                if runner.status == "RunnerFailed":
                    yield problem(
                        f"the runner of {clean(instance.model_id, 80)} on {name_of(state, shard.node_id)} "
                        "failed",
                        clean(runner.error or "EXO gives no reason; its log there may", 250),
                        "EXO restarts failed runners with pauses up to 10 s, and deletes the instance after "
                        "5 times",
                        "see the reason; free memory, delete the instance in EXO's dashboard, and place it "
                        "again",
                    )
            for stuck in health.starting(instance):
                yield _starting(state, instance, stuck, where)


def _starting(state: ClusterState, instance: StateInstance, stuck: StuckRunner, where: str) -> DoctorFinding:
    status, name = stuck.runner.status, name_of(state, stuck.node_id)
    details = f" ({clean(stuck.runner.details)})" if stuck.runner.details else ""
    limit_s = LIMITS_S.get(status, LIMIT_S)
    make = problem if stuck.since_s >= limit_s else warning
    transport = "RDMA (rdma_ctl on all of them)" if instance.meta == "MlxJaccl" else "TCP 49153-65535"
    return make(
        f"{name} {DOING[status]}{details}: nothing is generated",
        f"{clean(instance.model_id, 80)}, without progress for {stuck.since_s:.0f} s while we looked",
        f"requests wait until all runners are ready; {limit_s:g} s without progress means that it hangs",
        f"look for longer (--host {where} --seconds {limit_s + 10:g}); if it hangs, the nodes do not reach "
        f"each other by {transport}: let it pass, delete the instance in EXO's dashboard, and place it again",
    )


def downloads(seen: Surroundings) -> Iterator[DoctorFinding]:
    """Models of instances that are not there yet, and downloads that failed."""
    for _, health in clusters(seen):
        state = health.newest
        wanted = {
            (shard.node_id, instance.model_id)
            for instance in state.instances.values()
            for shard in instance.shards
        }
        for one in health.downloads:
            what = f"{clean(one.model_id, 80)} on {name_of(state, one.node_id)}"
            if one.status == "Failed":
                yield problem(
                    f"the download of {what} failed",
                    clean(one.error or "EXO gives no reason", 250),
                    "a node loads a model from its own disk",
                    "see the reason (disk full, no way to the model hub), then start the download again in "
                    "EXO's dashboard",
                )
            elif one.status != "Completed" and (one.node_id, one.model_id) in wanted:
                yield warning(
                    f"{what} is not downloaded yet",
                    _progress(one),
                    "an instance is ready when every node has its layers",
                    "wait, or place the model where it is; EXO's dashboard shows the progress",
                )


def _progress(one: Download) -> str:
    share = "no progress told" if one.share is None else f"{one.share:.0%}"
    left = "" if one.missing_bytes is None else f", {format_bytes(one.missing_bytes)} missing"
    return f"{one.status.lower()}: {share}{left}"


def disks(seen: Surroundings) -> Iterator[DoctorFinding]:
    """Disks without room for what is to be downloaded."""
    for _, health in clusters(seen):
        for node_id, node in health.nodes.items():
            if node.disk_free_bytes is None:
                continue
            needs = [
                (one.missing_bytes, clean(one.model_id, 80))
                for one in health.downloads
                if one.node_id == node_id and one.status == "Ongoing" and one.missing_bytes
            ]
            need_bytes, of = max(needs, default=(FULL_BYTES, "any model"))
            if node.disk_free_bytes < need_bytes:
                yield problem(
                    f"the disk of {name_of(health.newest, node_id)} is full",
                    f"{format_bytes(node.disk_free_bytes)} free, {format_bytes(need_bytes)} needed for {of}",
                    "EXO keeps whole models on disk (~/.exo/models unless EXO_DEFAULT_MODELS_DIR says "
                    "otherwise)",
                    "delete models that are not needed (EXO's dashboard, Downloads), or move that folder",
                )
