"""The streams of the command line: what is written acts on no terminal, and every end is civil."""

from __future__ import annotations

import codecs
import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, cast

from simulator.errors import SimulatorError
from simulator.files.inert import visible

__all__ = ["InertStream", "civil_streams", "os_error", "raw", "shortened"]

# for terminals that know no more than ASCII: what our own sentences hold besides
PLAIN = {"±": "+-", "×": "x", "µ": "u", "–": "-", "—": "-", "→": "->", "…": "..."}
LONGEST_WORD = 1000
"""Letters without a blank that a message quotes whole: a path may have 4096, nobody has typed those."""
FEW_FILES = 256
"""Files that a process should be able to open: a pool of processes takes a few for each."""


class ReaderLeft(Exception):
    """Who read our output needs no more of it, as `head` does: that is an end, not an error."""


class CivilStream(io.TextIOBase):
    """A text stream whose failures are a message, or an end where its reader has left.

    It has no `buffer`: the bytes of somebody who writes to that would pass unseen.
    """

    def __init__(self, inner: TextIO | io.TextIOBase, name: str) -> None:
        self.inner, self._name = cast(TextIO, inner), name
        self._lost: Exception | None = None

    def write(self, text: str) -> int:
        """Write the text; its length. Raises SimulatorError, or ReaderLeft."""
        with self._civil():
            self.inner.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        with self._civil():
            self.inner.flush()

    def isatty(self) -> bool:
        """Whether somebody looks at it."""
        return self.inner.isatty()

    def fileno(self) -> int:
        """The system's number of it."""
        return self.inner.fileno()

    def writable(self) -> bool:
        """It is."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has an attribute
        """Of the stream behind it."""
        return self.inner.encoding

    @contextmanager
    def _civil(self) -> Iterator[None]:
        """A full disk in words, and a closed pipe as an end; what is left in the buffer is given up."""
        if self._lost is not None:  # again: the first time it may have met somebody who only tried
            raise self._lost
        try:
            yield
        except OSError as error:
            self._give_up()
            self._lost = SimulatorError(
                f"{self._name}: cannot be written ({error.strerror}); what was printed is not whole, so free "
                "some room or write elsewhere"
            )
            if error.errno in (errno.EPIPE, errno.ESHUTDOWN):
                self._lost = ReaderLeft()
            raise self._lost from None

    def _give_up(self) -> None:
        """Python flushes once more as it ends, and would complain of what was said already."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.inner.fileno())
            os.close(nowhere)
            self.inner.flush()


class InertStream(CivilStream):
    """A civil stream on which control characters are shown and not obeyed."""

    def write(self, text: str) -> int:
        """Write the text as it can be seen."""
        return super().write(visible(text))


class MessageStream(InertStream):
    """For messages, which may quote what somebody gave: they stay of a size that can be read."""

    def write(self, text: str) -> int:
        """Write the text with overlong words cut."""
        return super().write(shortened(text))


def raw(stream: TextIO) -> TextIO:
    """The stream behind an InertStream, for who makes inert himself what he writes (`sim.console`)."""
    return stream.inner if isinstance(stream, InertStream) else stream


@contextmanager
def civil_streams() -> Iterator[None]:
    """Standard output and error as InertStreams, whole at the end; raises SimulatorError otherwise.

    Closed ones are opened on nothing, or the next file that is opened would take their number, and be what
    others write their complaints to.
    """
    _open_closed()
    _raise_limit()
    codecs.register_error("plain", _in_ascii)
    found = sys.stdout, sys.stderr
    for stream in found:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")
    names = ("standard output", "standard error")
    out, err = (CivilStream(stream, name) for stream, name in zip(found, names, strict=True))
    sys.stdout, sys.stderr = InertStream(out, names[0]), MessageStream(err, names[1])
    try:
        try:
            yield
        finally:
            out.flush()
    except ReaderLeft:
        sys.exit(0)
    finally:
        sys.stdout, sys.stderr = found


def _open_closed() -> None:
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _raise_limit() -> None:
    """As many open files as this system lets us have without asking, up to what we may need."""
    with suppress(ImportError, OSError, ValueError):  # ImportError: Windows has no such limit
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < FEW_FILES:
            wanted = FEW_FILES if hard == resource.RLIM_INFINITY else min(FEW_FILES, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """What an encoding lacks, written with what it has."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(PLAIN.get(one) or ascii(one)[1:-1] for one in lacking), error.end


def shortened(text: str) -> str:
    """A message whose overlong words, such as an argument of 100 kB, are cut in their middle."""
    return re.sub(rf"\S{{{LONGEST_WORD},}}", lambda word: f"{word[0][:60]}...{word[0][-20:]}", text)


def os_error(error: OSError) -> str:
    """What the system refused, as one message with a way out."""
    ways = {
        errno.EMFILE: "let this shell open more files (ulimit -n 256)",
        errno.ENFILE: "close other programs: this system has no room for more open files",
        errno.ENOSPC: "free some room on that disk",
        errno.EACCES: "name a place where you may read and write",
        errno.ENAMETOOLONG: "give a shorter name",
        errno.ENOTDIR: "a file stands where a folder should be; name another, or remove it",
        errno.EEXIST: "a file stands where a folder should be; name another, or remove it",
        errno.ENOMEM: "ask for less at once",
    }
    where = f"{error.filename}: " if error.filename is not None else ""
    way = ways.get(error.errno or 0, "the system refused it; look at that place")
    return f"{where}{error.strerror or error}; {way}"
