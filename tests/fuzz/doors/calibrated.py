"""Calibrations."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tests.fuzz.doors.door import DATA, RESULTS, Kind, scratch, told

__all__ = ["KINDS"]


@cache
def calibrations() -> tuple[bytes, ...]:
    """Of a local cluster and of recorded EXO runs, with fewer draws."""
    from calibrate.calibration import load_calibration
    from simulator.files import dumps

    found = []
    for name in ("local", "exo"):
        whole = load_calibration(RESULTS / name / "calibration.yaml")
        for draws in (5, 20):
            shorter = {key: getattr(whole, key)[:draws] for key in ("draws", "prefill_draws")}
            few = whole.model_copy(update={**shorter, "sources": whole.sources[:3]})
            found.append(dumps(few, rows=True).encode())
    return tuple(found)


@cache
def _asked(engine: str) -> bytes:
    from calibrate.samples import sample
    from simulator.files import dumps
    from simulator.result.measurement import read_measurement

    file = {
        "exo": DATA / "campaign/B_a12b12.jsonl",
        "llama-rpc": RESULTS / "local/held_out/two_even.jsonl.gz",
    }[engine]
    asked = sample(read_measurement(file)).scenario
    workload = asked.workload.model_copy(update={"output_tokens": 8, "runs": 2})
    return dumps(asked.model_copy(update={"replications": 4, "workload": workload})).encode()


def _scenario(path: Path) -> Path:
    engine = "llama-rpc" if b"llama-rpc" in path.read_bytes()[:2000] else "exo"
    scenario = path.with_name("asked.yaml")
    scenario.write_bytes(_asked(engine))
    return scenario


def _predict(path: Path) -> None:
    out = scratch(path, "out.prediction.json")
    told(path, "predict", _scenario(path), "--calibration", path, "-o", out)


def _run(path: Path) -> None:
    told(path, "run", _scenario(path), "--calibration", path, "--json")


def _add(path: Path) -> None:
    # what it makes of a calibration may be no catalogue: then the file that was to be written is named
    out = scratch(path, f"{path.name}.own.yaml")
    told(path, "catalog", "add", _scenario(path), "--calibration", path, "-o", out)


KINDS = {"calibration": Kind("fitted.yaml", calibrations, (_predict, _run, _add))}
