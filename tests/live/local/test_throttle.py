"""Slowing a device down: control groups where permitted, stop and continue everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from live.local import cgroup
from live.local.guard import alternate
from tests.live.local.parts import is_running, until

pytestmark = pytest.mark.timed

SPIN = "import time, sys\nend = time.monotonic() + 1.0\nwhile time.monotonic() < end: pass\nprint(time.process_time())"


def share_of_a_busy_process(slow_down: Callable[[int], object]) -> float:
    """CPU time over wall time of a process that computes for a second."""
    with subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE, text=True) as process:
        slow_down(process.pid)
        return float(process.communicate()[0])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="stop and continue is tried on Linux")
@pytest.mark.parametrize("share", [0.25, 0.5])
def test_stopping_and_continuing_leaves_the_share(share: float) -> None:
    def once() -> float:
        over = threading.Event()
        got = share_of_a_busy_process(
            lambda pid: threading.Thread(target=alternate, args=(pid, share, over), daemon=True).start()
        )
        over.set()
        return got

    # less when others want the processor too, more when the one that stops is kept waiting: the best of three counts
    assert any(0.2 * share < once() < 1.5 * share for _ in range(3))


def test_a_quota_leaves_the_share() -> None:
    groups = cgroup.make_groups("test-cpu")
    try:
        if not groups.limit_cpu(0.5):
            pytest.skip("control groups are not permitted here")
        assert 0.1 < share_of_a_busy_process(groups.take) < 0.65
    finally:
        until(lambda: [cgroup.remove(folder) for folder in groups.folders] and not _left(groups), 2)
        assert not _left(groups)


class Kernel:
    """A quota as Linux enforces it on one thread, in ms: refilled each period up to itself, held against use
    at ticks alone, and what was used beyond it is owed, also by the next stage.
    """

    def __init__(self, quota: float, period: float, phase: float) -> None:
        self.quota, self.period, self.refill, self.now = quota, period, phase, 0.0
        self.pool, self.left = quota, 0.0

    def _fill(self) -> None:
        while self.refill <= self.now:
            self.pool, self.refill = self.quota, self.refill + self.period

    def _take(self, most: float) -> None:
        taken = min(self.pool, most)
        self.left, self.pool = self.left + taken, self.pool - taken

    def stage(self, work: float) -> float:
        begin = self.now
        while work > 0:
            self._fill()
            if self.left <= 0:
                self._take(5 - self.left)
            while self.left <= 0:
                self.now = self.refill
                self._fill()
                self._take(1e-6 - self.left)  # who stands still is given what it owes and no more
            ran = min(4 - self.now % 4, work)
            self.now, work, self.left = self.now + ran, work - ran, self.left - ran
        return self.now - begin


@pytest.mark.parametrize("work_ms", [10.0, 14.5, 22.5, 45.0])
@pytest.mark.parametrize("share", [0.25, 0.4, 0.5, 0.6, 0.8])
def test_a_quota_gives_a_stage_after_a_rest_the_time_that_it_was_told(share: float, work_ms: float) -> None:
    def took(quota_ms: float, period_ms: float) -> float:
        lasted = []
        for phase in np.linspace(0.1, 3.9, 4):
            kernel = Kernel(quota_ms, period_ms, phase)
            for rest in np.random.default_rng(1).uniform(60, 80, 40):
                kernel.now += rest
                lasted.append(kernel.stage(work_ms))
        return float(np.mean(lasted))

    told = cgroup.quota_share(share, work_ms / 1e3)
    period_ms = max(4.0, 1 / told)
    assert took(told * period_ms, period_ms) == pytest.approx(work_ms / share, rel=0.12)
    # periods shorter than the tick lose what is refilled in between
    assert (share, work_ms) != (0.5, 45.0) or took(1.0, 2.0) > 1.08 * work_ms / share


def test_a_memory_cap_kills_beyond_it() -> None:
    groups = cgroup.make_groups("test-memory")
    try:
        if not groups.limit_memory(60e6):
            pytest.skip("control groups are not permitted here")
        greedy = "import sys; sys.stdin.read(1); x = bytearray(200_000_000)"
        with subprocess.Popen([sys.executable, "-c", greedy], stdin=subprocess.PIPE) as hog:
            groups.take(hog.pid)
            hog.communicate(b"x")
        assert hog.returncode == -9
    finally:
        until(lambda: [cgroup.remove(folder) for folder in groups.folders] and not _left(groups), 2)


def test_without_permission_there_are_no_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "_places", lambda controller: iter([Path("/nonexistent")]))
    groups = cgroup.make_groups("test")
    assert groups.folders == ()
    assert not groups.limit_cpu(0.5)
    assert not groups.limit_memory(1e9)


def test_nothing_is_left_when_the_parent_is_killed() -> None:
    """kill -9 of a parent: relay, guard and the process that it watches are gone, and so are the groups."""
    script = (
        "import subprocess, sys, time\n"
        "from live.local.children import Child\nfrom live.local.cgroup import make_groups\n"
        "guard = Child('guard', 'live.local.guard')\nrelay = Child('relay', 'live.local.relay')\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        "alone = subprocess.Popen(sleep, start_new_session=True)\n"
        "groups = make_groups('test')\ngroups.take(alone.pid)\n"
        "guard.ask('keep', 'noted', pids=[relay.pid, alone.pid], folders=[str(f) for f in groups.folders])\n"
        "guard.ask('slow', 'noted', pid=alone.pid, share=0.5)\n"
        "print(guard.pid, relay.pid, alone.pid, *groups.folders, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        words = parent.stdout.readline().split()
        pids, folders = [int(word) for word in words[:3]], [Path(word) for word in words[3:]]
        assert all(is_running(pid) for pid in pids)
        parent.kill()
    begin_s = time.monotonic()
    assert until(lambda: not any(is_running(pid) for pid in pids), 5), "processes outlive their parent"
    assert until(lambda: not any(folder.exists() for folder in folders), 3), "control groups are left"
    assert time.monotonic() - begin_s < 6


def _left(groups: cgroup.Groups) -> bool:
    return any(folder.exists() for folder in groups.folders)
