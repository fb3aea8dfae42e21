"""Lines that are added to a file and survive: kills, full disks, power cuts, and somebody else who appends.

A line of JSON ends with a checksum of itself, as one more key that older readers of measurements pass over.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from simulator.errors import MeasurementError
from simulator.files.lines import MOST_LINE_BYTES
from simulator.files.write import make_folder, sync_folder

try:
    import fcntl
except ImportError:  # Windows: two that append at once may then meet
    fcntl = None  # type: ignore[assignment]

__all__ = ["Appender"]


class Appender:
    """Appends JSON objects to a file, a line each, whole or not at all.

    A last line that was cut off is ended first, so that it costs itself and not the next one.
    """

    def __init__(self, path: Path, *, new: bool = False) -> None:
        """Open a file, made if it is missing; `new` ones must be. Raises MeasurementError where it cannot."""
        self.path = path
        make_folder(path.parent)
        only_new = os.O_EXCL if new else 0
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | only_new | BINARY, 0o666)
        except (OSError, ValueError) as error:
            raise self._cannot(error) from None

    def append(self, *entries: Mapping[str, Any], durable: bool = False) -> None:
        """Add entries, all or none; with `durable` they are on the disk before this returns.

        Raises MeasurementError where there is no room, or no right to write.
        """
        data = b"".join(map(_sealed, entries))
        if max(map(len, data.splitlines()), default=0) >= MOST_LINE_BYTES:
            raise MeasurementError(
                f"{self.path}: a line of {MOST_LINE_BYTES >> 20} MiB or more would not be read back"
            )
        with self._alone():
            begin = os.lseek(self._file, 0, os.SEEK_END)
            try:
                self._write(data if self._ends_whole(begin) else b"\n" + data)
                if durable:
                    os.fsync(self._file)
                    sync_folder(self.path.parent)
            except BaseException as error:
                # half a line must not stay: neither after a full disk nor after a Ctrl-C
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, begin)
                if isinstance(error, OSError):
                    raise self._cannot(error) from None
                raise

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[os.write(self._file, left) :]

    def _ends_whole(self, size: int) -> bool:
        if not size:
            return True
        os.lseek(self._file, size - 1, os.SEEK_SET)
        return os.read(self._file, 1) == b"\n"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep others from appending; a file system without locks has to do without."""
        if fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if fcntl is not None:
                with contextlib.suppress(OSError):
                    fcntl.flock(self._file, fcntl.LOCK_UN)

    def _cannot(self, error: OSError | ValueError) -> MeasurementError:
        if isinstance(error, FileExistsError):
            return MeasurementError(f"{self.path} exists and is never overwritten; choose another name")
        why = getattr(error, "strerror", None) or error
        return MeasurementError(
            f"{self.path}: cannot be written ({why}); what it held is still there: make room, or name a "
            "file where you may write"
        )

    @property
    def is_open(self) -> bool:
        """Whether more can be appended."""
        return self._file >= 0

    def close(self) -> None:
        """See to it that everything is on the disk; raises MeasurementError where it is not."""
        if not self.is_open:
            return
        file, self._file = self._file, -1
        try:
            os.fsync(file)
        except OSError as error:
            raise self._cannot(error) from None
        finally:
            os.close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()


BINARY = getattr(os, "O_BINARY", 0)  # Windows would write \r\n


def _sealed(entry: Mapping[str, Any]) -> bytes:
    """The entry as a line with its checksum; what no reader would take (NaN, half a character) is mended."""
    try:
        text = json.dumps(entry, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(entry), separators=(",", ":"))
    if "\\ud" in text:
        # a token may be half of an emoji; a pair of halves is a character and stays one
        whole = json.dumps(json.loads(text), ensure_ascii=False).encode("utf-16", "surrogatepass")
        text = json.dumps(json.loads(whole.decode("utf-16", "replace")), separators=(",", ":"))
    line = text.encode().removesuffix(b"}")
    return line + b',"crc32":"%08x"}\n' % zlib.crc32(line)


def _finite(value: Any) -> Any:
    """A number that is none as null: JSON knows neither NaN nor infinity."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
