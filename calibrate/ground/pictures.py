"""Pictures of the published ground: predicted against measured, and how often intervals held."""

from __future__ import annotations

from collections.abc import Sequence

from calibrate.ground.predict import Outcome
from calibrate.ground.rows import PARTS
from calibrate.ground.score import score
from calibrate.validation import LEVELS
from simulator.result.drawing import BLACK, BLUE, GREY, RED, Spec

__all__ = ["pictures", "reliability"]

SIZE = 460


def pictures(outcomes: Sequence[Outcome], shown: Sequence[Outcome]) -> dict[str, Spec]:
    """Vega-Lite specs by name; `shown` are those whose single points may be drawn."""
    return {"predicted_measured": _scatter(shown), "reliability": reliability(_held(outcomes))}


def _scatter(outcomes: Sequence[Outcome]) -> Spec:
    points = [
        {
            "row": one.row,
            "measured": one.measured_s * 1e3,
            "predicted": one.median_s * 1e3,
            "low": one.interval_s(90)[0] * 1e3,
            "high": one.interval_s(90)[1] * 1e3,
            "inside": "holds it" if one.holds(90) else "misses it",
            "of": "first token" if one.quantity == "first token" else "a token",
        }
        for one in outcomes
    ]
    ends = [
        min(min(one.measured_s, one.interval_s(90)[0]) for one in outcomes) * 800,
        max(max(one.measured_s, one.interval_s(90)[1]) for one in outcomes) * 1300,
    ]
    scale = {"type": "log", "domain": ends, "nice": False}
    colour = {
        "field": "inside",
        "title": "90 % interval",
        "scale": {"domain": ["holds it", "misses it"], "range": [BLUE, RED]},
    }
    x = {"field": "measured", "type": "quantitative", "scale": scale, "title": "measured (ms)"}
    y_title = "predicted (ms), 90 % interval"
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": {
            "text": "Published measurements, catalogue alone",
            "subtitle": f"{sum(one.holds(90) for one in outcomes)} of {len(outcomes)} intervals hold",
        },
        "width": SIZE,
        "height": SIZE,
        "data": {"values": points},
        "layer": [
            _diagonal(ends, scale),
            {
                "mark": {"type": "rule", "opacity": 0.6},
                "encoding": {
                    "x": x,
                    "y": {"field": "low", "type": "quantitative", "scale": scale, "title": y_title},
                    "y2": {"field": "high"},
                    "color": colour,
                },
            },
            {
                "mark": {"type": "point", "filled": True, "size": 45},
                "encoding": {
                    "x": x,
                    "y": {"field": "predicted", "type": "quantitative", "scale": scale, "title": y_title},
                    "color": colour,
                    "shape": {"field": "of", "title": "time of"},
                },
            },
        ],
    }


def _diagonal(ends: Sequence[float], scale: Spec) -> Spec:
    return {
        "data": {"values": [{"at": end} for end in ends]},
        "mark": {"type": "line", "color": GREY, "strokeDash": [4, 4]},
        "encoding": {
            "x": {"field": "at", "type": "quantitative", "scale": scale},
            "y": {"field": "at", "type": "quantitative", "scale": scale},
        },
    }


def _held(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """What held at each level, decoding and first tokens apart, both parts of the ground."""
    found: list[dict[str, object]] = []
    for part in PARTS:
        for quantity in ("decode", "first token"):
            chosen = [one for one in outcomes if one.part == part and one.quantity == quantity]
            if chosen:
                name = f"{quantity}, {part} ({len(chosen)})"
                found += [
                    {
                        "of": name,
                        "level": one.level,
                        "held": 100 * one.held,
                        "low": 100 * one.low,
                        "high": 100 * one.high,
                    }
                    for one in score(chosen).coverage
                ]
    return found


def reliability(points: Sequence[dict[str, object]], legend: str = "of (figures)") -> Spec:
    """How many intervals held (%) against their level, with the band of chance.

    `points` have `of`, `level`, `held`, `low` and `high`; below the diagonal intervals are too narrow.
    """
    levels = list(LEVELS)
    # thinner where more stand side by side
    width = max(5, SIZE // len(levels) // (2 + len({point["of"] for point in points})))
    x = {
        "field": "level",
        "type": "ordinal",
        "sort": levels,
        "title": "level of the interval (%)",
        "axis": {"labelAngle": 0},
    }
    y = {"type": "quantitative", "scale": {"domain": [0, 100]}, "title": "measurements that it held (%)"}
    shift = {"xOffset": {"field": "of"}}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": {
            "text": "How often intervals held",
            "subtitle": "grey: where the share lies in 90 % of cases if all is right; black: the level",
        },
        "width": SIZE,
        "height": SIZE * 2 // 3,
        "data": {"values": list(points)},
        "layer": [
            {
                "mark": {"type": "bar", "width": width, "color": GREY, "opacity": 0.35},
                "encoding": {"x": x, **shift, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
            },
            {
                "mark": {
                    "type": "tick",
                    "width": width + 2,
                    "thickness": 2,
                    "orient": "horizontal",
                    "color": BLACK,
                },
                "encoding": {"x": x, **shift, "y": {**y, "field": "level"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 50, "opacity": 1},
                "encoding": {
                    "x": x,
                    **shift,
                    "y": {**y, "field": "held"},
                    "color": {"field": "of", "title": legend, "scale": {"scheme": "tableau10"}},
                },
            },
        ],
    }
