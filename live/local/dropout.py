"""Dropout: replies in the middle of which devices are lost, or come back, and a client that loses no token.

The client is `conversation`'s; here are the faults. A Measurement holds a `phase` line for
each phase of each recovery.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from live.local import library
from live.local.breaking import BreakableCluster, Mode
from live.local.conversation import Callbacks, Conversation, LocalReply
from live.local.plan import ClusterPlan, plan
from live.local.provenance import LoadMeter, collect
from live.recovery import ObservedRecovery, require_inside
from live.steady import tokens_per_s
from simulator.errors import LiveError, SimulatorError
from simulator.result.measurement import MeasurementWriter
from simulator.scenario import Scenario

__all__ = ["Dropped", "InjectedFault", "run_dropout"]

Tell = Callable[[str], None]
SEED, WARM_UP_SEED, WARM_UP_TOKENS = 1, 0, 16
BUSY_CORES = 0.5  # others at work beyond this make a recovery slower than it would be


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """A device that goes `later_s` after the first reply has `at_token` tokens, and comes back
    `back_after_s` after that.
    """

    device: str
    at_token: int
    mode: Mode = "kill"
    later_s: float = 0.0
    """Only a `kill` can come later: in the middle of the recovery from another loss, say."""
    back_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """Replies that lost devices, and everything that was mended."""

    path: Path
    replies: tuple[LocalReply, ...]

    @property
    def first(self) -> LocalReply:
        """The reply in which devices were lost."""
        return self.replies[0]

    @property
    def tokens(self) -> tuple[int, ...]:
        """Ids of the first reply's tokens."""
        return tuple(self.first.tokens[self.first.given :])

    @property
    def recoveries(self) -> tuple[ObservedRecovery, ...]:
        """Of all replies."""
        return tuple(recovery for reply in self.replies for recovery in reply.recoveries)

    @property
    def before(self) -> float | None:
        """Tokens/s of the first reply up to its first fault."""
        until = self.first.recoveries[0].token if self.first.recoveries else None
        return tokens_per_s(self.first.times_ns[:until])

    @property
    def after(self) -> float | None:
        """Tokens/s of the first reply after its last recovery."""
        return (
            tokens_per_s(self.first.times_ns[self.first.recoveries[-1].token :])
            if self.first.recoveries
            else None
        )

    @property
    def next(self) -> float | None:
        """Tokens/s of the last reply, where there were several."""
        return tokens_per_s(self.replies[-1].times_ns) if len(self.replies) > 1 else None


def run_dropout(
    scenario: Scenario,
    faults: Sequence[InjectedFault],
    path: Path,
    tell: Tell = lambda text: None,
    *,
    threads: int = 1,
    received: Sequence[int] = (),
    exact: bool = False,
    replies: int = 1,
) -> Dropped:
    """`replies` of `scenario` on the local cluster, `faults` in the middle of the first;
    writes a Measurement to `path`.

    `received` are tokens that the client has already, as after a recovery: the reply goes on
    behind them. They are read as one batch, whose rounding may turn a close call between two
    tokens; with `exact` one by one, which takes a step each and gives the very tokens of an
    uninterrupted reply. Raises LiveError for faults that the cluster cannot make, and
    PlacementError where the survivors cannot hold the model; what came until then is in the file.
    """
    # before a model is made and ports are taken, which takes minutes
    library.require()
    chosen = plan(scenario, threads)
    _check(chosen, faults)
    with BreakableCluster(chosen) as cluster:
        workload = chosen.scenario.workload
        # the first chat of a process allocates buffers; that must not count as slow tokens before the fault
        cluster.generate(workload.prompt_tokens, min(WARM_UP_TOKENS, workload.output_tokens), WARM_UP_SEED)
        facts = {"faults": [f"{fault.mode} {fault.device} at token {fault.at_token}" for fault in faults]}
        with MeasurementWriter(
            path,
            collect(chosen, {}, {}, facts, versions=library.versions(), is_local=True, warm_up_requests=1),
        ) as writer:
            load = LoadMeter()
            load.start(cluster.pids)
            held = _Rehearsal(
                chosen, cluster, writer, _FaultInjector(cluster, list(faults)), tell, exact
            ).hold(replies, received)
            others = load.others_cores()
            if others is not None and others > BUSY_CORES:
                writer.warn(f"other work kept {others:.1f} cores busy; measure again on a quieter machine")
            return Dropped(writer.path, held)


