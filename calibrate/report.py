"""What a study or a ledger says: Markdown, and three charts (predicted against measured,
coverage, error by kind).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calibrate.calibration import Calibration
from calibrate.ledger import by, summary
from calibrate.validation import LEVELS, Validation
from simulator.files import write_ours
from simulator.files.inert import markdown_text

if TYPE_CHECKING:
    from calibrate.study import Circle

__all__ = [
    "calibration_table",
    "charts",
    "html_report",
    "markdown",
    "summary_line",
    "validation_table",
    "write_circle",
    "write_report",
]

STYLE = (
    "body{font:15px sans-serif;max-width:70em;margin:2em auto}table{border-collapse:collapse}"
    "td,th{padding:.2em .6em;border-bottom:1px solid #ddd;text-align:right}td:first-child{text-align:left}"
)


def summary_line(rows: Sequence[Validation]) -> str:
    """The figures of a set of outcomes in one sentence."""
    figures = summary(rows)
    of = f" of {figures['measurements']:.0f} measurements" if figures["measurements"] < figures["n"] else ""
    first = figures.get("first_token_coverage_90")
    held = "" if first is None else f", first tokens' 90 % intervals {first:.0%}"
    return (
        f"{figures['n']:.0f} predictions{of}: median inter-token time off by {figures['median_error']:.1%} "
        f"at the median, {figures['median_error_p90']:.1%} at the 90th percentile, {figures['worst']:.1%} at "
        f"worst; p90 off by {figures['p90_error']:.1%}, p99 by {figures['p99_error']:.1%}, tokens/s by "
        f"{figures['tokens_per_s_error']:.1%}, first token by {figures['first_token_error']:.1%} "
        f"(medians); the 50 / 80 / 90 % intervals held {figures['coverage_50']:.0%} / "
        f"{figures['coverage_80']:.0%} / {figures['coverage_90']:.0%}{held}; the runs of one measurement "
        f"differ by {figures['repeatability']:.1%}"
    )


COLUMNS: tuple[tuple[str, str, Callable[[Validation], str]], ...] = (
    ("scenario", "---", lambda row: markdown_text(row.measurement)),
    ("kind", "---", lambda row: markdown_text(row.kind)),
    ("measured ms", "---:", lambda row: f"{row.median_gap_s * 1e3:.1f}"),
    ("predicted ms", "---:", lambda row: f"{row.predicted_median_gap_s * 1e3:.1f}"),
    ("error", "---:", lambda row: f"{row.median_error:+.1%}"),
    ("p90", "---:", lambda row: f"{row.p90_error:+.0%}"),
    ("p99", "---:", lambda row: f"{row.p99_error:+.0%}"),
    ("first token", "---:", lambda row: f"{row.first_token_error:+.0%}"),
    ("KS", "---:", lambda row: f"{row.ks_distance:.2f}"),
    ("in 90 %", "---", lambda row: "yes" if row.in_90 else "**no**"),
    ("runs differ by", "---:", lambda row: f"{row.repeatability:.1%}"),
)
"""Title, alignment and text of each column of `validation_table`."""


def validation_table(rows: Sequence[Validation]) -> list[str]:
    """One Markdown line per outcome."""
    return [
        f"| {' | '.join(title for title, _, _ in COLUMNS)} |",
        f"|{'|'.join(alignment for _, alignment, _ in COLUMNS)}|",
        *(f"| {' | '.join(text(row) for _, _, text in COLUMNS)} |" for row in rows),
    ]


def calibration_table(calibration: Calibration) -> list[str]:
    """The fitted parameters, one Markdown line each, and the noise."""
    lines = ["| parameter | value | 90 % interval | measurements |", "|---|---:|---|---:|"]
    for parameter in calibration.parameters:
        # by unit, not by size: a column of one unit can be read down
        scale, unit = (1e3, " ms") if parameter.unit == "s" else (1.0, "")
        lines.append(
            f"| {markdown_text(parameter.name)} | {parameter.value * scale:.3g}{unit} | "
            f"[{parameter.p05 * scale:.3g}, "
            f"{parameter.p95 * scale:.3g}]{unit} | {parameter.n} |"
        )
    noise = calibration.noise
    lines += [
        "",
        f"Noise (log sd): token to token {noise.common_sigma:.2f} common and {noise.own_sigma:.2f} of each "
        f"device (correlation {noise.correlation:.2f}), run to run {noise.run_sigma:.2f}, session to "
        f"session {noise.session_sigma:.2f}, hour to hour {noise.hour_sigma:.2f}; in a second of work "
        f"the host pauses {noise.pauses_per_s:.2g} times, for {noise.pause_s * 1e3:.0f} ms.",
    ]
    # a lack is among the doubts
    if calibration.lack_of_fit.startswith("no "):
        lines += ["", f"{calibration.lack_of_fit[0].upper()}{calibration.lack_of_fit[1:]}."]
    return lines


def markdown(
    title: str, introduction: Sequence[str], rows: Sequence[Validation], details: Sequence[str] = ()
) -> str:
    """A whole report; `introduction` says what trained and what was held out."""
    lines = [
        f"# {markdown_text(title)}",
        "",
        *introduction,
        "",
        f"**{summary_line(rows)}.**",
        "",
        "## By kind of what-if",
        "",
        "| kind | n | median error | worst | in 90 % |",
        "|---|---:|---:|---:|---:|",
    ]
    for kind, group in by(rows, lambda row: row.kind).items():
        figures = summary(group)
        lines.append(
            f"| {markdown_text(kind)} | {len(group)} | {figures['median_error']:.1%} | "
            f"{figures['worst']:.1%} | {figures['coverage_90']:.0%} |"
        )
    lines += [
        "",
        "![predicted against measured](predicted_measured.svg)",
        "",
        "![coverage](coverage.svg)",
        "",
        "![error by kind](error_by_kind.svg)",
        "",
        *details,
    ]
    return "\n".join(lines) + "\n"


def charts(rows: Sequence[Validation]) -> dict[str, Any]:
    """Altair charts by file name."""
    import altair as alt

    figures = summary(rows)
    return {
        "predicted_measured": _predicted_measured([_point(row) for row in rows]).properties(
            width=420,
            height=420,
            title=alt.TitleParams(
                f"Predicted against measured: {figures['median_error']:.1%} off at the median",
                subtitle="bars: 90 % intervals of what was predicted; dashed: equal",
            ),
        ),
        "coverage": _coverage(rows),
        "error_by_kind": alt.Chart(alt.InlineData(values=[_point(row) for row in rows]))
        .mark_circle(size=60, opacity=0.7)
        .encode(
            y=alt.Y("kind:N", title=None),
            x=alt.X(
                "error:Q",
                title="absolute error of the median inter-token time",
                axis=alt.Axis(format="%"),
                scale=alt.Scale(zero=True),
            ),
            color=alt.Color("kind:N", legend=None, scale=alt.Scale(scheme="tableau10")),
        )
        .properties(width=480, height=alt.Step(28), title="Error by what is new against the calibration"),
    }


def _predicted_measured(points: Sequence[dict[str, Any]]) -> Any:
    """A point for each row, with the interval that was predicted, about the diagonal."""
    import altair as alt

    ends = [
        min(min(point["measured"], point["low"]) for point in points) * 0.95,
        max(max(point["measured"], point["high"]) for point in points) * 1.05,
    ]
    data = alt.InlineData(values=points)
    # one scale for both axes, or the dashed line would not be the diagonal
    scale = alt.Scale(domain=ends, type="log", nice=False)
    line = (
        alt.Chart(alt.InlineData(values=[{"x": e} for e in ends]))
        .mark_line(color="gray", strokeDash=[4, 4])
        .encode(x=alt.X("x:Q", scale=scale), y=alt.Y("x:Q", scale=scale))
    )
    axis = alt.Axis(values=_ticks(*ends), format="~g")
    dots = (
        alt.Chart(data)
        .mark_circle(size=60, opacity=0.8)
        .encode(
            x=alt.X("measured:Q", scale=scale, axis=axis, title="measured median inter-token time (ms)"),
            y=alt.Y("predicted:Q", scale=scale, axis=axis, title="predicted (ms)"),
            color=alt.Color("kind:N", title="what is new", scale=alt.Scale(scheme="tableau10")),
            tooltip=["scenario:N"],
        )
    )
    bars = (
        alt.Chart(data)
        .mark_rule(opacity=0.5, strokeWidth=2)
        .encode(
            x=alt.X("measured:Q", scale=scale),
            y=alt.Y("low:Q", scale=scale),
            y2="high:Q",
            color=alt.Color("kind:N", scale=alt.Scale(scheme="tableau10")),
        )
    )
    return line + bars + dots


def _point(row: Validation) -> dict[str, Any]:
    """One outcome in ms; its interval has no length where an old entry does not say."""
    low, high = row.predicted_90_s or (row.predicted_median_gap_s, row.predicted_median_gap_s)
    return {
        "measured": row.median_gap_s * 1e3,
        "predicted": row.predicted_median_gap_s * 1e3,
        "low": low * 1e3,
        "high": high * 1e3,
        "kind": row.kind,
        "scenario": row.measurement,
        "error": abs(row.median_error),
    }


def _ticks(low: float, high: float) -> list[float]:
    """Round values for a logarithmic axis, which by itself labels powers of ten only."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    steps = (1, 1.5, 2, 3, 5, 7) if high > 4 * low else (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
    return [step * 10.0**power for power in decades for step in steps if low <= step * 10.0**power <= high]


