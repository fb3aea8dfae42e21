"""`sim swarm`: servers that come, choose their blocks and go, and what their users get."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.json_output import Json, json_text, print_json
from sim.run_cmd import ScenarioFile, Seed, load_scenario, progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from simulator.scenario import Scenario
    from simulator.swarm.study import SwarmAnswer

__all__ = ["swarm"]


def swarm(
    scenario: ScenarioFile,
    hours: Annotated[
        float | None, typer.Option(min=0.01, max=744, help="Of the swarm; default: the scenario's.")
    ] = None,
    whole: Annotated[
        str | None,
        typer.Option(help="Also: how many servers of each kind keep all blocks served so long, as 99%."),
    ] = None,
    repaired: Annotated[
        bool | None,
        typer.Option(
            "--repaired/--as-shipped",
            help="Whether clients get over a loss in mid-reply; default: as the scenario says.",
        ),
    ] = None,
    one_more: Annotated[
        bool, typer.Option("--one-more", help="Also: what one server more of each kind brings.")
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="SCENARIO",
            help="Also: another scenario beside it, a swarm or devices that somebody places.",
        ),
    ] = None,
    dask: Annotated[str | None, typer.Option(help="Use the Dask cluster at tcp://scheduler:8786.")] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=1024, help="Processes here; 1 computes without further ones.")
    ] = 1,
    charts: Annotated[bool, typer.Option(help="Draw the charts.")] = True,
    out: Annotated[Path | None, typer.Option(help="Folder; default results/swarm-<scenario>.")] = None,
    as_json: Json = False,
    seed: Seed = None,
    replications: Annotated[int, typer.Option(min=1, max=1000, help="Swarms with other luck.")] = 3,
) -> None:
    """Simulate a Petals swarm: tokens/s of its users, blocks that nobody serves, time lost to recoveries."""
    from simulator.files import make_folder
    from simulator.plan.sweep.workers import dask_cluster, local_processes
    from simulator.swarm.population import setting
    from simulator.swarm.study import enough, rows_of, swarm_answer
    from simulator.swarm.study import one_more as gains_of

    # before the work: hours of a swarm are not simulated only to refuse an option
    share = None if whole is None else _share(whole)
    asked = _changed(load_scenario(scenario, seed), hours, repaired)
    other = None if against is None else _changed(load_scenario(against, seed), hours, repaired)
    setting(asked)
    folder = out or Path("results") / f"swarm-{asked.name}"
    if out is not None or not as_json:
        make_folder(folder)
    executor = dask_cluster(dask) if dask else local_processes(workers) if workers > 1 else None
    with progress_bar(quiet=as_json) as progress:
        rows = rows_of(asked, replications, executor, lambda done: progress(done, replications))
    answer = swarm_answer(asked, rows)
    document: dict[str, Any] = answer.model_dump(mode="json")
    if share is not None:
        kinds = asked.swarm.population if asked.swarm else {}
        document["enough"] = {kind: enough(asked, kind, share, replications, executor) for kind in kinds}
    if one_more:
        document["one_more"] = [gain.model_dump() for gain in gains_of(asked, rows, executor)]
    if other is not None:
        document["against"] = _beside(answer, other, replications, executor)
    if as_json:
        print_json(document)
    if out is not None or not as_json:
        _write(asked, answer, rows, document, folder, charts=charts)
    if not as_json:
        _print(answer, document, folder)


def _changed(scenario: Scenario, hours: float | None, repaired: bool | None) -> Scenario:
    """The scenario with what the options say of its swarm."""
    if scenario.swarm is None:
        return scenario
    changes: dict[str, Any] = {} if hours is None else {"hours": hours}
    if repaired is not None:
        changes["repairs"] = ("eof", "replay", "del") if repaired else ()
    return scenario.model_copy(update={"swarm": scenario.swarm.model_copy(update=changes)})


def _beside(
    answer: SwarmAnswer, other: Scenario, replications: int, executor: Callable[[], Executor] | None
) -> dict[str, Any]:
    """What another scenario gives: its swarm, or where it has none one chat on devices as they are placed."""
    from simulator.run.predict import predict
    from simulator.swarm.study import rows_of, swarm_answer

    found: Any
    if other.swarm is not None:
        found = swarm_answer(other, rows_of(other, replications, executor))
    else:
        found = predict(other, with_what_ifs=False).summary
    rates = [one.tokens_per_s.median if one.tokens_per_s else 0.0 for one in (found, answer)]
    told = {
        name: one.model_dump(mode="json") if (one := getattr(found, name, None)) else None
        for name in ("tokens_per_s", "first_token_s", "whole")
    }
    return {"scenario": other.name, **told, "times_as_fast": rates[0] / rates[1] if rates[1] else None}


def _share(text: str) -> float:
    """A share of the time; raises SimulatorError for what is none."""
    from simulator.errors import SimulatorError, UnitError
    from simulator.units import SHARE, read_quantity

    try:
        share = read_quantity(text, SHARE)
    except UnitError as error:
        raise SimulatorError(f"--whole: {error}") from None
    if not 0 < share <= 1:
        raise SimulatorError(f"--whole is {text!r} and must be a share of the time, as 99%")
    return share


def _write(
    asked: Scenario,
    answer: SwarmAnswer,
    rows: list[dict[str, Any]],
    document: dict[str, Any],
    folder: Path,
    *,
    charts: bool,
) -> None:
    """`scenario.yaml`, `swarm.json` and the charts."""
    from simulator.files import dumps, write_ours

    write_ours(folder / "scenario.yaml", dumps(asked, asked.question or asked.name))
    write_ours(folder / "swarm.json", json_text(document))
    if charts:
        from simulator.result.drawing import save_charts
        from simulator.swarm.picture import swarm_charts

        save_charts(swarm_charts(answer, rows), asked.name, asked.question or asked.name, folder)


def _print(answer: SwarmAnswer, document: dict[str, Any], folder: Path) -> None:
    """The answer for a terminal."""
    print(f"{answer.scenario}  {answer.question}")
    print(f"{answer.servers} servers, {answer.hours:g} h; median [5 %, 95 %] over replications")
    for title, value, unit in (
        ("tokens/s of a reply", answer.tokens_per_s, ""),
        ("  of the slowest 5 %", answer.tokens_per_s_slow, ""),
        ("first token", answer.first_token_s, "s"),
        ("  of the slowest 5 %", answer.first_token_slow_s, "s"),
        ("all chats together", answer.all_tokens_per_s, "tokens/s"),
        ("losses in mid-reply", answer.losses_per_hour, "per hour"),
        ("  recovered in", answer.recovery_s, "s"),
        ("servers that moved", answer.moves_per_hour, "per hour"),
    ):
        print(f"  {title:22} {value.text(unit) if value else 'none'}")
    print(
        f"replies: {answer.completed.median:.1%} complete, {answer.lost.median:.1%} lost, "
        f"{answer.refused.median:.1%} given up before the first token"
    )
    least, mean, most = answer.servers_per_block
    print(f"all blocks served {answer.whole.median:.2%} of the time")
    print(f"servers per block {least:.3g} to {most:.3g}, {mean:.3g} in the mean")
    missing = [f"{block} ({share:.1%})" for block, share in answer.scarce if share]
    print(f"missing longest: blocks {', '.join(missing)}" if missing else "no block was ever missing")
    for cause, share in answer.lost_share.items():
        print(f"  lost to {cause}: {share.median:.2%} of users' time")
    for kind, count in document.get("enough", {}).items():
        print(f"  enough of {kind}: {count}")
    for gain in document.get("one_more", ()):
        print(
            f"  one more {gain['kind']}: {gain['all_tokens_per_s']:+.3g} tokens/s, all blocks served "
            f"{gain['whole']:+.2%}"
        )
    if "against" in document:
        _print_beside(document["against"])
    print(f"{answer.replications} replications; files in {folder}")


def _print_beside(other: dict[str, Any]) -> None:
    """One line on the other scenario."""
    from simulator.result.estimate import Estimate

    said = [
        f"{title} {Estimate.model_validate(other[name]).text(unit)}"
        for name, title, unit in (
            ("tokens_per_s", "", "tokens/s"),
            ("first_token_s", "first token after", "s"),
        )
        if other[name]
    ]
    if other["whole"]:
        said.append(f"all blocks served {other['whole']['median']:.2%} of the time")
    times = other["times_as_fast"]
    told = "" if times is None else f" ({times:.2g} times as fast)"
    print(f"against {other['scenario']}: {', '.join(one.strip() for one in said) or 'no reply ends'}{told}")
