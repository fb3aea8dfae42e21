"""Charts of sweeps and loads: Vega-Lite specs from tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from simulator.plan.sweep.points import Axis, Value, number
from simulator.result import drawing
from simulator.result.drawing import Spec

if TYPE_CHECKING:
    from simulator.plan.load.arrivals import Bound, Crossover, LoadPoint
    from simulator.plan.sweep.sweep import Row, Sweep

__all__ = ["crossover_chart", "load_chart", "sweep_charts"]

SHOWN = ("tokens_per_s", "total_tokens_per_s", "first_token_s", "goodput_per_hour")
TITLES = {
    "tokens_per_s": "tokens/s of one chat",
    "total_tokens_per_s": "tokens/s of all chats",
    "first_token_s": "first token (s)",
    "goodput_per_hour": "met chats per hour",
}
MOST_LINES = 7  # colours that the eye can tell apart
WIDTH, HEIGHT = 620, 300


def sweep_charts(sweep: Sweep, rows: Sequence[Row]) -> dict[str, Spec]:
    """A chart for each metric that varies: over the first axis, coloured by the
    second; points for a hypercube.
    """
    data = [_flat(sweep, at, row) for at, row in enumerate(rows) if not row.get("error")]
    is_grid = _is_grid(sweep)
    shown = [name for name in SHOWN if len({row.get(f"{name}_median") for row in data} - {None}) > 1]
    if "total_tokens_per_s" in shown and all(
        # of a sweep that an older version began some rows may lack what it did not compute
        row.get("total_tokens_per_s_median", row["tokens_per_s_median"]) == row["tokens_per_s_median"]
        for row in data
    ):
        # with one chat both are one figure
        shown.remove("total_tokens_per_s")
    return {name: _over(sweep.axes, data, name, is_grid) for name in shown}


def _is_grid(sweep: Sweep) -> bool:
    """Whether each value is one of its axis; those of a hypercube lie in between."""
    values = [set(map(repr, axis.values)) for axis in sweep.axes]
    return all(
        repr(value) in known
        for point in sweep.points
        for (_, value), known in zip(point.values, values, strict=True)
    )


def _flat(sweep: Sweep, at: int, row: Row) -> Row:
    """A row with its axes as x0, x1, ...; dots in a name would mean something else to Vega."""
    values = sweep.points[at].values
    plain = {f"x{k}": _drawn(sweep.axes[k], value) for k, (_, value) in enumerate(values)}
    return {
        **plain,
        **{key: value for key, value in row.items() if key.endswith(("_median", "_p05", "_p95"))},
    }


def _drawn(axis: Axis, value: Value) -> Value:
    """A value as a number in the unit of its axis, or as it is."""
    unit = _unit(axis)
    plain = number(value.removesuffix(unit)) if isinstance(value, str) and unit else number(value)
    return value if plain is None else plain


def _unit(axis: Axis) -> str:
    """The unit that all values of an axis share, empty where there is none."""
    units = {str(value).lstrip("+-0123456789.eE ") if isinstance(value, str) else "" for value in axis.values}
    return units.pop() if len(units) == 1 and number(axis.values[0]) is not None else ""


def _title(axis: Axis) -> str:
    return f"{axis.path} ({_unit(axis)})" if _unit(axis) else axis.path


def _over(axes: Sequence[Axis], data: Sequence[Row], name: str, is_grid: bool) -> Spec:
    """One metric over the first axis: lines with bands in a grid, else points."""
    measured = all(isinstance(row["x0"], float) for row in data)
    x = {
        "field": "x0",
        "type": "quantitative" if measured else "ordinal",
        "title": _title(axes[0]),
        "scale": {"type": "log"} if axes[0].is_log else {"zero": False} if measured else {},
    }
    y = {"field": f"{name}_median", "type": "quantitative", "title": TITLES[name], "scale": {"zero": True}}
    encoding: Spec = {
        "x": x,
        "y": y,
        "tooltip": [{"field": f"x{k}", "title": _title(axis)} for k, axis in enumerate(axes)]
        + [{"field": f"{name}_{part}"} for part in ("median", "p05", "p95")],
    }
    if len(axes) > 1:
        few = len({row["x1"] for row in data}) <= MOST_LINES
        encoding["color"] = {
            "field": "x1",
            "type": "nominal" if few else "quantitative",
            "title": _title(axes[1]),
            "scale": {"range": list(drawing.PALETTE)} if few else {"scheme": "viridis"},
            # else the legend is as pale as the bands
            "legend": {"symbolOpacity": 1},
        }
        encoding["detail"] = [{"field": f"x{k}"} for k in range(1, len(axes))]
    band = {
        "mark": {"type": "area", "opacity": 0.2},
        "encoding": {**encoding, "y": {**y, "field": f"{name}_p05"}, "y2": {"field": f"{name}_p95"}},
    }
    line = {"mark": {"type": "line", "point": True, "strokeWidth": 2.5}, "encoding": encoding}
    dots = {"mark": {"type": "point", "filled": True, "size": 40}, "encoding": encoding}
    layers = [band, line] if is_grid and measured and len(axes) <= 2 else [dots]
    about = (
        "median; band: 5 % to 95 % of the replications"
        if layers != [dots]
        else "medians, one point per scenario"
    )
    return _spec(f"{TITLES[name]} over {axes[0].path}", about, data, layers)


def load_chart(points: Sequence[LoadPoint], bound: Bound) -> Spec:
    """Goodput over the rate of arrivals; on the dashed line every chat is met."""
    data = [
        {
            "x": p.arrivals_per_hour,
            "y": p.goodput_per_hour.median,
            "low": p.goodput_per_hour.p05,
            "high": p.goodput_per_hour.p95,
            "met": p.share_met.median,
        }
        for p in points
    ]
    x = {"field": "x", "type": "quantitative", "title": "arrivals per hour"}
    y = {"field": "y", "type": "quantitative", "title": "met chats per hour"}
    asked = f"first token within {bound.first_token_s:g} s"
    asked += f", then {bound.tokens_per_s:g} tokens/s" if bound.tokens_per_s else ""
    layers: list[Spec] = [
        {
            "mark": {"type": "area", "opacity": 0.3, "color": drawing.SKY},
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
        },
        {
            "mark": {"type": "line", "strokeDash": [4, 3], "color": drawing.BLACK},
            "encoding": {"x": x, "y": {**y, "field": "x"}},
        },
        {
            "mark": {"type": "line", "point": True, "color": drawing.BLUE, "strokeWidth": 3},
            "encoding": {"x": x, "y": y, "tooltip": [x, y, {"field": "met", "title": "share met"}]},
        },
    ]
    return _spec(
        f"Chats that are met: {asked}",
        "dashed: all of them; band: 5 % to 95 % of the replications",
        data,
        layers,
    )


def crossover_chart(found: Crossover) -> Spec:
    """Tokens/s of all chats over their number, below the two bounds of a ring."""
    names = {"by_sum": "bound: sum of stages and hops", "by_slowest": "bound: slowest stage always busy"}
    top = 1.6 * max(row.total_tokens_per_s.p95 for row in found.rows)
    x = {"field": "chats", "type": "quantitative", "title": "chats at once", "scale": {"zero": False}}
    y = {
        "field": "rate",
        "type": "quantitative",
        "title": "tokens/s of all chats",
        "scale": {"domain": [0, top]},
    }
    order = ["simulated", *names.values()]
    colour = {
        "field": "what",
        "type": "nominal",
        "title": None,
        "legend": {"orient": "top"},
        "scale": {"domain": order, "range": [drawing.BLUE, drawing.ORANGE, drawing.RED]},
    }
    dash = {
        "field": "what",
        "type": "nominal",
        "title": None,
        "scale": {"domain": order, "range": [[1, 0], [6, 3], [2, 3]]},
    }
    layers: list[Spec] = [
        {
            "mark": {"type": "area", "opacity": 0.25, "color": drawing.SKY},
            "transform": [{"filter": "isValid(datum.low)"}],
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
        },
        {
            "mark": {"type": "line", "point": True, "strokeWidth": 2.5, "clip": True},
            "encoding": {"x": x, "y": y, "color": colour, "strokeDash": dash},
        },
    ]
    about = f"{found.scenario}, decoding only; medians, band: 5 % to 95 % of the replications"
    return _spec(_crossover_finding(found), about, _crossover_rows(found, names), layers)


def _crossover_rows(found: Crossover, names: Mapping[str, str]) -> list[Row]:
    """What was simulated, then each bound of `names` under its title."""
    data: list[Row] = [
        {
            "chats": row.chats,
            "rate": row.total_tokens_per_s.median,
            "low": row.total_tokens_per_s.p05,
            "high": row.total_tokens_per_s.p95,
            "what": "simulated",
        }
        for row in found.rows
    ]
    data += [
        {"chats": row.chats, "rate": getattr(row, name), "what": title}
        for name, title in names.items()
        for row in found.rows
    ]
    return data


def _crossover_finding(found: Crossover) -> str:
    if found.in_step:
        return (
            f"{found.engine} decodes all chats in step: the sum of stages is the limit for any number of them"
        )
    return f"Beyond {found.at_chats:.2g} chats the slowest stage is the limit, below it the sum of all stages"


def _spec(title: str, subtitle: str, data: Sequence[Row], layers: Sequence[Spec]) -> Spec:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": WIDTH,
        "height": HEIGHT,
        "title": {"text": title, "subtitle": subtitle},
        "description": f"{title}. {subtitle}",
        "data": {"values": list(data)},
        "layer": list(layers),
    }
