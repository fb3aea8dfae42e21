"""Recovery: one, as it was observed, of whichever engine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from simulator.errors import LiveError

__all__ = ["PHASES", "ObservedRecovery", "require_inside"]

PHASES = ("detect", "release", "decide", "start", "load", "prefill", "resume")
"""Of llama.cpp RPC; EXO warms up between `load` and `prefill`."""


@dataclass(slots=True)
class ObservedRecovery:
    """One recovery as it was observed; times are `time.monotonic_ns`."""

    token: int
    fault_ns: int
    devices: tuple[str, ...] = ()
    """Who was lost; where it is planned, who came back."""
    cause: str = ""
    """What broke where it was no device of the instance, such as the cluster's master."""
    is_planned: bool = False
    marks: list[tuple[str, int]] = field(default_factory=list)
    """(phase, its end) in order; a phase that had to be gone through again is there again."""
    layers: dict[str, int] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether the next token has come."""
        # the last phase is that the next token came, also where a phase had to be gone through again
        return bool(self.marks) and self.marks[-1][0] == PHASES[-1]

    @property
    def seconds(self) -> float:
        """From the first fault to the next token."""
        return (self.marks[-1][1] - self.fault_ns) / 1e9

    def spans_ns(self) -> Iterator[tuple[str, int, int]]:
        """(phase, start, end), without gaps."""
        start_ns = self.fault_ns
        for phase, end_ns in self.marks:
            yield phase, start_ns, end_ns
            # phases touch, so that their sum is the gap a reader of the text sees
            start_ns = end_ns

    def lines(self, sent_ns: int) -> Iterator[dict[str, Any]]:
        """What a Measurement says of each phase; times after the request, which was sent at `sent_ns`."""
        for phase, start_ns, end_ns in self.spans_ns():
            yield {
                "phase": phase,
                "device": ", ".join(self.devices),
                "start_ns": start_ns - sent_ns,
                "end_ns": end_ns - sent_ns,
            }

    def phases_s(self) -> dict[str, float]:
        """How long each phase took, over all attempts."""
        spent: dict[str, float] = {}
        for phase, start_ns, end_ns in self.spans_ns():
            spent[phase] = spent.get(phase, 0.0) + (end_ns - start_ns) / 1e9
        return spent

    def end(self, phase: str, at_ns: int | None = None) -> None:
        """A phase ends, now unless told otherwise."""
        self.marks.append((phase, time.monotonic_ns() if at_ns is None else at_ns))


def require_inside(at_token: int, wanted: int) -> None:
    """Raise LiveError for a token at which no reply of `wanted` tokens can lose a device."""
    if not 2 <= at_token < wanted:
        raise LiveError(
            f"token {at_token} is not inside the reply: give one from 2 to {wanted - 1}, or raise "
            "workload.output_tokens"
        )
