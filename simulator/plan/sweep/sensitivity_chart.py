"""The tornado chart: one bar per input, from the metric at its 5th percentile to the metric at its 95th."""

from __future__ import annotations

from typing import Any, cast

import altair as alt

from simulator.plan.sweep.sensitivity import Influence, Sensitivity
from simulator.result.drawing import BLACK, BLUE, ORANGE

__all__ = ["tornado"]

MOST_BARS = 12
BAR_HEIGHT, WIDTH = 26, 600
UNITS = {"tokens_per_s": "tokens/s", "first_token_s": "first token (s)"}


def tornado(result: Sensitivity) -> alt.LayerChart:
    """The chart; inputs that move nothing are left out, at most 12 are drawn."""
    shown = [row for row in result.influences if row.swing > 0][:MOST_BARS]
    order = [row.what for row in shown]
    unit = UNITS[result.metric]
    ends = [end for row in shown for end in (row.at_p05, row.at_p95)] or [result.base]
    room = 0.12 * (max(ends) - min(ends)) or 1.0
    x = alt.Scale(domain=[min(ends) - room, max(ends) + room], nice=False)
    y = alt.Y("what:N", title=None, sort=order, axis=alt.Axis(ticks=False, domain=False, labelLimit=300))
    bars = (
        alt.Chart(alt.InlineData(values=[half for row in shown for half in _halves(row, result.base)]))
        .mark_bar(size=16)
        .encode(
            x=alt.X("base:Q", title=unit, scale=x),
            x2="end:Q",
            y=y,
            color=alt.Color(
                "side:N",
                title=None,
                legend=alt.Legend(orient="top", labelLimit=500),
                scale=alt.Scale(domain=[LOW, HIGH], range=[BLUE, ORANGE]),
            ),
            tooltip=["what:N", "side:N", "end:Q"],
        )
    )
    labels = (
        alt.Chart(alt.InlineData(values=[_label(row) for row in shown]))
        .mark_text(align="left", dx=6, fontSize=12)
        .encode(x=alt.X("right:Q", scale=x), y=y, text="text:N")
    )
    rule = alt.Chart(alt.InlineData(values=[{"base": result.base}])).mark_rule(color=BLACK).encode(x="base:Q")
    title = alt.TitleParams(
        text=f"{result.scenario}: what moves {unit}",
        subtitle=[
            f"each input over its own 90 % interval, the others at their medians ({result.base:.3g});",
            "behind each bar its share of the variance",
            *result.measure_next.split("; "),
            result.upgrade_next,
        ],
    )
    chart = cast(alt.LayerChart, alt.layer(bars, rule, labels))
    return chart.properties(
        width=WIDTH,
        height=BAR_HEIGHT * max(1, len(shown)),
        title=title,
        description=f"Tornado chart. {result.measure_next}. {result.upgrade_next}.",
    )


LOW, HIGH = "input at its 5th percentile", "input at its 95th percentile"


def _halves(row: Influence, base: float) -> list[dict[str, Any]]:
    return [
        {"what": row.what, "side": side, "base": base, "end": end}
        for side, end in ((LOW, row.at_p05), (HIGH, row.at_p95))
    ]


def _label(row: Influence) -> dict[str, Any]:
    share = f"{row.total_order:.0%}" if row.total_order >= 0.01 else "< 1%"
    return {"what": row.what, "right": max(row.at_p05, row.at_p95), "text": share}
