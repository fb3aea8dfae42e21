"""What `sim run` leaves on disk, whole or not at all.

==================  ==================================================================================
file                holds
==================  ==================================================================================
`scenario.yaml`     the completed scenario, which runs again anywhere and gives the same bytes
`summary.json`      the prediction, as `sim run --json` prints it
`trace.parquet`     every token of every run, every span of one run; see `simulator.result.trace.COLUMNS`
`charts.html`       all charts on one page that needs no network
`charts/NAME.svg`   each chart, and the same as `.png`
`perfetto.json`     the spans for https://ui.perfetto.dev, on request
==================  ==================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from simulator.errors import SimulatorError
from simulator.files import dumps, make_folder
from simulator.files.ours import mark, refuse_others
from simulator.files.swap import clean, replace_in
from simulator.result.table import CHART_NAMES, ChartTable
from simulator.version import VERSION

if TYPE_CHECKING:
    from simulator.run.predict import Prediction

__all__ = ["OUR_FILES", "folder_files", "prediction_tables", "replace_files", "write_folder"]

ALWAYS = ("scenario.yaml", "summary.json", "trace.parquet")
OUR_FILES = (
    *ALWAYS,
    "perfetto.json",
    "charts.html",
    *(f"charts/{name}.{kind}" for name in CHART_NAMES for kind in ("svg", "png")),
)
"""All that this module writes and therefore replaces; nothing else in a folder is touched."""


def write_folder(prediction: Prediction, folder: Path, *, with_charts: bool, with_perfetto: bool) -> None:
    """Write or replace the results of a prediction; whatever happens, `folder` holds all of
    the old or all of the new.

    Raises SimulatorError if the folder cannot be written, or holds files of other origin under our names.
    """
    files = folder_files(prediction, with_charts=with_charts, with_perfetto=with_perfetto)
    # those that go count too: with --no-charts the charts of an earlier run are removed
    refuse_others(folder, {name: files.get(name) for name in OUR_FILES})
    # the marks are there before the files: killed in between, the next run must not take ours for another's
    make_folder(folder)
    mark(folder, files)
    replace_files(folder, files)


def folder_files(prediction: Prediction, *, with_charts: bool, with_perfetto: bool) -> dict[str, bytes]:
    """The content of each file; the same prediction gives the same bytes."""
    from simulator.result.trace import trace_bytes

    scenario = prediction.scenario
    about = {"scenario": scenario.name, "seed": str(scenario.seed), "version": VERSION}
    files = {
        "scenario.yaml": dumps(scenario, scenario.question or scenario.name).encode(),
        "summary.json": (json.dumps(prediction.document(), indent=2) + "\n").encode(),
        "trace.parquet": trace_bytes(
            prediction.times_s, scenario.workload.runs, prediction.replay, about, prediction.replayed_row
        ),
    }
    if with_perfetto:
        from simulator.result.perfetto import perfetto_json

        files["perfetto.json"] = perfetto_json(prediction.replay, _ring(prediction)).encode()
    if with_charts:
        from simulator.result.charts import chart_files

        files |= chart_files(prediction_tables(prediction), scenario.name, scenario.question)
    return files


def prediction_tables(prediction: Prediction) -> dict[str, ChartTable]:
    """The table of each chart."""
    from simulator.result import table
    from simulator.result.critical import token_paths
    from simulator.run.predict import REPLAYS

    ring, worlds = _ring(prediction), min(REPLAYS, prediction.scenario.replications)
    basis = f"mean of {worlds} replayed replies" if worlds > 1 else "one replayed reply"
    return {
        "bench": table.bench_table(prediction.times_s, prediction.scenario.workload.runs),
        "slowest_stage": table.slowest_table(
            token_paths(prediction.replay), ring, prediction.bottleneck.over_worlds
        ),
        "where_time_goes": table.where_table(prediction.shares, ring, prediction.bottleneck.sentence, basis),
        "inter_token_time": table.inter_token_table(prediction.times_s),
        "memory": table.memory_table(prediction.prepared.memory),
    }


def _ring(prediction: Prediction) -> list[str]:
    return [device.name for device in prediction.prepared.job.ring]


def replace_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make `files` (names below the folder) those of ours that `folder` holds, and leave all others alone.

    All at once, whatever is killed meanwhile. Raises SimulatorError.
    """
    try:
        clean(folder, OUR_FILES)
        _refuse_others(folder)
        replace_in(folder, OUR_FILES, files)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise SimulatorError(
            f"{folder}: cannot be written ({why}); name a folder that you may write"
        ) from None


def _refuse_others(folder: Path) -> None:
    """A folder with a person's own scenario.yaml is no place for results."""
    there = [name for name in OUR_FILES if (folder / name).exists()]
    if there and not all(name in there for name in ALWAYS):
        raise SimulatorError(
            f"{folder}: its {there[0]} would be replaced, but the folder does not look like results "
            "of an earlier run; name another folder, or remove the file"
        )