def _coverage(rows: Sequence[Validation]) -> Any:
    import altair as alt

    levels = [
        {
            "stated": level,
            "held": float(np.mean([row.holds(level) for row in rows])),
            # binomial: how far an honest interval's share strays with so few outcomes
            "sd": float(np.sqrt(level / 100 * (1 - level / 100) / len(rows))),
        }
        for level in LEVELS
    ]
    for level in levels:
        level["stated"] /= 100
        level |= {
            # 1.64 standard deviations each side hold 90 %
            "low": level["stated"] - 1.64 * level["sd"],
            "high": min(1.0, level["stated"] + 1.64 * level["sd"]),
        }
    base = alt.Chart(alt.InlineData(values=levels))
    x = alt.X(
        "stated:Q",
        title="stated level of the interval",
        axis=alt.Axis(format="%", values=[0.5, 0.8, 0.9]),
        scale=alt.Scale(domain=[0.4, 1.0]),
    )
    axis = alt.Axis(format="%")
    chance = base.mark_errorbar(color="gray", ticks=True).encode(
        x=x,
        y=alt.Y("low:Q", title="measurements inside", axis=axis, scale=alt.Scale(domain=[0, 1])),
        y2="high:Q",
    )
    held = base.mark_point(filled=True, size=90, color="#4c78a8").encode(x=x, y=alt.Y("held:Q", axis=axis))
    return (chance + held).properties(
        width=360, height=300, title="Coverage (dots) and what chance allows for honest intervals (bars)"
    )


