"""JSON Lines files in: plain as they are appended, or packed (`.jsonl.gz`) as they are kept."""

from __future__ import annotations

import gzip
import io
import shutil
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from simulator.errors import MeasurementError
from simulator.files.write import write_bytes_atomically

__all__ = ["pack", "packed", "read_lines"]

CHUNK_BYTES = 1 << 20


def packed(path: Path) -> Path:
    """The name that `pack` gives to the file at `path`."""
    return path if path.suffix == ".gz" else path.with_name(path.name + ".gz")


def read_lines(path: Path, most_bytes: int = -1) -> Iterator[bytes]:
    """The lines of a file, ends included, one after the other; decompressed where its name ends in `.gz`.

    A line longer than `most_bytes` comes in pieces, so that a foreign file of one line fits the memory. A
    hash over the lines is that of the plain content, packed or not. Raises MeasurementError for a file that
    cannot be opened, and for a packed one that is damaged or cut off.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            if path.suffix == ".gz":
                # its checksum stands at its end: damage is told before a wrong line is taken for the writer's
                while file.read(CHUNK_BYTES):
                    pass
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
