"""What a person sees on a terminal: the device table, the headline, the bottleneck,
the what-ifs, the doubts.
"""

from __future__ import annotations

from math import expm1
from pathlib import Path
from typing import Any

from sim.console import InertConsole, console_here
from sim.table import print_table
from simulator.result.estimate import Estimate
from simulator.run.compare import Comparison
from simulator.run.held_against import HeldAgainst
from simulator.run.predict import Prediction
from simulator.units import format_bytes, format_seconds

__all__ = ["interval_s", "print_comparison", "print_held_against", "print_prediction"]


def interval_s(value: Estimate) -> str:
    """An Estimate in seconds for people: '12.3 ms [11.1 ms, 13.9 ms]'."""
    return f"{format_seconds(value.median)} [{format_seconds(value.p05)}, {format_seconds(value.p95)}]"


def print_prediction(prediction: Prediction, folder: Path) -> None:
    """The whole answer."""
    console, scenario, summary = console_here(), prediction.scenario, prediction.summary
    model = scenario.model
    console.marked(scenario.name, "bold", f"  {scenario.question}")
    console.print(
        f"{model.name} {model.quantisation or ''} on {scenario.engine.name}, "
        f"{scenario.workload.prompt_tokens} + {scenario.workload.output_tokens} tokens, "
        f"{scenario.workload.concurrency} chat(s)"
    )
    _print_devices(console, prediction)
    console.marked(
        f"{summary.tokens_per_s.text('tokens/s')}",
        "bold",
        f"  median [5 %, 95 %], {summary.tokens_per_s.label}",
    )
    if scenario.workload.concurrency > 1:
        console.print(f"all chats together {summary.total_tokens_per_s.text('tokens/s')}")
    console.print(f"first token {interval_s(summary.first_token_s)}")
    console.print(
        f"inter-token p50 {interval_s(summary.inter_token_p50_s)}, "
        f"p90 {format_seconds(summary.inter_token_p90_s.median)}, "
        f"p99 {format_seconds(summary.inter_token_p99_s.median)}"
    )
    console.print(f"\nlimit: {prediction.bottleneck.sentence}")
    if prediction.bottleneck.over_worlds:
        console.print(f"  {prediction.bottleneck.over_worlds}")
    for what_if in prediction.what_ifs:
        console.print(
            f"  {what_if.change}: {what_if.tokens_per_s.text('tokens/s')}, "
            f"better in {what_if.probability_better:.0%} of the cases"
        )
    for warning in prediction.warnings:
        console.marked("doubt:", "yellow", f" {warning}")
    console.print(
        f"\n{scenario.replications} replications of {scenario.workload.runs} runs, seed {scenario.seed}; "
        f"files in {folder}"
    )


def print_held_against(held: HeldAgainst) -> None:
    """How a measured rate fares, and what could cost or give as much as it is off by."""
    console = console_here()
    console.print(f"\n{held.sentence}")
    for one in held.candidates:
        factor = one.factor if held.verdict == "slower" else 1 / one.factor
        alone = ", enough alone" if one.enough_alone else ""
        console.print(f"  x {factor:.3g} {one.cause}: {one.tokens_per_s:.3g} tokens/s{alone}")


def _print_devices(console: InertConsole, prediction: Prediction) -> None:
    """One line per device: what it holds, what it can hold, how long its stage takes; kind
    goes on a narrow terminal.
    """
    # from the document, so that the table and --json tell the same
    rows: list[tuple[str, ...]] = []
    for row in prediction.document()["placement"]:
        layers = f"{row['first_layer']}-{row['last_layer']} ({row['layers']})" if row["layers"] else "none"
        low, high = row["stage_interval_s"]
        stage = f"{row['stage_s'] * 1e3:.0f} [{low * 1e3:.0f}, {high * 1e3:.0f}]" if row["layers"] else "-"
        memory = f"{format_bytes(row['memory_bytes'])} / {format_bytes(row['cap_bytes'])}"
        rests = (_surely(row["label"], row["speed_spread"]), _surely(row["link_label"], row["link_spread"]))
        rows.append((row["device"], row["kind"] or "-", layers, memory, stage, *rests))
        rows += [_processor_row(one) for one in row.get("processors", ())]
    print_table(
        console,
        ("device", "kind", "layers", "memory / cap", "ms per token", "speed", "link"),
        rows,
        wraps=("device", "kind"),
        drops=("link", "kind", "speed", "memory / cap"),
        right=("memory / cap",),
    )


def _surely(label: str, log_sd: float) -> str:
    """A label with how far that is off in two cases of three, as a scenario writes it: 'assumed ± 20 %'."""
    return f"{label} ± {expm1(log_sd):.0%}" if log_sd else label


def _processor_row(one: dict[str, Any]) -> tuple[str, ...]:
    """A line of the table of devices for one processor of a device."""
    held = {"": one["layers"], " without experts": one["layers_without_experts"]}
    held["x experts alone"] = one["layers_of_experts"]
    words = [f"{count}{what}" for what, count in held.items() if count] + ["head"] * one["has_head"]
    memory = f"{format_bytes(one['memory_bytes'])} / {format_bytes(one['cap_bytes'])}"
    stage = f"{one['stage_s'] * 1e3:.0f}" if one["stage_s"] else "-"
    return (
        f"  {one['processor'].partition('/')[2]}",
        one["kind"],
        ", ".join(words) or "none",
        memory,
        stage,
        _surely(one["label"], one["speed_spread"]),
        "",
    )


def print_comparison(comparison: Comparison) -> None:
    """The ranked table, and what the device that was added would have to be."""
    console = console_here()
    heads = (
        "rank",
        "scenario",
        "tokens/s median [5 %, 95 %]",
        f"difference to {comparison.reference}",
        "better",
    )
    rows = []
    for rank, row in enumerate(comparison.ranking, 1):
        is_reference = row.scenario == comparison.reference
        rows.append(
            (
                str(rank),
                row.scenario,
                row.tokens_per_s.text(),
                "-" if is_reference else row.difference.text(),
                "-" if is_reference else f"{row.probability_better:.0%}",
            )
        )
    print_table(console, heads, rows, wraps=("scenario",))
    for sentence in comparison.verdicts:
        console.print(sentence)
