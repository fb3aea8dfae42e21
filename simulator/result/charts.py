"""The charts of a prediction: table in, chart out.

What a colour says, a shape or a label says a second time. Bars start at zero.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

import altair as alt
from altair.utils.schemapi import debug_mode

from simulator.result import drawing
from simulator.result.drawing import BLACK, BLUE, GREEN, GREY, ORANGE, PALETTE, PINK, RED, SKY
from simulator.result.table import ChartTable, Rows

__all__ = [
    "DRAW",
    "bench_chart",
    "chart_files",
    "inter_token_chart",
    "memory_chart",
    "slowest_chart",
    "where_chart",
]

SHAPES = ("circle", "triangle-up", "square", "diamond", "cross", "triangle-down", "stroke")
WIDTH, HEIGHT, BAR_HEIGHT = 620, 300, 26


def bench_chart(table: ChartTable) -> alt.LayerChart:
    """Tokens/s over runs: the band of the worlds, their median, and some single worlds as thin lines."""
    x = alt.X("run:O", title="run", axis=alt.Axis(labelAngle=0))
    band = alt.Chart(_data(table.rows["band"])).encode(x=x)
    worlds = alt.Chart(_data(table.rows["worlds"]))
    if len(table.rows["band"]) > 1:
        interval, thin = band.mark_area(color=SKY, opacity=0.35), worlds.mark_line(color=GREY, strokeWidth=1)
    else:  # with one run a band has no width and a line no length
        interval, thin = (
            band.mark_bar(color=SKY, opacity=0.35, width=40),
            worlds.mark_point(color=GREY, size=20),
        )
    median = band.mark_line(
        color=BLUE, strokeWidth=3, point=alt.OverlayMarkDef(color=BLUE, size=60, filled=True)
    )
    return _finish(
        table,
        HEIGHT,
        interval.encode(y=_rate("low"), y2="high:Q"),
        thin.encode(x=x, y=_rate("tokens_per_s"), detail="world:N"),
        median.encode(y=_rate("median"), tooltip=["run:O", "low:Q", "median:Q", "high:Q"]),
    )


def slowest_chart(table: ChartTable) -> alt.LayerChart:
    """The longest part of each token over the reply: which one it was, and how long."""
    legend = alt.Legend(orient="top", columns=3, symbolSize=70)
    colours, shapes = (alt.Scale(domain=table.order, range=list(looks)) for looks in (PALETTE, SHAPES))
    points = (
        alt.Chart(_data(table.rows["points"]))
        .mark_point(filled=True, size=28, opacity=0.85)
        .encode(
            x=alt.X(
                "token:Q", title="token of the reply", scale=alt.Scale(nice=False, zero=False, padding=8)
            ),
            y=alt.Y("drawn:Q", title=f"longest part ({table.unit})", scale=alt.Scale(zero=True)),
            color=alt.Color("part:N", title=None, legend=legend, scale=colours),
            shape=alt.Shape("part:N", title=None, scale=shapes),
            tooltip=["token:Q", "part:N", "duration:Q"],
        )
    )
    return _finish(table, HEIGHT, points)


def where_chart(table: ChartTable) -> alt.LayerChart:
    """Where a token's time goes: a bar per device and hop, coloured by what it is."""
    kinds = {"compute": BLUE, "head": SKY, "hop": RED, "queue": ORANGE, "prefill": GREEN, "phase": PINK}
    present = [kind for kind in kinds if any(row["kind"] == kind for row in table.rows["parts"])]
    room = 1.12 * max(row["total"] for row in table.rows["totals"])
    bars = (
        alt.Chart(_data(table.rows["parts"]))
        .mark_bar()
        .encode(
            x=_length("duration", f"time per token ({table.unit})", room),
            y=_category("place", table),
            color=_kinds("kind", {kind: kinds[kind] for kind in present}),
            order=alt.Order("rank:Q"),
            tooltip=["place:N", "kind:N", "duration:Q", alt.Tooltip("share:Q", format=".1%")],
        )
        .transform_calculate(rank=f"indexof({json.dumps(list(present))}, datum.kind)")
    )
    labels = _end_labels(table, "totals", "place", "total")
    return _finish(table, BAR_HEIGHT * len(table.order), bars, labels)


