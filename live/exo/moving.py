"""Take a model to the devices that are left: what lies between a broken reply and an instance
that takes requests again.

EXO restarts runners by itself where their nodes live; after the loss of a node or of the master it never
places again, so we do: delete our old instance, listen who still reports, place the layers on those by the
scenario's own rule (as the simulator does, `simulator.churn.placing`), and wait until every runner is ready.
Whatever is lost meanwhile, it begins again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from live.errors import (
    ClientCutOff,
    InstanceFailed,
    LiveError,
    NotReachedYet,
    PlacementRefused,
    RequestRefused,
    StreamStalled,
    Unreachable,
)
from live.exo.bounds import Bounds, GivenUp
from live.exo.build import build_instance
from live.exo.client import ExoClient
from live.exo.diagnose import compare, is_deleted
from live.exo.presence import Presence
from live.exo.state import ClusterState, StateInstance
from live.recovery import ObservedRecovery
from simulator.churn.placing import Placed, Placer
from simulator.churn.spec import RecoverySpec
from simulator.errors import CatalogError, PlacementError, ScenarioError, SimulatorError
from simulator.scenario import Scenario

__all__ = ["MOST_ATTEMPTS", "Moving"]

MOST_ATTEMPTS = 5  # EXO itself deletes an instance whose runners failed so often
STAGES = (
    "RunnerIdle",
    "RunnerConnecting",
    "RunnerConnected",
    "RunnerLoading",
    "RunnerLoaded",
    "RunnerWarmingUp",
    "RunnerReady",
)
PHASES = (("start", "RunnerConnected"), ("load", "RunnerWarmingUp"), ("warm up", "RunnerReady"))
"""Phases and the stage that every runner has reached at their end."""


@dataclass
class Moving:
    """Where the model is, and how it gets elsewhere; not thread-safe."""

    client: ExoClient
    scenario: Scenario
    instance: StateInstance
    names: Callable[[ClusterState], Mapping[str, str]]
    """What the scenario, or else the cluster, calls each node of a state."""
    urls: Sequence[str] = ()
    """Addresses of the cluster that the user named: where the node asked is lost, the next one is."""
    say: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        self.spec = self.scenario.recovery or RecoverySpec()
        self.quiet_s = self.spec.probe + self.client.timeouts.report_s
        # what was normal: losses are told by comparing with it
        self.before = self.client.state()
        self.trouble = ""
        self._placer = Placer(self.scenario)
        self._deleted_s = self._refused_s = 0.0
        self._was_ours = False
        self._turn = 0
        self._alive: set[str] | None = None
        """Who was there at the last look that settled it."""

    def layers(self) -> dict[str, int]:
        """Layers by device as they lie now, in ring order."""
        names = self._names()
        return {names[shard.node_id]: shard.end_layer - shard.start_layer for shard in self.instance.shards}

    def recover(self, recovery: ObservedRecovery, cause: LiveError, bounds: Bounds) -> None:
        """Make an instance that takes requests again, and note in `recovery` what took how long.

        Raises PlacementError where the survivors cannot hold the model, InstanceFailed where no instance
        becomes ready, GivenUp and Aborted.
        """
        self.trouble = ""
        try:
            self._move(recovery, cause, bounds)
        except (SimulatorError, GivenUp):
            # whoever is not told of a new placement wants to know all the more what is missing
            self._blame_missing(recovery)
            raise

    def _move(self, recovery: ObservedRecovery, cause: LiveError, bounds: Bounds) -> None:
        is_restarting = self._restarts_by_itself(recovery, cause, bounds)
        for _ in range(MOST_ATTEMPTS):
            if not is_restarting:
                self._release(bounds)
                recovery.end("release")
                self._place(recovery, bounds)
            if self._follow(recovery, bounds):
                recovery.layers = self.layers()
                return
            recovery.end("detect")
            is_restarting = False
        raise InstanceFailed(
            f"no instance became ready in {MOST_ATTEMPTS} attempts; the last trouble was: {self.trouble}"
        )

    # What happened

    def _look(self, bounds: Bounds) -> ClusterState:
        """The state, from whichever address answers."""
        while True:
            try:
                return self.client.state()
            except (Unreachable, RequestRefused) as error:
                bounds.waiting_for = f"an answer ({error})"
            if self.urls:
                # the node that we talk to may be the one that was lost
                self._turn = (self._turn + 1) % len(self.urls)
                self.client.turn_to(self.urls[self._turn])
            bounds.pause(self.client.timeouts.poll_s)

    def _restarts_by_itself(self, recovery: ObservedRecovery, cause: LiveError, bounds: Bounds) -> bool:
        """Whether all nodes of the instance live, so that EXO mends it, or nothing is
        broken but the one reply.
        """
        now = self._look(bounds)
        found = compare(now, self.before, self.instance.instance_id, self.quiet_s)
        is_gone = is_deleted(now, self.before, self.instance)
        # EXO restarts runners on living nodes by itself, and never anything after the loss of one
        if found is not None and (found.is_node_lost or found.master_lost) and not is_gone:
            recovery.cause = "the cluster's master" if found.master_lost else ""
            return False
        state, alive = self._settle(Presence(self.quiet_s), bounds)
        recovery.end("decide")
        if not self._nodes() <= alive:
            return False
        if self.instance.instance_id not in state.instances:
            self._refuse_deleted(state)
            return False
        if state.is_ready(self.instance):
            # a ring that hangs although everybody lives must be made anew; where we were the ones who were
            # cut off, all that is known of it is that it is well now, so it stays
            return not isinstance(cause, StreamStalled) or isinstance(cause, ClientCutOff)
        self._blame(
            recovery,
            [
                shard.node_id
                for shard, runner in state.runners_of(self.instance)
                if runner.status not in ("RunnerReady", "RunnerRunning")
            ],
        )
        self.say("the engine restarts its runners")
        return True

    def _refuse_deleted(self, state: ClusterState) -> None:
        """Raise InstanceFailed for an instance that somebody wanted gone: it is not made again."""
        if is_deleted(state, self.before, self.instance):
            raise InstanceFailed(
                f"instance {self.instance.instance_id} was deleted by somebody although all of its devices "
                "are there, so it is not made again; start anew when the cluster is yours"
            )

    def _nodes(self) -> set[str]:
        return {shard.node_id for shard in self.instance.shards}

    def _settle(self, presence: Presence, bounds: Bounds) -> tuple[ClusterState, set[str]]:
        """The state once it is clear who is there, and the nodes that are."""
        while True:
            state = self._look(bounds)
            # a new master numbers from the beginning and knows nobody yet: wait for those we know
            if state.event_index < self.before.event_index:
                presence.expected = self._nodes()
            presence.note(state)
            if presence.is_settled(state):
                self._alive = {node.node_id for node in presence.alive(state)}
                return state, self._alive
            bounds.pause(self.client.timeouts.poll_s)

    def _names(self) -> dict[str, str]:
        """What to call the nodes of the instance; others may bear their names, such
        as one that has restarted.
        """
        mine = self._nodes()
        known = self.names(
            replace(self.before, nodes=tuple(n for n in self.before.nodes if n.node_id in mine))
        )
        return {node: node[:8] for node in mine} | dict(known)

    def _blame(self, recovery: ObservedRecovery, nodes: Sequence[str]) -> None:
        names = self._names()
        recovery.devices = tuple(dict.fromkeys((*recovery.devices, *(names[node] for node in nodes))))

    def _blame_missing(self, recovery: ObservedRecovery) -> None:
        """Name the devices of the instance that are not there; where nobody is, the master is what lacks."""
        if self._alive:
            self._blame(
                recovery,
                [shard.node_id for shard in self.instance.shards if shard.node_id not in self._alive],
            )

    # Giving up the old instance

    def _release(self, bounds: Bounds) -> None:
        """Delete our old instance; where the master is lost nobody hears it, and `_place` asks again."""
        self._was_ours = self.client.owned.has(self.instance.instance_id)
        self._deleted_s = self._refused_s = 0.0
        self._delete(self._look(bounds))

    def _delete(self, state: ClusterState) -> None:
        old, now_s = self.instance.instance_id, time.monotonic()
        if old not in state.instances:
            self.client.owned.forget(old)
        elif self._was_ours and now_s - self._deleted_s > self.client.timeouts.look_again_s:
            self._deleted_s = now_s
            # a deletion that was accepted by a dying master is forgotten with it, so it is asked for again
            if not self.client.owned.has(old):
                self.client.owned.add(old)
            try:
                self.client.owned.delete(old)
            except LiveError as error:
                self.trouble = str(error)

    # Placing

    def _place(self, recovery: ObservedRecovery, bounds: Bounds) -> None:
        """A new instance on those who are there; `decide` ends when the cluster has it."""
        presence = Presence(self.quiet_s)
        old = self.instance
        while True:
            state, alive = self._settle(presence, bounds)
            if old.instance_id in state.instances:
                self._delete(state)
                bounds.waiting_for = f"EXO to delete instance {old.instance_id}"
            elif (raw := self._proposal(state, alive, bounds)) is not None and (
                made := self._create(raw, bounds)
            ):
                self._blame(recovery, [shard.node_id for shard in old.shards if shard.node_id not in alive])
                self.client.owned.forget(old.instance_id)
                self.instance, self.before = made, state
                recovery.end("decide")
                self.say("goes on with " + ", ".join(f"{n} on {name}" for name, n in self.layers().items()))
                return
            bounds.pause(self.client.timeouts.poll_s)

    def _proposal(self, state: ClusterState, alive: set[str], bounds: Bounds) -> dict[str, Any] | None:
        """The instance to ask for, None as long as there is none to be had; raises PlacementError."""
        here = replace(state, nodes=tuple(node for node in state.nodes if node.node_id in alive))
        names = self.names(here)
        devices = {
            names[node.node_id]: node.node_id
            for node in here.nodes
            if names[node.node_id] in self.scenario.devices
        }
        if not devices:
            bounds.waiting_for = "a device of the scenario to report"
            return None
        placed = self._placed(tuple(devices))
        try:
            if placed is None:
                return self._exos_own(alive, bounds)
            layers = [
                (devices[shard.device], shard.start_layer, shard.end_layer) for shard in placed.job.shards
            ]
            return build_instance(self._template(), here, layers)
        # two neighbours have not found each other yet, or memory is not free yet
        except PlacementRefused as error:
            self._note_refusal(error, bounds)
            return None

    def _placed(self, devices: tuple[str, ...]) -> Placed | None:
        """The simulator's placement, None where it knows too little of the
        scenario; raises PlacementError.
        """
        try:
            placed = self._placer.place(devices)
        except (ScenarioError, CatalogError):
            return None
        if not isinstance(placed, Placed):
            raise PlacementError(placed.reason)
        # another model than the scenario says: its layers would be cut at the wrong places
        return placed if placed.job.model.layers == self.instance.shards[0].n_layers else None

    def _template(self) -> StateInstance:
        """What to build the new instance like: the old one, unless we cannot build its kind."""
        # other kinds carry addresses of their own form that we do not know how to write
        return (
            self.instance if self.instance.meta == "MlxRing" else self.client.template(self.instance.model_id)
        )

    def _exos_own(self, alive: set[str], bounds: Bounds) -> dict[str, Any] | None:
        """EXO's own placement, once it leaves out the lost node: it may take some 40 s to notice the loss."""
        found = self.client.placement(self.instance.model_id)
        if {shard.node_id for shard in found.shards} <= alive:
            return dict(found.raw)
        bounds.waiting_for = (
            "EXO to notice the loss; a scenario that says all of its devices and model spares that"
        )
        return None

    def _create(self, raw: Mapping[str, Any], bounds: Bounds) -> StateInstance | None:
        """The instance, None where the cluster does not take it yet."""
        try:
            return self.client.create_instance(raw)
        except PlacementRefused as error:
            self._note_refusal(error, bounds)
        except Unreachable as error:
            bounds.waiting_for = str(error)
        return None

    def _note_refusal(self, error: PlacementRefused, bounds: Bounds) -> None:
        """Refusals for want of free memory pass once the old runners are gone; raises those
        that stay, but for links.
        """
        bounds.waiting_for = str(error)
        now_s = time.monotonic()
        if isinstance(error, NotReachedYet):
            return
        # since the first refusal of this round
        self._refused_s = self._refused_s or now_s
        if now_s - self._refused_s > self.client.timeouts.appear_s:
            raise PlacementError(str(error))

    # Getting ready

    def _follow(self, recovery: ObservedRecovery, bounds: Bounds) -> bool:
        """Wait until every runner is ready, noting the phases;
        False where the instance or one of its nodes is lost.
        """
        # nodes that load a model report late (2.5 s recorded)
        presence, phases = Presence(2 * self.quiet_s), list(PHASES)
        while True:
            state = self._look(bounds)
            presence.note(state)
            found = state.instances.get(self.instance.instance_id)
            if found is None:
                if presence.is_settled(state) and self._nodes() <= {
                    node.node_id for node in presence.alive(state)
                }:
                    self._refuse_deleted(state)
                self.trouble = self.trouble or "the instance vanished"
                return False
            # the slowest runner counts: a ring runs when its last member does
            stage = min(_stage(runner.status) for _, runner in state.runners_of(found))
            while phases and stage >= _stage(phases[0][1]):
                recovery.end(phases.pop(0)[0])
            if not phases:
                self.before = state
                return True
            if presence.is_settled(state):
                lost = self._nodes() - {node.node_id for node in presence.alive(state)}
                if lost:
                    self.trouble = f"{', '.join(map(self.before.name_of, sorted(lost)))} was lost meanwhile"
                    return False
            self._note_failure(state, found, bounds)
            bounds.pause(self.client.timeouts.poll_s)

    def _note_failure(self, state: ClusterState, instance: StateInstance, bounds: Bounds) -> None:
        """EXO tries a failed runner again by itself; if it gives up, this is why."""
        for shard, runner in state.runners_of(instance):
            if runner.error:
                self.trouble = f"the runner on {state.name_of(shard.node_id)} failed: {runner.error}"
        bounds.waiting_for = "all runners to be ready" + (f" ({self.trouble})" if self.trouble else "")


def _stage(status: str) -> int:
    """How far a runner has come; 0 for none, a failed one, and what no version is known to say."""
    known = "RunnerReady" if status == "RunnerRunning" else status
    return STAGES.index(known) + 1 if known in STAGES else 0
