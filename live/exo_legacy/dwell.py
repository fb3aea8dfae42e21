"""How long each node works on each token, from outside: legacy EXO up to 0.0.12 tells who is active.

`active_node_id` in the topology changes for every token on every node there; later versions show it during
prefill only. Asked 100 to 150 times per second it gives the time on each node (which holds the delay of the
news itself) and the time between nodes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from types import TracebackType
from typing import Self

from live.errors import LiveError
from live.exo_legacy.client import LegacyClient

__all__ = ["Change", "DwellPoller", "dwell_times_s"]

Change = tuple[int, str | None]
"""Monotonic time (ns) and who is active from then on; None: nobody."""


def dwell_times_s(changes: Sequence[Change]) -> dict[str | None, tuple[float, ...]]:
    """Seconds of each complete stay, by node; those of None are the times between nodes.

    >>> dwell_times_s([(0, "a"), (2_000_000_000, None), (2_500_000_000, "b")])
    {'a': (2.0,), None: (0.5,)}
    """
    stays: dict[str | None, list[float]] = {}
    for (start_ns, node), (end_ns, _) in pairwise(changes):
        stays.setdefault(node, []).append((end_ns - start_ns) / 1e9)
    return {node: tuple(values) for node, values in stays.items()}


class DwellPoller:
    """Asks for the active node in the background while the block runs; `changes` holds what was seen.

    A change is stamped with the middle between asking and hearing, so it is known to half a round trip.
    Errors of single questions are counted in `failures`.
    """

    def __init__(self, client: LegacyClient, per_s: float = 120.0) -> None:
        self._client, self._period_s = client, 1 / per_s
        self.changes: list[Change] = []
        self.failures = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(self._client.timeouts.answer_s)

    def _poll(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            asked_ns = time.monotonic_ns()
            try:
                active = self._client.topology().active_node_id
            except LiveError:
                self.failures += 1
            else:
                self._note((asked_ns + time.monotonic_ns()) // 2, active)
            # a late answer shifts the rhythm: questions must not pile up
            due = max(due + self._period_s, time.monotonic())
            self._stop.wait(due - time.monotonic())

    def _note(self, t_ns: int, active: str | None) -> None:
        # changes only: two hours at 120 questions per second would be a million entries
        if not self.changes or self.changes[-1][1] != active:
            self.changes.append((t_ns, active))