def inter_token_chart(table: ChartTable) -> alt.LayerChart:
    """Share of the tokens that took at most so long, with p50, p90 and p99."""
    y = alt.Y("percent:Q", title="tokens that took at most this long (%)", scale=alt.Scale(domain=[0, 100]))
    x_title = f"time from one token to the next ({table.unit})"
    curve, marks = alt.Chart(_data(table.rows["curve"])), alt.Chart(_data(table.rows["marks"]))

    def x(column: str) -> alt.X:
        return alt.X(f"{column}:Q", title=x_title, scale=alt.Scale(zero=False, nice=True))

    return _finish(
        table,
        HEIGHT,
        curve.mark_area(color=SKY, opacity=0.35, orient="horizontal").encode(x=x("low"), x2="high:Q", y=y),
        curve.mark_line(color=BLUE, strokeWidth=2.5).encode(x=x("median"), y=y, order="percent:Q"),
        # across, not down, so that no rule runs through the label of another
        marks.mark_rule(color=BLACK, strokeDash=[4, 3]).encode(x=x("median"), x2=alt.value(0), y=y),
        marks.mark_point(color=BLACK, filled=True, size=50, opacity=1).encode(x=x("median"), y=y),
        marks.mark_text(align="left", dx=9, dy=9, fontSize=12).encode(x=x("median"), y=y, text="label:N"),
    )


def memory_chart(table: ChartTable) -> alt.LayerChart:
    """Memory per device, with a mark at its cap."""
    colours = {"layers": BLUE, "KV cache": ORANGE, "embedding and head": GREEN, "engine": PINK}
    present = {
        part: colours[part] for part in colours if any(row["part"] == part for row in table.rows["parts"])
    }
    room = 1.3 * max(row["end"] for row in table.rows["caps"])
    bars = (
        alt.Chart(_data(table.rows["parts"]))
        .mark_bar(size=16)
        .encode(
            x=_length("gb", "memory (GB)", room),
            y=_category("device", table),
            color=_kinds("part", present),
            order=alt.Order("rank:Q"),
            tooltip=["device:N", "part:N", "gb:Q"],
        )
        .transform_calculate(rank=f"indexof({json.dumps(list(present))}, datum.part)")
    )
    caps = (
        alt.Chart(_data(table.rows["caps"]))
        .mark_tick(color=BLACK, opacity=1, thickness=3, size=24)
        .encode(x=_length("cap", "memory (GB)", room), y=_category("device", table))
    )
    labels = _end_labels(table, "caps", "device", "end")
    return _finish(table, (BAR_HEIGHT + 8) * len(table.order), bars, caps, labels)


def _data(rows: Rows) -> alt.InlineData:
    return alt.InlineData(values=rows)


def _rate(column: str) -> alt.Y:
    # from zero, so that a wiggle of a few percent looks like one
    return alt.Y(f"{column}:Q", title="tokens/s", scale=alt.Scale(zero=True))


def _length(column: str, title: str, room: float) -> alt.X:
    """Length of a bar; `room` ends the axis, so that labels behind the bars fit."""
    return alt.X(f"{column}:Q", title=title, stack="zero", scale=alt.Scale(domain=[0, room], nice=False))


def _category(column: str, table: ChartTable) -> alt.Y:
    return alt.Y(f"{column}:N", title=None, sort=table.order, axis=alt.Axis(ticks=False, domain=False))


def _kinds(column: str, colours: dict[str, str]) -> alt.Color:
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    return alt.Color(f"{column}:N", title=None, scale=scale, legend=alt.Legend(orient="top"))


def _end_labels(table: ChartTable, layer: str, category: str, length: str) -> alt.Chart:
    """The label of each bar, behind its end."""
    labels: alt.Chart = (
        alt.Chart(_data(table.rows[layer]))
        .mark_text(align="left", dx=6, fontSize=12)
        .encode(x=alt.X(f"{length}:Q"), y=_category(category, table), text="label:N")
    )
    return labels


def _finish(table: ChartTable, height: int, *layers: alt.Chart) -> alt.LayerChart:
    """The layers as one chart with size, title and a description for screen readers."""
    title = alt.TitleParams(text=table.title, subtitle=table.subtitle)
    chart = cast(alt.LayerChart, alt.layer(*layers))
    return chart.properties(
        width=WIDTH, height=height, title=title, description=" ".join(table.title + table.subtitle)
    )


DRAW = {
    "bench": bench_chart,
    "slowest_stage": slowest_chart,
    "where_time_goes": where_chart,
    "inter_token_time": inter_token_chart,
    "memory": memory_chart,
}


def chart_files(tables: Mapping[str, ChartTable], title: str, text: str) -> dict[str, bytes]:
    """The page and pictures of `drawing.chart_files`; raises KeyError for a table whose name is no chart."""
    # the tests check these specs against the schema; at run time that costs as much as making them
    with debug_mode(False):
        specs = {name: DRAW[name](table).to_dict(validate=False) for name, table in tables.items()}
    return drawing.chart_files(specs, title, text)
