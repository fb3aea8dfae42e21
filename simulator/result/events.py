"""What the lines of a Measurement may hold, and which of them cannot be true together.

Types name what is read; an event may carry more (a server's own figures), and one of a type that is not known
passes, so that a later version's file is read by an earlier one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NotRequired

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from simulator.errors import Fault
from simulator.files.explain import in_words

__all__ = ["Event", "checked_event", "cut_clock"]

Event = dict[str, Any]
Numbered = tuple[int, Event]
"""An event and its line."""

Index = Annotated[int, Field(ge=0, le=10_000_000)]
Size = Annotated[int, Field(ge=0, le=10**12)]
Nanoseconds = Annotated[int, Field(ge=-(10**18), le=10**18)]
Wait = Annotated[int, Field(ge=0, le=10**16)]
"""Nanoseconds that something took: up to 116 days."""
Positive = Annotated[float, Field(gt=0, le=1e15, allow_inf_nan=False)]
Length = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
"""Seconds, or bytes of a message."""
Word = Annotated[str, Field(max_length=200)]
Text = Annotated[str, Field(max_length=100_000)]

STANDSTILL_S, STANDSTILL = 300.0, 100.0
"""A gap of a reply longer than this, and this many times the usual one, is no token's: the client slept, or
its clock was set. A cluster that lost a device is waited for 270 s at most (`dropout_phone`), and says so.
"""


class _Open(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]


class _Request(_Open):
    run: Index
    chat: NotRequired[Index]
    prompt_tokens: NotRequired[Index]
    sent_ns: Nanoseconds


class _Token(_Open):
    run: Index
    chat: NotRequired[Index]
    token: NotRequired[Index]
    t_ns: Nanoseconds


class _Chunk(_Open):
    run: Index
    chat: NotRequired[Index]
    t_ns: Nanoseconds


class _Result(_Open):
    run: Index
    chat: NotRequired[Index]
    outcome: Word
    tokens: NotRequired[Index]


class _Hop(_Open):
    run: Index
    source: Word
    sink: Word
    size_bytes: Size
    sent_ns: Nanoseconds
    imposed_ns: Wait
    late_ns: Nanoseconds


class _Link(_Open):
    source: Word
    sink: Word
    size_bytes: Size
    loaded: NotRequired[bool]
    rtt_ns: Annotated[int, Field(gt=0, le=10**15)]


class _LinkRate(_Open):
    source: Word
    sink: Word
    # less is no link, and would be written as 0 B/s
    bytes_per_s: Annotated[float, Field(ge=1, le=1e15, allow_inf_nan=False)]


class _Span(_Open):
    run: Index
    chat: NotRequired[Index]
    token: NotRequired[Index]
    device: Word
    start_ns: Nanoseconds
    end_ns: Nanoseconds


class _Device(_Open):
    run: Annotated[int, Field(ge=-1, le=10_000_000)]
    """-1: all of them, where a recording tells no run from another."""
    device: Word
    busy_s: Length
    wall_s: Length


class _Phase(_Open):
    run: Index
    phase: Word
    device: NotRequired[Word]
    start_ns: Nanoseconds
    end_ns: Nanoseconds


class _Repeatability(_Open):
    visit_median_s: Annotated[list[Positive], Field(max_length=10_000)]
    run_median_s: NotRequired[Annotated[list[Positive], Field(max_length=100_000)]]
    relative_range: NotRequired[Length]


class _Reference(_Open):
    seconds_per_token: Positive


class _Disturbed(_Open):
    run: Index


class _Warning(_Open):
    text: Text


class _End(_Open):
    outcome: Word


TYPES: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(model)
    for name, model in (
        ("request", _Request),
        ("token", _Token),
        ("chunk", _Chunk),
        ("result", _Result),
        ("hop", _Hop),
        ("link", _Link),
        ("link_rate", _LinkRate),
        ("span", _Span),
        ("device", _Device),
        ("phase", _Phase),
        ("repeatability", _Repeatability),
        ("reference", _Reference),
        ("disturbed", _Disturbed),
        ("warning", _Warning),
        ("end", _End),
    )
}


def checked_event(event: Event) -> Event | str:
    """The event with what is read of it in bounds, or what is wrong with it."""
    kind = event.get("type")
    if not isinstance(kind, str) or not 0 < len(kind) <= 100:
        return "an event needs a 'type'; the file was changed or is none of ours"
    try:
        found: Event = TYPES[kind].validate_python(event) if kind in TYPES else event
    except ValidationError as error:
        return f"{kind}: {in_words(error)}"
    if kind == "phase" and found["end_ns"] < found["start_ns"]:
        return "phase: ends before it begins (a clock that jumped?)"
    return found


def cut_clock(events: Sequence[Numbered]) -> tuple[list[Event], list[Fault]]:
    """The events without tokens that a clock or a lost line spoilt, and what was left out.

    Where a token is missing those before it are true; where a clock went back or jumped none of the reply is.
    """
    replies: dict[tuple[int, int], list[Numbered]] = {}
    for numbered in events:
        if numbered[1]["type"] == "token":
            replies.setdefault((numbered[1]["run"], numbered[1].get("chat", 0)), []).append(numbered)
    mended = {event["run"] for _, event in events if event["type"] == "phase"}
    out, faults = set[int](), list[Fault]()
    for (run, chat), tokens in replies.items():
        for first, reason in _spoilt(tokens, is_mended=run in mended):
            out |= {line for line, _ in tokens[first:]}
            faults.append(Fault("", f"run {run}: chat {chat}: {reason}; left out", tokens[first][0]))
    return [event for line, event in events if line not in out], faults


def _spoilt(tokens: Sequence[Numbered], *, is_mended: bool) -> Iterator[tuple[int, str]]:
    """From which token of a reply on nothing can be used, and why."""
    numbers = [event.get("token", at) for at, (_, event) in enumerate(tokens)]
    hole = next((at for at, number in enumerate(numbers) if number != at), len(tokens))
    times_s = np.array([event["t_ns"] for _, event in tokens[:hole]]) / 1e9
    # tokens of one chat cannot overtake each other: the clock was set in between
    if np.any(times_s <= 0) or np.any(np.diff(times_s) < 0):
        yield 0, "times run backward or are not positive (a clock that jumped?)"
        return
    gaps_s = np.diff(times_s)
    if (
        len(gaps_s)
        and not is_mended
        and gaps_s.max() > max(STANDSTILL_S, STANDSTILL * float(np.median(gaps_s)))
    ):
        yield 0, f"{gaps_s.max():.0f} s between two tokens (did the client sleep, or was its clock set?)"
    elif hole < len(tokens):
        yield hole, f"token {hole} is missing, so what follows it is not known to follow"
