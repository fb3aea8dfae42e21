"""Charts as files: one page that needs no network, and an SVG and a PNG of each chart."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any

import vl_convert

from simulator.result import charts
from simulator.result.table import ChartTable

__all__ = ["DRAW", "chart_files"]

DRAW = {
    "bench": charts.bench_chart,
    "slowest_stage": charts.slowest_chart,
    "where_time_goes": charts.where_chart,
    "inter_token_time": charts.inter_token_chart,
    "memory": charts.memory_chart,
}
PNG_SCALE = 2.0  # pixels per unit, for dense screens

# The page may run its own scripts (Vega compiles expressions, hence unsafe-eval) and reach nothing else.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)
STYLE = """
body { font-family: sans-serif; max-width: 860px; margin: 2em auto; padding: 0 1em; color: #222 }
figure { margin: 2.5em 0; overflow-x: auto }
"""
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>{style}</style>
<script>{bundle}</script>
</head>
<body>
<h1>{title}</h1>
<p>{text}</p>
{figures}
<script>
const charts = {specs};
const options = {{renderer: "svg", actions: {{export: true, source: false, compiled: false, editor: false}}}};
for (const [name, spec] of Object.entries(charts)) vegaEmbed("#" + name, spec, options);
</script>
</body>
</html>
"""


def chart_files(tables: Mapping[str, ChartTable], title: str, text: str) -> dict[str, bytes]:
    """The files `charts.html`, `charts/<name>.svg` and
    `charts/<name>.png`; `text` stands under the page's title.

    Raises KeyError for a table whose name is no chart.
    """
    specs = {name: _spec(name, table) for name, table in tables.items()}
    files = {"charts.html": _page(specs, title, text).encode()}
    for name, spec in specs.items():
        svg = vl_convert.vegalite_to_svg(spec)
        files[f"charts/{name}.svg"] = svg.encode()
        files[f"charts/{name}.png"] = vl_convert.svg_to_png(svg, scale=PNG_SCALE)
    return files


def _spec(name: str, table: ChartTable) -> dict[str, Any]:
    spec: dict[str, Any] = DRAW[name](table).to_dict()
    return {**spec, "config": charts.CONFIG}


def _page(specs: Mapping[str, Any], title: str, text: str) -> str:
    # In a script element only "<" could end it, so that one is escaped.
    plain = json.dumps(specs, separators=(",", ":")).replace("<", "\\u003c")
    figures = "\n".join(f'<figure id="{name}"></figure>' for name in specs)
    bundle = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub lacks the default
    return PAGE.format(
        policy=POLICY,
        style=STYLE,
        bundle=bundle,
        specs=plain,
        title=html.escape(title),
        text=html.escape(text),
        figures=figures,
    )
