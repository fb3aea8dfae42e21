"""`sim sweep` and `sim load`: many scenarios at once, and many chats on one cluster."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.json_output import Json, print_json
from sim.run_cmd import Replications, ScenarioFile, Seed, load_scenario, progress_bar
from sim.work import begin_work, tokens_of

if TYPE_CHECKING:
    from simulator.plan.load.arrivals import Bound, Crossover, LoadPoint
    from simulator.plan.sweep.sweep import Row, Sweep
    from simulator.scenario import Scenario

__all__ = ["load", "sweep"]

POINT_BYTES = 3000
"""That a point takes until the table is written: its scenario as JSON, its key, its row."""
LOOKED_AT = 50
"""Points of a sweep whose work is counted, to know that of all."""
FirstToken = Annotated[
    str, typer.Option(help="Chats whose first token comes within this count, for example 10s.")
]
Rate = Annotated[float, typer.Option(min=0, help="... and whose tokens then follow at this rate (tokens/s).")]
Charts = Annotated[bool, typer.Option(help="Draw the charts.")]


def sweep(
    scenario: ScenarioFile,
    over: Annotated[
        list[str],
        typer.Option(
            help="path=1,2,4 or path=1ms..60ms[:log][:steps], for example devices.phone.link.rtt=1ms..60ms; "
            "repeat it."
        ),
    ],
    lhs: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="A Latin hypercube of so many points.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the sweep; default results/<scenario>-sweep.")
    ] = None,
    dask: Annotated[str | None, typer.Option(help="Use the Dask cluster at tcp://scheduler:8786.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Processes here; default: all cores.")
    ] = None,
    first_token: FirstToken = "10s",
    tokens_per_s: Rate = 0.0,
    charts: Charts = True,
    as_json: Json = False,
    seed: Seed = None,
    replications: Replications = None,
) -> None:
    """Run a scenario over a grid or a Latin hypercube of values; finished points are never computed again."""
    from simulator.plan.sweep.points import parse_axis
    from simulator.plan.sweep.sweep import plan_sweep, run_sweep
    from simulator.plan.sweep.workers import dask_cluster, local_processes

    asked = load_scenario(scenario, seed, replications)
    axes = [parse_axis(text) for text in over]
    count = lhs or prod(len(axis.values) for axis in axes)
    # before the points are laid out, which takes memory of its own
    begin_work(
        asked, count * tokens_of(asked), kept=count * POINT_BYTES // 8, workers=workers or os.cpu_count() or 1
    )
    planned = plan_sweep(asked, axes, lhs, _bound(first_token, tokens_per_s))
    folder = out or Path("results") / f"{asked.name}-sweep"
    # of a Dask cluster nobody here knows how many it has
    begin_work(asked, _tokens(planned), kept=tokens_of(asked), workers=workers or os.cpu_count() or 1)
    executor = dask_cluster(dask) if dask else local_processes(workers)
    with progress_bar(quiet=as_json) as progress:
        run_sweep(
            planned, folder, executor, workers=workers, progress=progress, say=partial(print, file=sys.stderr)
        )
    rows = _finish(planned, folder, charts)
    if as_json:
        print_json({"folder": str(folder), "points": len(planned.points), "rows": rows})
    else:
        _print_sweep(planned, rows, folder)


def _tokens(planned: Sweep) -> int:
    """Tokens of all points, by those of some: to read a million would be work of its own."""
    from simulator.scenario import Scenario

    every = max(1, len(planned.tasks) // LOOKED_AT)
    some = [json.loads(payload)["scenario"] for _, payload in planned.tasks[::every]]
    return len(planned.tasks) * sum(tokens_of(Scenario.model_validate(one)) for one in some) // len(some)


def _finish(planned: Sweep, folder: Path, charts: bool) -> list[Row]:
    """The rows in order, and the charts beside the table."""
    from simulator.plan.sweep.sweep import table_rows

    rows = table_rows(planned, folder)
    if charts:
        from simulator.plan.sweep.charts import sweep_charts
        from simulator.result.drawing import save_charts

        text = planned.scenario.question or "; ".join(axis.path for axis in planned.axes)
        if specs := sweep_charts(planned, rows):  # none where all points have failed, or give the same
            save_charts(specs, planned.scenario.name, text, folder)
    return rows


def _bound(first_token: str, tokens_per_s: float) -> Bound:
    from simulator.plan.load.arrivals import Bound
    from simulator.units import TIME, read_quantity

    return Bound(first_token_s=read_quantity(first_token, TIME), tokens_per_s=tokens_per_s)


def _print_sweep(planned: Sweep, rows: list[Row], folder: Path) -> None:
    """The best and the worst point, what failed, and where everything is."""
    from sim.console import console_here

    console, good = console_here(soft_wrap=True), [at for at, row in enumerate(rows) if not row.get("error")]
    console.marked(
        planned.scenario.name,
        "bold",
        f": {len(rows)} points over {', '.join(axis.path for axis in planned.axes)}",
    )
    good.sort(key=lambda at: -rows[at]["tokens_per_s_median"])
    for word, at in (("fastest", good[0]), ("slowest", good[-1])) if good else ():
        values = ", ".join(f"{path}={value}" for path, value in planned.points[at].values)
        row = rows[at]
        console.print(
            f"{word}: {row['tokens_per_s_median']:.3g} [{row['tokens_per_s_p05']:.3g}, "
            f"{row['tokens_per_s_p95']:.3g}] tokens/s at {values}"
        )
    failed = [row["error"] for row in rows if row.get("error")]
    if failed:
        console.print(f"{len(failed)} points have no result; the first: {failed[0]}")
    console.print(f"table {folder / 'sweep.parquet'}, charts {folder / 'charts.html'}")


def load(
    scenario: ScenarioFile,
    rates: Annotated[
        str, typer.Option(help="Poisson arrivals per hour: 5,20,60 or 5..200:log:8; '' takes the scenario's.")
    ] = "",
    first_token: FirstToken = "10s",
    tokens_per_s: Rate = 0.0,
    at_once: Annotated[int, typer.Option(min=1, max=256, help="Chats let in at once; others wait.")] = 8,
    chats: Annotated[int, typer.Option(min=2, max=10_000, help="Chats that come at each rate.")] = 20,
    most: Annotated[
        int, typer.Option(min=2, max=256, help="Chats at once up to which the crossover is drawn.")
    ] = 16,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for charts; default results/<scenario>-load, with --json none."),
    ] = None,
    charts: Charts = True,
    as_json: Json = False,
    seed: Seed = None,
    replications: Replications = 8,
) -> None:
    """Several chats: who is served in time at which rate of arrivals, and from how many chats
    the slowest stage counts.
    """
    from simulator.plan.load.arrivals import crossover

    asked = load_scenario(scenario, seed, replications)
    bound = _bound(first_token, tokens_per_s)
    tokens = asked.replications * chats * asked.workload.output_tokens
    begin_work(asked, tokens * (rates.count(",") + 1))
    with progress_bar(quiet=as_json) as progress:
        points = _points(asked, rates, bound, at_once, chats, progress)
    with progress_bar(quiet=as_json) as progress:
        found = crossover(asked, most, progress)
    if charts and not (as_json and out is None):
        _draw_load(asked, points, bound, found, out or Path("results") / f"{asked.name}-load")
    if as_json:
        print_json(
            {
                "bound": bound.model_dump(),
                "load": [point.model_dump() for point in points],
                "crossover": found.model_dump(),
            }
        )
    else:
        _print_load(points, found)


def _draw_load(
    asked: Scenario, points: tuple[LoadPoint, ...], bound: Bound, found: Crossover, folder: Path
) -> None:
    from simulator.plan.sweep.charts import crossover_chart, load_chart
    from simulator.result.drawing import save_charts

    specs = {"crossover": crossover_chart(found)}
    if len(points) > 1:  # one rate makes no curve
        specs["goodput"] = load_chart(points, bound)
    save_charts(specs, asked.name, asked.question, folder)


def _points(
    asked: Scenario, rates: str, bound: Bound, at_once: int, chats: int, progress: Any
) -> tuple[LoadPoint, ...]:
    """The scenario's own arrivals, or a curve over rates."""
    from simulator.errors import SimulatorError
    from simulator.plan.load.arrivals import load_curve, load_point
    from simulator.plan.sweep.points import number, parse_axis
    from simulator.prepare import prepare
    from simulator.scenario import ArrivalSpec

    if not rates and asked.workload.arrivals is not None:
        return (load_point(prepare(asked), bound),)
    wanted = [number(value) for value in parse_axis(f"rates={rates or '5..120:log:4'}").values]
    wrong = [rate for rate in wanted if rate is not None and rate <= 0]
    if wrong:
        raise SimulatorError(
            f"--rates: {wrong[0]:g} arrivals per hour cannot be; give numbers over 0, for example 5,20,60"
        )
    # without a rate there is none; the curve puts its own in
    spec = ArrivalSpec.model_construct(rate=1.0, times=None, chats=chats)
    workload = asked.workload.model_copy(update={"runs": 1, "concurrency": at_once, "arrivals": spec})
    return load_curve(
        asked.model_copy(update={"workload": workload}), [rate for rate in wanted if rate], bound, progress
    )


