"""Which tool wrote a file, told by its content, and everything that it says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibrate.benchmarks.exo_bench import read_exo_bench
from calibrate.benchmarks.llama_bench import read_csv, read_json, read_markdown, read_sql
from calibrate.benchmarks.llama_server import read_log, read_timings
from calibrate.benchmarks.mlx_text import read_mlx
from calibrate.benchmarks.record import Record
from calibrate.benchmarks.source import Line, lines_of
from calibrate.benchmarks.vllm_bench import read_vllm
from simulator.errors import Fault, MeasurementError, in_lines

__all__ = ["KNOWN", "Benchmarks", "Form", "foreign", "is_foreign", "read_benchmarks", "recognise"]

Reader = Callable[[str, Iterable[Line]], Iterator[Record | Fault]]
LOOKED_AT_CHARS = 1 << 20
"""How far into a file a mark is looked for: a server prints about 60 kB before its first reply."""
MOST_RECORDS = 100_000
MOST_FAULTS = 20
"""Faults told of one file; a wrong file has them in every line."""


@dataclass(frozen=True)
class Form:
    """A format: it is taken for this one where a line holds all of `marks`, the rarest first."""

    name: str
    marks: tuple[str, ...]
    read: Reader


FORMS = (
    Form("llama-bench -o sql", ("CREATE TABLE IF NOT EXISTS llama_bench",), read_sql),
    Form("llama-bench -o sql", ("INSERT INTO", "avg_ts"), read_sql),
    Form("llama-bench -o json or jsonl", ('"avg_ts"', ":"), read_json),
    Form("llama-bench -o csv", ("avg_ts", ","), read_csv),
    Form("llama-bench -o md", ("t/s", "|", "test"), read_markdown),
    Form("EXO bench (exo_bench.py --json-out)", ('"generation_tps"',), read_exo_bench),
    Form("vllm bench serve", ('"total_output_tokens"',), read_vllm),
    Form("vllm bench latency", ('"avg_latency"',), read_vllm),
    Form("vllm bench throughput", ('"elapsed_time"',), read_vllm),
    Form("llama-server replies with timings", ('"predicted_ms"',), read_timings),
    Form("llama-server or llama-cli log", ("prompt eval time =",), read_log),
    Form("mlx_lm.benchmark", ("Timing with prompt_tokens=",), read_mlx),
    Form("mlx_lm.generate", ("Prompt: ", " tokens-per-sec"), read_mlx),
)
_RARE = re.compile("|".join(re.escape(form.marks[0]) for form in FORMS))
KNOWN = "measurements of `sim live run` (.jsonl, .jsonl.gz), and results of " + ", ".join(
    dict.fromkeys(form.name for form in FORMS)
)


@dataclass(frozen=True)
class Benchmarks:
    """What files of benchmarks say, and what of them could not be read."""

    records: tuple[Record, ...]
    faults: tuple[str, ...]
    """`file:line: reason`, one for each row that is left out."""


def recognise(path: Path) -> Form | None:
    """The format of a file, by the first mark in it; None for a file of no such tool.

    Raises MeasurementError for a file that cannot be read.
    """
    seen = 0
    for _, line in lines_of(path):
        # a measurement of ours holds what the engine said of itself, `generation_tps` too
        if not seen and line.startswith('{"type":"header"'):
            return None
        if _RARE.search(line):
            for form in FORMS:
                if all(mark in line for mark in form.marks):
                    return form
        seen += len(line) + 1
        if seen > LOOKED_AT_CHARS:
            return None
    return None


def foreign(path: Path) -> MeasurementError:
    """The one message on a file of something else."""
    return MeasurementError(f"{path}: is nothing that can be read here; what can be is {KNOWN}")


def is_foreign(path: Path) -> bool:
    """Whether a file that can be read is neither of a known tool nor begins as a measurement does."""
    try:
        if recognise(path) is not None:
            return False
        first = next((line for _, line in lines_of(path) if line.strip()), "")
    except MeasurementError:
        return False
    return not (first.lstrip().startswith("{") and '"type"' in first)


def read_benchmarks(paths: Sequence[Path]) -> Benchmarks:
    """All records of these files, in their order; a row that is none is told of and stops no other.

    Raises MeasurementError for a file that cannot be read or is of no known tool, and where nothing is left.
    """
    records, faults = list[Record](), list[str]()
    for path in paths:
        form = recognise(path)
        if form is None:
            raise foreign(path)
        found = list(_at_most(form.read(str(path), lines_of(path))))
        records += [one for one in found if isinstance(one, Record)]
        faults += _told(path, [one for one in found if isinstance(one, Fault)])
    if not records:
        raise MeasurementError(
            "\n".join(["no usable benchmark:", *(faults or [f"{paths[0]}: holds no run"])])
        )
    return Benchmarks(tuple(records), tuple(faults))


def _at_most(found: Iterator[Record | Fault]) -> Iterator[Record | Fault]:
    for number, one in enumerate(found):
        if number >= MOST_RECORDS:
            yield Fault("", f"more than {MOST_RECORDS} rows; those behind are left out")
            return
        yield one


def _told(path: Path, faults: Sequence[Fault]) -> list[str]:
    lines = in_lines(str(path), faults)
    more = len(lines) - MOST_FAULTS
    return lines if more <= 0 else [*lines[:MOST_FAULTS], f"{path}: {more} more faults like these"]
