"""Pace: how long each token takes in each epoch, as the engine's own module says.

An epoch is a time with one placement under unchanged conditions. Its token times are those of an
ordinary Job, all rows (replications and requests) at once and the same random numbers in every
epoch: token k of row i has the same noise wherever it is made, and the world is the same before
and after a drop. What heat does in between is linear: the work on one chat's critical path is a
sum, so the slow-down of a device adds its own share of a token's time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from simulator.churn.membership import NORMAL, Condition, altered
from simulator.churn.placing import Placed
from simulator.engine.base import engine
from simulator.laws.law import Floats
from simulator.run.evaluate import replay
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job

__all__ = ["Conditions", "EpochPace", "EpochPaces", "Rows"]

Conditions = tuple[tuple[str, Condition], ...]
ROWS_AT_ONCE = 32  # more cost little more to evaluate, but with random events few rows meet in one epoch


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a study: `count` from `first`; row i is request `i % runs` of replication `i // runs`."""

    first: int
    count: int
    runs: int = 1


@dataclass
class _Table:
    """Token times (s) of one job, computed in blocks of rows as rows are asked for."""

    job: Job
    rows: Rows
    _blocks: dict[int, Floats] = field(default_factory=dict)

    def row(self, row: int) -> Floats:
        """Token times of one row (counted from the first one of the study), shape (tokens,)."""
        flow = engine(self.job.engine.name)
        size = ROWS_AT_ONCE if flow.is_recursion_exact(self.job) else 1
        start = row - row % size
        if start not in self._blocks:
            at, count = self.rows.first + start, min(size, self.rows.count - start)
            if size > 1:
                times: Floats = flow.token_times_s(self.job, Draws(self.job, at, count))[0]
            else:  # only SimPy can do it
                times = np.array([[token[2]] for token in sorted(replay(self.job, at).tokens)])
            self._blocks[start] = times
        return np.ascontiguousarray(self._blocks[start][:, row - start])


@dataclass(frozen=True, slots=True)
class EpochPace:
    """One row's decoding in one epoch. `reached_s[k]` is the time from token 0 to
    token k, all devices cold.
    """

    reached_s: Floats
    added_s: Mapping[str, Floats]
    """By how much it grows per unit of a hot device's slow-down: that device's own work up to token k."""

    def ahead_s(self, tokens: int, progress: float, slow: Mapping[str, float]) -> Floats:
        """Times from now to each token still to come, `tokens` being there and
        `progress` of the next one done.
        """
        total = self.reached_s
        for name, factor in slow.items():
            if factor != 1.0 and name in self.added_s:
                total = total + (factor - 1) * self.added_s[name]
        ahead: Floats = total[tokens:] - total[tokens - 1]
        return ahead - progress * ahead[0] if progress else ahead

    def busy(self, device: str, token: int, slow: Mapping[str, float]) -> float:
        """Share of token `token`'s time that a hot device works, 0 where it has no part in it."""
        own = self.added_s.get(device)
        if own is None:
            return 0.0
        # the first token has no gap: the prompt that it comes out of is not in this table
        k = min(max(token, 1), len(own) - 1)
        gap_s = (
            self.reached_s[k]
            - self.reached_s[k - 1]
            + sum(
                (slow.get(name, 1.0) - 1) * (added[k] - added[k - 1]) for name, added in self.added_s.items()
            )
        )
        return float(min(1.0, slow.get(device, 1.0) * (own[k] - own[k - 1]) / gap_s)) if gap_s > 0 else 0.0


@dataclass
class EpochPaces:
    """All epochs met so far, shared by all replications of a study."""

    rows: Rows
    hot: tuple[str, ...]
    """Devices that slow down by heat."""
    _tables: dict[tuple[object, ...], _Table] = field(default_factory=dict)
    _paces: dict[tuple[object, ...], EpochPace] = field(default_factory=dict)

    def pace(self, placed: Placed, conditions: Conditions, row: int) -> EpochPace:
        """The pace of one row's whole reply under these conditions."""
        # the number stands for the placement: hashing a whole job would cost more than the table saves
        key = (placed.number, conditions, row)
        if key not in self._paces:
            workload = placed.job.workload
            asked = (workload.prompt_tokens, workload.output_tokens)
            plain = _since_first(self._times_s(placed, conditions, asked, row))
            ring = [name for name in self.hot if placed.layers(name)]
            added = {
                name: _since_first(self._times_s(placed, _hotter(conditions, name), asked, row)) - plain
                for name in ring
            }
            self._paces[key] = EpochPace(plain, added)
        return self._paces[key]

    def first_token_s(
        self, placed: Placed, conditions: Conditions, context: int, row: int, slow: Mapping[str, float]
    ) -> float:
        """From the request with `context` tokens to the first new token, with these slow-downs by heat."""
        workload = placed.job.workload
        # the prompt alone is part of the whole reply's table, so an undisturbed reply is
        # that of `sim run` to the bit
        asked = (context, workload.output_tokens if context == workload.prompt_tokens else 2)
        total = plain = float(self._times_s(placed, conditions, asked, row)[0])
        for name, factor in slow.items():
            if factor != 1.0 and placed.layers(name):
                hotter = float(self._times_s(placed, _hotter(conditions, name), asked, row)[0])
                total += (factor - 1) * (hotter - plain)
        return total

    def generate_s(self, placed: Placed, conditions: Conditions, tokens: int, row: int) -> float:
        """Time of a short generation of `tokens` tokens from a prompt of one."""
        return float(self._times_s(placed, conditions, (1, max(2, tokens)), row)[tokens - 1])

    def _times_s(self, placed: Placed, conditions: Conditions, asked: tuple[int, int], row: int) -> Floats:
        key = (placed.number, conditions, asked)
        if key not in self._tables:
            workload = placed.job.workload.model_copy(
                update={
                    "prompt_tokens": asked[0],
                    "output_tokens": asked[1],
                    "runs": self.rows.runs,
                    # one reply is made at a time: who comes meanwhile queues in the session
                    "concurrency": 1,
                    "arrivals": None,
                }
            )
            job = replace(placed.job, cluster=altered(placed.job.cluster, conditions), workload=workload)
            self._tables[key] = _Table(job, self.rows)
        return self._tables[key].row(row)

    def links(self, placed: Placed, row: int) -> Draws:
        """The random numbers of one row's links alone, without the engine's own work for a message.

        What it does for those of a load is in the recorded law of that phase, and must not count twice.
        """
        workload = placed.job.workload.model_copy(update={"runs": self.rows.runs})
        silent = replace(placed.job.engine, hop_overhead_s=0.0)
        return Draws(replace(placed.job, workload=workload, engine=silent), self.rows.first + row, 1)


def _since_first(times_s: Floats) -> Floats:
    since: Floats = times_s - times_s[0]
    return since


def _hotter(conditions: Conditions, name: str) -> Conditions:
    """The conditions with one device at half its speed."""
    found = dict(conditions)
    before = found.get(name, NORMAL)
    # twice, so that the difference to the cold times is what one unit of slow-down adds
    found[name] = replace(before, slow=2 * before.slow)
    return tuple(sorted(found.items(), key=lambda item: item[0]))
