"""Dropout: one reply, devices lost in the middle of it, and a client that loses no token.

The client takes a stream for broken when its connection fails, or after the silence that `RecoverySpec` permits at the
rate observed. It then ends its process, asks every server whether it is there, places the layers on those that answer by
the scenario's own rule (as the simulator does, `simulator.churn.placing`), starts again on them, sends prompt and received
tokens, and goes on. Phases of a Measurement: detect, release, decide, start, load, prefill, resume.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from live.local import library
from live.local.breaking import BreakableCluster, Mode
from live.local.plan import Plan, plan
from live.local.provenance import LoadMeter, collect
from simulator.churn.facts import recovery_facts
from simulator.churn.placing import Placed, Placer
from simulator.churn.spec import RecoverySpec
from simulator.errors import LiveError, PlacementError
from simulator.result.measurement import MeasurementWriter
from simulator.scenario import Scenario

__all__ = ["PHASES", "Dropped", "Fault", "Pace", "Recovery", "run_dropout"]

PHASES = ("detect", "release", "decide", "start", "load", "prefill", "resume")
Tell = Callable[[str], None]
MEMORY = 1 / 8  # weight of the newest gap in the client's mean, as the simulator has it
SEED, WARM_UP_SEED, WARM_UP_TOKENS = 1, 0, 16
BUSY_CORES = 0.5  # others at work beyond this make a recovery slower than it would be


@dataclass(frozen=True, slots=True)
class Fault:
    """A device that goes when the reply has `at_token` tokens."""

    device: str
    at_token: int
    mode: Mode = "kill"


@dataclass(slots=True)
class Recovery:
    """One recovery as it was observed; times are `time.monotonic_ns`."""

    devices: tuple[str, ...]
    token: int
    fault_ns: int
    ends_ns: dict[str, int] = field(default_factory=dict)
    """End of each phase; each begins where the one before ended."""
    layers: dict[str, int] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """From the first fault to the next token."""
        return (self.ends_ns[PHASES[-1]] - self.fault_ns) / 1e9

    def phases_s(self) -> dict[str, float]:
        """How long each phase took."""
        starts = [self.fault_ns, *self.ends_ns.values()]
        return {name: (end - start) / 1e9 for (name, end), start in zip(self.ends_ns.items(), starts, strict=False)}


@dataclass(frozen=True, slots=True)
class Dropped:
    """A reply that lost devices, and everything that was mended."""

    path: Path
    sent_ns: int
    tokens: tuple[int, ...]
    token_ns: tuple[int, ...]
    recoveries: tuple[Recovery, ...]

    def tokens_per_s(self, start: int, stop: int | None) -> float | None:
        """Rate over the tokens [start, stop), None without two."""
        times = self.token_ns[start:stop]
        return (len(times) - 1) * 1e9 / (times[-1] - times[0]) if len(times) > 1 else None

    @property
    def before(self) -> float | None:
        """Tokens/s up to the first fault."""
        return self.tokens_per_s(0, self.recoveries[0].token if self.recoveries else None)

    @property
    def after(self) -> float | None:
        """Tokens/s after the last recovery."""
        return self.tokens_per_s(self.recoveries[-1].token, None) if self.recoveries else None


@dataclass(slots=True)
class Pace:
    """The client's mean inter-token time; a recovery is no gap."""

    client: RecoverySpec
    mean_s: float | None = None
    last_ns: int | None = None

    def heard(self, at_ns: int) -> None:
        """A token came."""
        if self.last_ns is not None:
            gap_s = (at_ns - self.last_ns) / 1e9
            self.mean_s = gap_s if self.mean_s is None else self.mean_s + MEMORY * (gap_s - self.mean_s)
        self.last_ns = at_ns

    def broken(self) -> None:
        """The stream broke: the time until the next token says nothing about the rate."""
        self.last_ns = None

    def patience_s(self) -> float:
        """How long the client still waits: `last token + time-out at this rate`; as long as it may before a first token."""
        if self.mean_s is None or self.last_ns is None:
            return self.client.time_out_most
        return max(0.0, self.client.time_out_s(self.mean_s) - (time.monotonic_ns() - self.last_ns) / 1e9)