def _print_load(points: tuple[LoadPoint, ...], found: Crossover) -> None:
    from rich.table import Table

    from sim.console import console_here
    from sim.report import interval_s

    console, table = console_here(soft_wrap=True), Table(box=None, pad_edge=False)
    for title in (
        "arrivals/h",
        "met",
        "met chats/h",
        "tokens/s of a chat",
        "first token p50",
        "first token p95",
    ):
        table.add_column(title)
    for point in points:
        table.add_row(
            f"{point.arrivals_per_hour:.4g}",
            f"{point.share_met.median:.0%}",
            point.goodput_per_hour.text(),
            point.tokens_per_s.text(),
            interval_s(point.first_token_p50_s),
            interval_s(point.first_token_p95_s),
        )
    console.print(table)
    table = Table(box=None, pad_edge=False)
    for title in ("chats at once", "tokens/s of all", "bound by the sum", "bound by the slowest stage"):
        table.add_column(title)
    for row in found.rows:
        table.add_row(
            str(row.chats), row.total_tokens_per_s.text(), f"{row.by_sum:.3g}", f"{row.by_slowest:.3g}"
        )
    console.print(table)
    console.print(
        f"{found.engine} decodes all chats in step, so the sum of stages is the limit for any number of them"
        if found.in_step
        else f"beyond {found.at_chats:.2g} chats the slowest stage is the limit"
    )
