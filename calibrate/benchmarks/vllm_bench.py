"""Results of `vllm bench serve --save-result`, `latency` and `throughput --output-json` (vllm-project/vllm).

`serve` tells the time per output token of a request. `latency` and `throughput` write seconds of whole
requests without saying how long these were, so no rate of one chat can be had from them: they are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from calibrate.benchmarks.record import Fields, Rate, Record, rate_of
from calibrate.benchmarks.source import Line, json_objects
from simulator.errors import Fault, MeasurementError

__all__ = ["read_vllm"]

WAY_OUT = "run `vllm bench serve --max-concurrency 1 --save-result`, which tells the time per token"


def read_vllm(file: str, lines: Iterable[Line]) -> Iterator[Record | Fault]:
    """A result file, or several one after the other (`--append-result`)."""
    for found in json_objects(lines):
        if isinstance(found, Fault):
            yield found
            continue
        line, values = found
        try:
            yield _record(file, line, Fields(values))
        except MeasurementError as error:
            yield Fault("", f"{error}; left out", line)


def _record(file: str, line: int, result: Fields) -> Record:
    if "avg_latency" in result.values:
        raise MeasurementError(f"`vllm bench latency` does not say how many tokens a request had; {WAY_OUT}")
    if "elapsed_time" in result.values:
        raise MeasurementError(f"`vllm bench throughput` adds all requests up; {WAY_OUT}")
    requests = max(1, result.whole("completed") or result.whole("num_prompts"))
    # no limit means that all requests were on their way at once
    batch = max(1, min(requests, result.whole("max_concurrency") or requests))
    prompt_tokens = result.whole("total_input_tokens") // requests
    return Record(
        file=file,
        line=line,
        tool="vllm bench serve",
        runtime="vllm",
        model=result.text("model_id"),
        backend=result.text("backend", "endpoint_type"),
        decode=_decode(result),
        prompt=_prompt(result, prompt_tokens) if batch == 1 else None,
        prompt_tokens=prompt_tokens,
        output_tokens=result.whole("total_output_tokens") // requests,
        depth=prompt_tokens,
        batch=batch,
        versions=result.text("vllm_version"),
    )


def _decode(result: Fields) -> Rate:
    """One request's tokens/s, with the spread of requests."""
    for name in ("median_tpot_ms", "mean_tpot_ms"):
        gap_ms = result.number(name, 1e9)
        if gap_ms:
            sd = result.number("std_tpot_ms", 1e9)
            return Rate(tokens_per_s=1e3 / gap_ms, log_sd=None if sd is None else sd / gap_ms)
    raise MeasurementError(
        "neither median_tpot_ms nor mean_tpot_ms is there, so no time per token; " + WAY_OUT
    )


def _prompt(result: Fields, prompt_tokens: int) -> Rate | None:
    first_ms = result.number("median_ttft_ms", 1e9) or result.number("mean_ttft_ms", 1e9)
    return rate_of([prompt_tokens * 1e3 / first_ms]) if first_ms and prompt_tokens else None
