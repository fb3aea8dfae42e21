"""Guard: the process that cleans up when `sim` itself is killed, `python -m live.local.guard`.

It knows every process and control group of the cluster, and when the pipe from its parent ends without a
farewell it kills the ones and removes the others. Where control groups are not permitted it also slows
devices down, by stopping and continuing their processes in turn. Commands: `keep`, `slow`, `hold` (stop
slowing a process down: it is about to hang), `farewell`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from live.local import cgroup
from live.local.children import be_punctual

__all__ = ["PERIOD_S", "alternate", "main"]

# of stopping and continuing: short against a stage, long against a signal's delivery (20 us)
PERIOD_S = 0.002
TRIES, PAUSE_S = 40, 0.05


def alternate(pid: int, share: float, is_over: threading.Event) -> None:
    """Let a process run for `share` of each period, until it is gone or `is_over`."""
    begin_s = time.monotonic()
    try:
        while not is_over.is_set():
            os.kill(pid, signal.SIGSTOP)
            # against the beginning of the period and not the last wake-up, so that lateness does not add up
            time.sleep(max(0.0, begin_s + PERIOD_S * (1 - share) - time.monotonic()))
            os.kill(pid, signal.SIGCONT)
            begin_s += PERIOD_S
            time.sleep(max(0.0, begin_s - time.monotonic()))
    except ProcessLookupError:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def kill(pids: list[int]) -> None:
    """Kill those processes that still lead a session of their own, as
    our children do, with all of their group: a number may be reused.
    """
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == pid:
                os.killpg(pid, signal.SIGKILL)


def remove(folders: list[str]) -> None:
    """Remove control groups; their processes need a moment to be gone."""
    for _ in range(TRIES):
        folders = [folder for folder in folders if Path(folder).exists()]
        for folder in folders:
            cgroup.remove(Path(folder))
        if not folders:
            return
        time.sleep(PAUSE_S)


def main() -> None:
    """Keep watch until the parent goes; not killed with it, as the other children are."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    be_punctual()
    pids: list[int] = []
    folders: list[str] = []
    slowed: dict[int, tuple[threading.Thread, threading.Event]] = {}
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "keep":
            pids += command["pids"]
            folders += command["folders"]
        elif command["do"] == "slow":
            is_over = threading.Event()
            slow = threading.Thread(
                target=alternate, args=(command["pid"], command["share"], is_over), daemon=True
            )
            slowed[command["pid"]] = slow, is_over
            slow.start()
        elif command["do"] == "hold" and command["pid"] in slowed:
            slow, is_over = slowed.pop(command["pid"])
            is_over.set()
            # until its thread is over, which might send one more SIGCONT to a process that is to hang
            slow.join()
        elif command["do"] == "farewell":
            # a parent that says farewell has ended its children itself; their numbers may be reused by now
            pids = []
        print(json.dumps({"event": "noted"}), flush=True)
    # each continues its process first: one that stands still would not die of a closed pipe
    for _, is_over in slowed.values():
        is_over.set()
    kill(pids)
    remove(folders)


if __name__ == "__main__":
    main()
