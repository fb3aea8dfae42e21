"""Results of other tools' benchmarks."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from simulator.errors import SimulatorError
from tests.fuzz.doors.door import DATA, Kind, Unfit, command, scratch, told

__all__ = ["KINDS"]


@cache
def benchmarks() -> tuple[bytes, ...]:
    """Results of every tool that `sim calibrate` reads."""
    found = sorted(path for path in (DATA / "benchmarks").iterdir() if path.name != "README.md")
    return tuple(path.read_bytes()[:30_000] for path in found)


def _benchmark(path: Path) -> None:
    told(path, "calibrate", path, "--json", "--device", "RTX 4080", "--model", "Llama-3.1-8B")


def _benchmark_read(path: Path) -> None:
    from calibrate.benchmarks.read import read_benchmarks

    try:
        read_benchmarks([path])
    except SimulatorError as error:
        if path.name not in str(error):
            raise Unfit(f"a benchmark is refused without naming the file: {error}") from None


def _benchmark_added(path: Path) -> None:
    out = scratch(path, "own.devices.yaml")
    # a benchmark names its device itself, and what it says may be no name: then the catalogue is named
    code, _, err = command("catalog", "add", "--benchmark", path, "-o", out)
    if code not in (0, 1, 2) or (code and not (path.name in err or out.name in err)):
        raise Unfit(f"sim catalog add exits {code}: {err[:300]}")


def _held_against(path: Path) -> None:
    told(path, "run", "wired_laptop", "--measured", path, "--replications", "2", "--json")


KINDS = {
    "benchmark": Kind(
        "bench.txt", benchmarks, (*11 * (_benchmark_read,), _benchmark, _benchmark_added, _held_against)
    )
}
