"""The bytes of a spec file as text, and a parser's complaints about that text in plain words."""

from __future__ import annotations

import codecs
import re

import yaml

from simulator.errors import Fault

__all__ = ["MAX_BYTES", "Stop", "decode", "in_plain_words"]

# A cap of this project, not of YAML: the largest hand-written scenario is some kilobytes.
MAX_BYTES = 1_000_000

# Everything outside c-printable of YAML 1.2.2, section 5.1.
UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# What a user has most likely done, by a phrase of the parser's complaint (libyaml and
# PyYAML word it differently).
SYNTAX = {
    "cannot start any "
    "token": "a character that cannot begin a value (one of @ ` % or a tab); put the value in quotes",
    "mapping values are not "
    "allowed": "a ':' where none may stand; indent as its neighbours or quote the value",
    "could not find expected ':'": "this line is no 'key: value'; a ':' is missing",
    "expected ',' or '": "a comma or a closing bracket is missing",
    "expected <block end>": "this line is indented unlike its neighbours, or is not a 'key: value'",
    "did not find expected key": "this line is indented unlike its neighbours, or is not a 'key: value'",
    "did not find expected '-' indicator": "this line is indented unlike the list around it",
    "node content": "a value is missing, or a bracket is closed that was never opened",
    "unknown escape character": "a backslash inside double quotes; use single quotes",
    "unexpected end of stream": "a closing quote is missing",
}


class Stop(Exception):
    """Reading cannot go on past this fault."""

    def __init__(self, reason: str, line: int | None = None, path: str = "") -> None:
        self.fault = Fault(path, reason, line)
        super().__init__(reason)


def decode(raw: bytes) -> str:
    """UTF-8 text within the caps; raises Stop with the offset of the first byte that is none."""
    if len(raw) > MAX_BYTES:
        raise Stop(f"the file has more than {MAX_BYTES} bytes, which is the most a spec file may have")
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Stop("the file is UTF-16; save it as UTF-8", 1)
    try:
        text = raw.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        what = (
            f"byte 0x{raw[error.start]:02x} at offset {error.start} is not UTF-8 text; save the file as UTF-8"
        )
        raise Stop(what, line) from None
    if found := UNPRINTABLE.search(text):
        line = text.count("\n", 0, found.start()) + 1
        offset = len(text[: found.start()].encode())
        raise Stop(f"control character {found[0]!a} at offset {offset}; a spec file is plain text", line)
    return text


def in_plain_words(error: yaml.MarkedYAMLError, text: str) -> Stop:
    """A parser's complaint as what the user may have done, at the line where it was done."""
    found, began = error.problem_mark or error.context_mark, error.context_mark or error.problem_mark
    line, problem = found.line if found else 0, str(error.problem)
    written = "".join(text.splitlines()[line : line + 1])
    hint = next((hint for phrase, hint in SYNTAX.items() if phrase in problem), problem)
    if "\t" in written[: len(written) - len(written.lstrip())]:
        hint = "a tab indents this line; indent with spaces"
    elif began and "expected ',' or" in problem:
        hint += f" (the bracket was opened on line {began.line + 1})"
    elif began and ("expected ':'" in problem or "unexpected end of stream" in problem):
        # the key or the quote itself; the parser noticed only at the end of what it took for it
        line = began.line
    return Stop(f"this is not YAML: {hint}", line + 1)
