"""What belongs to a process of the swarm: all that have its session, such as handlers, the table and p2pd."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from live.local.provenance import TICKS_PER_S, process_ticks

__all__ = ["busy_ns", "memory_bytes", "of_sessions"]


def of_sessions(leaders: Iterable[int]) -> dict[int, list[int]]:
    """The processes of each of these sessions, the leader alone where the system does not list them."""
    found: dict[int, list[int]] = {leader: [] for leader in leaders}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            session = os.getsid(int(entry.name))
            if session in found:
                found[session].append(int(entry.name))
    return {leader: pids or [leader] for leader, pids in found.items()}


def busy_ns(leader: int) -> int:
    """CPU time that a session's processes have used so far (ns); of those that live."""
    ticks = sum(process_ticks(pid) for pid in of_sessions([leader])[leader])
    return round(ticks * 1e9 / TICKS_PER_S)


def memory_bytes(leaders: Iterable[int]) -> int:
    """Memory of these sessions, shared pages counted once; 0 where the system does not tell."""
    total = 0
    for pids in of_sessions(leaders).values():
        for pid in pids:
            with contextlib.suppress(OSError, IndexError):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
                total += 1024 * int(lines.split("\nPss:", 1)[1].split()[0])
    return total
