"""sweep: many variants of one scenario to one tidy table, on all cores or a Dask cluster, never the same
point twice.

What a folder holds: `points.jsonl`, one line per finished point, appended as they finish and keyed by a
hash of everything that the result depends on; `sweep.parquet`, the table, written whole or not at all;
charts. A sweep that is run again takes every point that it finds there. Rows depend on nothing but their
scenario, so the table is the same to the byte whoever computed them, in whatever order.

========================  ==================================================================================
column                    holds
========================  ==================================================================================
`<path>`                  the value of each swept path: base units (s, bytes, bytes/s) where it is a number,
                          else text
`tokens_per_s_*`          of one chat: `_median`, `_p05`, `_p95` over replications and runs, as for all that
                          follow
`total_tokens_per_s_*`    of all chats together
`first_token_s_*`         from the request, or the arrival, to the first token
`inter_token_p50_s_*`     and `p90`, `p99`: between neighbouring tokens of a reply; empty with arrivals
`share_met_*`             with arrivals: share of chats that met the bound; `goodput_per_hour_*`: such chats
                          per hour
`placement`               layers by device in ring order
`label`                   the weakest label of all speeds: measured, calibrated or assumed
`error`                   why there is no result, empty where there is one
`key`                     the point's hash
========================  ==================================================================================
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StrictFloat, StrictStr, ValidationError

from simulator.engine.base import engine
from simulator.errors import Fault, ScenarioError, SimulatorError
from simulator.files import Appender, json_lines, write_ours
from simulator.files.explain import in_words
from simulator.plan.load.arrivals import Bound, load_point
from simulator.plan.sweep.paths import check_axis, variants
from simulator.plan.sweep.points import Axis, Point, grid, hypercube, number
from simulator.plan.sweep.workers import lost_workers
from simulator.prepare import prepare
from simulator.result.summary import summarise
from simulator.run.evaluate import token_times_s
from simulator.run.glance import label
from simulator.scenario import Scenario
from simulator.spec import Spec
from simulator.version import VERSION

__all__ = ["METRICS", "Sweep", "evaluate_point", "parquet_bytes", "plan_sweep", "run_sweep", "table_rows"]

METRICS = (
    "tokens_per_s",
    "total_tokens_per_s",
    "first_token_s",
    "inter_token_p50_s",
    "inter_token_p90_s",
    "inter_token_p99_s",
    "share_met",
    "goodput_per_hour",
)
PARTS = ("median", "p05", "p95")
WORDS = ("placement", "label", "error", "key")
POINTS_FILE, TABLE_FILE = "points.jsonl", "sweep.parquet"
LAWS_KEPT = 64
"""Quantile tables (512 kB each) that a worker keeps; a sweep over delays would otherwise fill its memory."""
AHEAD = 4
"""Points handed out per worker before one comes back."""
MOST_BREAKS = 3
"""Times in a row that the workers may die without one point finished."""

NEEDED = tuple(f"tokens_per_s_{part}" for part in PARTS)
"""What every finished point has."""

Row = dict[str, Any]


class _Point(Spec):
    """A line of `points.jsonl`."""

    key: str = Field(pattern=r"^[0-9a-f]{32}$")
    row: dict[str, StrictFloat | Annotated[StrictStr, Field(max_length=20_000)]] = Field(max_length=100)


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is to be computed: axes, points, and each point's key and scenario as JSON."""

    scenario: Scenario
    axes: tuple[Axis, ...]
    points: tuple[Point, ...]
    tasks: tuple[tuple[str, str], ...]
    """(key, payload) of each point; equal points have equal keys."""


def plan_sweep(
    scenario: Scenario, axes: Sequence[Axis], lhs: int | None = None, bound: Bound | None = None
) -> Sweep:
    """Check all axes and lay out the points: a grid, or a Latin hypercube of `lhs` points.

    Raises ScenarioError with the faults of all axes, and of the first point whose values do not go together.
    """
    faults = [fault for axis in axes for fault in check_axis(scenario, axis)]
    if faults:
        raise ScenarioError("--over", faults)
    points = tuple(hypercube(axes, lhs, scenario.seed) if lhs else grid(axes))
    tasks = tuple(_task(one, bound or Bound()) for one in variants(scenario, points))
    return Sweep(scenario, tuple(axes), points, tasks)


