"""`sim calibrate` on what other tools measured: one device's speed as a scenario takes it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sim.json_output import print_json

if TYPE_CHECKING:
    from calibrate.benchmarks import MeasuredDevice
    from simulator.scenario import Scenario

__all__ = ["benchmark_paths", "calibrate_benchmarks", "measured_rate"]


def benchmark_paths(paths: Sequence[Path]) -> list[Path]:
    """Those of the files that another tool's benchmark wrote.

    Raises MeasurementError where they are mixed with our own measurements, and where nothing here is either.
    """
    from calibrate.benchmarks import foreign, is_foreign, recognise
    from simulator.errors import MeasurementError

    found = [path for path in paths if path.is_file() and recognise(path) is not None]
    strangers = [path for path in paths if is_foreign(path)]
    if strangers and len(strangers) + len(found) == len(paths):
        raise foreign(strangers[0])
    if found and len(found) < len(paths):
        other = next(path for path in paths if path not in found)
        raise MeasurementError(
            f"{other}: is no benchmark, and {found[0]} is one of another tool; calibrate the two apart"
        )
    return found


def calibrate_benchmarks(
    paths: Sequence[Path],
    *,
    out: Path | None,
    device: str | None,
    name: str | None,
    model: str | None,
    quantisation: str | None,
    request: tuple[int | None, int | None, int | None],
    as_json: bool,
) -> None:
    """Print, or with `out` write, what a scenario's `devices:` takes; faults and doubts to standard error."""
    from calibrate.benchmarks import fragment, measured_devices
    from calibrate.benchmarks.record import Request
    from simulator.files import write_ours

    found, records, left_out = measured_devices(
        paths, device=device, name=name, model=model, quantisation=quantisation, request=Request(*request)
    )
    text = fragment(found, paths)
    if out is not None:
        write_ours(out, text)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    if as_json:
        print_json(
            {
                "devices": [_document(one) for one in found],
                "records": [record.model_dump(mode="json", exclude_defaults=True) for record in records],
                "left_out": list(left_out),
            }
        )
        return
    for doubt in dict.fromkeys(doubt for one in found for doubt in one.doubts):
        print(f"doubt: {doubt}", file=sys.stderr)
    if out is None:
        print(text, end="")
    else:
        names = ", ".join(one.name for one in found)
        print(
            f"wrote {out}: {names}, measured; put it under `devices:` of a scenario, then: sim run SCENARIO"
        )


def _document(one: MeasuredDevice) -> dict[str, object]:
    return {
        "name": one.name,
        "kind": one.kind,
        "engine": one.engine,
        "model": one.model.model_dump(mode="json", exclude_defaults=True),
        "speed": one.speed.model_dump(mode="json", exclude_defaults=True),
        "runs": [record.place for record in one.records],
        "doubts": list(one.doubts),
    }


def measured_rate(said: str, asked: Scenario) -> tuple[float, tuple[str, ...]]:
    """What `--measured` says: tokens/s, or the median decode tokens/s of a benchmark's file, and what that
    file ran otherwise than the scenario.

    Raises MeasurementError for anything else.
    """
    from statistics import median

    from calibrate.benchmarks import differences, read_benchmarks
    from simulator.errors import MeasurementError, UnitError
    from simulator.units import TOKENS_PER_S, read_quantity

    doubts: tuple[str, ...] = ()
    try:
        value = read_quantity(said, TOKENS_PER_S)
    except UnitError:
        if not Path(said).is_file():
            raise MeasurementError(
                f"--measured is {said!r:.60} and must be tokens/s ('0.69', '0.69 tokens/s'), or the path of "
                "a benchmark's file"
            ) from None
        found = [record for record in read_benchmarks([Path(said)]).records if record.decode]
        value = median(record.decode.tokens_per_s for record in found if record.decode) if found else 0.0
        doubts = differences(found, asked)
    if not 0 < value <= 1e6:
        raise MeasurementError(f"--measured is {said!r:.60} and must be tokens/s above 0, at most 1e6")
    return value, doubts