def run_dropout(
    scenario: Scenario, faults: Sequence[Fault], path: Path, tell: Tell = lambda text: None, *, threads: int = 1,
    received: Sequence[int] = (), exact: bool = False,
) -> Dropped:
    """One reply of `scenario` on the local cluster, `faults` in the middle of it; writes a Measurement to `path`.

    `received` are tokens that the client has already, as after a recovery: the reply goes on behind them.
    They are read as one batch, whose rounding may turn a close call between two tokens; with `exact` one by one, which takes
    a step each and gives the very tokens of an uninterrupted reply. Raises LiveError
    for faults that the cluster cannot make, and PlacementError where the survivors cannot hold the model; what came until
    then is in the file.
    """
    library.require()
    chosen = plan(scenario, threads)
    _check(chosen, faults)
    with BreakableCluster(chosen) as cluster:
        workload = chosen.scenario.workload
        cluster.generate(workload.prompt_tokens, min(WARM_UP_TOKENS, workload.output_tokens), WARM_UP_SEED)
        facts = {"faults": [f"{fault.mode} {fault.device} at token {fault.at_token}" for fault in faults]}
        with MeasurementWriter(path, collect(chosen, {}, {}, facts, is_local=True, warm_up_requests=1)) as writer:
            return _Conversation(chosen, cluster, writer, sorted(faults, key=lambda fault: fault.at_token), tell,
                                 list(received), exact).hold()


def _check(chosen: Plan, faults: Sequence[Fault]) -> None:
    names = [device.name for device in chosen.devices]
    wanted = chosen.scenario.workload.output_tokens
    for fault in faults:
        if fault.device not in names[1:]:
            raise LiveError(f"{fault.device} cannot be taken away; choose one of the servers {', '.join(names[1:])} "
                            f"({names[0]} is the client: without it nobody goes on)")
        if not 2 <= fault.at_token < wanted:
            raise LiveError(f"token {fault.at_token} is not inside the reply: give one from 2 to {wanted - 1}, or raise "
                            "workload.output_tokens")