def _task(scenario: Scenario, bound: Bound) -> tuple[str, str]:
    # name and question change no number; without them the same point of another sweep is the same
    named = scenario.model_copy(update={"name": "point", "question": ""})
    # in the order of the file: devices join in that order
    payload = json.dumps(
        {"scenario": named.model_dump(mode="json", round_trip=True), "bound": bound.model_dump()},
        separators=(",", ":"),
    )
    software = engine(scenario.engine.name).facts.model_dump_json()
    told = json.dumps([VERSION, _catalogue_digest(), software, _file_digest(scenario)])
    return hashlib.sha256((told + payload).encode()).hexdigest()[:32], payload


@cache
def _catalogue_digest() -> str:
    """Of the data files from which scenarios are completed."""
    # with another catalogue the same scenario is another point
    data = files("simulator.catalog").joinpath("data")
    found = sorted((item for item in data.iterdir() if item.is_file()), key=lambda item: item.name)
    return hashlib.sha256(b"".join(item.name.encode() + item.read_bytes() for item in found)).hexdigest()


def _file_digest(scenario: Scenario) -> str:
    """Of a model file that the scenario names: its size and, where it is small, its content."""
    digest = hashlib.sha256()
    for name in (scenario.model.gguf, scenario.model.hf_config):
        path = Path(name) if name else None
        if path is not None and path.is_file():
            with path.open("rb") as file:
                digest.update(str(path.stat().st_size).encode() + file.read(1 << 20))
    return digest.hexdigest()


def evaluate_point(key: str, payload: str) -> str:
    """One point: its scenario and bound as JSON in, its row as one line of JSON out.

    Made for other processes: strings only, and nothing but the payload counts. A scenario that cannot be
    placed, or whose names are unknown, gives a row with `error`.
    """
    from simulator.laws.law import table

    document = json.loads(payload)
    try:
        row = _evaluate(
            Scenario.model_validate(document["scenario"]), Bound.model_validate(document["bound"])
        )
    except SimulatorError as error:
        row = {"error": str(error)}
    # a worker lives for the whole sweep, and each delay that is swept has a table of its own
    if table.cache_info().currsize > LAWS_KEPT:
        table.cache_clear()
    return json.dumps({"key": key, "row": row}, sort_keys=True)


def _evaluate(scenario: Scenario, bound: Bound) -> Row:
    prepared = prepare(scenario)
    job = prepared.job
    if job.workload.arrivals is not None:
        found: Any = load_point(prepared, bound)
        renamed = {"first_token_s": found.first_token_p50_s}
    else:
        times_s = token_times_s(job, scenario.replications * job.workload.runs)
        found, renamed = summarise(times_s, prepared.engine.chats(job)), {}
    row: Row = {}
    for name in METRICS:
        value = renamed.get(name) or getattr(found, name, None)
        if value is not None:
            told = {f"{name}_{part}": getattr(value, part) for part in PARTS}
            row |= {key: figure for key, figure in told.items() if math.isfinite(figure)}
    counts = job.placement.layer_counts.items()
    return {
        **row,
        "placement": " ".join(f"{name}:{count}" for name, count in counts),
        "label": label(prepared),
    }


