"""A Measurement seen as a Prediction is: the same Summary, the same charts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from simulator.errors import MeasurementError
from simulator.laws.law import Floats
from simulator.result.bursts import arrivals, in_words
from simulator.result.estimate import estimate
from simulator.result.measurement import Measurement
from simulator.result.summary import Summary, summarise

__all__ = ["Measured", "measured_summary", "write_charts"]


@dataclass(frozen=True, slots=True)
class Measured:
    """Summary of all complete runs of a Measurement."""

    name: str
    runs: int
    times_s: Floats
    """Token times after each chat's own request, shape (chats, tokens, runs), cut to the shortest complete
    run; of replies in bursts as `arrivals` places them.
    """
    summary: Summary
    warnings: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            "measurement": self.name,
            "runs": self.runs,
            "tokens_per_s": self.summary.tokens_per_s.model_dump(),
            "first_token_s": self.summary.first_token_s.model_dump(),
            **self.summary.inter_token_document(),
            "warnings": list(self.warnings),
        }


def measured_summary(measurement: Measurement) -> Measured:
    """Summarise the runs in which every chat has tokens; raises MeasurementError where there is none."""
    raw = measurement.token_times_s()
    found = {key: arrivals(times_s) for key, times_s in raw.items()}
    times, chats = {key: one.times_s for key, one in found.items()}, range(measurement.provenance.concurrency)
    warnings = [*measurement.warnings, *in_words(found)]
    full = max((len(tokens) for tokens in times.values()), default=0)
    runs = sorted({run for run, _ in times})
    # all runs are cut to the shortest, so one that broke off early would cost the others their tail
    whole = [
        run for run in runs if all(len(times.get((run, chat), ())) >= max(2, full // 2) for chat in chats)
    ]
    if len(whole) < len(runs):
        warnings.append(f"{len(runs) - len(whole)} of {len(runs)} runs broke off early and are left out")
    length = min((len(times[run, chat]) for run in whole for chat in chats), default=0)
    # a reply that came in one packet has no time between tokens, and so no rate
    told = [run for run in whole if all(times[run, chat][length - 1] > times[run, chat][0] for chat in chats)]
    if len(told) < len(whole):
        warnings.append(f"{len(whole) - len(told)} runs in which a reply came all at once are left out")
    whole = told
    if not whole:
        none = f"{measurement.path or measurement.provenance.name}: no run in which every chat got two tokens"
        raise MeasurementError(
            "\n".join([f"{none} or more, at different times; measure again", *measurement.faults])
        )
    if not measurement.complete:
        warnings.append("the measurement was interrupted")
    stacked = np.stack([[times[run, chat][:length] for run in whole] for chat in chats]).transpose(0, 2, 1)
    # a reader waits for the first token until it arrives, whenever it was made
    first_s = np.array([[raw[run, chat][0] for run in whole] for chat in chats]).mean(axis=0)
    summary = summarise(stacked, [1] * len(chats), "measured")
    return Measured(
        measurement.provenance.name,
        len(whole),
        stacked,
        replace(summary, first_token_s=estimate(first_s, "measured")),
        tuple(warnings),
    )


def write_charts(measured: Measured, folder: Path) -> None:
    """The charts that need token times alone: tokens/s over runs, and the inter-token time distribution."""
    from simulator.result.charts import chart_files
    from simulator.result.folder import replace_files
    from simulator.result.table import bench_table, inter_token_table

    tables = {
        "bench": bench_table(measured.times_s, measured.runs),
        "inter_token_time": inter_token_table(measured.times_s),
    }
    replace_files(folder, chart_files(tables, measured.name, "Measured."))
