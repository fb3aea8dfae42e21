"""Text of a foreign file, line by line, and the JSON objects in it, however they are strung together."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simulator.errors import Fault
from simulator.files import read_lines

__all__ = ["Line", "json_objects", "lines_of"]

Line = tuple[int, str]
"""Line number from 1, and the text without its end."""

PIECE_BYTES = 1 << 20
MOST_CHARS = 256 << 20
"""Of a file: a server's log of a day is smaller, and none of the tools writes a result of this size."""
MOST_OBJECT_CHARS = 16 << 20
"""Of one JSON object: vLLM's detailed result of 10,000 requests is about as large."""
MOST_DEPTH = 50
_MARKS = re.compile(r'[{}\[\]"\\]')
_START = re.compile(r"(?:^|[\[,}]|data:)\s{0,16}\{")
"""An object, with what may stand before it in its line; behind anything else a brace is a log's."""


def lines_of(path: Path) -> Iterator[Line]:
    """The lines of a file, in UTF-8 or UTF-16; one longer than a mebibyte comes in pieces of the same number.

    Raises MeasurementError for a file that cannot be read.
    """
    number, pending, total = 1, "", 0
    for text in _decoded(path):
        total += len(text)
        *whole, pending = (pending + text).split("\n")
        for line in whole:
            yield number, line.rstrip("\r")
            number += 1
        if len(pending) >= PIECE_BYTES:
            yield number, pending
            pending = ""
        if total > MOST_CHARS:
            return
    if pending:
        yield number, pending


def _decoded(path: Path) -> Iterator[str]:
    decoder: codecs.IncrementalDecoder | None = None
    for piece in read_lines(path, PIECE_BYTES):
        if decoder is None:
            # Windows PowerShell writes UTF-16 where a command's output goes to a file
            wide = piece.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            decoder = codecs.getincrementaldecoder("utf-16" if wide else "utf-8-sig")("replace")
        yield decoder.decode(piece)


def json_objects(lines: Iterable[Line]) -> Iterator[tuple[int, dict[str, Any]] | Fault]:
    """The outermost JSON objects with their first lines: of an array, of JSON Lines, between lines of a log.

    A broken object is a fault and the next one is read all the same: it ends where a line as far indented as
    its own first one begins another.
    """
    scan = _Scan()
    for number, line in lines:
        yield from scan.read(number, line)
        if scan.trouble:
            yield Fault("", f"{scan.trouble}; none of these tools writes that", scan.start)
            return
    if scan.depth:
        yield scan.cut_off()


@dataclass
class _Scan:
    """Where the scanner is: inside how many brackets of an object, and inside a string or not."""

    parts: list[str] = field(default_factory=list)
    start: int = 0
    indent: int = 0
    depth: int = 0
    size: int = 0
    number: int = 0
    quoted: bool = False
    escaped: bool = False
    trouble: str = ""

    def read(self, number: int, line: str) -> Iterator[tuple[int, dict[str, Any]] | Fault]:
        """Go through one line, or one more piece of it, and give the objects that end in it."""
        if number != self.number:
            # a string never goes past its line: so a cut one spoils one object and not the file
            self.number, self.quoted, self.escaped = number, False, False
            if self.depth and line.lstrip().startswith("{") and _indent(line) == self.indent:
                yield self.cut_off()
            if self.depth:
                self.parts.append("\n")  # so that a fault in the object has its line
        begun = position = 0
        if self.escaped:
            position, self.escaped = 1, False
        while mark := (_MARKS if self.depth else _START).search(line, position):
            position = mark.end()
            if self.quoted:
                position += self.in_string(mark[0], is_last=position == len(line))
            elif not self.depth:
                self.start, self.indent, self.depth, begun = number, _indent(line), 1, position - 1
            elif self.closes(mark[0]):
                yield _parsed(self.start, "".join([*self.parts, line[begun:position]]))
                self.forget()
                position -= 1  # its last bracket may stand before the next object
        if self.depth:
            self.keep(line[begun:])

    def in_string(self, sign: str, *, is_last: bool) -> int:
        """How many further characters a mark inside a string takes along: the one that is escaped."""
        self.quoted, self.escaped = sign != '"', sign == "\\" and is_last
        return int(sign == "\\")

    def closes(self, sign: str) -> bool:
        """Whether the object ends with this mark."""
        self.quoted = sign == '"'
        self.depth += (sign in "{[") - (sign in "]}")
        return self.depth == 0

    def keep(self, text: str) -> None:
        """Keep a part of an object that goes on in the next line."""
        self.parts.append(text)
        self.size += len(text)
        if self.size > MOST_OBJECT_CHARS:
            self.trouble = f"a JSON object of more than {MOST_OBJECT_CHARS >> 20} MiB"
        elif self.depth > MOST_DEPTH:
            self.trouble = f"JSON nested more than {MOST_DEPTH} deep"

    def forget(self) -> None:
        """Begin afresh."""
        self.parts, self.size, self.depth, self.quoted = [], 0, 0, False

    def cut_off(self) -> Fault:
        """Give the open object up."""
        self.forget()
        return Fault("", "a JSON object that is cut off; left out", self.start)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _parsed(start: int, text: str) -> tuple[int, dict[str, Any]] | Fault:
    try:
        return start, json.loads(text)
    except (ValueError, RecursionError) as error:  # RecursionError: one line of ten thousand brackets
        where = start + getattr(error, "lineno", 1) - 1
        return Fault("", f"not JSON: {getattr(error, 'msg', 'nested too deep')}; left out", where)