def run_sweep(
    sweep: Sweep,
    folder: Path,
    executor: Callable[[], Executor],
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> bytes:
    """Compute what the folder does not hold yet, append it there, and return the table, which is written too.
    `say` is told of points there that cannot be used.

    `executor` makes one whenever one is needed: again after its workers were killed. Raises SimulatorError
    where they die over and over, or the folder cannot be written.
    """
    done = _finished(folder, say)
    wanted = dict(sweep.tasks)
    left = {key: payload for key, payload in wanted.items() if key not in done}
    report = progress or (lambda *_: None)
    finished = len(wanted) - len(left)
    report(finished, len(wanted))
    if left:
        with Appender(folder / POINTS_FILE) as points:
            for line in _computed(left, executor, (workers or os.cpu_count() or 1) * AHEAD):
                record = json.loads(line)
                points.append(record)
                done[record["key"]] = record["row"]
                finished += 1
                report(finished, len(wanted))
    data = parquet_bytes(sweep, done)
    write_ours(folder / TABLE_FILE, data)
    return data


def _finished(folder: Path, say: Callable[[str], None] = lambda _: None) -> dict[str, Row]:
    """Rows by key; a line that is none does not count, and `say` is told."""
    found: dict[str, Row] = {}
    path = folder / POINTS_FILE
    if not path.exists():
        return found
    for at, line in json_lines(path):
        point = line if isinstance(line, Fault) else _point(line)
        if isinstance(point, _Point):
            found[point.key] = point.row
        else:
            why = str(point).removesuffix("; left out")
            say(f"{path}:{at}: {why}; computed again where it is asked for")
    return found


def _point(line: dict[str, Any]) -> _Point | str:
    """A line as a finished point, or what keeps it from being one."""
    try:
        point = _Point.model_validate(line)
    except ValidationError as error:
        return in_words(error)
    row = point.row
    lacks = [name for name in NEEDED if name not in row]
    words = [name for name, value in row.items() if isinstance(value, str) != (name in WORDS)]
    if words or (lacks and not row.get("error")):
        return f"row: no usable {(words or lacks)[0]}"
    return point


def table_rows(sweep: Sweep, folder: Path) -> list[Row]:
    """The rows of a finished sweep, in its order."""
    done = _finished(folder)
    return [done[key] for key, _ in sweep.tasks]


def _computed(left: Mapping[str, str], executor: Callable[[], Executor], ahead: int) -> Iterator[str]:
    """Lines as they finish. Where a worker was killed a new executor takes over what has not come back."""
    missing, breaks = dict(left), 0
    while missing:
        before = len(missing)
        pool = executor()
        try:
            for line in _from_one(dict(missing), pool, ahead):
                del missing[json.loads(line)["key"]]
                yield line
        except lost_workers() as error:
            # a break behind finished points may be bad luck; several without one are a fault that stays
            breaks = 1 if len(missing) < before else breaks + 1
            if breaks >= MOST_BREAKS:
                raise SimulatorError(
                    f"the workers died {breaks} times without finishing a point ({error}); is there "
                    "memory for them? take fewer --workers, replications or tokens"
                ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _from_one(left: Mapping[str, str], pool: Executor, ahead: int) -> Iterator[str]:
    """Lines from one executor, never more than `ahead` points on their way."""
    coming, waiting = iter(left.items()), set[Future[str]]()
    while True:
        for key, payload in coming:
            waiting.add(pool.submit(evaluate_point, key, payload))
            if len(waiting) >= ahead:
                break
        if not waiting:
            return
        ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in ready:
            yield future.result()


def parquet_bytes(sweep: Sweep, rows: Mapping[str, Row]) -> bytes:
    """The table of all points in the order of the sweep; the columns are those of the module's docstring."""
    import pyarrow
    from pyarrow import parquet

    columns: dict[str, Any] = {}
    for at, axis in enumerate(sweep.axes):
        values = [point.values[at][1] for point in sweep.points]
        numbers = [number(value) for value in values]
        plain = [str(value) for value in values] if None in numbers else numbers
        columns[axis.path] = pyarrow.array(plain, pyarrow.string() if None in numbers else pyarrow.float64())
    keyed = [{**rows[key], "key": key} for key, _ in sweep.tasks]
    for name in (f"{metric}_{part}" for metric in METRICS for part in PARTS):
        columns[name] = pyarrow.array([row.get(name, math.nan) for row in keyed], pyarrow.float64())
    for name in WORDS:
        columns[name] = pyarrow.array([row.get(name, "") for row in keyed], pyarrow.string())
    about = {"scenario": sweep.scenario.name, "seed": str(sweep.scenario.seed), "version": VERSION}
    table = pyarrow.table(columns).replace_schema_metadata(about)
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())
