"""EXO's own benchmark: `bench/exo_bench.py --json-out`.

Read from exo-explore/exo: an object with `runs` (and `cluster`), in older versions the array of runs alone; a
run has the placement that it was measured on, its lengths, and MLX's `stats`, which are of one request also
where several ran at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from calibrate.benchmarks.record import Fields, Record, rate_of
from calibrate.benchmarks.source import Line, json_objects
from simulator.errors import Fault, MeasurementError

__all__ = ["read_exo_bench"]

KEYS = ("model_id", "placement_sharding", "placement_instance_meta", "placement_nodes", "pp_tokens", "tg")


def read_exo_bench(file: str, lines: Iterable[Line]) -> Iterator[Record | Fault]:
    """The runs, repeats of one configuration as one record with their spread, in the order of the file."""
    groups: dict[tuple[str, ...], list[tuple[int, Fields]]] = {}
    for line, values in _runs(json_objects(lines)):
        if values is None:
            yield Fault("", "not a run of exo_bench: no stats with generation_tps; left out", line)
        elif isinstance(values, Fault):
            yield values
        else:
            row = Fields(values)
            key = tuple(row.text(name) for name in (*KEYS, "concurrency"))
            groups.setdefault(key, []).append((line, row))
    for group in groups.values():
        yield from _record(file, group)


def _runs(found: Iterable[Any]) -> Iterator[tuple[int, Mapping[str, Any] | Fault | None]]:
    for one in found:
        if isinstance(one, Fault):
            yield one.line or 1, one
            continue
        line, document = one
        runs = document.get("runs")
        for run in runs if isinstance(runs, list) else [document]:
            has_stats = isinstance(run, Mapping) and isinstance(run.get("stats"), Mapping)
            yield line, run if has_stats else None


def _record(file: str, group: list[tuple[int, Fields]]) -> Iterator[Record | Fault]:
    """One record of all repeats, and a fault for each that is none."""
    decode, prompt = list[float](), list[float]()
    line, row = group[0]
    for number, run in group:
        try:
            decode.append(run.below("stats").rate("generation_tps"))
            prompt.append(run.below("stats").rate("prompt_tps"))
        except MeasurementError as error:
            yield Fault("", f"repeat {run.text('repeat_index')}: stats: {error}; left out", number)
    try:
        if decode:
            yield _one(file, line, row, decode, prompt)
    except MeasurementError as error:
        yield Fault("", f"{error}; this run is left out", line)


def _one(file: str, line: int, row: Fields, decode: list[float], prompt: list[float]) -> Record:
    nodes, batch = row.whole("placement_nodes"), max(1, row.whole("concurrency", 1))
    tokens = row.below("stats").whole("prompt_tokens") or row.whole("pp_tokens")
    return Record(
        file=file,
        line=line,
        tool="EXO bench",
        runtime="mlx",
        model=row.text("model_id", "model_short_id"),
        backend=row.text("placement_instance_meta"),
        decode=rate_of(decode),
        prompt=rate_of(prompt),
        prompt_tokens=tokens,
        output_tokens=row.below("stats").whole("generation_tokens") or row.whole("tg"),
        depth=tokens,
        batch=batch,
        not_one_device=_not_one_device(row, nodes),
    )


def _not_one_device(row: Fields, nodes: int) -> str:
    if nodes == 1:
        return ""
    if nodes == 0:  # an instance that was running already: the benchmark did not ask where
        return "ran on an instance of which the file does not say how many nodes it has"
    return f"ran on {nodes} nodes ({row.text('placement_sharding')})"
