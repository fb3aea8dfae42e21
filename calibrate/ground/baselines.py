"""Baselines on the same rows: the back of an envelope, and a public calculator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from calibrate.ground.cases import Case
from calibrate.ground.predict import Outcome
from calibrate.tables import lines
from simulator import catalog
from simulator.errors import CalibrationError
from simulator.prepare import prepare
from simulator.runtime.portions import Divided

__all__ = ["SHARE", "calculator_s", "peak_s", "with_baselines"]

SHARE = 0.7
"""Share of the peak bandwidth that rules of thumb take."""


def peak_s(case: Case, share: float = 1.0) -> float:
    """Seconds per token if each device read its bytes at `share` of its peak and nothing else took time: one
    device after the other, or, where each has a part of every layer, all together.

    Bytes are the weights that a token needs, its head, and the cache in the middle of the reply. Raises
    CalibrationError for a device without a kind, whose peak nobody knows.
    """
    job = prepare(case.scenario).job
    workload = case.scenario.workload
    batch, context = workload.concurrency, workload.prompt_tokens + workload.output_tokens / 2
    seconds = []
    for rank, device in enumerate(job.ring):
        spec = case.scenario.devices[device.name]
        if spec.kind is None:
            raise CalibrationError(f"{case.row}: {device.name} has no kind, so its peak is unknown; name one")
        held = job.held(rank)
        held = held.whole if isinstance(held, Divided) else held
        read_bytes = held.bytes_read(batch) + float(held.kv_bytes(context, batch)) if held.layers else 0.0
        # where all compute the head they do it at once, so it counts once too
        if rank == job.head_rank or job.placement.splits_layers:
            read_bytes += job.model.head_bytes
        seconds.append(read_bytes / (share * catalog.device(spec.kind, spec.memory).memory_bytes_per_s))
    return (max if job.placement.splits_layers else sum)(seconds) / batch


def calculator_s() -> tuple[str, dict[str, float]]:
    """Name and version of the public calculator, and the seconds per token that it said by row.

    Rows that it cannot express are missing. `scripts/published_baselines.py` asked it.
    """
    said = lines("published_baselines.csv")
    name = f"{said[0]['calculator']} {said[0]['version']}"
    return name, {line["row"]: 1 / float(line["tokens_per_s"]) for line in said}


def with_baselines(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> Mapping[str, dict[str, float]]:
    """Errors (`predicted / measured - 1`) by baseline and row, of the outcomes that are about decoding."""
    by_row = {case.row: case for case in cases}
    decoded = [one for one in outcomes if one.quantity == "decode"]
    name, told_s = calculator_s()
    peaks = {one.row: peak_s(by_row[one.row]) / one.measured_s for one in decoded}
    return {
        "peak bandwidth": {row: ratio - 1 for row, ratio in peaks.items()},
        f"{SHARE:.0%} of it": {row: ratio / SHARE - 1 for row, ratio in peaks.items()},
        name: {one.row: told_s[one.row] / one.measured_s - 1 for one in decoded if one.row in told_s},
    }
