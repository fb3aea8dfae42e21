"""A local Petals swarm that loses servers, and gets them back.

A server goes in one of three ways. `kill`: kill -9 of all its processes, so that its connections end. `hang`:
SIGSTOP of all, so that they stay open and silent. `dark`: its relay passes nothing on any more.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Literal

from live.local.petals.cluster import PetalsCluster
from live.local.petals.processes import of_sessions
from simulator.errors import LiveError

__all__ = ["BreakableSwarm", "Mode"]

Mode = Literal["kill", "hang", "dark"]


class BreakableSwarm(PetalsCluster):
    """A swarm whose servers may go; nobody but its client minds."""

    def lose(self, name: str, mode: Mode) -> int:
        """Take a server away; returns when (`time.monotonic_ns`)."""
        server = self._others[name]
        pids = of_sessions([server.pid])[server.pid]
        at_ns = time.monotonic_ns()
        if mode == "kill":
            server.process.kill()
        elif mode == "hang":
            _signal(pids, signal.SIGSTOP)
        else:
            if self._relay is None or name not in self._ports:
                raise LiveError(f"{name} has no link that could go dark")
            self._relay.ask("dark", "darkened", port=self._ports[name])
        return at_ns

    def revive(self, name: str, mode: Mode) -> None:
        """Start a killed server again, with nothing in memory; let one that hangs go on."""
        if mode == "hang":
            _signal(of_sessions([self._others[name].pid])[self._others[name].pid], signal.SIGCONT)
            return
        server = next(one for one in (*self.plan.servers, *self.plan.spares) if one.name == name)
        self._others[name] = self._serve(server)

    def watch(self) -> None:
        """Servers may go; the relay must not."""
        self.watch_relay()


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)
