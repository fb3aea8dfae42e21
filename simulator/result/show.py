"""A prediction as a chart to look at: in a notebook it shows itself, `save` writes it to a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.errors import SimulatorError, did_you_mean
from simulator.result.table import CHART_NAMES

if TYPE_CHECKING:
    import altair as alt

    from simulator.run.predict import Prediction

__all__ = ["chart"]


def chart(prediction: Prediction, name: str = "where_time_goes") -> alt.LayerChart:
    """One of the charts of `sim run` as an Altair chart; `.save("file.svg")` (png, html) needs no network.

    `name` is bench (tokens/s over runs), slowest_stage, where_time_goes, inter_token_time or memory.
    Raises SimulatorError for any other.

    >>> import simulator
    >>> scenario = simulator.load("four_devices").replace(replications=5)
    >>> prediction = simulator.predict(scenario, with_what_ifs=False)
    >>> simulator.chart(prediction, "memory").width
    620
    """
    from simulator.result.charts import DRAW
    from simulator.result.drawing import CONFIG
    from simulator.result.folder import prediction_tables

    if name not in CHART_NAMES:
        raise SimulatorError(
            f"there is no chart {name!r}{did_you_mean(name, CHART_NAMES)}; there are {', '.join(CHART_NAMES)}"
        )
    drawn: alt.LayerChart = DRAW[name](prediction_tables(prediction)[name]).configure(**CONFIG)
    return drawn
