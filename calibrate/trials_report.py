"""The ledger of all grounds as Markdown and a page: how each stands, what held, the worst misses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calibrate.ground.pictures import reliability
from calibrate.ledger import by
from calibrate.report import html_report
from calibrate.trials import Standing, Trial, standing, worst
from calibrate.validation import LEVELS
from simulator.files import make_folder, write_ours
from simulator.files.inert import markdown_text
from simulator.result.drawing import BLUE, RED, Spec, save_pictures

__all__ = ["by_ground", "text", "write_ledger"]

TITLE = "The ledger"
MOST_OF_A_GROUND = 5
"""Worst misses told of each ground: enough to see a pattern, few enough that no ground hides the others."""
LEGEND = (
    "A measurement that was predicted several times, or a prediction that was measured several times, counts",
    "once. In brackets the band in which the share lies in 90 % of cases if all is right. Repeats of what",
    "trained a calibration are left out; of published rows, those that are only counted stand in their own",
    "report; `results/truth` keeps no single trials.",
)
LEAST_ERROR = 0.001
"""Where the axis of errors begins: nothing here is measured better."""


def by_ground(found: Sequence[Trial]) -> dict[str, list[Trial]]:
    """The trials of each ground, in order."""
    return by(found, lambda trial: trial.ground)


def text(found: Sequence[Trial]) -> str:
    """The whole ledger as Markdown."""
    grounds = by_ground(found)
    lines = [
        f"# {TITLE}",
        "",
        f"{len(found)} predictions that met {len({trial.measurement for trial in found})} measurements, on "
        f"{len(grounds)} grounds.",
        *LEGEND,
        "",
        *_table("ground", [standing(name, ones) for name, ones in grounds.items()]),
        "",
        "![how often intervals held](reliability.svg)",
        "",
        "## By kind",
        "",
        *_table(
            "ground: kind",
            [
                standing(f"{name}: {kind}", same)
                for name, ones in grounds.items()
                for kind, same in by(ones, lambda trial: trial.kind).items()
            ],
        ),
        "",
        "![error by kind](error_by_kind.svg)",
        "",
        f"## Worst misses of 90 % intervals, {MOST_OF_A_GROUND} of each ground at most",
        "",
        "| ground | kind | what | error | cause |",
        "|---|---|---|---:|---|",
        *(
            f"| {markdown_text(trial.ground)} | {markdown_text(trial.kind)} | {markdown_text(trial.name)} | "
            f"{trial.error:+.0%} | {markdown_text(trial.cause or 'unknown')} |"
            for ones in grounds.values()
            for trial in worst(ones, MOST_OF_A_GROUND)
        ),
    ]
    return "\n".join(lines) + "\n"


def _table(what: str, standings: Sequence[Standing]) -> list[str]:
    levels = " | ".join(f"{level} % held" for level in LEVELS)
    return [
        f"| {what} | predictions | measurements | median error | 90th percentile | {levels} |",
        f"|---|---:|---:|---:|---:|{'---:|' * len(LEVELS)}",
        *(_line(one) for one in standings),
    ]


def _line(one: Standing) -> str:
    held = {cover.level: f"{cover.held:.0%} ({cover.low:.0%} to {cover.high:.0%})" for cover in one.coverage}
    cells = " | ".join(held.get(level, "-") for level in LEVELS)
    errors = f"{one.median_error:.1%} | {one.p90_error:.1%}"
    return f"| {markdown_text(one.ground)} | {one.trials} | {one.measurements} | {errors} | {cells} |"


def write_ledger(found: Sequence[Trial], folder: Path) -> None:
    """`report.md`, `report.html` that holds its pictures, and those as SVG and PNG."""
    make_folder(folder)
    pictures = save_pictures({"reliability": _held(found), "error_by_kind": _errors(found)}, folder)
    said = text(found)
    write_ours(folder / "report.md", said)
    write_ours(folder / "report.html", html_report(TITLE, said, pictures))


def _held(found: Sequence[Trial]) -> Spec:
    points: list[dict[str, object]] = [
        {
            "of": f"{name} ({one.measurements})",
            "level": cover.level,
            "held": 100 * cover.held,
            "low": 100 * cover.low,
            "high": 100 * cover.high,
        }
        for name, ones in by_ground(found).items()
        for one in [standing(name, ones)]
        for cover in one.coverage
    ]
    return reliability(points, "of (measurements)")


def _errors(found: Sequence[Trial]) -> Spec:
    points = [
        {
            "of": f"{trial.ground}: {trial.kind}",
            "error": 100 * max(LEAST_ERROR, abs(trial.error)),
            "held": "holds it" if trial.held.get(90, True) else "misses it",
        }
        for trial in found
    ]
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": {"text": "Error by ground and kind", "subtitle": "a dot for each prediction"},
        "width": 520,
        "height": {"step": 20},
        "data": {"values": points},
        "mark": {"type": "point", "filled": True, "size": 35, "opacity": 0.6},
        "encoding": {
            "y": {"field": "of", "type": "nominal", "title": None, "sort": None},
            "x": {
                "field": "error",
                "type": "quantitative",
                "scale": {"type": "log"},
                "title": "error (%), logarithmic",
            },
            "color": {
                "field": "held",
                "title": "90 % interval",
                "scale": {"domain": ["holds it", "misses it"], "range": [BLUE, RED]},
            },
        },
    }
