"""`sim sensitivity`: which inputs move a scenario's figure, what to measure next, what to upgrade next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sim.json_output import Json, json_text, print_json
from sim.run_cmd import ScenarioFile, Seed, load_scenario
from sim.work import begin_long

if TYPE_CHECKING:
    from simulator.plan.sweep.sensitivity import Sensitivity

__all__ = ["sensitivity"]

SHOWN = 12


def sensitivity(
    scenario: ScenarioFile,
    metric: Annotated[str, typer.Option(help="tokens_per_s or first_token_s.")] = "tokens_per_s",
    points: Annotated[
        int, typer.Option(min=2, max=2**20, help="Base sample of the Sobol design, a power of 2.")
    ] = 512,
    as_json: Json = False,
    out: Annotated[
        Path | None, typer.Option(help="Default results/<scenario>_sensitivity; with --json none.")
    ] = None,
    seed: Seed = None,
    charts: Annotated[bool, typer.Option(help="Draw the tornado chart.")] = True,
) -> None:
    """Say which inputs move tokens/s most: each over its interval, and total-order Sobol indices."""
    from simulator.plan.sweep.sensitivity import sensitivity as find

    result = find(load_scenario(scenario, seed), _metric(metric), points, _begin)
    document = result.model_dump()
    if as_json:
        print_json(document)
        # a document was asked for; files only where their folder was named too
        if out is None:
            return
    folder = out or Path("results") / f"{result.scenario}_sensitivity"
    _write(result, json_text(document), folder, charts)
    if not as_json:
        _print(result, folder)


def _begin(evaluations: int, seconds: float, needs_bytes: float) -> None:
    begin_long(f"{evaluations:,} points to evaluate", seconds, "--points", needs_bytes)


def _metric(name: str) -> Literal["tokens_per_s", "first_token_s"]:
    if name not in ("tokens_per_s", "first_token_s"):
        raise typer.BadParameter(f"--metric is {name!r} and must be tokens_per_s or first_token_s")
    return name  # type: ignore[return-value]


def _write(result: Sensitivity, text: str, folder: Path, with_chart: bool) -> None:
    from simulator.files import make_folder, write_ours

    make_folder(folder)
    write_ours(folder / "sensitivity.json", text)
    if with_chart:
        from simulator.plan.sweep.sensitivity_chart import tornado
        from simulator.result.drawing import save_pictures

        save_pictures({"tornado": tornado(result).to_dict()}, folder)


def _print(result: Sensitivity, folder: Path) -> None:
    from sim.console import console_here
    from sim.table import print_table

    console = console_here()
    unit = "tokens/s" if result.metric == "tokens_per_s" else "s to the first token"
    console.marked(result.scenario, "bold", f"  {result.base:.3g} {unit} with every input at its median")
    rows = [row for row in result.influences if row.swing > 0]
    cells = [
        (
            row.what,
            f"{row.factor_p05:.2f} .. {row.factor_p95:.2f}",
            f"{row.at_p05:.3g} .. {row.at_p95:.3g}",
            f"{row.total_order:.1%}",
            f"{row.if_twice_as_good:+.1%}",
        )
        for row in rows[:SHOWN]
    ]
    heads = ("input", "factor 5 .. 95 %", f"{unit} there", "variance", "twice as good")
    if cells:
        print_table(console, heads, cells, wraps=("input",))
    if len(rows) > SHOWN:
        console.print(
            f"and {len(rows) - SHOWN} inputs that move less; {len(result.influences) - len(rows)} move "
            "nothing"
        )
    console.print(
        f"\n{result.measure_next}\n{result.upgrade_next}\n{result.evaluations} evaluations; files in {folder}"
    )
