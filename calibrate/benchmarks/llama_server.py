"""What llama.cpp's server and command line tell of a request: `timings` of a reply, or lines of a log.

Read from tools/server and common/sampling.cpp of ggml-org/llama.cpp: `prompt eval time = ... ms / ...
tokens`, `eval time = ... ms / ... tokens` (or `runs`); a log also names the model's file and the device.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from calibrate.benchmarks.record import Fields, Record, rate_of, records_of
from calibrate.benchmarks.source import Line, json_objects
from simulator.errors import Fault, MeasurementError

__all__ = ["read_log", "read_timings"]

_TIME = re.compile(r"(?P<prompt>prompt )?eval time =\s*(?P<ms>[\d.]+) ms /\s*(?P<tokens>\d+) (?:tokens|runs)")
_MODEL = re.compile(r"tensors from (?P<file>.+\.gguf)")
_DEVICE = re.compile(r"using device \S+ \((?P<name>[^)]+)\)")
_DRAFT = re.compile(r"draft acceptance(?: rate)? =")


def read_timings(file: str, lines: Iterable[Line]) -> Iterator[Record | Fault]:
    """Replies of the server, whole or as a stream; objects without `timings` are passed over."""

    def record(line: int, reply: Fields) -> Record | None:
        timings = reply.below("timings")
        try:
            return _of_timings(line, reply.text("model"), timings).record(file) if timings.values else None
        except MeasurementError as error:
            raise MeasurementError(f"timings: {error}") from None

    return records_of(json_objects(lines), record)


@dataclass(frozen=True)
class _Request:
    """One request as it is told, in milliseconds."""

    line: int
    model: str = ""
    device: str = ""
    cached_tokens: int = 0
    prompt_tokens: int = 0
    prompt_ms: float = 0.0
    output_tokens: int = 0
    output_ms: float = 0.0

    def record(self, file: str) -> Record:
        """What it says of the device."""
        prompt = [self.prompt_tokens * 1e3 / self.prompt_ms] if self.prompt_tokens and self.prompt_ms else []
        decode = [self.output_tokens * 1e3 / self.output_ms] if self.output_tokens and self.output_ms else []
        depth = self.cached_tokens + self.prompt_tokens
        return Record(
            file=file,
            line=self.line,
            tool="llama-server",
            runtime="llama.cpp",
            device=self.device,
            model=self.model,
            decode=rate_of(decode),
            # behind a cached beginning the prompt's tokens attend to more than themselves
            prompt=None if self.cached_tokens else rate_of(prompt),
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            depth=depth,
            not_one_device="ran on several devices together" if ", " in self.device else "",
        )


def _of_timings(line: int, model: str, timings: Fields) -> _Request:
    if timings.whole("draft_n"):
        raise MeasurementError("guessed tokens ahead (draft_n), so its rate is of several tokens at once")
    return _Request(
        line,
        model,
        cached_tokens=timings.whole("cache_n"),
        prompt_tokens=timings.whole("prompt_n"),
        prompt_ms=timings.number("prompt_ms", 1e9) or 0.0,
        output_tokens=timings.whole("predicted_n"),
        output_ms=timings.number("predicted_ms", 1e9) or 0.0,
    )


def read_log(file: str, lines: Iterable[Line]) -> Iterator[Record | Fault]:
    """Each pair of lines on prompt and reply as a record; other lines of the log are passed over."""
    request, devices = _Request(0), dict[str, None]()
    done: _Request | None = None
    for number, line in lines:
        try:
            if found := _TIME.search(line):
                tokens = Fields(found.groupdict()).whole("tokens")
                ms = Fields(found.groupdict()).number("ms", 1e12) or 0.0
                if found["prompt"]:
                    request = replace(request, line=number, prompt_tokens=tokens, prompt_ms=ms)
                elif request.line:
                    yield from _finished(file, done)
                    done = replace(request, output_tokens=tokens, output_ms=ms)
            elif _DRAFT.search(line) and done:
                yield Fault(
                    "",
                    "guessed tokens ahead (a draft model), so its rate is of several at once; left out",
                    done.line,
                )
                done = None
            elif found := _MODEL.search(line):
                request, devices = replace(request, model=found["file"], device=""), {}
            elif found := _DEVICE.search(line):
                devices[found["name"]] = None
                request = replace(request, device=", ".join(devices))
        except MeasurementError as error:
            yield Fault("", f"{error}; left out", number)
    yield from _finished(file, done)


def _finished(file: str, request: _Request | None) -> Iterator[Record]:
    """A request once nothing more can be said of it: how it was drafted stands below its times."""
    if request is not None:
        yield request.record(file)
