"""How much a command is about to do: said before it starts, refused beyond a limit without `--yes`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal

from simulator.errors import SimulatorError

if TYPE_CHECKING:
    from simulator.runtime.job import Job
    from simulator.scenario import Scenario

__all__ = ["agree", "begin_long", "begin_work", "limited_work", "tokens_of"]

FEW_TOKENS = 100_000
"""So many take a moment whoever evaluates them, so nobody need ask how long."""
TOLD_S = 20.0
MOST_S = 1800.0
MOST_KEPT_BYTES = 1e9
"""Of token times in memory, which charts, quantiles and the trace are made of."""
PILOT_TOKENS, PILOT_ROWS = 32, 512
_agreed: ContextVar[bool] = ContextVar("agreed", default=True)


@contextmanager
def limited_work() -> Iterator[None]:
    """Within, work beyond the limits is refused until `agree` is called."""
    before = _agreed.set(False)
    try:
        yield
    finally:
        _agreed.reset(before)


def agree() -> None:
    """Do it, however long it takes: what `--yes` says."""
    _agreed.set(True)


def tokens_of(scenario: Scenario) -> int:
    """Tokens that one prediction of a scenario simulates."""
    work = scenario.workload
    return scenario.replications * work.runs * work.output_tokens * work.concurrency


def begin_work(
    scenario: Scenario,
    tokens: int,
    *,
    kept: int = 0,
    workers: int = 1,
    evaluator: Literal["auto", "recursion", "simpy"] = "auto",
) -> None:
    """Say how long `tokens` of a scenario like this one take, where that is long.

    `kept` of them stay in memory at once. Raises SimulatorError beyond the limits without `--yes`.
    """
    if tokens <= FEW_TOKENS and 8 * kept <= MOST_KEPT_BYTES:
        return
    seconds = tokens * _token_s(scenario, evaluator) / workers
    begin_long(
        f"{tokens:,} tokens to simulate", seconds, "replications, runs, tokens, chats or points", 8.0 * kept
    )


def begin_long(what: str, seconds: float, fewer: str, needs_bytes: float = 0.0) -> None:
    """Say that `what` takes `seconds` where that is long; `fewer` says what to ask for less of.

    Raises SimulatorError beyond the limits without `--yes`.
    """
    from simulator.units import format_bytes

    amount = f"{what}, about {_minutes(seconds)}"
    if needs_bytes:
        amount += f", {format_bytes(needs_bytes)} of memory"
    too_much = seconds > MOST_S or needs_bytes > MOST_KEPT_BYTES
    if too_much and not _agreed.get():
        raise SimulatorError(
            f"{amount}: more than {_minutes(MOST_S)} or {format_bytes(MOST_KEPT_BYTES)}; ask for fewer "
            f"{fewer}, or say --yes"
        )
    if seconds > TOLD_S:
        print(amount, file=sys.stderr)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:,.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _token_s(scenario: Scenario, evaluator: Literal["auto", "recursion", "simpy"]) -> float:
    """Seconds of this machine for one token, tried out on few; 0 where the command will say what is wrong."""
    from simulator.engine.base import engine
    from simulator.prepare import prepare
    from simulator.run.evaluate import excerpt

    work = excerpt(scenario.workload, PILOT_TOKENS).model_copy(update={"arrivals": None})
    try:
        job = prepare(scenario.model_copy(update={"workload": work})).job
    except SimulatorError:
        return 0.0
    flow = engine(job.engine.name)
    fast = evaluator == "recursion" or (evaluator == "auto" and flow.is_recursion_exact(job))
    rows = PILOT_ROWS if fast else 1
    _timed_s(job, 1, evaluator)  # loads and fills what the first evaluation alone needs
    return _timed_s(job, rows, evaluator) / (rows * work.output_tokens * work.concurrency)


def _timed_s(job: Job, rows: int, evaluator: Literal["auto", "recursion", "simpy"]) -> float:
    from simulator.run.evaluate import token_times_s

    begun = time.perf_counter()
    token_times_s(job, rows, evaluator)
    return time.perf_counter() - begun
