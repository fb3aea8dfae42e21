"""The steady state of a Measurement as EXO's own benchmark defines it; percentiles
come from `simulator.result`.

EXO-bench (exo-explore/exo, bench/METHODOLOGY.md and bench/exo_bench.py): the rate of one request is
`(n - 1) / (t_last - t_first)`; of requests sent together the fastest counts, times their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from simulator.result import summary
from simulator.result.measurement import Measurement

__all__ = ["SteadyState", "steady_state", "tokens_per_s"]


@dataclass(frozen=True, slots=True)
class SteadyState:
    """Rates (tokens/s) of the complete requests."""

    per_request: tuple[float, ...]
    """Of each request, in the order of run and chat."""
    concurrency: int
    first_token_s: tuple[float, ...]

    @property
    def median_tokens_per_s(self) -> float:
        """Median over the requests."""
        return median(self.per_request)

    @property
    def exo_bench_tokens_per_s(self) -> float:
        """What EXO-bench prints as gen_tps: the best request's rate times the concurrency."""
        # the best and not the mean: so EXO-bench defines it, and only then can the two be compared
        return max(self.per_request) * self.concurrency


def tokens_per_s(times_ns: Sequence[float]) -> float | None:
    """Decode rate of one reply by the times of its tokens (ns); None below two tokens."""
    if len(times_ns) < 2 or times_ns[-1] <= times_ns[0]:
        return None
    return 1e9 * float(summary.tokens_per_s(np.asarray(times_ns)[:, np.newaxis])[0])


def steady_state(measurement: Measurement) -> SteadyState | None:
    """The steady state of a Measurement; None without a request of two tokens or more."""
    rates, first = [], []
    for times_s in measurement.token_times_s().values():
        rate = tokens_per_s((1e9 * times_s).tolist())
        if rate is not None:
            rates.append(rate)
            first.append(float(times_s[0]))
    return SteadyState(tuple(rates), measurement.provenance.concurrency, tuple(first)) if rates else None
