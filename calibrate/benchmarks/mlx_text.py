"""What `mlx_lm.benchmark` and `mlx_lm.generate` print (ml-explore/mlx-lm, benchmark.py and generate.py).

Neither names the model nor the machine. With a batch both rates are of all chats together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from calibrate.benchmarks.record import Fields, Record, rate_of
from calibrate.benchmarks.source import Line
from simulator.errors import Fault, MeasurementError

__all__ = ["read_mlx"]

_TIMING = re.compile(r"Timing with prompt_tokens=(\d+), generation_tokens=(\d+), batch_size=(\d+)")
_TRIAL = re.compile(r"Trial \d+:\s+prompt_tps=(\S+), generation_tps=(\S+?)(?:,|$)")
_PROMPT = re.compile(r"Prompt: (\d+) tokens, (\S+) tokens-per-sec")
_REPLY = re.compile(r"Generation: (\d+) tokens, (\S+) tokens-per-sec")


@dataclass
class _Trials:
    """The trials below one line `Timing with ...`."""

    line: int
    prompt_tokens: int
    output_tokens: int
    batch: int
    prompt: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)


def read_mlx(file: str, lines: Iterable[Line]) -> Iterator[Record | Fault]:
    """Each benchmark's trials as one record with their spread, each `generate` as one of its own."""
    trials: _Trials | None = None
    asked: tuple[int, int, float] | None = None
    for number, line in lines:
        try:
            if found := _TIMING.search(line):
                yield from _benchmarked(file, trials)
                trials = _Trials(number, _count(found[1]), _count(found[2]), _count(found[3]))
            elif trials and (found := _TRIAL.search(line)):
                # both or none: a trial is a pair
                pair = [
                    _rate(name, text)
                    for name, text in zip(("prompt_tps", "generation_tps"), found.groups(), strict=True)
                ]
                trials.prompt.append(pair[0])
                trials.decode.append(pair[1])
            elif found := _PROMPT.search(line):
                asked = number, _count(found[1]), _rate("Prompt", found[2])
            elif asked and (found := _REPLY.search(line)):
                yield _generated(file, asked, _count(found[1]), _rate("Generation", found[2]))
                asked = None
        except MeasurementError as error:
            yield Fault("", f"{error}; left out", number)
    yield from _benchmarked(file, trials)


def _benchmarked(file: str, trials: _Trials | None) -> Iterator[Record | Fault]:
    if trials is None:
        return
    if not trials.decode:
        yield Fault("", "no trial below this line; the benchmark was broken off", trials.line)
        return
    yield Record(
        file=file,
        line=trials.line,
        tool="mlx_lm.benchmark",
        runtime="mlx",
        decode=rate_of([rate / trials.batch for rate in trials.decode]),
        prompt=rate_of(trials.prompt),
        prompt_tokens=trials.prompt_tokens,
        output_tokens=trials.output_tokens,
        depth=trials.prompt_tokens,
        batch=trials.batch,
    )


def _generated(file: str, asked: tuple[int, int, float], tokens: int, rate: float) -> Record:
    line, prompt_tokens, prompt_rate = asked
    return Record(
        file=file,
        line=line,
        tool="mlx_lm.generate",
        runtime="mlx",
        decode=rate_of([rate]),
        prompt=rate_of([prompt_rate]),
        prompt_tokens=prompt_tokens,
        output_tokens=tokens,
        depth=prompt_tokens,
    )


def _rate(name: str, text: str) -> float:
    return Fields({name: text}).rate(name)


def _count(text: str) -> int:
    return max(1, Fields({"tokens": text}).whole("tokens"))
