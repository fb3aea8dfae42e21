"""`sim calibrate`, `sim predict`, `sim validate`, `sim ledger`:
from measurements to laws, and from predictions to a record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from sim.json_output import Json, print_json
from sim.run_cmd import Replications, ScenarioFile, Seed, load_scenario
from sim.work import begin_work, tokens_of

if TYPE_CHECKING:
    from calibrate.validation import LedgerPrediction
    from simulator.scenario import Scenario

__all__ = ["calibrate", "ledger", "predict", "validate_app"]

CalibrationFile = Annotated[Path | None, typer.Option("--calibration", help="A file of `sim calibrate`.")]
LedgerFile = Annotated[Path, typer.Option("--ledger-file", help="The ledger to append to.")]
DEFAULT_LEDGER = Path("results/ledger.jsonl")


class _PairByDefault(TyperGroup):
    """`sim validate PREDICTION MEASUREMENT` without a subcommand's name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        # a first word that is no subcommand is a file
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args.insert(0, "pair")
        return super().resolve_command(ctx, args)


validate_app = typer.Typer(
    cls=_PairByDefault,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Hold predictions against measurements: PREDICTION MEASUREMENT, or one of the commands below.",
)


def calibrate(
    measurements: Annotated[
        list[Path],
        typer.Argument(
            help="Measurement files of `sim live run`, packed (.gz) or not; or results of llama-bench, EXO "
            "bench, mlx_lm, vllm bench or llama-server, of which one device's speed is made."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="What to write; default calibration.yaml, of benchmarks none."),
    ] = None,
    draws: Annotated[int, typer.Option(min=20, max=2000, help="Bootstrap draws.")] = 500,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 1,
    device: Annotated[
        str | None,
        typer.Option(help="Benchmarks: the device that was measured, as `sim catalog devices` calls it."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Benchmarks: what to call the device; also of one that is not known.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Benchmarks: the model that was run.")] = None,
    quantisation: Annotated[str | None, typer.Option(help="Benchmarks: its quantisation.")] = None,
    prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="vllm bench latency: its --input-len.")
    ] = None,
    output_tokens: Annotated[
        int | None, typer.Option(min=1, help="vllm bench latency: its --output-len.")
    ] = None,
    chats: Annotated[int | None, typer.Option(min=1, help="vllm bench latency: its --batch-size.")] = None,
    as_json: Json = False,
) -> None:
    """Fit device speeds, overheads and noise to measured token times; or a device's speed to benchmarks."""
    from calibrate.calibration import calibrate as fit_all
    from calibrate.calibration import save_calibration
    from calibrate.report import calibration_table
    from sim.benchmark_cmd import benchmark_paths, calibrate_benchmarks
    from simulator.files.ours import refuse_others

    if benchmarks := benchmark_paths(measurements):
        calibrate_benchmarks(
            benchmarks,
            out=out,
            device=device,
            name=name,
            model=model,
            quantisation=quantisation,
            request=(prompt_tokens, output_tokens, chats),
            as_json=as_json,
        )
        return
    target = out or Path("calibration.yaml")
    refuse_others(target.parent, {target.name: None})  # before the work of minutes
    calibration = fit_all(measurements, draws=draws, seed=seed)
    save_calibration(calibration, target)
    if as_json:
        print_json(calibration.model_dump(mode="json"))
        return
    print("\n".join(calibration_table(calibration)))
    for warning in calibration.warnings:
        print(f"doubt: {warning}")
    print(f"wrote {target}; next: sim run SCENARIO --calibration {target}")


def predict(
    scenario: ScenarioFile,
    calibration: CalibrationFile = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Default: <scenario>.prediction.json.")
    ] = None,
    to_ledger: Annotated[
        bool, typer.Option("--ledger", help="Append the prediction to the ledger, before it is measured.")
    ] = False,
    ledger_file: LedgerFile = DEFAULT_LEDGER,
    kind: Annotated[
        str, typer.Option(help="What is new: new split, new order, slower device, new link, ...")
    ] = "unknown",
    seed: Seed = None,
    replications: Replications = None,
) -> None:
    """Write down a prediction that is to be held against a measurement."""
    from calibrate.ledger import append
    from calibrate.validation import KINDS, MEDIAN, predict_sessions
    from simulator.files import write_ours

    if kind not in KINDS:
        raise typer.BadParameter(f"--kind is {kind!r} and must be one of {', '.join(KINDS)}")
    asked = load_scenario(scenario, seed, replications)
    hash_, trained = "", tuple[str, ...]()
    if calibration is not None:
        asked, hash_, trained = _applied(calibration, asked)
    begin_work(asked, tokens_of(asked), kept=tokens_of(asked))
    prediction = predict_sessions(asked, kind=kind, calibration_sha256=hash_, trained_on=trained)  # type: ignore[arg-type]
    path = out or Path(f"{asked.name}.prediction.json")
    write_ours(path, prediction.model_dump_json(indent=2) + "\n")
    if to_ledger:
        append(ledger_file, prediction)
    low, high = prediction.median_gap_s[0] * 1e3, prediction.median_gap_s[-1] * 1e3
    print(
        f"{asked.name}: median inter-token time {prediction.median_gap_s[MEDIAN] * 1e3:.1f} ms [{low:.1f}, "
        f"{high:.1f}]"
    )
    print(f"wrote {path}" + (f" and appended it to {ledger_file}" if to_ledger else ""))


