"""Points of sweeps."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from concurrent.futures import Executor, Future
from functools import cache
from pathlib import Path
from typing import Any

from simulator.errors import SimulatorError
from tests.fuzz.doors.door import Kind, Unfit, scratch

__all__ = ["KINDS"]


class _Inline(Executor):
    """Computes where it is asked, a point in no time."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(
            json.dumps(
                {"key": args[0], "row": json.loads(_points()[0].splitlines()[0])["row"]}, sort_keys=True
            )
        )
        return done


@cache
def _planned() -> Any:
    from simulator.library import load
    from simulator.plan.sweep.points import parse_axis
    from simulator.plan.sweep.sweep import plan_sweep

    asked = load("four_devices").model_copy(update={"replications": 2})
    return plan_sweep(
        asked, [parse_axis("workload.output_tokens=4,5"), parse_axis("devices.pixel.link.rtt=1ms..9ms:3")]
    )


@cache
def _points() -> tuple[bytes, ...]:
    from simulator.plan.sweep.sweep import evaluate_point

    whole = [evaluate_point(key, payload) for key, payload in _planned().tasks]
    failed = json.dumps({"key": _planned().tasks[1][0], "row": {"error": "fits nowhere"}}, sort_keys=True)
    return "\n".join([*whole, ""]).encode(), "\n".join([whole[0], failed, *whole[3:], ""]).encode()


def _sweep(path: Path) -> None:
    from sim.sweep_cmd import _finish, _print_sweep
    from simulator.plan.sweep.charts import sweep_charts
    from simulator.plan.sweep.sweep import run_sweep

    folder = scratch(path, "swept")
    folder.mkdir()
    shutil.copy(path, folder / "points.jsonl")
    planned = _planned()
    try:
        run_sweep(planned, folder, _Inline, workers=1, say=lambda _: None)
        rows = _finish(planned, folder, charts=path.stat().st_size % 10 == 0)
        sweep_charts(planned, rows)  # what costs is their drawing
    except SimulatorError as error:
        if "points.jsonl" not in str(error):
            raise Unfit(f"the sweep refuses without naming the file: {error}") from None
        return
    with contextlib.redirect_stdout(io.StringIO()):
        _print_sweep(planned, rows, folder)


KINDS = {"sweep points": Kind("swept.jsonl", _points, (_sweep,))}
