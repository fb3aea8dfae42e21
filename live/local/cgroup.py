"""Control groups of Linux, version 1 and 2: what may be asked of the kernel without being the administrator.

A limit is tried at this process's own group first and then further up; the first place that lets us make a
folder with the wanted file wins. None where nothing does: the caller falls back and says so.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

__all__ = ["TICK_S", "Groups", "make_groups", "quota_share", "remove"]

PREFIX = "lan-cluster-simulator"
MIN_US = 1000  # the kernel's smallest period and quota of a processor limit (kernel/sched/core.c)
TICK_S = 0.004
"""The kernel looks at its tick whether a quota is used up: 250 times a second, as most are built."""

CPU_FILES = ("cpu.max", "cpu.cfs_quota_us")  # version 2, version 1
MEMORY_FILES = ("memory.max", "memory.limit_in_bytes")


@dataclass(frozen=True, slots=True)
class Groups:
    """The folders that limit one device: one in version 2, one per resource in version
    1, none without permission.
    """

    folders: tuple[Path, ...]

    def take(self, pid: int) -> None:
        """Move a process, with all its threads, into the groups."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def limit_cpu(self, cores: float) -> bool:
        """Let the processes have `cores` cores; False where that is not permitted.

        The period is a tick, longer where the quota would be below `MIN_US`. A period shorter than the tick
        loses what is refilled between two ticks, for the kernel never keeps more than one quota: half a core
        in periods of 2 ms was recorded as 0.40 to 0.50, by how ticks and periods happened to lie.
        """
        period_us = max(round(TICK_S * 1e6), round(MIN_US / cores))
        quota_us = max(MIN_US, round(cores * period_us))
        file = self._file(CPU_FILES)
        if file is None:
            return False
        with contextlib.suppress(OSError):
            if file.name == CPU_FILES[0]:
                file.write_text(f"{quota_us} {period_us}")
            else:
                (file.parent / "cpu.cfs_period_us").write_text(str(period_us))
                file.write_text(str(quota_us))
            return True
        return False

    def limit_memory(self, size_bytes: float) -> bool:
        """Kill the processes beyond `size_bytes` of memory; False where that is not permitted."""
        file = self._file(MEMORY_FILES)
        if file is None:
            return False
        with contextlib.suppress(OSError):
            file.write_text(str(int(size_bytes)))
            return True
        return False

    def _file(self, names: tuple[str, str]) -> Path | None:
        found = (folder / name for folder in self.folders for name in names)
        return next((file for file in found if os.access(file, os.W_OK)), None)


def _mounts() -> Iterator[tuple[str, Path, set[str]]]:
    """Kind (cgroup or cgroup2), mount point and options of each hierarchy."""
    table = Path("/proc/mounts")
    for line in table.read_text(encoding="utf-8").splitlines() if table.exists() else ():
        _, point, kind, options, *_ = line.split()
        if kind in ("cgroup", "cgroup2"):
            yield kind, Path(point), set(options.split(","))


def _own_path(controller: str | None) -> str:
    """Where this process sits in the hierarchy of a controller (version 1), or of version 2 for None."""
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if (controller is None and not controllers) or controller in controllers.split(","):
            return path
    return "/"


def _places(controller: str) -> Iterator[Path]:
    """Folders in which a group might be made, the own one first, then up to the root."""
    for kind, point, options in _mounts():
        if kind == "cgroup" and controller not in options:
            continue
        own = point / _own_path(controller if kind == "cgroup" else None).lstrip("/")
        # from the inside out: the nearest place counts this process's limits as well
        for place in (own, *own.parents):
            if place == point or point in place.parents:
                yield place


def _make(controller: str, name: str, files: tuple[str, str]) -> Path | None:
    """A new folder that holds one of `files`, None when no place permits one."""
    for place in _places(controller):
        folder = place / f"{PREFIX}-{os.getpid()}-{controller}-{name}"
        try:
            folder.mkdir()
        except OSError:
            continue
        # a folder may be made and yet hold none of the files, where the controller is not delegated
        if any(os.access(folder / file, os.W_OK) for file in files):
            return folder
        folder.rmdir()
    return None


def quota_share(share: float, work_s: float) -> float:
    """The share of each period that makes `work_s` of work last `work_s / share` when it begins after a rest.

    A quota `q` of a period `p` is there when the work begins, so that it lasts `(work - q) p / q + q`: short
    work would be through too fast. Its solution for `q / p`.
    """
    wanted = work_s / share + TICK_S
    return (wanted - sqrt(wanted**2 - 4 * TICK_S * work_s)) / (2 * TICK_S)


def make_groups(name: str) -> Groups:
    """New groups without limits for the device of that name; empty where none can be made."""
    folders: list[Path] = []
    for controller, files in (("cpu", CPU_FILES), ("memory", MEMORY_FILES)):
        if not any((folder / files[0]).exists() for folder in folders):
            made = _make(controller, name, files)
            folders += [made] if made is not None else []
    return Groups(tuple(folders))


def remove(folder: Path) -> None:
    """Remove a group's folder, if its processes are gone."""
    with contextlib.suppress(OSError):
        folder.rmdir()