@dataclass
class _Conversation:
    """One reply from its request to its last token."""

    plan: Plan
    cluster: BreakableCluster
    writer: MeasurementWriter
    faults: list[Fault]
    tell: Tell
    tokens: list[int]
    exact: bool
    times_ns: list[int] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)
    struck: list[tuple[Fault, int]] = field(default_factory=list)
    """Faults of which the client does not know yet, and when they were."""

    def __post_init__(self) -> None:
        full = self.plan.scenario
        self.given = len(self.tokens)
        self.pace = Pace(full.recovery or RecoverySpec())
        self.placer = Placer(full, recovery_facts(full.engine.name))

    def hold(self) -> Dropped:
        """Make the whole reply."""
        load = LoadMeter()
        load.start(self.cluster.pids)
        workload, self.sent_ns = self.plan.scenario.workload, time.monotonic_ns()
        self.writer.write("request", run=0, chat=0, prompt_tokens=workload.prompt_tokens, sent_ns=0)
        while not self._listen():
            self._recover()
        self.writer.write("result", run=0, chat=0, outcome="complete", tokens=len(self.tokens) - self.given)
        others = load.others_cores()
        if others is not None and others > BUSY_CORES:
            self.writer.warn(f"other work kept {others:.1f} cores busy; measure again on a quieter machine")
        return Dropped(self.writer.path, self.sent_ns, tuple(self.tokens[self.given:]), tuple(self.times_ns),
                       tuple(self.recoveries))

    def _listen(self) -> bool:
        """Receive tokens until the reply is complete; False where the stream broke or stalled."""
        workload = self.plan.scenario.workload
        wanted = self.given + workload.output_tokens
        self.cluster.ask_reply(workload.prompt_tokens, wanted - len(self.tokens), SEED, self.tokens, exact=self.exact)
        while len(self.tokens) < wanted:
            try:
                event = self.cluster.next_event(self.pace.patience_s())
            except LiveError as error:
                self.cluster.watch()
                self._notice(error)
                return False
            if event["event"] == "token":
                self._take(event)
        return True

    def _take(self, event: dict[str, Any]) -> None:
        """One more token; then whatever is to break now breaks."""
        now_ns = time.monotonic_ns()
        self.pace.heard(now_ns)
        self.tokens.append(event["id"])
        self.times_ns.append(now_ns)
        self.writer.write("token", run=0, chat=0, token=len(self.times_ns) - 1, t_ns=now_ns - self.sent_ns, id=event["id"])
        current = self.recoveries[-1] if self.recoveries else None
        if current is not None and "resume" not in current.ends_ns:
            current.ends_ns |= {"prefill": event["at_ns"], "resume": now_ns}
            self._write(current)
        while self.faults and self.faults[0].at_token <= len(self.times_ns):
            fault = self.faults.pop(0)
            self.struck.append((fault, self.cluster.lose(fault.device, fault.mode)))

    def _notice(self, error: LiveError) -> None:
        """The stream is broken: a recovery begins, or a fault of ours explains nothing and the error stands."""
        now_ns = time.monotonic_ns()
        if not self.struck:
            self.writer.write("result", run=0, chat=0, outcome="LiveError", tokens=len(self.times_ns), detail=str(error))
            raise error
        names = tuple(fault.device for fault, _ in self.struck)
        self.recoveries.append(Recovery(names, len(self.times_ns), self.struck[0][1], {"detect": now_ns}))
        self.struck.clear()
        self.pace.broken()
        self.tell(f"token {len(self.times_ns)}: the stream broke off ({error})")

    def _recover(self) -> None:
        """From a broken stream to a client that is ready on the survivors."""
        recovery = self.recoveries[-1]
        self.cluster.release()
        self._end(recovery, "release")
        placed = self._place(self.cluster.answering(self.pace.client.probe))
        recovery.layers = {shard.device: shard.layers for shard in placed.job.shards}
        self._end(recovery, "decide")
        self.cluster.start_client()
        self._end(recovery, "start")
        self.cluster.load([(name, layers) for name, layers in recovery.layers.items()][1:])
        self._end(recovery, "load")

    def _place(self, names: tuple[str, ...]) -> Placed:
        """The model on the survivors; raises PlacementError where they cannot hold it."""
        client = self.plan.devices[0].name
        placed = self.placer.place(names)
        if not isinstance(placed, Placed):
            self.writer.write("result", run=0, chat=0, outcome="PlacementError", tokens=len(self.times_ns),
                              detail=placed.reason)
            raise PlacementError(placed.reason)
        if placed.devices[0] != client:
            raise LiveError(f"the survivors' ring begins at {placed.devices[0]}, but the client is {client}; set "
                            f"placement.order so that {client} is first")
        self.tell("goes on with " + ", ".join(f"{shard.layers} on {shard.device}" for shard in placed.job.shards))
        return placed

    @staticmethod
    def _end(recovery: Recovery, phase: str) -> None:
        recovery.ends_ns[phase] = time.monotonic_ns()

    def _write(self, recovery: Recovery) -> None:
        """The phases of a recovery that is over."""
        start_ns = recovery.fault_ns
        for phase, end_ns in recovery.ends_ns.items():
            self.writer.write("phase", run=0, phase=phase, device=", ".join(recovery.devices),
                              start_ns=start_ns - self.sent_ns, end_ns=end_ns - self.sent_ns)
            start_ns = end_ns

