"""Published clusters against the catalogue alone: nothing is fitted to these rows, and every row is reported.

A target is a row of `data/published_targets.csv` that somebody measured; its inputs stand in
`scenarios/published/<target>.yaml`. Rows whose inputs do not suffice are listed with the reason.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from simulator.errors import CalibrationError
from simulator.files import load
from simulator.prepare import prepare
from simulator.result.estimate import Estimate, estimate, rounded
from simulator.run.evaluate import token_times_s
from simulator.scenario import Scenario
from simulator.spec import Spec

__all__ = ["PublishedRow", "excluded", "published_rows", "report", "score", "write_published"]

EXTRA_TARGETS = {"V38-alone": ("V38", 1 / 11.1, "11.1 tok/s on M2 Ultra alone")}
"""Measurements that stand in a reference column of another row: target, seconds per
token, what the row says.
"""


class PublishedRow(Spec):
    """One published measurement and its prediction, both as seconds per token."""

    target: str
    system: str
    devices: str
    model: str
    measured_s: float
    predicted_s: Estimate
    source: str

    @property
    def error(self) -> float:
        """`predicted / measured - 1`."""
        return self.predicted_s.median / self.measured_s - 1

    @property
    def inside(self) -> bool:
        """Whether the 90 % interval holds the measurement."""
        return self.predicted_s.p05 <= self.measured_s <= self.predicted_s.p95


def _table(name: str) -> list[dict[str, str]]:
    text = files("calibrate").joinpath("data", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def excluded() -> list[dict[str, str]]:
    """Rows that are not predicted: `target_id` and `reason`."""
    return _table("published_excluded.csv")


def published_rows(folder: Path) -> tuple[PublishedRow, ...]:
    """Every target that has a scenario in `folder`, predicted;
    raises CalibrationError for a folder without any.
    """
    targets = {row["target_id"]: row for row in _table("published_targets.csv")}
    paths = sorted(folder.glob("V*.yaml"))
    if not paths:
        raise CalibrationError(
            f"{folder}: no scenario V*.yaml there; name one with some, as scenarios/published"
        )
    return tuple(_row(path, targets) for path in paths)


def _row(path: Path, targets: dict[str, dict[str, str]]) -> PublishedRow:
    scenario = load(path, Scenario)
    target, measured_s, _ = EXTRA_TARGETS.get(path.stem, (path.stem, None, ""))
    facts = targets[target]
    times_s = token_times_s(prepare(scenario).job, scenario.replications * scenario.workload.runs)
    # from the first to the last token: published rates leave the prompt out
    per_token_s = (times_s[0, -1] - times_s[0, 0]) / (times_s.shape[1] - 1)
    return PublishedRow(
        target=path.stem,
        system=facts["system"],
        devices=", ".join(d.kind or name for name, d in scenario.devices.items()),
        model=f"{facts['model']} {facts['quantisation']}",
        measured_s=measured_s or _seconds(facts),
        predicted_s=estimate(per_token_s),
        source=facts["source"],
    )


def _seconds(facts: dict[str, str]) -> float:
    """The measured seconds per token of a row, whatever its unit."""
    value = float(facts["measured"])
    return value / 1e3 if facts["unit"] == "ms/token" else 1 / value


def score(rows: Sequence[PublishedRow]) -> dict[str, float]:
    """Median and 90th percentile of the absolute error, and the coverage of the 90 % intervals."""
    errors = np.abs([row.error for row in rows])
    return {
        "rows": len(rows),
        "median_absolute_error": rounded(float(np.median(errors))),
        "p90_absolute_error": rounded(float(np.quantile(errors, 0.9))),
        "coverage_90": rounded(float(np.mean([row.inside for row in rows]))),
    }


def report(rows: Sequence[PublishedRow]) -> str:
    """The whole comparison as Markdown, misses included."""
    figures = score(rows)
    lines = [
        "# Published clusters, predicted from the catalogue alone",
        "",
        "Made by `sim validate published`. No parameter was fitted to any row below.",
        "",
        f"{figures['rows']:.0f} rows: median absolute error {figures['median_absolute_error']:.0%}, 90th "
        f"percentile {figures['p90_absolute_error']:.0%}; the 90 % interval holds "
        f"{figures['coverage_90']:.0%} of the measurements.",
        "",
        "| target | system | devices | model | measured ms/token | predicted ms/token [5 %, 95 %] | error | "
        "in interval |",
        "|---|---|---|---|---:|---:|---:|---|",
    ]
    lines += [
        f"| {row.target} | {row.system} | {row.devices} | {row.model} | {row.measured_s * 1e3:.1f} | "
        f"{row.predicted_s.median * 1e3:.1f} [{row.predicted_s.p05 * 1e3:.1f}, "
        f"{row.predicted_s.p95 * 1e3:.1f}] | {row.error:+.0%} | {'yes' if row.inside else '**no**'} |"
        for row in rows
    ]
    lines += ["", "## Not predicted", "", "| target | reason |", "|---|---|"]
    lines += [f"| {row['target_id']} | {row['reason']} |" for row in excluded()]
    return "\n".join(lines) + "\n"


def write_published(rows: Sequence[PublishedRow], folder: Path) -> None:
    """`README.md`, `predictions.csv` and the chart as SVG and PNG."""
    import io

    from simulator.files import make_folder, write_text_atomically
    from simulator.result.drawing import save_pictures

    make_folder(folder)
    write_text_atomically(
        folder / "README.md", report(rows) + "\n![predicted against measured](predicted_measured.svg)\n"
    )
    text = io.StringIO()
    records = [_record(row) for row in rows]
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    write_text_atomically(folder / "predictions.csv", text.getvalue())
    save_pictures({"predicted_measured": _chart(rows).to_dict()}, folder)


def _record(row: PublishedRow) -> dict[str, object]:
    """One line of the CSV file, columns by name."""
    return {
        "target": row.target,
        "measured_s": rounded(row.measured_s),
        "predicted_s": row.predicted_s.median,
        "p05_s": row.predicted_s.p05,
        "p95_s": row.predicted_s.p95,
        "error": rounded(row.error),
        "in_90": row.inside,
    }


def _chart(rows: Sequence[PublishedRow]) -> Any:
    import altair as alt

    points = [
        {
            "target": row.target,
            "measured": row.measured_s * 1e3,
            "predicted": row.predicted_s.median * 1e3,
            "low": row.predicted_s.p05 * 1e3,
            "high": row.predicted_s.p95 * 1e3,
            "inside": row.inside,
        }
        for row in rows
    ]
    ends = [
        min(min(row.measured_s, row.predicted_s.p05) for row in rows) * 0.8e3,
        max(max(row.measured_s, row.predicted_s.p95) for row in rows) * 1.3e3,
    ]
    scale = alt.Scale(domain=ends, type="log", nice=False)
    base = alt.Chart(alt.InlineData(values=points))
    x = alt.X("measured:Q", scale=scale, title="measured (ms per token)")
    y_title = "predicted (ms per token), 90 % interval"
    diagonal = (
        alt.Chart(alt.InlineData(values=[{"x": end} for end in ends]))
        .mark_line(color="gray", strokeDash=[4, 4])
        .encode(x=alt.X("x:Q", scale=scale), y=alt.Y("x:Q", scale=scale))
    )
    bars = base.mark_rule().encode(
        x=x,
        y=alt.Y("low:Q", scale=scale, title=y_title),
        y2="high:Q",
        color=alt.Color("inside:N", title="interval holds it"),
    )
    dots = base.mark_circle(size=50).encode(
        x=x, y=alt.Y("predicted:Q", scale=scale, title=y_title), color="inside:N"
    )
    names = base.mark_text(align="left", dx=6, fontSize=10).encode(
        x=x, y=alt.Y("predicted:Q", scale=scale), text="target:N"
    )
    inside = sum(row.inside for row in rows)
    return (diagonal + bars + dots + names).properties(
        width=460,
        height=460,
        title=f"Published clusters, catalogue alone: {inside} of {len(rows)} intervals hold",
    )
