"""How fast the simulator is. Run with `python -m pytest
benchmarks`; nothing here fails when a machine is slow.

CPU seconds are of this process; each ratio is the median over pairs that were measured one right after the
other, so that whatever else the machine does hits both.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import simpy

from simulator.engine.base import engine
from simulator.files import load
from simulator.prepare import prepare
from simulator.run.evaluate import token_times_s
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.record import Recorder
from simulator.scenario import Scenario

ROOT = Path(__file__).parents[1]
PAIRS = 15
ROWS = 16  # that SimPy goes through; their random numbers are drawn together
Report = Callable[[str, str, str], None]


def five_devices(engine_name: str = "exo") -> Job:
    scenario = load(ROOT / "scenarios" / "five_devices.yaml", Scenario)
    return prepare(
        scenario.model_copy(update={"engine": scenario.engine.model_copy(update={"name": engine_name})})
    ).job


class CountedEnvironment(simpy.Environment):
    """Counts the events that are scheduled."""

    events = 0

    def schedule(self, *args: object, **kwargs: object) -> None:
        self.events += 1
        super().schedule(*args, **kwargs)


def simulate(job: Job, env: simpy.Environment, row: int = 0) -> None:
    engine(job.engine.name).start(env, job, Draws(job, row, 1), Recorder())
    env.run()


def bare_timeouts(events: int, processes: int, *, draw: bool) -> None:
    """The least that SimPy can do: processes that yield one
    timeout after the other; with `draw` each is lognormal.
    """
    env, rng = simpy.Environment(), random.Random(1)

    def process(delay_s: float) -> Iterator[simpy.Event]:
        for _ in range(events // processes):
            yield env.timeout(rng.lognormvariate(0.0, 0.5) if draw else delay_s)

    for i in range(processes):
        env.process(process(1.0 + i / 7))
    env.run()


def bare_ring(job: Job) -> None:
    """EXO's ring as SimPy's tutorial would write it: a Store
    per hop, a process per message, fixed durations.
    """
    env, ranks, tokens = simpy.Environment(), len(job.ring), job.workload.output_tokens
    right, left = ([simpy.Store(env) for _ in range(ranks)] for _ in range(2))

    def message(hop: simpy.Store) -> Iterator[simpy.Event]:
        yield env.timeout(0.002)
        yield hop.put(None)

    def gather(rank: int) -> Iterator[simpy.Event]:
        for _ in range(ranks - 1):
            env.process(message(left[rank]))
            yield left[(rank + 1) % ranks].get()

    def process(rank: int) -> Iterator[simpy.Event]:
        for _ in range(tokens):
            yield from gather(rank)
            if rank > 0:
                yield right[rank - 1].get()
            yield env.timeout(0.1)
            if rank < ranks - 1:
                env.process(message(right[rank]))
            yield from gather(rank)
            yield env.timeout(0.01)

    for rank in range(ranks):
        env.process(process(rank))
    env.run()


def cpu_s(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def ratio(work: Callable[[], object], other: Callable[[], object]) -> float:
    """Median ratio of CPU seconds over pairs."""
    work(), other()
    return statistics.median(cpu_s(work) / cpu_s(other) for _ in range(PAIRS))


@pytest.mark.parametrize("name", ["exo", "exo-legacy", "llama-rpc"])
def test_simpy_evaluator(name: str, benchmark: Callable[..., object], report: Report) -> None:
    job = five_devices(name)
    env = CountedEnvironment()
    simulate(job, env)
    tokens, ranks = job.workload.output_tokens, len(job.ring)

    def ours() -> None:
        token_times_s(job, ROWS, "simpy")

    benchmark(ours)
    label = f"{name}, SimPy, {env.events / tokens:.0f} events per token, CPU over that of"
    for draw, what in (
        (False, "bare timeouts of fixed length"),
        (True, "bare timeouts, one lognormal draw each"),
    ):
        found = ratio(ours, lambda draw=draw: bare_timeouts(ROWS * env.events, ranks, draw=draw))
        report(f"{label} {what}", f"{found:.2f}", "at most 2")
    if name == "exo":
        found = ratio(ours, lambda: [bare_ring(job) for _ in range(ROWS)])
        report(f"{label} the same ring of Stores and message processes", f"{found:.2f}", "at most 2")
    # a ratio per event praises whoever makes many events; this one does not
    per_s = ROWS * tokens / statistics.median(cpu_s(ours) for _ in range(PAIRS))
    report(f"{name}, SimPy, tokens per CPU second", f"{per_s:,.0f}", "")


@pytest.mark.parametrize("name", ["exo", "exo-legacy"])
def test_recursion(name: str, benchmark: Callable[..., object], report: Report) -> None:
    job = five_devices(name)

    def all_rows() -> None:
        token_times_s(job, 1000, "recursion")

    benchmark.pedantic(all_rows, rounds=5, warmup_rounds=1)
    spent_s = statistics.median(cpu_s(all_rows) for _ in range(7))
    report(f"{name}, recursion, tokens per CPU second", f"{256_000 / spent_s:,.0f}", "at least 2,000,000")


def command(*args: str) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak resident MB of a run of the command line."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "sim.main", *args], cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6


@pytest.mark.parametrize(
    ("args", "seconds", "megabytes"),
    [
        (("run", "scenarios/five_devices.yaml", "--json"), 3.0, 400),
        (("run", "scenarios/five_devices.yaml", "--out", "charts"), 2.0, 400),
        (("--help",), 0.5, None),
    ],
    ids=["run", "charts", "help"],
)
def test_command(
    args: tuple[str, ...],
    seconds: float,
    megabytes: float | None,
    benchmark: Callable[..., object],
    report: Report,
    tmp_path: Path,
) -> None:
    asked = [str(tmp_path / arg) if arg == "charts" else arg for arg in args]
    figures: list[tuple[float, float, float]] = []
    # the first run bundles the script of the charts' page, which later ones find in the cache
    benchmark.pedantic(lambda: figures.append(command(*asked)), rounds=5, warmup_rounds=1)
    wall_s, spent_s, peak_mb = (statistics.median(column) for column in zip(*figures[1:], strict=True))
    report(f"sim {' '.join(args)}, wall", f"{wall_s:.2f} s", "")
    report(f"sim {' '.join(args)}, CPU", f"{spent_s:.2f} s", f"under {seconds} s")
    if megabytes:
        report(f"sim {' '.join(args)}, peak memory", f"{peak_mb:.0f} MB", f"under {megabytes} MB")
