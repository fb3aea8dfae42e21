"""Files that we wrote, and nobody has touched since: only those are replaced without being asked to.

Beside what is written lies `.sim-written`, a line `<sha256>  <name>` for each content that we ever wrote
there, as `sha256sum` has them. A file whose content is not in it is somebody else's, or was edited.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from simulator.errors import SimulatorError

__all__ = ["MARKS", "is_keeping", "keeping_others", "mark", "refuse_others", "replace_others"]

MARKS = ".sim-written"
# None: nobody keeps account, as in a program that calls us; False: replaced, and noted that it is ours now
_keeping: ContextVar[bool | None] = ContextVar("keeping", default=None)


@contextmanager
def keeping_others() -> Iterator[None]:
    """Within, nothing that is not ours is replaced: how the command line does it.

    Programs that call us decide for themselves, so without this nothing is refused and nothing marked.
    """
    before = _keeping.set(True)
    try:
        yield
    finally:
        _keeping.reset(before)


def is_keeping() -> bool:
    """Whether files of others are kept here."""
    return bool(_keeping.get())


def replace_others() -> None:
    """From here on replace whatever stands in the way: what `--force` says."""
    _keeping.set(False)


def refuse_others(folder: Path, files: Mapping[str, bytes | None]) -> None:
    """Raise SimulatorError if writing these files of `folder` would lose what we did not write.

    What is written may be there already; None where that is not known yet.
    """
    if not _keeping.get():
        return
    known = _known(folder)
    for name, data in files.items():
        try:
            found = (folder / name).read_bytes()
        except (OSError, ValueError):  # nothing there, or nothing that could be replaced: writing will say it
            continue
        if found != data and _line(name, found) not in known:
            raise SimulatorError(
                f"{folder / name} exists, and sim did not write it, or it was edited since; it is kept: name "
                "another place, or replace it with --force"
            )


def mark(folder: Path, files: Mapping[str, bytes]) -> None:
    """Note that these contents are ours: before they take their places, so that no kill comes in between."""
    if _keeping.get() is None:
        return
    known = _known(folder)
    lines = [line for name, data in files.items() if (line := _line(name, data)) not in known]
    if lines:
        with suppress(OSError), (folder / MARKS).open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))  # one write: two processes may do so at once


def _line(name: str, data: bytes) -> str:
    return f"{hashlib.sha256(data).hexdigest()}  {name}"


def _known(folder: Path) -> frozenset[str]:
    with suppress(OSError):
        return frozenset((folder / MARKS).read_text(encoding="utf-8", errors="replace").splitlines())
    return frozenset()