def _applied(path: Path, asked: Scenario) -> tuple[Scenario, str, tuple[str, ...]]:
    """The scenario with a calibration, the hash of that, and those of the measurements that trained it."""
    from hashlib import sha256

    from calibrate.applied import apply
    from calibrate.calibration import load_calibration

    loaded = load_calibration(path)
    applied = apply(loaded, asked)
    for warning in applied.warnings:
        print(f"doubt: {warning}")
    # so that `sim validate` can refuse to test a fit on what it was fitted to
    trained = tuple(source.sha256 for source in loaded.sources)
    return applied.scenario, sha256(path.read_bytes()).hexdigest(), trained


@validate_app.command("pair")
def pair(
    prediction: Annotated[Path, typer.Argument(help="A file of `sim predict`.")],
    measurement: Annotated[Path, typer.Argument(help="A measurement that did not train its calibration.")],
    ledger_file: LedgerFile = DEFAULT_LEDGER,
) -> None:
    """Append how a prediction fared to the ledger."""
    from calibrate.ledger import append
    from calibrate.samples import sample
    from calibrate.validation import validate
    from simulator.result.measurement import read_measurement

    outcome = validate(_prediction(prediction), sample(read_measurement(measurement)))
    append(ledger_file, outcome)
    print(
        f"{outcome.name}: predicted {outcome.predicted_median_gap_s * 1e3:.1f} ms, measured "
        f"{outcome.median_gap_s * 1e3:.1f} ms ({outcome.median_error:+.1%}), "
        f"{'inside' if outcome.in_90 else 'outside'} the 90 % interval; p99 {outcome.p99_error:+.0%}, "
        f"first token {outcome.first_token_error:+.0%}; its runs differ by {outcome.repeatability:.1%}"
    )


def _prediction(path: Path) -> LedgerPrediction:
    from calibrate.validation import LedgerPrediction
    from simulator.files import load

    # JSON is YAML, whose reader tells every fault with its line
    return load(path, LedgerPrediction)


@validate_app.command("published")
def published(
    scenarios: Annotated[Path, typer.Option(help="Folder with the published rows as scenarios.")] = Path(
        "scenarios/published"
    ),
    row: Annotated[list[str] | None, typer.Option(help="Only this row; several times.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("results/published"),
    open_counted: Annotated[
        bool,
        typer.Option(
            "--open-counted",
            help="Show single rows of the part that is only counted too: the last thing to do.",
        ),
    ] = False,
) -> None:
    """Predict published measurements from the catalogue alone; by group, beside baselines, with causes."""
    from calibrate.ground.cases import load_cases
    from calibrate.ground.predict import chosen, predict_cases
    from calibrate.ground.report import write_ground
    from calibrate.ground.rows import parts, rows
    from simulator.library import find_folder

    table = {one.row: one for one in rows()}
    cases = chosen(load_cases(find_folder(scenarios)), row or (), table, parts())
    outcomes = list(predict_cases(cases, table, parts(), _progress(len(cases))))
    print(write_ground(cases, outcomes, list(table.values()), out, open_counted=open_counted))


def _progress(total: int) -> Callable[[str], None]:
    """Say on standard error which of how many rows is next."""
    done = count(1)
    return lambda row: typer.echo(f"{next(done)}/{total} {row}", err=True)


@validate_app.command("study")
def study(
    scenarios: Annotated[Path, typer.Argument(help="Folder of scenarios.")],
    train: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of a scenario to calibrate on; several times. Default: those that the folder's "
            "training.txt names, else what `sim live design` proposes."
        ),
    ] = None,
    design: Annotated[
        str | None,
        typer.Option(
            help="Scenario whose devices and links the proposed placements take; default: the plainest."
        ),
    ] = None,
    runs: Annotated[int, typer.Option(min=2, max=40, help="Placements to propose.")] = 7,
    cluster: Annotated[str, typer.Option(help="local, or llama-rpc://host:port,...")] = "local",
    out: Annotated[
        Path, typer.Option(help="Folder for measurements, calibration, ledger and report.")
    ] = Path("results/study"),
    rounds: Annotated[int, typer.Option(min=1, max=20, help="Visits to each scenario.")] = 2,
) -> None:
    """The whole circle, unattended: design, measure, calibrate, predict, measure what was
    predicted, validate, report.
    """
    from calibrate.design import propose
    from calibrate.report import write_circle
    from calibrate.study import circle, plainest
    from live.local.run import measure
    from sim.live_local_cmd import endpoints_of

    train = train or ([] if design else _training_of(scenarios))
    known = _scenarios_in(scenarios, [*train, *([design] if design else [])])
    if train:
        training, how = [known[name] for name in train], "chosen by name"
    else:
        base = known[design] if design else plainest(list(known.values()))
        training = [one.scenario for one in propose(base, runs, asked=list(known.values()))]
        how = f"proposed on the devices of {base.name} for what all scenarios of the folder ask"
    made = circle(
        training,
        [scenario for name, scenario in known.items() if name not in train],
        lambda asked, folder: measure(
            asked,
            folder,
            lambda text: typer.echo(text, err=True),
            rounds=rounds,
            endpoints=endpoints_of(cluster),
        ),
        out,
    )
    write_circle(made, out, f"Study of {scenarios}", how)
    typer.echo((out / "report.md").read_text(encoding="utf-8"))


