"""The README's section: when a cluster beats a cloud API, and when it never does."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.files.inert import markdown_text
from simulator.plan.buy.cost import CloudRow, Cost

__all__ = ["markdown", "verdict"]


def verdict(cost: Cost) -> str:
    """One sentence: from how many tokens a day the cluster beats the cheapest and the dearest API."""
    if not cost.cloud:
        return f"the catalogue knows no API price for {cost.model}; give one with --prices"
    wins = [row for row in cost.cloud if row.break_even_per_day is not None]
    if not wins:
        cheapest = cost.cloud[0]
        return (
            f"never: a million tokens cost {cost.per_million.text(cost.currency)} here at full use, and "
            f"{cheapest.per_million:.2f} to {cost.cloud[-1].per_million:.2f} {cost.currency} at an API"
        )
    first = min(wins, key=lambda row: row.break_even_per_day or 0.0)
    lost = len(cost.cloud) - len(wins)
    tail = f"; never against the other {lost}" if lost else ""
    return (
        f"from {first.break_even_per_day:,.0f} tokens a day against {first.provider} "
        f"({first.per_million:.2f} {cost.currency} per million){tail}"
    )


def markdown(costs: Sequence[Cost]) -> str:
    """The section as Markdown, assumptions included."""
    lines = [
        "## When this beats a cloud API",
        "",
        "Made by `sim cost --markdown`. Money per million tokens of reply, the "
        "prompts before them included; medians and 90 % intervals.",
        "",
    ]
    for cost in costs:
        lines += _section(cost)
    doubts = dict.fromkeys(doubt for cost in costs for doubt in cost.doubts)
    lines += ["Assumed throughout:", "", *(f"- {markdown_text(doubt)}" for doubt in doubts)]
    return "\n".join(lines) + "\n"


def _section(cost: Cost) -> list[str]:
    unit, watts = cost.currency, cost.power
    machines = "; ".join(
        f"{quote.what} {quote.amount:,.0f} {unit} ({quote.label}, {quote.as_of})" for quote in cost.devices
    )
    return [
        f"### {markdown_text(f'{cost.scenario}: {cost.model}')}",
        "",
        f"**{markdown_text(_capital(verdict(cost)))}.**",
        "",
        f"- {cost.tokens_per_s.text('tokens/s')}, at most {cost.most_per_day.median:,.0f} tokens in "
        f"{cost.usage.hours_per_day:g} hours a day",
        f"- machines {cost.price:,.0f} {unit} over {cost.usage.years:g} years: "
        f"{markdown_text(machines) or 'none to pay'}",
        f"- {watts.busy_w:.0f} W while a chat runs, {watts.idle_w:.0f} W idle, "
        f"{markdown_text(cost.electricity.what)} {cost.electricity.amount * 3.6e6:.3f} {unit}/kWh "
        f"({cost.electricity.as_of})",
        f"- at full use {cost.per_million.text(unit)} per million tokens, "
        f"{cost.electricity_per_million.text(unit)} of it electricity for the work",
        "",
        *_table(cost.cloud, unit),
        "",
    ]


def _table(rows: Sequence[CloudRow], unit: str) -> list[str]:
    if not rows:
        return []
    head = [
        f"| API | model | {unit} per million | as of | confidence | break-even tokens a day | in worlds |",
        "|---|---|---:|---|---|---:|---:|",
    ]
    return head + [
        f"| {markdown_text(row.provider)} | {markdown_text(row.model)} | {row.per_million:.2f} | "
        f"{row.as_of} | {row.label} | {markdown_text(_break_even(row))} | {row.share_of_worlds:.0%} |"
        for row in rows
    ]


def _break_even(row: CloudRow) -> str:
    if row.break_even_per_day is None:
        return f"never: {row.why_never}"
    return f"{row.break_even_per_day:,.0f}"


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
