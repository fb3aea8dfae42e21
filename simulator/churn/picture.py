"""The recovery plot: tokens/s over time around the loss, the predicted band, the
phases shaded, a measured line.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from simulator.churn.trace import ReplyTrace
from simulator.laws.law import Floats
from simulator.result.drawing import BLACK, BLUE, GREEN, ORANGE, PINK, RED, SKY, save_pictures
from simulator.result.estimate import rounded
from simulator.result.table import ChartTable

if TYPE_CHECKING:
    import altair as alt

    from simulator.churn.estimate import Dropout

__all__ = ["draw", "rate_at", "recovery_table", "save"]

POINTS = 300
TITLE_WIDTH = 76  # characters over the picture
SMOOTH_TOKENS = 8  # each rate is the mean over so many tokens around it
COLOURS = {
    "detect": ORANGE,
    "decide": "#F0E442",
    "wait": PINK,
    "release": "#999999",
    "start": GREEN,
    "load": BLUE,
    "warm up": SKY,
    "prefill": RED,
    "resume": BLACK,
}


def rate_at(times_s: Sequence[float], breaks: Sequence[int], at_s: Floats) -> Floats:
    """Tokens/s at the moments `at_s`: tokens over time in a window of tokens.

    Before the first token it is the first rate and after the last one the last, so that a band over many
    replies does not change when the quick ones end. `breaks` are the tokens that came after a recovery: no
    window reaches over one, and the time before it has rate 0.
    """
    rate = np.full(len(at_s), np.nan)
    bounds = [0, *breaks, len(times_s)]
    for start, stop in zip(bounds, bounds[1:], strict=False):
        part = np.asarray(times_s[start:stop])
        if len(part) < 2:
            continue
        width = min(SMOOTH_TOKENS, len(part) - 1)
        ahead = np.clip(np.arange(len(part)) + width // 2 + 1, width, len(part) - 1)
        smooth = width / (part[ahead] - part[ahead - width])
        inside = (at_s >= (part[0] if start else -np.inf)) & (
            at_s <= (part[-1] if stop < len(times_s) else np.inf)
        )
        rate[inside] = np.interp(at_s[inside], part, smooth)
    for token in breaks:
        begin = times_s[token - 1] if token else -np.inf
        rate[(at_s > begin) & (at_s < times_s[token])] = 0.0
    return rate


def recovery_table(dropout: Dropout, measured: Sequence[tuple[float, float]] | None = None) -> ChartTable:
    """Rates and phases around the first loss of each replication, seconds counted from it.

    `measured` are (seconds after the loss, tokens/s). Layers: `band` (t, low, median, high), `phases` (phase,
    start, end: medians), `measured` (t, rate). Raises ValueError where no reply went on after a loss.
    """
    told = [
        (reply, loss)
        for trace in dropout.traces
        for reply in trace.replies[:1]
        for loss in [found for found in reply.recoveries if not found.is_planned][:1]
        if loss.resumed_s is not None
    ]
    recovery = dropout.recovery_s
    if not told or recovery is None:
        raise ValueError("no reply went on after a loss: there is nothing to draw")
    decoded_s = float(
        np.median([loss.fault_s - reply.times_s[0] if loss.token else 0.0 for reply, loss in told])
    )
    at_s = np.linspace(
        -min(recovery.median, max(decoded_s, 1.0)), 1.1 * recovery.p95 + 0.3 * recovery.median, POINTS
    )
    rates = np.array([rate_at(reply.times_s, _breaks(reply), at_s + loss.fault_s) for reply, loss in told])
    phases: list[dict[str, Any]] = []
    start_s = 0.0
    for name, spent in dropout.phases.items():
        phases.append({"phase": name, "start": rounded(start_s), "end": rounded(start_s + spent.median)})
        start_s += spent.median
    before, after = dropout.before_tokens_per_s, dropout.after_tokens_per_s
    change = f", {before.text()} tokens/s before and {after.text()} after" if before and after else ""
    rows = {
        "band": _band(at_s, rates),
        "phases": [row for row in phases if row["end"] > row["start"]],
        "measured": [{"t": rounded(t), "rate": rounded(rate)} for t, rate in measured or ()],
    }
    return ChartTable(
        textwrap.wrap(f"The next token comes {recovery.text()} s after the loss{change}", TITLE_WIDTH),
        [
            f"band: 90% of {len(told)} replications, line: their median; phases at their median lengths"
            + ("; black: measured" if measured else "")
        ],
        rows,
        list(dropout.phases),
        "s",
    )


def _breaks(reply: ReplyTrace) -> list[int]:
    return [found.token for found in reply.recoveries if found.resumed_s is not None]


def _band(at_s: Floats, rates: Floats) -> list[dict[str, Any]]:
    rows = []
    for t, column in zip(at_s.tolist(), rates.T, strict=True):
        known = column[~np.isnan(column)]
        if len(known):
            low, median, high = np.quantile(known, [0.05, 0.5, 0.95])
            rows.append(
                {"t": rounded(t), "low": rounded(low), "median": rounded(median), "high": rounded(high)}
            )
    return rows


def draw(table: ChartTable) -> alt.LayerChart:
    """The picture of a recovery; Altair is loaded here and nowhere else."""
    import altair as alt

    x = alt.X("t:Q", title="seconds since the loss", scale=alt.Scale(nice=False))
    band = alt.Chart(alt.InlineData(values=table.rows["band"]))
    layers: list[Any] = []
    if table.rows["phases"]:
        shown = [row["phase"] for row in table.rows["phases"]]
        colour = alt.Color(
            "phase:N",
            title=None,
            legend=alt.Legend(orient="top", columns=8),
            scale=alt.Scale(domain=shown, range=[COLOURS[name] for name in shown]),
        )
        layers.append(
            alt.Chart(alt.InlineData(values=table.rows["phases"]))
            .mark_rect(opacity=0.3)
            .encode(x=alt.X("start:Q"), x2="end:Q", color=colour, tooltip=["phase:N", "start:Q", "end:Q"])
        )
    y = alt.Y("low:Q", title="tokens/s", scale=alt.Scale(zero=True))
    layers.append(band.mark_area(color=SKY, opacity=0.35).encode(x=x, y=y, y2="high:Q"))
    layers.append(
        band.mark_line(color=BLUE, strokeWidth=2.5).encode(x=x, y="median:Q", tooltip=["t:Q", "median:Q"])
    )
    if table.rows["measured"]:
        layers.append(
            alt.Chart(alt.InlineData(values=table.rows["measured"]))
            .mark_line(color=BLACK, strokeWidth=1.5, interpolate="step-after")
            .encode(x=x, y="rate:Q")
        )
    chart = cast("alt.LayerChart", alt.layer(*layers))
    return chart.properties(
        width=620,
        height=300,
        title=alt.TitleParams(text=table.title, subtitle=table.subtitle),
        description=" ".join(table.title + table.subtitle),
    )


def save(table: ChartTable, folder: Path, name: str) -> list[Path]:
    """Write `name.svg` and `name.png` to `folder`; the paths."""
    return save_pictures({name: draw(table).to_dict()}, folder)
