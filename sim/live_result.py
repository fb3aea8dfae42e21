"""What `sim live run` says when it ends, whatever cluster it measured: results, or what an interrupt left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sim.json_output import print_json
from simulator.errors import MeasurementError

if TYPE_CHECKING:
    from live.measure import MeasureResult

__all__ = ["conclude", "document", "interruptible", "measurement_file"]

INTERRUPTED = 130  # 128 + SIGINT, as shells have it (docs/exit-codes.md)


def document(result: MeasureResult, runs: int) -> dict[str, Any]:
    """One measurement of `runs` asked runs, ready to be printed."""
    steady = result.steady
    return {
        "file": str(result.path),
        "runs_done": result.runs_done,
        "runs": runs,
        "failures": list(result.failures),
        "warnings": list(result.warnings),
        "tokens_per_s": list(steady.per_request) if steady else [],
        "median_tokens_per_s": steady.median_tokens_per_s if steady else None,
        "exo_bench_tokens_per_s": steady.exo_bench_tokens_per_s if steady else None,
    }


def conclude(documents: Sequence[dict[str, Any]], *, as_json: bool, refused: Sequence[str] = ()) -> None:
    """Tell what was measured, and exit with 1 unless that is everything that was asked.

    `refused` says of each visit that gave no file why. One measurement is one JSON object, several are a list
    under `measurements`.
    """
    if as_json:
        only = documents[0] if len(documents) == 1 and not refused else None
        print_json(only or {"measurements": list(documents), "refused": list(refused)})
    else:
        for one in documents:
            _print(one)
        for text in refused:
            print(f"not measured: {text}")
    if refused or any(one["runs_done"] < one["runs"] for one in documents):
        raise typer.Exit(1)


def _print(one: dict[str, Any]) -> None:
    rate = one["median_tokens_per_s"]
    told = f", median {rate:.3g} tokens/s" if rate else ""
    print(f"{one['file']}  {one['runs_done']} of {one['runs']} runs{told}")
    for failure in one["failures"]:
        print(f"failed: {failure}")
    for warning in one["warnings"]:
        print(f"doubt: {warning}")


def measurement_file(out: Path, scenario: Path) -> Path:
    """A measurement's path: `out` itself, or a file in it that does not exist yet."""
    if out.suffix == ".jsonl":
        return out
    stem = f"{scenario.stem}-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    # two visits, or two runs that start together, may fall into one second
    names = (f"{stem}{f'-{number}' if number else ''}.jsonl" for number in count())
    return next(path for name in names if not (path := out / name).exists())


@contextmanager
def interruptible(files: Callable[[], Iterable[Path]]) -> Iterator[None]:
    """Turn a Ctrl-C (or SIGTERM) into one line: what was kept in `files`, and what was deleted.

    What the cluster's client did while it left is in the notes of the exception.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        kept = [told for file in files() if (told := _kept(file))]
        parts = [f"kept {'; '.join(kept)}" if kept else "nothing was measured yet, so there is no file"]
        parts += getattr(stop, "__notes__", [])
        print(f"interrupted: {'; '.join(parts)}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def _kept(file: Path) -> str:
    """`1 of 3 runs, 87 tokens in m.jsonl`; empty where no file was begun."""
    from simulator.result.measurement import read_measurement

    try:
        found = read_measurement(file)
    except (MeasurementError, OSError):
        return ""
    chats: dict[int, int] = {}
    for event in found.of("result"):
        chats[event["run"]] = chats.get(event["run"], 0) + (event["outcome"] == "complete")
    # a run is whole when all of its chats are
    whole = sum(count >= found.provenance.concurrency for count in chats.values())
    tokens = sum(1 for _ in found.of("token"))
    return f"{whole} of {found.provenance.runs} runs, {tokens} tokens in {file}"
