"""Charts of a swarm: who serves which block when, tokens/s over time, time lost by cause."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from simulator.result.drawing import BLUE, SKY, Spec
from simulator.result.estimate import rounded
from simulator.swarm.study import BUCKETS, Row, SwarmAnswer

__all__ = ["swarm_charts"]

WIDTH, HEIGHT = 620, 300


def swarm_charts(answer: SwarmAnswer, rows: list[Row]) -> dict[str, Spec]:
    """`coverage`, `rate` and, where time was lost, `lost_time`; as Vega-Lite."""
    charts = {"coverage": _coverage(answer, rows[0]), "rate": _rate(answer, rows)}
    if answer.lost_share:
        charts["lost_time"] = _lost_time(answer)
    return {name: cast("Spec", chart.to_dict()) for name, chart in charts.items()}


def _coverage(answer: SwarmAnswer, row: Row) -> Any:
    """Servers of each block over time, of the first replication; nobody is white."""
    import altair as alt

    step_h = answer.hours / max(1, len(row["counts"]))
    values = [
        {"from": rounded(at * step_h), "to": rounded((at + 1) * step_h), "block": block, "servers": count}
        for at, counts in enumerate(row["counts"])
        for block, count in enumerate(counts)
        if count
    ]
    return _chart(
        alt.Chart(alt.InlineData(values=values))
        .mark_rect()
        .encode(
            x=alt.X("from:Q", title="hours"),
            x2="to:Q",
            y=alt.Y("block:O", title="block", sort="descending", axis=alt.Axis(labelOverlap=True)),
            color=alt.Color("servers:Q", title="servers", scale=alt.Scale(scheme="viridis")),
            tooltip=["from:Q", "block:O", "servers:Q"],
        ),
        f"All blocks are served {answer.whole.median:.1%} of the time",
        "one replication; white: nobody serves that block",
    )


def _rate(answer: SwarmAnswer, rows: list[Row]) -> Any:
    """Tokens/s of all chats over time, over replications."""
    import altair as alt

    low, middle, high = np.quantile([row["rate_over_time"] for row in rows], [0.05, 0.5, 0.95], axis=0)
    hours = (np.arange(BUCKETS) + 0.5) * answer.hours / BUCKETS
    values = [
        {"t": rounded(t), "low": rounded(a), "median": rounded(b), "high": rounded(c)}
        for t, a, b, c in zip(hours.tolist(), low.tolist(), middle.tolist(), high.tolist(), strict=True)
    ]
    base = alt.Chart(alt.InlineData(values=values))
    x = alt.X("t:Q", title="hours")
    y = alt.Y("low:Q", title="tokens/s of all chats", scale=alt.Scale(zero=True))
    band = base.mark_area(color=SKY, opacity=0.35).encode(x=x, y=y, y2="high:Q")
    line = base.mark_line(color=BLUE, strokeWidth=2.5).encode(x=x, y="median:Q")
    return _chart(
        alt.layer(band, line),
        f"All chats together get {answer.all_tokens_per_s.text('tokens/s')}",
        f"line: median, band: 90 % of {answer.replications} replications",
    )


def _lost_time(answer: SwarmAnswer) -> Any:
    """Share of users' time by what it was lost to."""
    import altair as alt

    values = [
        {"cause": cause, "share": rounded(100 * share.median)} for cause, share in answer.lost_share.items()
    ]
    return _chart(
        alt.Chart(alt.InlineData(values=values))
        .mark_bar(color=BLUE)
        .encode(
            x=alt.X("share:Q", title="% of all time from prompt to last token"),
            y=alt.Y("cause:N", title=None, sort="-x"),
            tooltip=["cause:N", "share:Q"],
        ),
        "Where users' time is lost",
        "besides servers and network at work",
    )


def _chart(chart: Any, title: str, subtitle: str) -> Any:
    import altair as alt

    return chart.properties(
        width=WIDTH,
        height=HEIGHT,
        title=alt.TitleParams(text=title, subtitle=subtitle),
        description=f"{title} {subtitle}",
    )
