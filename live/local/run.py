"""Run: scenarios in, Measurements out. Several scenarios are measured in turns, there
and back (A B C C B A ...).

A shared machine drifts, so each scenario is visited once per round in alternating order, with a
fixed reference workload before each visit; the Measurement holds the reference's times and how
well its own visits agree.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from live.local.breaking import BreakableCluster
from live.local.cluster import LocalCluster, Run
from live.local.conversation import Callbacks, LocalReply
from live.local.doubts import doubts, repeatability
from live.local.engines import LocalEngine, local_engine
from live.local.hops import hop_events
from live.local.overhead import relay_overhead_s
from live.local.plan import ClusterPlan
from live.local.provenance import LoadMeter, collect
from live.local.reference import Reference
from live.recovery import ObservedRecovery
from simulator.errors import LiveError, SimulatorError
from simulator.result.measurement import MeasurementWriter
from simulator.scenario import Scenario

__all__ = ["measure", "run_scenario"]

Tell = Callable[[str], None]
WARM_UP_TOKENS = 16
WARM_UP_SEED, FIRST_SEED = 0, 1  # prompts differ from run to run and are the same in every scenario


def run_scenario(
    scenario: Scenario,
    out: Path,
    progress: Tell = lambda text: None,
    *,
    threads: int = 1,
    endpoints: Sequence[str] = (),
) -> Path:
    """Measure one scenario and return the Measurement: `out` itself if it ends in .jsonl,
    else a file in that folder.

    With `endpoints` (host:port, one per device after the first) its servers are real devices that already
    run. Raises LiveError when the cluster fails; what was measured until then is in the file.
    """
    return measure([scenario], out, progress, rounds=1, threads=threads, endpoints=endpoints)[0]


def measure(
    scenarios: Sequence[Scenario],
    out: Path,
    progress: Tell = lambda text: None,
    *,
    rounds: int = 2,
    threads: int = 1,
    endpoints: Sequence[str] = (),
) -> list[Path]:
    """Measure `scenarios` in turns over `rounds` rounds; see `run_scenario`."""
    local = local_engine(scenarios, elsewhere=bool(endpoints))
    local.require()
    plans = [local.plan(scenario, threads) for scenario in scenarios]
    with ExitStack() as stack:
        # loaded once, outside all clusters: what it takes tells of the machine, not of a configuration
        reference = stack.enter_context(local.reference())
        sessions = []
        for chosen in plans:
            session = _LocalSession(
                local, chosen, _file(out, chosen), rounds, tuple(endpoints), progress, reference
            )
            sessions.append(stack.enter_context(session))
        for number in range(rounds):
            # there and back, so that a drift of the machine falls on all configurations alike
            for session in sessions if number % 2 == 0 else reversed(sessions):
                session.visit(number)
    return [session.path for session in sessions]


def _file(out: Path, chosen: ClusterPlan) -> Path:
    """Where a scenario's Measurement goes; never over an older one."""
    file = out if out.suffix == ".jsonl" else out / f"{chosen.scenario.name}.jsonl"
    if file.exists():
        raise LiveError(f"{file} exists; measurements are never overwritten, choose another folder or name")
    return file


