"""Record: what one benchmark run says of a device, whichever tool wrote it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

from simulator.errors import Fault, MeasurementError
from simulator.spec import Spec

__all__ = ["NO_REQUEST", "Fields", "Rate", "Record", "Request", "rate_of", "records_of"]

LONGEST_TEXT = 200
"""Characters of a name that are kept: a path is shorter, and a message with more helps nobody."""
MOST_TOKENS = 10_000_000
MOST_TOKENS_PER_S, LEAST = 1e8, 1e-9
SHORT_PROMPT_TOKENS = 64
"""As in `speed.py`: a prompt so short costs one reading of the weights, as a token does."""


class Rate(Spec):
    """Tokens/s with the standard deviation of its logarithm over the repeats, None where there was one."""

    tokens_per_s: float
    log_sd: float | None = None
    repeats: int | None = None


class Record(Spec):
    """One configuration that was measured, with where it stands; what the file does not say is empty."""

    file: str
    line: int
    tool: str
    runtime: Literal["llama.cpp", "mlx", "vllm"]
    device: str = ""
    """As the tool names it; asked for with `--device` where it does not."""
    model: str = ""
    """As the tool names it, a file's path or an identifier."""
    quantisation: str = ""
    model_bytes: float | None = None
    model_params: float | None = None
    backend: str = ""
    decode: Rate | None = None
    """Of one chat."""
    prompt: Rate | None = None
    prompt_tokens: int = 0
    """Of the prompt that `prompt` tells of."""
    output_tokens: int = 0
    depth: int = 0
    """Tokens in the cache before the first one that is counted."""
    batch: int = 1
    """Chats decoded at once."""
    gpu_layers: int | None = None
    flash_attention: bool | None = None
    versions: str = ""
    request_s: Rate | None = None
    """Of whole requests, as requests/s, where a tool says neither how long they were nor a token's time."""
    not_one_device: str = ""
    """Why this is no speed of one device; empty where it is."""
    label: Literal["measured"] = "measured"

    @property
    def place(self) -> str:
        """`file:line`, as messages begin."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Request:
    """How long the requests of a benchmark were that tells only their seconds; None is not said."""

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    chats: int | None = None

    def told(self, record: Record) -> Record:
        """The record with its tokens/s; raises MeasurementError for one that cannot do without lengths.

        The first token comes out of the prompt, whose reading takes as long as a token's where it is short.
        """
        if record.request_s is None:
            return record
        if not (self.prompt_tokens and self.output_tokens and self.chats):
            raise MeasurementError(
                f"{record.place}: {record.tool} does not say how long its requests were; give "
                "--prompt-tokens, --output-tokens and --chats (its --input-len, --output-len, --batch-size)"
            )
        if self.prompt_tokens > SHORT_PROMPT_TOKENS:
            raise MeasurementError(
                f"{record.place}: reading {self.prompt_tokens} prompt tokens is in each request's time; "
                f"measure with --input-len {SHORT_PROMPT_TOKENS} or less, or with vllm bench serve"
            )
        rate = record.request_s.tokens_per_s * self.output_tokens
        return record.model_copy(
            update={
                "decode": record.request_s.model_copy(update={"tokens_per_s": rate}),
                "output_tokens": self.output_tokens,
                "depth": self.prompt_tokens,
                "batch": self.chats,
            }
        )


NO_REQUEST = Request()


def rate_of(values: Sequence[float]) -> Rate | None:
    """The mean of repeated tokens/s with their spread; None for no value."""
    if not values:
        return None
    mean = fmean(values)
    # for the few per cent by which repeats differ the relative deviation is that of the logarithm
    log_sd = stdev(values) / mean if len(values) > 1 else None
    return Rate(tokens_per_s=mean, log_sd=log_sd, repeats=len(values) if len(values) > 1 else None)


class Fields:
    """The values of a row by name. What is asked for and is no such value raises MeasurementError with it."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def text(self, *names: str) -> str:
        """The first of these values that is there, as text; empty without one."""
        found = next((self.values[name] for name in names if self.values.get(name) not in (None, "")), "")
        return " ".join(str(found).split())[:LONGEST_TEXT] if isinstance(found, str | int | float) else ""

    def number(self, name: str, most: float = MOST_TOKENS_PER_S) -> float | None:
        """A number from 0 to `most`, None where nothing is said."""
        said = self.values.get(name)
        if said is None or said == "":
            return None
        try:
            value = float(said) if isinstance(said, str | int | float) else math.nan
        except (ValueError, OverflowError):
            value = math.nan
        # a comparison with nan is false, so this refuses it too; what is divided by 1e-310 is infinite
        if value != 0 and not LEAST <= value <= most:
            raise MeasurementError(
                f"{name} is {said!r:.40} and must be a number, 0 or from {LEAST:g} to {most:g}"
            )
        return value

    def rate(self, name: str) -> float:
        """Tokens/s that must be there and above 0."""
        value = self.number(name)
        if not value:
            why = "is missing" if value is None else "is 0"
            raise MeasurementError(f"{name} {why} and must be tokens/s above 0")
        return value

    def whole(self, name: str, default: int = 0) -> int:
        """A count of tokens, chats or bytes."""
        value = self.number(name, MOST_TOKENS)
        return default if value is None else int(value)

    def flag(self, name: str) -> bool | None:
        """On or off; None where the tool chose (`auto`, -1) or says nothing."""
        said = str(self.values.get(name, "")).strip().lower()
        return {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}.get(said)

    def below(self, name: str) -> Fields:
        """The mapping under a name, empty where there is none."""
        value = self.values.get(name)
        return Fields(value if isinstance(value, Mapping) else {})


def records_of(
    rows: Iterable[tuple[int, Mapping[str, Any]] | Fault], record: Callable[[int, Fields], Record | None]
) -> Iterator[Record | Fault]:
    """What `record` makes of each row, nothing where it gives None; a row that it refuses stops no other."""
    for row in rows:
        if isinstance(row, Fault):
            yield row
            continue
        line, values = row
        try:
            made = record(line, Fields(values))
        except MeasurementError as error:
            made = None
            yield Fault("", f"{error}; left out", line)
        if made is not None:
            yield made
