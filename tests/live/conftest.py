"""Tests against the clock: taken again where the machine, and not the code, was late."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from _pytest.runner import runtestprotocol

collect_ignore = ["openai/make_mlx_model.py"]  # run by a Python that has MLX, which ours has not
ATTEMPTS = 4
TICK_S = 0.005
# a replay 25 times as fast as it was recorded has 40 ms for what takes a second; half of that is late
LATE_S = 0.02
QUIET_S, PATIENCE_S = 0.5, 30.0


@pytest.fixture(autouse=True)
def locks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of this test alone: recorded nodes have the same ids in all of them."""
    folder = tmp_path_factory.mktemp("locks")
    monkeypatch.setattr("live.exo.lease.cache_folder", lambda _: folder)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "timed: replays against the clock; a failure counts where the machine was in time"
    )


@contextmanager
def lateness() -> Iterator[list[float]]:
    """How late (s) a thread that sleeps woke up at most, as the only entry of a list."""
    worst_s, over = [0.0], threading.Event()

    def watch() -> None:
        while not over.is_set():
            due_s = time.monotonic() + TICK_S
            time.sleep(TICK_S)
            worst_s[0] = max(worst_s[0], time.monotonic() - due_s)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield worst_s
    finally:
        over.set()
        thread.join()


def wait_for_quiet() -> None:
    """Until nobody is late for half a second, 30 s at most."""
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        with lateness() as late_s:
            time.sleep(QUIET_S)
        if late_s[0] < LATE_S:
            return


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a `timed` test again as long as it fails and the machine was late."""
    if item.get_closest_marker("timed") is None or not isinstance(item, pytest.Function):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for attempt in range(ATTEMPTS):
        if attempt:
            wait_for_quiet()
            item._initrequest()  # fresh fixtures, a new tmp_path among them
        with lateness() as late_s:
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if late_s[0] < LATE_S or not any(report.failed for report in reports):
            break
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
