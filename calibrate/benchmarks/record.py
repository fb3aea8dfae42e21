"""Record: what one benchmark run says of a device, whichever tool wrote it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, Literal

from simulator.errors import MeasurementError
from simulator.spec import Spec

__all__ = ["Fields", "Rate", "Record", "rate_of"]

LONGEST_TEXT = 200
"""Characters of a name that are kept: a path is shorter, and a message with more helps nobody."""
MOST_TOKENS = 10_000_000
MOST_TOKENS_PER_S = 1e8


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
    not_one_device: str = ""
    """Why this is no speed of one device; empty where it is."""
    label: Literal["measured"] = "measured"

    @property
    def place(self) -> str:
        """`file:line`, as messages begin."""
        return f"{self.file}:{self.line}"


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
        # a comparison with nan is false, so this refuses it too
        if not 0 <= value <= most:
            raise MeasurementError(f"{name} is {said!r:.40} and must be a number from 0 to {most:g}")
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