def _training_of(folder: Path) -> list[str]:
    """The scenarios that a folder itself wants to be calibrated on, none for most.

    A proposal knows layers alone, and not that two strategies are to be told apart.
    """
    from simulator.library import find_folder

    file = find_folder(folder) / "training.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [name for line in lines if (name := line.partition("#")[0].strip())]


def _scenarios_in(folder: Path, wanted: list[str]) -> dict[str, Scenario]:
    """The scenarios of a folder by their files' names; raises CalibrationError where a `wanted` one lacks."""
    from simulator.errors import CalibrationError
    from simulator.library import find_folder, load

    known = {path.stem: load(path) for path in sorted(find_folder(folder).glob("*.yaml"))}
    if not known:
        raise CalibrationError(
            f"{folder}: no scenario files (*.yaml) there; name a folder with some, as scenarios/local"
        )
    missing = [name for name in wanted if name not in known]
    if missing:
        raise CalibrationError(f"{folder}: no scenario {', '.join(missing)}; there are {', '.join(known)}")
    return known


def ledger(
    ledger_file: Annotated[
        Path | None, typer.Option("--ledger-file", help="One ledger; default: every one below --results.")
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder whose ledgers are read, by ground.")] = Path(
        "results"
    ),
    out: Annotated[Path | None, typer.Option(help="Folder for a report with charts.")] = None,
    as_json: Json = False,
) -> None:
    """Show every prediction that was put to the test, hits and misses; on all grounds, or of one ledger."""
    if ledger_file is not None:
        _one_ledger(ledger_file, out, as_json)
        return
    from calibrate.trials import standing, trials, worst
    from calibrate.trials_report import by_ground, text, write_ledger

    left_out: list[str] = []
    found = trials(results, left_out.append)
    _say_left_out(left_out)
    if as_json:
        print_json(
            {
                "grounds": [standing(name, ones).model_dump() for name, ones in by_ground(found).items()],
                "misses": [trial.model_dump() for trial in worst(found)],
            }
        )
    else:
        print(text(found))
    if out is not None:
        write_ledger(found, out)


def _say_left_out(faults: Sequence[str]) -> None:
    """What of the files could not be used, to standard error; a wrong file has faults in every line."""
    for fault in faults[:20]:
        typer.echo(fault, err=True)
    if len(faults) > 20:
        typer.echo(f"{len(faults) - 20} more lines are left out", err=True)


def _one_ledger(ledger_file: Path, out: Path | None, as_json: bool) -> None:
    from calibrate.ledger import by, read_ledger, summary
    from calibrate.report import summary_line, validation_table, write_report
    from simulator.errors import CalibrationError

    found = read_ledger(ledger_file)
    rows = found.validations
    if not rows:
        none = (
            f"{ledger_file}: {len(found.predictions)} predictions and no outcome yet; measure and "
            "`sim validate`"
        )
        raise CalibrationError("\n".join([none, *found.faults[:20]]))
    _say_left_out(found.faults)
    # a placement that trained, measured again, is no test of the physics: it is listed, and
    # counts in its own line only
    new = [row for row in rows if row.kind != "repeat"] or rows
    groups = {
        f"{engine}: {kind}": group
        for engine, ones in by(rows, lambda row: row.engine).items()
        for kind, group in by(ones, lambda row: row.kind).items()
    }
    if as_json:
        print_json(
            {
                "all": summary(new),
                "groups": {name: summary(group) for name, group in groups.items()},
                "rows": [row.model_dump(mode="json") for row in rows],
            }
        )
    else:
        print("\n".join(validation_table(rows)))
        for name, group in groups.items():
            print(f"{name}: {summary_line(group)}")
        print(summary_line(new))
    if out is not None:
        write_report(
            out,
            "The ledger",
            [f"All of {ledger_file}; repeats of what trained are in the table only."],
            new,
            validation_table(rows),
        )