@dataclass
class _LocalSession:
    """The measuring of one scenario over all its visits."""

    local: LocalEngine
    plan: ClusterPlan
    path: Path
    rounds: int
    endpoints: tuple[str, ...]
    tell: Tell
    reference: Reference
    visits: list[list[Run]] = field(default_factory=list)
    others_cores: list[float] = field(default_factory=list)
    reference_s: list[float] = field(default_factory=list)
    achieved: dict[str, list[float]] = field(default_factory=dict)
    _writer: MeasurementWriter | None = None
    _clock_ns: int = 0

    def __enter__(self) -> _LocalSession:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._writer is not None:
            self._writer.close("complete" if kind is None else "interrupted")

    def visit(self, number: int) -> None:
        """Start the cluster, warm it up, measure this visit's share of the runs, stop it."""
        # before the cluster starts, so that nothing else runs beside it
        self.reference_s.append(self.reference.seconds_per_token())
        self.visits.append([])
        # runs of this visit; after a loss the cluster is started anew for those that remain
        left = list(self._runs_of(number))
        while left:
            with self.local.cluster(self.plan, self.endpoints) as cluster:
                self._warm_up(cluster, number)
                whole = True
                while left and whole:
                    whole = self._measured(cluster, left.pop(0))
            if not whole and left and self.endpoints:
                raise LiveError(
                    f"a device was lost and its reply mended, but {len(left)} runs are left that need all "
                    f"devices; bring it back and measure again. What was measured is in {self.path}"
                )
        if number == self.rounds - 1:
            self._conclude()

    def _warm_up(self, cluster: LocalCluster, number: int) -> None:
        workload = self.plan.scenario.workload
        self._note(
            cluster.generate(
                workload.prompt_tokens, min(WARM_UP_TOKENS, workload.output_tokens), WARM_UP_SEED
            )
        )
        # the header needs what the throttles achieve, which only a warm-up shows
        self._open(cluster).write(
            "reference", visit=number, at_ns=self._now_ns(), seconds_per_token=self.reference_s[-1]
        )

    def _measured(self, cluster: LocalCluster, run: int) -> bool:
        """One run; False where a device was lost in it, so that the cluster is no
        longer the one to measure.
        """
        name, load = self.plan.scenario.name, LoadMeter()
        load.start(cluster.pids)
        done = self._run(cluster, run)
        if done is None:
            return False
        self.visits[-1].append(done)
        others = load.others_cores()
        self.others_cores += [] if others is None else [others]
        median_ms = 1e3 * float(np.median(np.diff(done.token_ns))) / 1e9
        self.tell(
            f"{name}: run {run + 1} of {self.plan.scenario.workload.runs}, {median_ms:.1f} ms per token"
        )
        return True

    def _runs_of(self, number: int) -> range:
        """Runs of one visit: all runs spread evenly over the rounds."""
        runs = self.plan.scenario.workload.runs
        return range(runs * number // self.rounds, runs * (number + 1) // self.rounds)

    def _run(self, cluster: LocalCluster, run: int) -> Run | None:
        """One chat, written down token by token as it comes; None where it lost a device, and was mended."""
        workload, writer = self.plan.scenario.workload, self._needed()

        def asked(reply: LocalReply) -> None:
            writer.write(
                "request",
                run=run,
                chat=reply.chat,
                prompt_tokens=workload.prompt_tokens,
                sent_ns=reply.sent_ns - self._clock_ns,
            )

        def token(reply: LocalReply, number: int) -> None:
            of = {"run": run, "chat": reply.chat, "token": reply.count - 1}
            for device, begin_ns, end_ns in reply.spans:
                writer.write(
                    "span",
                    **of,
                    device=device,
                    start_ns=begin_ns - reply.sent_ns,
                    end_ns=end_ns - reply.sent_ns,
                )
            writer.write("token", **of, t_ns=reply.times_ns[-1] - reply.sent_ns)

        def mended(reply: LocalReply, recovery: ObservedRecovery) -> None:
            for line in recovery.lines(reply.sent_ns):
                writer.write("phase", run=run, **line)
            assert isinstance(cluster, BreakableCluster), "others are not mended"
            lost = (
                cluster.exit_reasons(recovery.devices)
                or ", ".join(recovery.devices)
                or "nobody: a false alarm"
            )
            self._warn(
                f"run {run}: lost after token {recovery.token}: {lost}; the client went on "
                f"{recovery.seconds:.2f} s later, and this run calibrates nothing"
            )

        talk = self.local.talk(self.plan, cluster, Callbacks(asked, token, mended), self.tell)
        replies = [LocalReply(workload.output_tokens, chat=chat) for chat in range(workload.concurrency)]
        before, reply = cluster.begin_watch(), replies[0]
        try:
            talk.chats(replies, FIRST_SEED + run)
        except SimulatorError as error:
            outcome, detail = type(error).__name__, str(error)
            for one in replies:
                writer.write(
                    "result", run=run, chat=one.chat, outcome=outcome, tokens=one.count, detail=detail
                )
            # the same kind, so that the exit code stays; the file is named, for it holds what came
            raise type(error)(
                f"{error}\nrun {run + 1} broke after {reply.count} tokens; they and all before are in "
                f"{self.path}"
            ) from error
        for one in replies:
            writer.write("result", run=run, chat=one.chat, outcome="complete", tokens=one.count)
        # mended, so whole, but no steady state: neither its rate nor its load may teach anything
        if reply.recoveries:
            return None
        done = cluster.end_watch(before, reply.sent_ns, tuple(reply.times_ns), reply.busy_ns)
        self._write_truth(writer, run, done)
        self._note(done)
        return done

    def _write_truth(self, writer: MeasurementWriter, run: int, done: Run) -> None:
        """What the relay imposed on each message, and how busy each device was."""
        for event in hop_events(done.flights, self.plan.is_ring):
            writer.write("hop", run=run, **(event | {"sent_ns": event["sent_ns"] - self._clock_ns}))
        for device, busy_s in done.busy_s.items():
            writer.write(
                "device",
                run=run,
                device=device,
                busy_s=busy_s,
                wall_s=done.wall_s,
                service_s=done.service_s.get(device),
            )

    def _note(self, run: Run) -> None:
        """Remember what share of full speed each device had:
        its CPU time over the time in which it had work.
        """
        for device in self.plan.devices:
            # of the time with work, as a device that waits for others is not slow
            service_s = run.service_s.get(device.name, 0.0) * device.threads
            if service_s > 0 and device.name in run.busy_s:
                self.achieved.setdefault(device.name, []).append(run.busy_s[device.name] / service_s)

    def _shares(self) -> dict[str, float]:
        return {name: float(np.median(shares)) for name, shares in self.achieved.items()}

    def _now_ns(self) -> int:
        return time.monotonic_ns() - self._clock_ns

    def _open(self, cluster: LocalCluster) -> MeasurementWriter:
        """The file, opened once the warm-up has shown what the throttles achieve."""
        if self._writer is None:
            details = {
                device.name: {
                    "throttled_by": cluster.throttled_by.get(device.name, "nothing"),
                    "memory_cap_bytes": device.memory_cap_bytes,
                    "memory_capped_by": cluster.capped_by.get(device.name, "nothing"),
                }
                for device in self.plan.devices
            }
            facts: dict[str, object] = {"rounds": self.rounds}
            if not self.endpoints and self.plan.links:
                added_s = relay_overhead_s()
                median, p99 = np.quantile(added_s, (0.5, 0.99)).tolist()
                facts["relay_overhead_s"] = {"median": median, "p99": p99}
            header = collect(
                self.plan,
                self._shares(),
                details,
                facts,
                versions=self.local.versions(),
                is_local=not self.endpoints,
                warm_up_requests=1,
            )
            self._clock_ns = time.monotonic_ns()
            self._writer = MeasurementWriter(self.path, header)
        return self._writer

    def _needed(self) -> MeasurementWriter:
        assert self._writer is not None, "opened by the warm-up"
        return self._writer

    def _warn(self, text: str) -> None:
        self._needed().warn(text)
        self.tell(f"{self.plan.scenario.name}: warning: {text}")

    def _conclude(self) -> None:
        """Repeatability and doubts, then the end of the file."""
        writer = self._needed()
        # every run lost a device: repeatability of nothing would be a figure
        if not any(self.visits):
            writer.close()
            return
        writer.write("repeatability", **repeatability(self.visits))
        for text in doubts(self.plan, self.visits, self._shares(), self.others_cores, self.reference_s):
            self._warn(text)
        writer.close()
