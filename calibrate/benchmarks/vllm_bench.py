"""Results of `vllm bench serve --save-result`, `latency` and `throughput --output-json` (vllm-project/vllm).

`serve` tells the time per output token of a request. `latency` writes the seconds of whole requests without
saying how long these were, which is asked for by options. `throughput` adds up all requests that were on
their way together, so no rate of one chat can be had from it: it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from calibrate.benchmarks.record import Fields, Rate, Record, rate_of, records_of
from calibrate.benchmarks.source import Line, json_objects
from simulator.errors import Fault, MeasurementError

__all__ = ["read_vllm"]

WAY_OUT = "run `vllm bench serve --max-concurrency 1 --save-result`, which tells the time per token"


def read_vllm(file: str, lines: Iterable[Line]) -> Iterator[Record | Fault]:
    """A result file, or several one after the other (`--append-result`)."""
    return records_of(json_objects(lines), lambda line, result: _record(file, line, result))


def _record(file: str, line: int, result: Fields) -> Record:
    if "avg_latency" in result.values:
        return _latency(file, line, result)
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


def _latency(file: str, line: int, result: Fields) -> Record:
    """Requests/s with their spread; `latencies` are the seconds of each repeat."""
    seconds = result.number("avg_latency", 1e6)
    if not seconds:
        raise MeasurementError("avg_latency must be seconds above 0")
    repeats = result.values.get("latencies")
    each = (
        [Fields({"latencies": one}).number("latencies", 1e6) for one in repeats]
        if isinstance(repeats, list)
        else []
    )
    spread = rate_of([one for one in each if one])
    rate = (
        Rate(tokens_per_s=1 / seconds)
        if spread is None
        else spread.model_copy(update={"tokens_per_s": 1 / seconds})
    )
    return Record(file=file, line=line, tool="vllm bench latency", runtime="vllm", request_s=rate)


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
