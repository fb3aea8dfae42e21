"""`sim run`, `sim compare`, `sim schema`, `sim init`: from a scenario file to an answer."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sim.json_output import Json, print_json
from sim.work import begin_work, tokens_of

if TYPE_CHECKING:
    from importlib.abc import Traversable

    from simulator.scenario import Scenario

__all__ = ["compare", "init", "load_scenario", "progress_bar", "run", "schema"]

ScenarioFile = Annotated[Path, typer.Argument(help="A scenario file, or the name of one, as five_devices.")]
NAMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,59}\Z")
"""What a scenario may be called."""
Seed = Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="Replaces the scenario's seed.")]
Replications = Annotated[
    int | None, typer.Option(min=1, max=100_000, help="Replaces the scenario's replications.")
]


def run(
    scenario: ScenarioFile,
    as_json: Json = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results; default results/<scenario>, with --json none.")
    ] = None,
    seed: Seed = None,
    replications: Replications = None,
    calibration: Annotated[Path | None, typer.Option(help="A file of `sim calibrate`.")] = None,
    evaluator: Annotated[str, typer.Option(help="auto, recursion or simpy.")] = "auto",
    perfetto: Annotated[bool, typer.Option(help="Write a Perfetto trace of one replication too.")] = False,
    charts: Annotated[bool, typer.Option(help="Draw the charts.")] = True,
    measured: Annotated[
        str | None,
        typer.Option(
            help="Tokens/s that you got, or a benchmark's file: is that inside, and if not, why not?"
        ),
    ] = None,
) -> None:
    """Predict tokens/s of a scenario, how sure that is, and what limits it."""
    from sim.benchmark_cmd import measured_rate
    from simulator.run.held_against import held_against
    from simulator.run.predict import predict

    asked = load_scenario(scenario, seed, replications)
    rate, doubts = (None, tuple[str, ...]()) if measured is None else measured_rate(measured, asked)
    if calibration is not None:
        from calibrate.applied import apply
        from calibrate.calibration import load_calibration

        applied = apply(load_calibration(calibration), asked)
        asked, doubts = applied.scenario, (*doubts, *applied.warnings)
    chosen, tokens = _evaluator(evaluator), tokens_of(asked)
    begin_work(asked, tokens, kept=tokens, evaluator=chosen)
    with progress_bar(quiet=as_json) as progress:
        prediction = predict(asked, evaluator=chosen, progress=progress, doubts=doubts)
    held = rate and held_against(prediction.prepared, prediction.summary.tokens_per_s, rate)
    if as_json:
        print_json(prediction.document() | ({"measured": held.model_dump()} if held else {}))
        # a document was asked for; files only where their folder was named too
        if out is None:
            return
    folder = out or Path("results") / prediction.scenario.name
    from simulator.result.folder import write_folder

    with progress_bar(quiet=as_json):
        write_folder(prediction, folder, with_charts=charts, with_perfetto=perfetto)
    if not as_json:
        from sim.report import print_held_against, print_prediction

        print_prediction(prediction, folder)
        if held:
            print_held_against(held)


def compare(
    scenarios: Annotated[
        list[Path],
        typer.Argument(
            help="Two or more scenarios, the first is the reference; or one, for pipeline against tensor."
        ),
    ],
    as_json: Json = False,
    seed: Seed = None,
    replications: Replications = None,
) -> None:
    """Rank scenarios on the same random numbers; with one device more, find its break-even."""
    from simulator.run.compare import compare as compare_scenarios
    from simulator.run.crossover import other_strategy

    loaded = [load_scenario(path, seed, replications) for path in scenarios]
    if len(loaded) == 1:
        loaded.append(other_strategy(loaded[0]))
    longest = max(loaded, key=tokens_of)
    begin_work(longest, sum(map(tokens_of, loaded)), kept=tokens_of(longest))
    with progress_bar(quiet=as_json):
        comparison = compare_scenarios(loaded)
    if as_json:
        print_json(comparison.model_dump())
        return
    from sim.report import print_comparison

    print_comparison(comparison)


def schema() -> None:
    """Print the JSON schema of scenario files, for editors."""
    from simulator.files import schema as schema_of
    from simulator.scenario import Scenario

    print_json(schema_of(Scenario))


def init(
    path: Annotated[Path | None, typer.Argument(help="The file to write; default my_scenario.yaml.")] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="Copy this scenario, with its comments.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The same, as an option.")] = None,
) -> None:
    """Write a commented scenario to start from: a first one, or with --from a copy of one that is known."""
    from importlib.resources import files

    from simulator.errors import SimulatorError
    from simulator.files import write_text_atomically
    from simulator.files.ours import is_keeping
    from simulator.library import find_scenario, load

    if path and out:
        raise typer.BadParameter(f"the file to write is given twice, as {path} and as -o {out}; give it once")
    template: Path | Traversable = files("sim").joinpath("starter.yaml")
    if source:
        load(source)  # says what is wrong with it, before it is copied
        template = find_scenario(source)
    target = path or out or Path(template.name if source else "my_scenario.yaml")
    if target.exists() and is_keeping():
        raise SimulatorError(f"{target} exists; give another name, or --force to replace it")
    text = template.read_text(encoding="utf-8")
    if source and NAMED.match(target.stem):  # a copy is another scenario: two of one name cannot be compared
        text = re.sub(r"(?m)^name: .*$", f"name: {target.stem}", text, count=1)
    write_text_atomically(target, text)
    print(f"wrote {target}; edit it, then: sim run {target}")


def load_scenario(path: Path, seed: int | None = None, replications: int | None = None) -> Scenario:
    """The scenario of a file or of a name, as `simulator.library.find_scenario` finds it."""
    from simulator.library import load

    scenario = load(path)
    changes: dict[str, Any] = {"seed": seed, "replications": replications}
    return scenario.model_copy(update={key: value for key, value in changes.items() if value is not None})


def _evaluator(name: str) -> Literal["auto", "recursion", "simpy"]:
    if name not in ("auto", "recursion", "simpy"):
        raise typer.BadParameter(f"--evaluator is {name!r} and must be auto, recursion or simpy")
    return name  # type: ignore[return-value]


class progress_bar:  # noqa: N801 (reads as a statement)
    """A bar on a terminal, silence elsewhere; shown only when the work takes longer than a moment."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet or not sys.stderr.isatty()
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> progress_bar:
        return self

    def __call__(self, done: int, total: int) -> None:
        # done before anything was shown: a bar that flashes tells nothing
        if self.quiet or (done >= total and self.bar is None):
            return
        if self.bar is None:
            from sim.console import progress_here

            # on standard error, which leaves standard output to the answer
            self.bar = progress_here(transient=True)
            self.bar.start()
            self.task = self.bar.add_task("simulating", total=total)
        self.bar.update(self.task, completed=done)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()
