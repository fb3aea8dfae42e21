"""JSON Lines files in: plain as they are appended, or packed (`.jsonl.gz`) as they are kept.

Whoever made the file may have meant no good, or the disk was full: what is read is bounded in size and depth,
a line that is none of ours costs itself and no other, and each is told with its number.
"""

from __future__ import annotations

import gzip
import io
import re
import shutil
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from pydantic_core import from_json

from simulator.errors import Fault, MeasurementError
from simulator.files.write import write_bytes_atomically

__all__ = ["MOST_LINE_BYTES", "json_line", "json_lines", "pack", "packed", "read_lines"]

CHUNK_BYTES = 1 << 20
MOST_LINE_BYTES = 4 << 20
"""Of a line: a header with the state of 64 nodes has 2 MB, and what is read takes up to 30 times its text."""
MOST_LINES = 400_000
"""Of a file: a day of tokens at five a second; in memory they are some 200 MB."""
MOST_FILE_BYTES = 256 << 20
"""Of a file's plain content; packed, a kilobyte may hold a gigabyte of it."""
SEAL = re.compile(rb',"crc32":"([0-9a-f]{8})"\}\s*\Z')
"""How a line of ours ends: a checksum of all before it. Lines without one are older, or another program's."""
BOM = b"\xef\xbb\xbf"


class Digest(Protocol):
    """A hash of `hashlib`."""

    def update(self, data: bytes, /) -> None:
        """Take in more."""


def packed(path: Path) -> Path:
    """The name that `pack` gives to the file at `path`."""
    return path if path.suffix == ".gz" else path.with_name(path.name + ".gz")


def read_lines(path: Path, most_bytes: int = MOST_LINE_BYTES) -> Iterator[bytes]:
    """The lines of a file, ends included, one after the other; decompressed where its name ends in `.gz`.

    A line longer than `most_bytes` comes in pieces, so that a foreign file of one line fits the memory. A
    hash over the lines is that of the plain content, packed or not. Raises MeasurementError for a file that
    cannot be opened, and for a packed one that is damaged, cut off or beyond MOST_FILE_BYTES.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            if path.suffix == ".gz":
                # its checksum stands at its end: damage is told before a wrong line is taken for the writer's
                size = 0
                while chunk := file.read(CHUNK_BYTES):
                    size += len(chunk)
                    if size > MOST_FILE_BYTES:
                        raise MeasurementError(
                            f"{path}: unpacks to more than {MOST_FILE_BYTES >> 20} MiB, the most that is read"
                        )
                file.seek(0)
            yield from iter(partial(file.readline, most_bytes), b"")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        # a plain file may end anywhere, for it grows; a packed one was whole when it was made
        raise MeasurementError(
            f"{path}: is no whole gzip file ({str(error).rstrip('.')}); a packed file is read whole or not "
            "at all: copy it again, or give the plain .jsonl"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        why = getattr(error, "strerror", None) or error
        raise MeasurementError(
            f"{path}: cannot be read: {why}; give the path of a .jsonl or .jsonl.gz file"
        ) from error


def json_lines(path: Path, digest: Digest | None = None) -> Iterator[tuple[int, dict[str, Any] | Fault]]:
    """Each line's number and JSON object, its checksum taken off; a Fault for a line that is none.

    `digest` takes in every byte that is read. Empty lines are passed over, and what lies behind MOST_LINES or
    MOST_FILE_BYTES is one Fault more. Raises MeasurementError as `read_lines` does.
    """
    number, size, within = 0, 0, False
    for piece in read_lines(path, MOST_LINE_BYTES):
        size += len(piece)
        if number >= MOST_LINES or size > MOST_FILE_BYTES:
            most = f"{MOST_LINES} lines or {MOST_FILE_BYTES >> 20} MiB"
            yield number + 1, Fault("", f"the file goes on beyond {most}; the rest is left out", number + 1)
            return
        if digest is not None:
            digest.update(piece)
        is_whole = piece.endswith(b"\n")
        goes_on, within = within, not is_whole
        if goes_on:  # the rest of a line that was told already
            continue
        number += 1
        if len(piece) >= MOST_LINE_BYTES and not is_whole:
            yield number, Fault("", f"a line of more than {MOST_LINE_BYTES >> 20} MiB; left out", number)
            continue
        text = piece.removeprefix(BOM) if number == 1 else piece
        if text.strip():
            found = json_line(text)
            yield number, found if isinstance(found, dict) else _fault(found, number, is_whole=is_whole)


def _fault(reason: str, number: int, *, is_whole: bool) -> Fault:
    # whoever wrote it ends each line, so one that does not end was cut off by a full disk or a power cut
    return Fault("", f"{reason if is_whole else 'the line is cut off'}; left out", number)


def json_line(line: bytes) -> dict[str, Any] | str:
    """The object in one line of a file, its checksum taken off, or why there is none."""
    seal = SEAL.search(line)
    if seal and int(seal[1], 16) != zlib.crc32(line[: seal.start()]):
        return "the line is not as it was written (its checksum differs)"
    try:
        # bounds the depth, and takes neither NaN nor half a character
        found = from_json(line, allow_inf_nan=False)
    except ValueError as error:
        return f"not JSON: {str(error)[:100]}"
    if not isinstance(found, dict):
        return "not a JSON object"
    if seal:
        del found["crc32"]
    return found


def pack(path: Path) -> Path:
    """Replace a finished file by its packed form and return that; the same content makes the same bytes.

    Raises MeasurementError where the packed file exists already or is what was given.
    """
    target = packed(path)
    if target.exists() or target == path:
        raise MeasurementError(f"{target} exists; measurements are never overwritten, move it away first")
    out = io.BytesIO()
    # no name and no time in the header: else a repeated import would change every committed byte
    with path.open("rb") as plain, gzip.GzipFile("", "wb", 9, out, mtime=0) as file:
        shutil.copyfileobj(plain, file)
    write_bytes_atomically(target, out.getvalue())
    path.unlink()
    return target
