"""Closed forms: what theory says exactly where a ring is simple enough. Tests hold the simulator to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "ClosedNetwork",
    "exo_notice_is_hidden",
    "exo_token_s",
    "legacy_token_s",
    "md1_sojourn_s",
    "mean_value_analysis",
    "mm1_sojourn_s",
    "ring_tokens_per_s_bound",
]


@dataclass(frozen=True, slots=True)
class ClosedNetwork:
    """The steady state of a closed network with a fixed number of customers."""

    throughput_per_s: float
    cycle_s: float
    """Mean time of one customer's round trip."""
    sojourn_s: tuple[float, ...]
    """Mean time at each queue, waiting included."""
    queue_lengths: tuple[float, ...]
    """Mean number at each queue, the one in service included."""


def ring_tokens_per_s_bound(stages_s: Sequence[float], delay_s: float, chats: int = 1) -> float:
    """Most tokens/s that `chats` chats get out of a ring:
    `min(chats / (sum(stages) + delay), 1 / max(stages))`.

    `delay_s` is what one token spends between the stages. Reached by one chat, and
    by many in step under constant laws. The asymptotic bounds of operational
    analysis: Denning and Buzen, ACM Computing Surveys 10 (1978) 225-261.

    >>> ring_tokens_per_s_bound([0.2, 0.1], 0.1), ring_tokens_per_s_bound([0.2, 0.1], 0.1, chats=3)
    (2.5, 5.0)
    """
    alone = chats / (sum(stages_s) + delay_s)
    return min(alone, 1 / max(stages_s)) if max(stages_s) > 0 else alone


def exo_token_s(stages_s: Sequence[float], head_s: float, delay_s: float) -> float:
    """Seconds per token of EXO's ring where every hop takes `delay_s`:
    `sum(stages) + head + 2 (W - 1) delay`.

    W - 1 hops carry the hidden state to the last rank, W - 1 more bring its result back to rank 0; the notice
    before each step costs nothing while `exo_notice_is_hidden`. Confirmed on a real ring with imposed delays
    (EXO at commit b5375f8ce, recorded 2026-11-22; `tests/data/exo/ring_turns.csv`).

    >>> round(exo_token_s([0.04, 0.04], 0.005, 0.02), 6)
    0.125
    """
    return sum(stages_s) + head_s + 2 * (len(stages_s) - 1) * delay_s


def exo_notice_is_hidden(stage_s: float, delay_s: float, ranks: int) -> bool:
    """Whether the notice before a step travels while stages of equal length compute:
    `stage >= (W - 2) delay`.

    The last notice that rank 1 needs was rank 0's: it leaves `(W - 1) delay` after the last
    rank's result and takes `(W - 1) delay` for its W - 1 hops. The hidden state reaches rank
    1 `stage + delay` after rank 0 went on, which was `(W - 1) delay` after that result too;
    so it waits for the notice unless `stage + delay >= (W - 1) delay`.

    >>> exo_notice_is_hidden(0.02, 0.01, ranks=4), exo_notice_is_hidden(0.02, 0.01, ranks=5)
    (True, False)
    """
    return stage_s >= (ranks - 2) * delay_s


def legacy_token_s(stages_s: Sequence[float], delay_s: float) -> float:
    """Seconds per token of legacy EXO's ring, head within the last stage:
    `sum(stages) + W delay`, none for W = 1.

    >>> round(legacy_token_s([0.04, 0.04], 0.01), 6)
    0.1
    """
    ranks = len(stages_s)
    return sum(stages_s) + (ranks * delay_s if ranks > 1 else 0.0)


def mean_value_analysis(services_s: Sequence[float], delay_s: float, customers: int) -> ClosedNetwork:
    """Exact mean value analysis of a closed network: queues with exponential service, and
    pure delays between them.

    For n = 1 .. customers, with `Q_i(0) = 0`: `R_i(n) = S_i (1 + Q_i(n - 1))`, `X(n) =
    n / (delay + sum_i R_i(n))`, `Q_i(n) = X(n) R_i(n)`. Exact for first come first
    served queues with exponential service; the law of the delay does not matter, only
    its mean. Reiser and Lavenberg, Journal of the ACM 27 (1980) 313-322.

    >>> mean_value_analysis([1.0, 1.0], 0.0, 2).throughput_per_s
    0.6666666666666666
    """
    lengths = [0.0] * len(services_s)
    sojourns, rate = list(services_s), 0.0
    for n in range(1, customers + 1):
        # who arrives finds the queues as they are with one customer less (the arrival theorem)
        sojourns = [service * (1 + length) for service, length in zip(services_s, lengths, strict=True)]
        rate = n / (delay_s + sum(sojourns))
        lengths = [rate * sojourn for sojourn in sojourns]
    return ClosedNetwork(rate, customers / rate, tuple(sojourns), tuple(lengths))


def mm1_sojourn_s(arrivals_per_s: float, service_s: float) -> float:
    """Mean time in an M/M/1 queue, service included: `service / (1 - rho)`, `rho = arrivals * service`.

    Kleinrock, Queueing Systems I (1975), section 3.2. Raises ValueError where rho is 1
    or more: no steady state.

    >>> mm1_sojourn_s(0.5, 1.0)
    2.0
    """
    return service_s / (1 - _load(arrivals_per_s, service_s))


def md1_sojourn_s(arrivals_per_s: float, service_s: float) -> float:
    """Mean time in an M/D/1 queue, service included: `service (1 + rho / (2 (1 - rho)))`.

    The Pollaczek-Khinchine formula with constant service: Kleinrock, Queueing Systems I (1975), section 5.6.
    Raises ValueError where rho is 1 or more.

    >>> md1_sojourn_s(0.5, 1.0)
    1.5
    """
    load = _load(arrivals_per_s, service_s)
    return service_s * (1 + load / (2 * (1 - load)))


def _load(arrivals_per_s: float, service_s: float) -> float:
    load = arrivals_per_s * service_s
    if load >= 1:
        raise ValueError(f"the load is {load:.4g} and must be below 1: the queue would grow without end")
    return load