def write_report(
    folder: Path,
    title: str,
    introduction: Sequence[str],
    rows: Sequence[Validation],
    details: Sequence[str] = (),
) -> None:
    """`report.md`, `report.html` and the charts as SVG and PNG."""
    from simulator.result.drawing import save_pictures

    pictures = save_pictures({name: chart.to_dict() for name, chart in charts(rows).items()}, folder)
    text = markdown(title, introduction, rows, details)
    write_ours(folder / "report.md", text)
    write_ours(folder / "report.html", html_report(title, text, pictures))


def write_circle(made: Circle, folder: Path, title: str, how: str) -> None:
    """The report of a whole circle; `how` says how its training placements were chosen."""
    trained = ", ".join(markdown_text(source.name) for source in made.calibration.sources)
    introduction = [
        f"Calibrated on {len(made.calibration.sources)} placements, {how} ({trained}); everything in the "
        "first table was predicted before it was measured, and the training placements were measured "
        "again among the held-out ones.",
        "",
        "*Runs differ by* is the standard deviation of the logarithm of a configuration's own run medians: "
        "the floor for any model.",
    ]
    details = [
        "## Held out, predicted before it was measured",
        "",
        *validation_table(made.validations),
        "",
        "## The training placements again: what time alone changed",
        "",
        *validation_table(made.repeats),
        "",
        "## The held-out ones from a calibration on those repeats, which saw the same hour",
        "",
        f"{summary_line(made.interleaved.validations)}.",
        "",
        *validation_table(made.interleaved.validations),
        "",
        "## Calibration",
        "",
        *calibration_table(made.calibration),
        "",
        *(f"- {markdown_text(text)}" for text in made.calibration.warnings),
    ]
    write_report(folder, title, introduction, made.validations, details)


def html_report(title: str, text: str, pictures: Sequence[Path]) -> str:
    """The report as one page that needs nothing else."""
    from markdown_it import MarkdownIt

    from simulator.result.drawing import html_page

    # names of measurements come from files that others wrote: HTML in them is text
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    # pictures are put into the page itself, so that one file can be mailed
    for svg in (path for path in pictures if path.suffix == ".svg"):
        before, image, rest = body.partition(f'<img src="{svg.name}"')
        if image:
            body = before + svg.read_text(encoding="utf-8") + rest.partition(">")[2]
    return html_page(title, body, style=STYLE)
