"""llama-bench of llama.cpp: its five output formats, which all hold the same columns.

Read from `tools/llama-bench` (llama-bench.cpp and README.md) of ggml-org/llama.cpp, 2023 to 2026: columns
come and go with versions, so each is looked up by its name and only the rate must be there.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from calibrate.benchmarks.record import Fields, Rate, Record, records_of
from calibrate.benchmarks.source import Line, json_objects
from simulator.errors import Fault, MeasurementError, UnitError
from simulator.units import SIZE, read_quantity

__all__ = ["read_csv", "read_json", "read_markdown", "read_sql"]

Row = tuple[int, Mapping[str, Any]]

# the names in Markdown that differ from the columns of the other formats
SHORT = {"model": "model_type", "size": "model_size", "params": "model_n_params", "backend": "backends"}
SHORT |= {"ngl": "n_gpu_layers", "fa": "flash_attn", "threads": "n_threads", "sm": "split_mode"}
COUNT = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_INSERT = re.compile(r"INSERT INTO \w+ \((?P<names>[^)]*)\) VALUES \((?P<values>.*)\);?\s*$")
_TEST = re.compile(r"^(?:pp ?(?P<pp>\d+))?\+?(?:tg ?(?P<tg>\d+))?(?: @ d(?P<depth>\d+))?$")
_RATE = re.compile(r"^(?P<mean>[\d.]+)(?:[^\d.]+(?P<sd>[\d.]+))?$")
_FILE_TYPE = re.compile(
    r"^(?P<name>.*?) (?P<type>(?:mostly )?(?:I?Q\d|TQ\d|MXFP\d|NVFP\d|F16|BF16|F32|all F32)\S*.*)$"
)


def read_json(file: str, lines: Iterable[Line]) -> Iterator[Record | Fault]:
    """An array of objects (`-o json`), or one object a line (`-o jsonl`)."""
    yield from _records(file, json_objects(lines))


def read_csv(file: str, lines: Iterable[Line]) -> Iterator[Record | Fault]:
    """Comma-separated values (`-o csv`); several files one after the other too, each with its header."""
    yield from _records(file, _csv_rows(lines))


def read_sql(file: str, lines: Iterable[Line]) -> Iterator[Record | Fault]:
    """Statements for SQLite (`-o sql`), one INSERT a line."""
    yield from _records(file, _sql_rows(lines))


def read_markdown(file: str, lines: Iterable[Line]) -> Iterator[Record | Fault]:
    """A table (`-o md`, what it prints when nobody asks), as it is posted."""
    yield from _records(file, _markdown_rows(lines))


def _records(file: str, rows: Iterable[Row | Fault]) -> Iterator[Record | Fault]:
    return records_of(rows, lambda line, row: _record(file, line, row))


def _record(file: str, line: int, row: Fields) -> Record:
    prompt_tokens, output_tokens = row.whole("n_prompt"), row.whole("n_gen")
    if bool(prompt_tokens) == bool(output_tokens):
        what = "prompt and reply together (-pg)" if prompt_tokens else "neither prompt nor reply"
        raise MeasurementError(f"a test of {what} tells no rate of one of them; run -p and -n apart")
    rate = _rate(row)
    name, quantisation = _model(row)
    return Record(
        file=file,
        line=line,
        tool="llama-bench",
        runtime="llama.cpp",
        device=_device(row),
        model=row.text("model_filename") or name,
        quantisation=quantisation,
        model_bytes=row.number("model_size", 1e15),
        model_params=row.number("model_n_params", 1e15),
        backend=row.text("backends"),
        decode=rate if output_tokens else None,
        prompt=rate if prompt_tokens else None,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        depth=row.whole("n_depth"),
        gpu_layers=_gpu_layers(row),
        flash_attention=row.flag("flash_attn"),
        versions=" ".join(part for part in (row.text("build_commit"), row.text("build_number")) if part),
        not_one_device=_not_one_device(row),
    )


def _rate(row: Fields) -> Rate:
    mean, sd = row.rate("avg_ts"), row.number("stddev_ts")
    samples = row.values.get("samples_ts")
    repeats = len(samples) if isinstance(samples, list) and len(samples) > 1 else None
    return Rate(tokens_per_s=mean, log_sd=None if sd is None else sd / mean, repeats=repeats)


def _model(row: Fields) -> tuple[str, str]:
    """'qwen2 7B Q4_K - Medium' is architecture, size and file type: ('qwen2 7B', 'Q4_K_M')."""
    said = row.text("model_type")
    parts = _FILE_TYPE.match(said)
    if parts is None:
        return said, ""
    size = {"Medium": "_M", "Small": "_S", "Large": "_L"}
    kind, _, word = parts["type"].removeprefix("mostly ").removeprefix("all ").partition(" - ")
    return parts["name"], kind + size.get(word.strip(), "")


def _device(row: Fields) -> str:
    """What computed: the processor where no layer was on a graphics processor, else the latter."""
    backends = {part.strip() for part in row.text("backends").upper().split(",")}
    alone = backends <= {"CPU", "BLAS", ""} or _gpu_layers(row) == 0
    return row.text("cpu_info") if alone and backends != {""} else row.text("gpu_info")


def _gpu_layers(row: Fields) -> int | None:
    """Layers on the graphics processor; None for all (-1, or 99, as people write) and where unsaid."""
    said = row.text("n_gpu_layers")
    return int(said) if said.isdigit() and int(said) < 99 else None


def _not_one_device(row: Fields) -> str:
    if "RPC" in row.text("backends").upper().split(",") or "RPC" in row.text("devices"):
        return "ran over RPC on several machines"
    if row.whole("n_cpu_moe"):
        return "kept experts on the processor (n_cpu_moe)"
    cards = row.text("gpu_info").count(", ") + 1
    if cards > 1 and row.text("split_mode") != "none" and row.text("gpu_info") == _device(row):
        return f"ran on {cards} graphics processors together (one alone: -sm none -mg 0)"
    return ""


def _csv_rows(lines: Iterable[Line]) -> Iterator[Row | Fault]:
    names: list[str] = []
    for number, line in lines:
        try:
            cells = next(csv.reader([line]), [])
        except csv.Error as error:
            yield Fault("", f"no line of comma-separated values ({error}); left out", number)
            continue
        if "avg_ts" in cells:
            names = cells
        elif names and cells and len(cells) == len(names):
            yield number, dict(zip(names, cells, strict=True))
        elif names and line.strip():
            yield Fault("", f"{len(cells)} values for {len(names)} columns; this row is left out", number)


def _sql_rows(lines: Iterable[Line]) -> Iterator[Row | Fault]:
    for number, line in lines:
        if not line.lstrip().startswith("INSERT"):
            continue
        parts = _INSERT.search(line)
        # llama-bench puts each value in quotes and escapes none: so they are told apart by the quotes between
        values = parts["values"].strip().strip("'").split("', '") if parts else []
        names = [name.strip() for name in parts["names"].split(",")] if parts else []
        if len(values) == len(names) > 0:
            yield number, dict(zip(names, values, strict=True))
        else:
            yield Fault("", f"{len(values)} values for {len(names)} columns; this row is left out", number)


def _markdown_rows(lines: Iterable[Line]) -> Iterator[Row | Fault]:
    names: list[str] = []
    for number, line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.lstrip().startswith("|") or set(line) <= set("|-: "):
            continue
        if "t/s" in cells:
            names = [SHORT.get(name, name) for name in cells]
        elif names and len(cells) == len(names):
            try:
                yield number, _unfolded(dict(zip(names, cells, strict=True)))
            except MeasurementError as error:
                yield Fault("", f"{error}; this row is left out", number)
        elif names:
            yield Fault("", f"{len(cells)} cells for {len(names)} columns; this row is left out", number)


def _unfolded(cells: dict[str, str]) -> dict[str, Any]:
    """The cells of a table for people as the columns of the other formats."""
    test, rate = _TEST.match(cells.get("test", "")), _RATE.match(cells["t/s"])
    if test is None or rate is None:
        name = "t/s" if test else "test"
        raise MeasurementError(
            f"{name} is {cells.get(name, '')!r:.40} and must be like '171.16 ± 0.10' or 'tg128'"
        )
    row: dict[str, Any] = {**cells, "avg_ts": rate["mean"], "stddev_ts": rate["sd"]}
    row |= {"n_prompt": test["pp"], "n_gen": test["tg"], "n_depth": test["depth"]}
    row["model_size"] = _bytes(cells.get("model_size", ""))
    number, _, unit = cells.get("model_n_params", "").partition(" ")
    row["model_n_params"] = Fields({"params": number}).number("params", 1e6)
    if row["model_n_params"] is not None:
        row["model_n_params"] *= COUNT.get(unit.strip(), 1.0)
    return row


def _bytes(text: str) -> float | None:
    try:
        return read_quantity(text, SIZE) if text else None
    except UnitError as error:
        raise MeasurementError(f"size: {error}") from None