def _check(chosen: ClusterPlan, faults: Sequence[InjectedFault]) -> None:
    names = [device.name for device in chosen.devices]
    wanted = chosen.scenario.workload.output_tokens
    for fault in faults:
        if fault.device not in names[1:]:
            raise LiveError(
                f"{fault.device} cannot be taken away; choose one of the servers {', '.join(names[1:])} "
                f"({names[0]} is the client: without it nobody goes on)"
            )
        require_inside(fault.at_token, wanted)
        if fault.mode != "kill" and (fault.later_s or fault.back_after_s is not None):
            raise LiveError(
                f"{fault.device}: only a device that is killed can go later or come back, not with mode "
                f"{fault.mode}"
            )


@dataclass
class _FaultInjector:
    """Pulls the plugs when it is time, and remembers what the client does not know yet."""

    cluster: BreakableCluster
    faults: list[InjectedFault]
    struck: list[tuple[str, int]] = field(default_factory=list)
    returns: list[tuple[float, str]] = field(default_factory=list)

    def reached(self, count: int) -> None:
        """The first reply has so many tokens."""
        for fault in [fault for fault in self.faults if fault.at_token <= count]:
            self.faults.remove(fault)
            if fault.later_s:  # a clock of its own: the client is busy mending by then
                timer = threading.Timer(fault.later_s, self._strike, (fault,))
                # a rehearsal that ends early must not wait for a blow that makes no sense any more
                timer.daemon = True
                timer.start()
            else:
                self._strike(fault)

    def _strike(self, fault: InjectedFault) -> None:
        self.struck.append((fault.device, self.cluster.lose(fault.device, fault.mode)))
        if fault.back_after_s is not None:
            self.returns.append((time.monotonic() + fault.back_after_s, fault.device))

    def known(self) -> list[tuple[str, int]]:
        """The losses since the last call."""
        # handed over once: a second recovery must not be charged with the loss of the first
        found, self.struck = self.struck, []
        return found

    def tick(self) -> None:
        """Whoever is to come back by now comes back."""
        for due in [due for due in self.returns if due[0] <= time.monotonic()]:
            self.returns.remove(due)
            self.cluster.revive(due[1])


@dataclass
class _Rehearsal:
    """The replies of one Measurement."""

    plan: ClusterPlan
    cluster: BreakableCluster
    writer: MeasurementWriter
    plug: _FaultInjector
    tell: Tell
    exact: bool
    _run: int = 0
    _begin_ns: int = 0

    def hold(self, replies: int, received: Sequence[int]) -> tuple[LocalReply, ...]:
        """All replies, one after the other."""
        callbacks = Callbacks(
            asked=self._asked,
            token=self._token,
            mended=self._mended,
            faults=self.plug.known,
            waiting=self.plug.tick,
        )
        talk = Conversation(self.plan, self.cluster, callbacks, self.tell, self.exact)
        made = []
        for self._run in range(replies):
            given = list(received) if self._run == 0 else []
            reply = LocalReply(self.plan.scenario.workload.output_tokens, len(given), tokens=given)
            try:
                made.append(talk.reply(reply, SEED + self._run))
            except SimulatorError as error:
                self.writer.write(
                    "result",
                    run=self._run,
                    chat=0,
                    outcome=type(error).__name__,
                    tokens=reply.count,
                    detail=str(error),
                )
                raise
            self.writer.write("result", run=self._run, chat=0, outcome="complete", tokens=reply.count)
        return tuple(made)

    def _asked(self, reply: LocalReply) -> None:
        # the file's clock starts with its first request
        self._begin_ns = self._begin_ns or reply.sent_ns
        self.writer.write(
            "request",
            run=self._run,
            chat=0,
            prompt_tokens=self.plan.scenario.workload.prompt_tokens,
            sent_ns=reply.sent_ns - self._begin_ns,
        )

    def _token(self, reply: LocalReply, token: int) -> None:
        self.writer.write(
            "token",
            run=self._run,
            chat=0,
            token=reply.count - 1,
            t_ns=reply.times_ns[-1] - reply.sent_ns,
            id=token,
        )
        # faults belong to the first reply; later ones show what was mended
        if self._run == 0:
            self.plug.reached(reply.count)
        self.plug.tick()

    def _mended(self, reply: LocalReply, recovery: ObservedRecovery) -> None:
        for line in recovery.lines(reply.sent_ns):
            self.writer.write("phase", run=self._run, **line)
