"""Several files of a folder replaced at once: whoever looks, whatever is killed, it is all old or all new.

The new folder is made beside the old one, with links to what is not ours in it, and the two change names in
one step of the system (Linux, macOS). Where that cannot be (another system, a mount point, the folder that we
stand in) files are moved one by one: a kill in between is undone by the next run.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from simulator.files.write import sync_folder

try:
    import fcntl
except ImportError:  # Windows: leftovers stay there
    fcntl = None  # type: ignore[assignment]

__all__ = ["clean", "exchanged", "replace_in"]

MOST_KEPT = 10_000
"""Of somebody else's files; a folder with more is no folder of results, and linking them would take long."""
MOVES = "moves.json"
"""Which of our files were there before: as long as it lies beside `old`, moving has begun and not ended."""


def replace_in(folder: Path, ours: Collection[str], files: Mapping[str, bytes]) -> None:
    """Make `files` (names below the folder) those of `ours` that `folder` holds, and leave all others alone.

    Raises OSError; then, as after a kill, the folder holds what it held.
    """
    target = folder.resolve()
    beside = not target.is_dir() or _may_be_renamed(target)
    home = target.parent if beside else target
    home.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=_prefix(target), suffix=".tmp", dir=home))
    with _held(staging):
        try:
            _write_all(staging / "new", files)
            if not target.is_dir():
                (staging / "new").rename(target)
            elif not (beside and _kept(target, staging / "new", ours) and exchanged(staging / "new", target)):
                _move(target, staging, ours)
            sync_folder(home)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _prefix(target: Path) -> str:
    return f".{target.name[:100]}."


def _may_be_renamed(target: Path) -> bool:
    """Not a mount point, and not where this process stands: it would be left in a folder that is no more."""
    parent = target.parent
    return (
        parent.stat().st_dev == target.stat().st_dev
        and os.access(parent, os.W_OK)
        and not Path.cwd().is_relative_to(target)
    )


def exchanged(one: Path, other: Path) -> bool:
    """Let two paths change names in one step; False where the system or the file system cannot."""
    names = {"linux": ("renameat2", 2), "darwin": ("renameatx_np", 2)}  # RENAME_EXCHANGE, RENAME_SWAP
    name, flag = names.get(sys.platform, ("", 0))
    call = getattr(ctypes.CDLL(None), name, None) if name else None
    here = {"linux": -100, "darwin": -2}.get(sys.platform)  # AT_FDCWD: paths as they are
    return call is not None and call(here, os.fsencode(one), here, os.fsencode(other), flag) == 0


def _write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir()
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def _kept(folder: Path, new: Path, ours: Collection[str]) -> bool:
    """Link what is not ours into the new folder; False where that cannot be."""
    try:
        for number, (source, target) in enumerate(_others(folder, new, ours)):
            if number >= MOST_KEPT:
                return False
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir() and not source.is_symlink():
                target.mkdir(exist_ok=True)
                shutil.copystat(source, target)
            else:
                os.link(source, target, follow_symlinks=False)
        shutil.copymode(folder, new)
    except (OSError, NotImplementedError):
        return False
    return True


def _others(folder: Path, new: Path, ours: Collection[str], below: str = "") -> Iterator[tuple[Path, Path]]:
    """What is not ours, and its place in the new folder; a folder before what is in it."""
    for entry in os.scandir(folder / below):
        name = f"{below}{entry.name}"
        if name in ours:
            continue
        is_folder = entry.is_dir(follow_symlinks=False)
        # one that holds ours (`charts`) is made for what else is in it, if anything is
        if not is_folder or not any(one.startswith(f"{name}/") for one in ours):
            yield folder / name, new / name
        if is_folder:
            yield from _others(folder, new, ours, f"{name}/")


def _move(folder: Path, staging: Path, ours: Collection[str]) -> None:
    """Move our old files out and the new ones in; on any interruption move everything back."""
    new, old = staging / "new", staging / "old"
    before = [name for name in ours if (folder / name).exists()]
    (staging / MOVES).write_text(json.dumps(before))
    moves = [(folder / name, old / name) for name in before]
    moves += [(new / name, folder / name) for name in ours if (new / name).exists()]
    try:
        for source, target in moves:
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
    except BaseException:
        _undo(folder, staging, ours)
        raise
    (staging / MOVES).unlink()
    _drop_empty(folder, ours)


def _undo(folder: Path, staging: Path, ours: Collection[str]) -> None:
    """Bring back what was there before moving began."""
    before = json.loads((staging / MOVES).read_text())
    for name in ours:
        if (staging / "old" / name).exists():
            (staging / "old" / name).replace(folder / name)
        elif name not in before:
            (folder / name).unlink(missing_ok=True)
    (staging / MOVES).unlink()
    _drop_empty(folder, ours)


def _drop_empty(folder: Path, ours: Collection[str]) -> None:
    for name in {name.rpartition("/")[0] for name in ours if "/" in name}:
        with contextlib.suppress(OSError):  # not ours alone, or not there
            (folder / name).rmdir()


@contextlib.contextmanager
def _held(staging: Path) -> Iterator[None]:
    """Mark a folder as in use, as long as this process lives."""
    lock = _locked(staging)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _locked(staging: Path) -> int | None:
    if fcntl is None:
        return None
    opened = os.open(staging, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(opened)
        return None
    return opened


def clean(folder: Path, ours: Collection[str]) -> None:
    """Undo and remove what runs that were killed left beside the folder, or in it."""
    target = folder.resolve()
    pattern = f"{glob.escape(_prefix(target))}*.tmp"
    for left in (*target.parent.glob(pattern), *target.glob(pattern)):
        with contextlib.suppress(OSError):
            lock = _locked(left)
            if lock is None:  # its run is alive
                continue
            try:
                if (left / MOVES).exists():
                    _undo(target, left, ours)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)
