"""Mutations of files: what a disk, an editor, a bad link or somebody of bad will makes of them. Seeded."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

__all__ = ["mutated"]

ABSURD: tuple[Any, ...] = (
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**63) - 1,
    10**400,
    1e308,
    -1e308,
    5e-324,
    float("nan"),
    float("inf"),
    float("-inf"),
    True,
    None,
    "",
    "x",
    "NaN",
    "\x00",
    "\x1b[2J",
    "[/bold]",
    "\ud800",
    "../../etc/passwd",
    "9" * 5000,
    "a" * 100_000,
    [],
    {},
    [[]],
    {"": {}},
    ["x"] * 3,
    list(range(20_000)),
    {str(number): number for number in range(5_000)},
)
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
WORDS = (
    b"null",
    b"true",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"-1",
    b"0",
    b"9" * 400,
    b'"x"',
    b"[]",
    b"{}",
    b"- x",
    b": ",
)


def mutated(rng: random.Random, data: bytes) -> bytes:
    """`data` after one to four mutations."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        try:
            data = rng.choice(MUTATIONS)(rng, data)
        except (
            ValueError,
            RecursionError,
            OverflowError,
        ):  # what was nested or absurd before is so no longer for us
            data = _flip(rng, data)
    return data


def _flip(rng: random.Random, data: bytes) -> bytes:
    """A few bytes that changed."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        if out:
            out[rng.randrange(len(out))] = rng.randrange(256)
    return bytes(out)


def _cut(rng: random.Random, data: bytes) -> bytes:
    """Cut off, at either end."""
    at = rng.randrange(len(data) + 1)
    return data[:at] if rng.random() < 0.8 else data[at:]


def _remove(rng: random.Random, data: bytes) -> bytes:
    """A stretch that is missing."""
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.choice((1, 2, 10, 100, 4096)) :]


def _insert(rng: random.Random, data: bytes) -> bytes:
    """Something that does not belong there: control characters, invalid UTF-8, brackets."""
    junk = rng.choice(
        (
            b"\x00",
            b"\xff\xfe",
            b"\xc3",
            b"\xed\xa0\x80",
            b"\x1b[31m",
            b"\n",
            b"\r",
            b"\t",
            b"{",
            b"[" * 3000,
            b'"',
            b"\\",
            b",",
            *WORDS,
        )
    )
    at = rng.randrange(len(data) + 1)
    return data[:at] + junk + data[at:]


def _lines(rng: random.Random, data: bytes) -> bytes:
    """Lines swapped, doubled, lost, or stuck together."""
    lines = data.split(b"\n")
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            lines[a], lines[b] = lines[b], lines[a]
        case 1:
            lines.insert(a, lines[b])
        case 2:
            del lines[a]
        case _:
            lines[a] += lines.pop(b) if a < b else b""
    return b"\n".join(lines)


def _number(rng: random.Random, data: bytes) -> bytes:
    """A number that is another one, or none."""
    found = list(NUMBER.finditer(data)) if len(data) < 200_000 else []
    if not found:
        return _flip(rng, data)
    one = rng.choice(found)
    new = rng.choice((*WORDS, b"-" + one[0], one[0] + b"0" * rng.randrange(30), b"0.0000000001", b"1e-320"))
    return data[: one.start()] + new + data[one.end() :]


def _json(rng: random.Random, data: bytes) -> bytes:
    """One value of one JSON line of another type, missing, or with a sister."""
    lines = data.split(b"\n")
    at = rng.choice((0, rng.randrange(len(lines))))
    try:
        # a document over many lines counts as one
        whole, document = (True, json.loads(data)) if data[:1] in b"{[" and len(lines) != 1 else (False, None)
    except ValueError:
        whole, document = False, None
    # a line of a server's stream has a word before: 'data: {...}'
    word, brace, rest = lines[at].partition(b"{")
    try:
        document = document if whole else json.loads(brace + rest)
    except ValueError:
        return _number(rng, data)
    changed = json.dumps(_changed(rng, document), separators=(",", ":")).encode("utf-8", "replace")
    if whole:
        return changed
    lines[at] = word + changed
    return b"\n".join(lines)


def _changed(rng: random.Random, document: Any) -> Any:
    places = list(_places(document))
    if not places:
        return rng.choice(ABSURD)
    parent, key = rng.choice(places)
    match rng.randrange(8):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent[str(rng.choice(ABSURD))[:200]] = parent.pop(key)
        case 2 if isinstance(parent, list):
            parent.insert(rng.randrange(len(parent) + 1), parent[key])
        case 3 if isinstance(parent[key], (int, float)):
            parent[key] = -parent[key] if rng.random() < 0.5 else parent[key] * 10 ** rng.randrange(-30, 30)
        case 4:
            for _ in range(rng.choice((2, 60, 900))):
                parent[key] = [parent[key]] if rng.random() < 0.5 else {"a": parent[key]}
        case _:
            parent[key] = rng.choice(ABSURD)
    return document


def _places(document: Any) -> Any:
    stack = [document]
    while stack:
        value = stack.pop()
        keys = (
            list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        )
        for key in keys:
            yield value, key
            if isinstance(value[key], (dict, list)):
                stack.append(value[key])


def _repeat(rng: random.Random, data: bytes) -> bytes:
    """A piece again and again, up to a megabyte."""
    at = rng.randrange(len(data) + 1)
    piece = data[at : at + rng.choice((1, 5, 80, 2000))] or b"x"
    return data[:at] + piece * min(rng.choice((2, 50, 3000)), 1_000_000 // len(piece)) + data[at:]


MUTATIONS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _flip,
    _cut,
    _remove,
    _insert,
    _lines,
    _number,
    _number,
    _json,
    _json,
    _json,
    _json,
    _repeat,
)
