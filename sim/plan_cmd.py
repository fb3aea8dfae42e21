"""`sim plan` and `sim cost`: what to buy and rewire, and when a cluster beats a cloud API."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.json_output import Json, json_text, print_json
from sim.run_cmd import Replications, ScenarioFile, Seed, load_scenario, progress_bar
from sim.work import begin_long, begin_work, tokens_of

if TYPE_CHECKING:
    from sim.console import InertConsole
    from simulator.plan.buy.cost import Cost
    from simulator.plan.buy.plan import Plan, Planned, PlanOption
    from simulator.plan.buy.prices import PricesFile
    from simulator.plan.buy.wiring import Wiring
    from simulator.scenario import Scenario

__all__ = ["cost", "plan"]

Prices = Annotated[
    Path | None, typer.Option(help="YAML file with your own prices, watts and exchange rates.")
]
Hours = Annotated[float, typer.Option(min=0.1, max=24, help="Hours a day that the cluster is switched on.")]
Years = Annotated[float, typer.Option(min=0.5, max=50, help="Years over which a purchase is written off.")]


def plan(
    scenario: ScenarioFile,
    budget: Annotated[str, typer.Option(help="What may be spent, with its currency: '800 EUR'.")],
    goal: Annotated[str | None, typer.Option(help="What one chat should reach: '8 tokens/s'.")] = None,
    own: Annotated[
        str | None,
        typer.Option(help="Devices of the scenario that you own; default all. The others are for sale."),
    ] = None,
    allow: Annotated[
        str | None,
        typer.Option(
            help="Groups to choose from: macs,gpus,minipcs,pcs,network,memory,quantisation,model; default "
            "all."
        ),
    ] = None,
    most_purchases: Annotated[int, typer.Option(min=0, max=4, help="Machines to buy at most.")] = 2,
    prices: Prices = None,
    hours_per_day: Hours = 8.0,
    years: Years = 4.0,
    as_json: Json = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for plan.json and a scenario file of each option.")
    ] = None,
    seed: Seed = None,
    replications: Replications = None,
) -> None:
    """Say what to buy, rewire or leave out: the Pareto front of price against tokens/s, with reasons."""
    from simulator.plan.buy.cost import Usage
    from simulator.plan.buy.money import read_money
    from simulator.plan.buy.options import read_allowed
    from simulator.plan.buy.plan import plan as find
    from simulator.plan.buy.wiring import tensor_plans

    asked, money = load_scenario(scenario, seed, replications), read_money(budget)
    wirings = tensor_plans(asked, money, _prices(prices)) if "network" in read_allowed(allow) else ()
    if _splits_layers(asked):
        _tell_wirings(wirings, as_json=as_json)
        return
    with progress_bar(quiet=as_json) as progress:
        found = find(
            asked,
            money,
            _goal(goal),
            own=None if own is None else _names(own),
            allow=read_allowed(allow),
            prices=_prices(prices),
            usage=Usage(hours_per_day=hours_per_day, years=years),
            most_purchases=most_purchases,
            begin=_begin,
            progress=progress,
        )
    if out is not None:
        _write(found, out)
    if as_json:
        print_json(found.plan.model_dump() | _wirings(wirings))
    else:
        _print_plan(found.plan, out)
        _tell_wirings(wirings, as_json=False)


def cost(
    scenarios: Annotated[list[Path], typer.Argument(help="Scenario files, or names, as five_devices.")],
    hours_per_day: Hours = 8.0,
    years: Years = 4.0,
    currency: Annotated[str, typer.Option(help="EUR, GBP or USD.")] = "EUR",
    electricity: Annotated[
        str | None, typer.Option(help="A region of the catalogue, or a price: '0.30 EUR/kWh'.")
    ] = None,
    own: Annotated[str | None, typer.Option(help="Devices that are paid already and count nothing.")] = None,
    prices: Prices = None,
    as_json: Json = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the README's section.")] = False,
    seed: Seed = None,
    replications: Replications = None,
) -> None:
    """Cost per million tokens against cloud APIs, and the tokens per day from
    which the cluster is cheaper.
    """
    from simulator.plan.buy.cost import Usage, cluster_cost
    from simulator.plan.buy.cost_report import markdown
    from simulator.plan.buy.prices import PriceBook

    if currency not in ("EUR", "GBP", "USD"):
        raise typer.BadParameter(f"--currency is {currency!r} and must be EUR, GBP or USD")
    book, usage = PriceBook(currency, _prices(prices)), Usage(hours_per_day=hours_per_day, years=years)
    loaded = [load_scenario(path, seed, replications) for path in scenarios]
    mine = _names(own) if own else ()
    longest = max(loaded, key=tokens_of)
    begin_work(longest, sum(map(tokens_of, loaded)), kept=tokens_of(longest))
    costs = [
        cluster_cost(
            one,
            book,
            usage,
            # a name may belong to one of several scenarios; with a single one it is a slip, which is refused
            own=[name for name in mine if name in one.devices or len(loaded) == 1],
            electricity=electricity,
        )
        for one in loaded
    ]
    if as_json:
        print_json([one.model_dump() for one in costs])
    elif as_markdown:
        print(markdown(costs), end="")
    else:
        for one in costs:
            _print_cost(one)


def _splits_layers(scenario: Scenario) -> bool:
    from simulator.engine.base import engine

    return engine(scenario.engine.name).splits_layers


def _wirings(wirings: Sequence[Wiring]) -> dict[str, Any]:
    return {"tensor": [one.model_dump(exclude={"scenario"}) for one in wirings]}


def _tell_wirings(wirings: Sequence[Wiring], *, as_json: bool) -> None:
    """What tensor parallelism would give, as the machines are and with other cables."""
    from sim.console import console_here
    from sim.report import interval_s

    if as_json:
        print_json(_wirings(wirings))
        return
    console = console_here(soft_wrap=True)
    if wirings:
        console.print("by tensor parallelism:")
    for one in wirings:
        does = one.words or "as the machines are"
        console.print(
            f"  {one.price:,.0f} {one.currency}: {does}: {one.tokens_per_s.text('tokens/s')}, first token "
            f"{interval_s(one.first_token_s)}, {one.strategy} on {' '.join(one.devices)}"
        )


def _begin(sets: int, seconds: float) -> None:
    begin_long(
        f"{sets:,} sets of machines to look at",
        seconds,
        "groups (--allow), purchases (--most-purchases) or money",
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _goal(text: str | None) -> float | None:
    """Tokens/s of '8 tokens/s', or of '8'."""
    from simulator.units import TOKENS_PER_S, read_quantity

    if text is None:
        return None
    goal = read_quantity(text, TOKENS_PER_S)
    if goal <= 0:
        raise typer.BadParameter(f"--goal is {text!r} and must be more than 0 tokens/s")
    return goal


def _prices(path: Path | None) -> PricesFile | None:
    from simulator.files import load
    from simulator.plan.buy.prices import PricesFile, own_prices

    if path is None:
        return own_prices()
    return load(path, PricesFile)


def _write(found: Planned, folder: Path) -> None:
    """plan.json, and each option as a scenario that `sim run` takes."""
    from simulator.files import dump, make_folder, write_ours

    make_folder(folder)
    write_ours(folder / "plan.json", json_text(found.plan.model_dump()))
    for made in found.scenarios:
        dump(made, folder / f"{made.name}.yaml")


def _print_plan(result: Plan, folder: Path | None) -> None:
    from sim.console import console_here

    console, unit = console_here(), result.budget.currency
    goal = "" if result.goal_tokens_per_s is None else f", goal {result.goal_tokens_per_s:g} tokens/s"
    console.marked(result.scenario, "bold", f"  budget {result.budget.amount:,.10g} {unit}{goal}")
    if result.as_it_is is not None:
        console.print(
            f"as it is: {result.as_it_is.tokens_per_s.text('tokens/s')}; {result.as_it_is.reasons[0]}"
        )
    _print_options(console, result)
    console.marked("\nanswer:", "bold", f" {result.answer}")
    for row in _worth_a_reason(result.options):
        console.print(f"  {row.price:,.0f} {unit}, {row.model}: {'; '.join(row.reasons)}")
    warnings = dict.fromkeys(warning for row in result.options for warning in row.warnings)
    for doubt in (*result.doubts, *warnings):
        console.marked("doubt:", "yellow", f" {doubt}")
    files = "" if folder is None else f"; files in {folder}"
    console.print(
        f"\n{result.considered} mixes, {result.pruned} ruled out by a bound, {result.evaluated} "
        f"evaluated{files}"
    )


def _print_options(console: InertConsole, result: Plan) -> None:
    """One group per model and quantisation, cheapest first in each: answers of different
    quality are not compared.
    """
    from sim.table import print_table

    unit = result.budget.currency
    groups: dict[str, list[tuple[str, ...]]] = {}
    for row in result.options:
        note = "" if row.is_asked_model else ", which answers worse"
        chance = () if row.goal_probability is None else (f"{row.goal_probability:.0%}",)
        groups.setdefault(f"{row.model}{note}", []).append(
            (
                f"{row.price:,.0f}",
                row.tokens_per_s.text(),
                *chance,
                f"{row.busy_w:.0f}/{row.idle_w:.0f}",
                f"{row.per_million.median:.3g}",
                ", ".join(row.actions) or "place the layers anew",
            )
        )
    goal = () if result.goal_tokens_per_s is None else ("goal",)
    heads = (unit, "tokens/s", *goal, "W busy/idle", f"{unit} per million", "what to do")
    # cost per million goes first, then watts: price, rate and what to do are the answer
    print_table(console, heads, groups, wraps=("what to do",), drops=heads[-2:-4:-1], right=(unit,))


def _worth_a_reason(options: tuple[PlanOption, ...]) -> list[PlanOption]:
    """The cheapest and the fastest of each model."""
    chosen = []
    for model in dict.fromkeys(row.model for row in options):
        rows = [row for row in options if row.model == model]
        chosen += [rows[0]] if len(rows) == 1 else [rows[0], rows[-1]]
    return chosen


def _print_cost(result: Cost) -> None:
    from rich.table import Table

    from sim.console import console_here
    from simulator.plan.buy.cost_report import verdict

    console, unit = console_here(), result.currency
    console.marked(
        result.scenario,
        "bold",
        f"  {result.model}, {result.tokens_per_s.text('tokens/s')}, on for "
        f"{result.usage.hours_per_day:g} hours a day, written off over {result.usage.years:g} years",
    )
    for quote in result.devices:
        console.print(f"  {quote.what}: {quote.amount:,.0f} {unit} ({quote.label}, {quote.as_of})")
    console.print(
        f"  {result.power.busy_w:.0f} W while a chat runs, {result.power.idle_w:.0f} W idle; "
        f"{result.electricity.what} {result.electricity.amount * 3.6e6:.3f} {unit}/kWh "
        f"({result.electricity.label}, {result.electricity.as_of})"
    )
    console.marked(
        f"{result.per_million.text(unit)} per million tokens",
        "bold",
        " at full use "
        f"({result.most_per_day.median:,.0f} tokens a day); {result.electricity_per_million.text(unit)} of "
        "it is electricity for the work",
    )
    table = Table(box=None, pad_edge=False)
    for title in ("API", "model", f"{unit} per million", "as of", "breaks even at tokens/day"):
        table.add_column(title)
    for row in result.cloud:
        even = (
            f"never: {row.why_never}" if row.break_even_per_day is None else f"{row.break_even_per_day:,.0f}"
        )
        table.add_row(row.provider, row.model, f"{row.per_million:.2f}", row.as_of, even)
    console.print(table)
    console.marked("verdict:", "bold", f" {verdict(result)}")
    for doubt in result.doubts:
        console.marked("doubt:", "yellow", f" {doubt}")
