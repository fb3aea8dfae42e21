"""`sim dropout` and `sim evening`: what a loss costs, and what an evening of
comings and goings looks like.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.json_output import Json, json_text, print_json
from sim.run_cmd import Replications, ScenarioFile, Seed, load_scenario
from sim.work import begin_work

if TYPE_CHECKING:
    from simulator.churn.estimate import Dropout
    from simulator.churn.options import LossOption
    from simulator.scenario import Scenario

__all__ = ["dropout", "evening", "with_drop"]


def dropout(
    scenario: ScenarioFile,
    device: Annotated[
        str | None, typer.Option(help="Drop this device, besides the scenario's own events.")
    ] = None,
    at_token: Annotated[
        int | None, typer.Option(min=1, help="With --device: when the reply has so many tokens.")
    ] = None,
    silent: Annotated[
        bool, typer.Option(help="With --device: power or link lost, nobody closes a connection.")
    ] = False,
    smaller: Annotated[
        str | None, typer.Option(help="Compare with this model on each half of the devices.")
    ] = None,
    failures_per_hour: Annotated[float, typer.Option(min=0.001, max=3600, help="For the comparison.")] = 1.0,
    away: Annotated[str, typer.Option(help="For the comparison: how long the device stays away.")] = "10 min",
    as_json: Json = False,
    out: Annotated[
        Path | None, typer.Option(help="Default results/dropout-<scenario>; with --json none.")
    ] = None,
    seed: Seed = None,
    replications: Replications = None,
    charts: Annotated[bool, typer.Option(help="Draw the recovery plot.")] = True,
) -> None:
    """Predict how long a reply stops when a device leaves, phase by phase, and how fast it goes on."""
    from simulator.churn.estimate import predict_dropout
    from simulator.churn.options import LossRate, options
    from simulator.scenario import ModelSpec
    from simulator.units import TIME, read_quantity

    asked = load_scenario(scenario, seed, replications)
    begin_work(asked, asked.replications * asked.workload.output_tokens, evaluator="simpy")
    losses = LossRate(failures_per_hour=failures_per_hour, away_s=read_quantity(away, TIME))
    predicted = predict_dropout(with_drop(asked, device, at_token, silent))
    compared = options(predicted, losses, ModelSpec(name=smaller) if smaller else None)
    document = predicted.document() | {"options": [option.model_dump() for option in compared]}
    if as_json:
        print_json(document)
    folder = out or Path("results") / f"dropout-{predicted.scenario.name}"
    if out is not None or not as_json:
        _write(predicted, document, folder, charts=charts)
    if not as_json:
        _print_dropout(predicted, compared, folder)


def evening(
    scenario: ScenarioFile,
    hours: Annotated[float, typer.Option(min=0.01, max=48, help="How long requests come.")] = 4.0,
    requests_per_hour: Annotated[
        float, typer.Option(min=0.1, max=1000, help="At random: a Poisson process.")
    ] = 12.0,
    as_json: Json = False,
    seed: Seed = None,
    replications: Annotated[int, typer.Option(min=1, max=1000, help="Evenings.")] = 5,
) -> None:
    """Simulate an evening on which devices come and go and requests come at random."""
    from simulator.churn.evening import predict_evening
    from simulator.churn.study import Evening

    asked = load_scenario(scenario, seed)
    tokens = round(hours * requests_per_hour * replications * asked.workload.output_tokens)
    begin_work(asked, tokens, evaluator="simpy")
    outcome = predict_evening(asked, Evening(hours, requests_per_hour), replications)
    document = outcome.document()
    if as_json:
        print_json(document)
        return
    print(f"{document['scenario']}  {document['question']}")
    print(f"{hours:g} h, {requests_per_hour:g} requests/h, {replications} evenings; median [5 %, 95 %]")
    for name, unit in (
        ("requests", ""),
        ("completed", "of them"),
        ("interrupted", "of them"),
        ("waiting_s", "s"),
        ("reply_s", "s"),
        ("recovery_s", "s"),
        ("tokens", ""),
    ):
        value = getattr(outcome, name)
        print(f"  {name.removesuffix('_s'):12} {value.text(unit) if value else 'none'}")


def with_drop(scenario: Scenario, device: str | None, at_token: int | None, silent: bool) -> Scenario:
    """The scenario with one drop more; raises SimulatorError where nothing would happen at all."""
    from simulator.churn.spec import Drop
    from simulator.errors import SimulatorError, did_you_mean

    if device is None:
        if not scenario.events and not any(spec.heat for spec in scenario.devices.values()):
            raise SimulatorError(
                f"{scenario.name} has no events; add `events:` to the file, or name a --device to drop"
            )
        return scenario
    if device not in scenario.devices:
        known = list(scenario.devices)
        raise SimulatorError(
            f"--device {device!r} is no device of {scenario.name}; devices are {', '.join(known)}"
            f"{did_you_mean(device, known)}"
        )
    # in the middle of the reply, if nobody says when
    middle = max(1, scenario.workload.output_tokens // 2)
    return scenario.model_copy(
        update={"events": (*scenario.events, Drop(device=device, at_token=at_token or middle, silent=silent))}
    )


def _write(predicted: Dropout, document: dict[str, Any], folder: Path, *, charts: bool) -> None:
    """`scenario.yaml`, `dropout.json` and the recovery plot."""
    from simulator.churn.picture import recovery_table, save
    from simulator.files import dumps, make_folder, write_ours

    make_folder(folder)
    scenario = predicted.scenario
    write_ours(folder / "scenario.yaml", dumps(scenario, scenario.question or scenario.name))
    write_ours(folder / "dropout.json", json_text(document))
    if charts and predicted.recovery_s is not None:
        save(recovery_table(predicted), folder, "recovery")


def _print_dropout(predicted: Dropout, compared: tuple[LossOption, ...], folder: Path) -> None:
    """The answer for a terminal."""
    scenario = predicted.scenario
    print(f"{scenario.name}  {scenario.question}")
    if predicted.recovery_s is None:
        print("the reply never went on after a loss" if predicted.interrupted else "no reply lost its ring")
    else:
        print(f"recovery {predicted.recovery_s.text('s')}  median [5 %, 95 %], {predicted.recovery_s.label}")
        for name, spent in predicted.phases.items():
            print(f"  {name:9} {spent.text('s')}")
    if predicted.regrown_s is not None:
        print(
            f"taking in who came back {predicted.regrown_s.text('s')}, from the next request to its first "
            "token"
        )
    for name, rate in (
        ("before", predicted.before_tokens_per_s),
        ("after", predicted.after_tokens_per_s),
        ("regrown", predicted.regrown_tokens_per_s),
    ):
        if rate is not None:
            print(f"{name:6} {rate.text('tokens/s')}")
    for per_hour, lost in predicted.lost_per_hour().items():
        if lost is not None:
            print(f"at {per_hour:g} losses/h: {lost.text('tokens lost per hour')}")
    for option in compared:
        print(
            f"  {option.name}: {option.tokens_per_hour.text('tokens/h')}, serving "
            f"{option.serving.median:.1%} of the time" + (f" ({option.note})" if option.note else "")
        )
    for reason, share in predicted.refusals:
        print(f"in {share:.0%} of the replications: {reason}")
    print(f"{len(predicted.traces)} replications, seed {scenario.seed}; files in {folder}")
