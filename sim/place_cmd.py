"""`sim place`: where to put the layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.json_output import Json, print_json
from sim.run_cmd import Replications, ScenarioFile, Seed, load_scenario, progress_bar
from sim.work import begin_work

if TYPE_CHECKING:
    from simulator.placement.shard import Placement
    from simulator.plan.place.search import PlacementAnswer
    from simulator.plan.place.strategies import Strategies
    from simulator.scenario import Scenario

__all__ = ["document", "find", "place"]

ROUNDING = 1e-9  # a smaller gap is none
WHOLE = {"ranking": {"__all__": {"scenario"}}}
"""Of a strategy, what `--out` writes to a file of its own."""
STANDS_IN = {"p99": "mean time of a token", "first-token": "mean time of a prompt without overlap"}
"""What the search minimises where it cannot minimise the objective."""


def place(
    scenario: ScenarioFile,
    objective: Annotated[str, typer.Option(help="chat, users, slowest-stage, p99 or first-token.")] = "chat",
    chats: Annotated[
        int | None, typer.Option(min=1, max=256, help="Chats at once; replaces the scenario's.")
    ] = None,
    as_json: Json = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the scenario with the best placement to this file.")
    ] = None,
    seed: Seed = None,
    replications: Replications = None,
) -> None:
    """Find the best placement: which devices, in which ring order, how many layers each, or all in parts."""
    from simulator.files.ours import refuse_others

    if out is not None:
        refuse_others(out.parent, {out.name: None})  # before the search
    asked = load_scenario(scenario, seed, replications)
    with progress_bar(quiet=as_json) as progress:
        answer, ways = find(asked, objective, chats, progress)
    if out is not None:
        _write(asked, answer, ways, objective, out)
    if as_json:
        print_json(document(answer, ways))
    else:
        _print(answer, ways, out)


def find(
    asked: Scenario,
    objective: str,
    chats: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[PlacementAnswer | None, Strategies | None]:
    """The best pipeline (None for an engine without one) and the best of each strategy; raises as both do."""
    from simulator.engine.base import engine
    from simulator.plan.place.search import search
    from simulator.plan.place.strategies import strategies

    answer = None
    if not engine(asked.engine.name).splits_layers or objective == "slowest-stage":
        # search refuses other words than its objectives
        answer = search(asked, objective, chats, progress, begin_work)  # type: ignore[arg-type]
    known = answer.best.placement if answer else None
    return answer, strategies(asked, objective, chats, begin_work, known)  # type: ignore[arg-type]


def document(answer: PlacementAnswer | None, ways: Strategies | None) -> dict[str, Any]:
    """What `find` found, as plain data."""
    from simulator.plan.place.forms import forms

    found: dict[str, Any] = {}
    if answer is not None:
        found |= {**answer.model_dump(), "ready_to_use": {form.key: form.document for form in forms(answer)}}
    return found | ({"strategies": ways.model_dump(exclude=WHOLE)} if ways else {})


def _write(
    asked: Scenario, answer: PlacementAnswer | None, ways: Strategies | None, objective: str, out: Path
) -> None:
    from simulator.files import dump
    from simulator.plan.place.trial import manual

    best = ways.ranking[0].scenario if ways else None
    if best is None:
        assert answer is not None
        assert answer.best.placement is not None
        best = asked.model_copy(update={"placement": manual(answer.best.placement)})
    about = f"Placement found by `sim place --objective {objective}`."
    dump(best, out, f"{asked.question or asked.name}\n{about}")


def _print(answer: PlacementAnswer | None, ways: Strategies | None, out: Path | None) -> None:
    from sim.console import console_here

    console = console_here(soft_wrap=True)
    if answer is not None:
        _print_pipeline(console, answer)
    if ways is not None:
        _print_strategies(console, ways)
    if out is not None:
        console.print(f"\nwrote {out}; see it with: sim run {out}")


def _print_strategies(console: Any, ways: Strategies) -> None:
    from rich.table import Table

    from sim.report import interval_s

    table = Table(box=None, pad_edge=False)
    for title in ("strategy", "devices", "tokens/s", "first token", "cost / best"):
        table.add_column(title)
    for way in ways.ranking:
        if way.placement is None or way.tokens_per_s is None or way.first_token_s is None:
            table.add_row(way.name, "refused, see below")
            continue
        rate, first = way.tokens_per_s.text(), interval_s(way.first_token_s)
        table.add_row(way.name, _layers(way.placement), rate, first, way.slower.text() if way.slower else "-")
    console.print("\nstrategies, each placed as well as it can be:")
    console.print(table)
    if ways.first_token_by != ways.ranking[0].name:
        console.print(f"the first token comes first with {ways.first_token_by}")
    for way in ways.ranking:
        if way.refused:
            console.marked(f"{way.name}:", "yellow", f" {way.refused}")
    console.print(f"not tried: {ways.not_tried}")


def _print_pipeline(console: Any, answer: PlacementAnswer) -> None:
    console.marked(
        answer.scenario,
        "bold",
        f" on {answer.engine}, {answer.chats} chat(s), objective {answer.objective}: {answer.meaning}",
    )
    console.print(_ring(answer))
    console.print(_table(answer))
    console.print(f"nobody can beat: {answer.bound.text()} {answer.bound_of}")
    console.print(_proof(answer))
    for option in answer.beside:
        if option.refused:
            console.marked(f"{option.name}:", "yellow", f" {option.refused}")
    for warning in answer.warnings:
        console.marked("doubt:", "yellow", f" {warning}")
    _print_forms(console, answer)


def _ring(answer: PlacementAnswer) -> Any:
    """The best ring, device by device."""
    from rich.table import Table

    from simulator.units import format_bytes

    table = Table(box=None, pad_edge=False)
    for title in ("rank", "device", "layers", "memory / cap"):
        table.add_column(title)
    assert answer.best.placement is not None
    held = {row.device: row for row in answer.memory}
    for rank, shard in enumerate(answer.best.placement.shards):
        layers = f"{shard.start_layer}-{shard.end_layer - 1} ({shard.layers})" if shard.layers else "none"
        row = held[shard.device]
        memory = f"{format_bytes(row.total_bytes)} / {format_bytes(row.cap_bytes)}"
        table.add_row(str(rank), shard.device, layers, memory)
    return table


def _table(answer: PlacementAnswer) -> Any:
    """The best and what is usual beside it, simulated on the same random numbers."""
    from rich.table import Table

    from sim.report import interval_s

    table = Table(box=None, pad_edge=False)
    for title in (
        "placement",
        "layers",
        "tokens/s",
        "all chats",
        "p99 between tokens",
        "first token",
        "cost / best",
    ):
        table.add_column(title)
    for option in (answer.best, *answer.beside):
        if option.refused or option.placement is None:
            table.add_row(option.name, "refused, see below")
            continue
        assert option.tokens_per_s is not None
        assert option.total_tokens_per_s is not None
        assert option.inter_token_p99_s is not None
        assert option.first_token_s is not None
        table.add_row(
            option.name,
            _layers(option.placement),
            option.tokens_per_s.text(),
            option.total_tokens_per_s.text(),
            interval_s(option.inter_token_p99_s),
            interval_s(option.first_token_s),
            option.gain.text() if option.gain else "-",
        )
    return table


def _layers(placement: Placement) -> str:
    """What each device holds: so many layers, or an equal part of each."""
    if placement.splits_layers:
        return f"1/{len(placement.shards)} each: {' '.join(placement.devices)}"
    return " ".join(f"{name}:{count}" for name, count in placement.layer_counts.items())


def _proof(answer: PlacementAnswer) -> str:
    proof, means = answer.proof, answer.optimum_of_means
    best = answer.best.placement
    assert best is not None
    stands_in = STANDS_IN.get(answer.objective)
    sure = "proven optimal" if proof.gap < ROUNDING else f"at most {proof.gap:.1%} above the least possible"
    if proof.is_of_average_layers:
        sure += " were all layers alike, which they are not"
    text = (
        f"searched all subsets, ring orders and layer counts: least {stands_in or 'mean cost'} "
        f"{proof.value_s:.6g} s, {sure}; {proof.simulated} placements simulated"
    )
    if stands_in:  # the objective itself has no closed form to prove anything about
        text += (
            f"; the proof is of that stand-in, not of the {answer.objective}, of which this is the best "
            "simulated"
        )
    if best.shards != means.shards:
        counts = " ".join(f"{name}:{count}" for name, count in means.layer_counts.items())
        text += f"; simulation prefers the answer above to the optimum of the means ({counts})"
    return text


def _print_forms(console: Any, answer: PlacementAnswer) -> None:
    from simulator.plan.place.forms import forms

    console.print()
    for line in (line for form in forms(answer) for line in form.lines):
        console.print(line)
