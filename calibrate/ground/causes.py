"""Causes of misses: which uncertain input, moved alone, would have given what was measured.

Inputs are the simulator's world factors, in a quiet twin of the job (`simulator.plan.sweep.sensitivity`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibrate.ground.cases import Case
from calibrate.ground.predict import Outcome
from calibrate.tables import lines
from simulator.laws.factors import how_to_measure, in_words
from simulator.plan.sweep.sensitivity import Factor, factors, respond
from simulator.prepare import prepare
from simulator.result.estimate import rounded
from simulator.runtime.job import Job
from simulator.spec import Spec

__all__ = ["Cause", "cause", "known_causes"]

FARTHEST_SD = 3.0
"""An input moved farther than that is no explanation: one world in 370 is so far out."""
STEPS = 25
TERMS = {
    "delay": "link",
    "rate": "link",
    "decode": "device efficiency",
    "load": "device efficiency",
    "prefill": "prefill",
    "step": "overhead",
    "hop": "overhead",
}


class Cause(Spec):
    """What would explain a miss: a term, an input of it, how far it must move, what would have told."""

    row: str
    quantity: str
    term: str
    """link, device efficiency, overhead, prefill, or unknown."""
    what: str = ""
    """The input, in words."""
    sd: float = 0.0
    """Standard deviations that it must move; positive is slower."""
    would_have_told: str = ""
    known: str = ""
    """A cause that somebody found in the source, by hand."""


def known_causes() -> dict[str, str]:
    """Causes written by hand, by row."""
    return {line["row"]: line["cause"] for line in lines("published_causes.csv")}


def cause(case: Case, outcome: Outcome, known: str = "") -> Cause:
    """The input that must move least to meet the measurement; unknown where none within 3 sd does."""
    job = prepare(case.scenario).job
    wanted = outcome.measured_s / outcome.median_s
    inputs = factors(job)
    moves = [
        (abs(sd), sd, max((inputs[at] for at in together), key=_log_sd))
        for together in _joined(inputs)
        for sd in _needed(job, inputs, together, outcome, wanted)
    ]
    found = {"row": outcome.row, "quantity": outcome.quantity, "known": known}
    if not moves:
        return Cause.model_validate({**found, "term": "unknown"})
    _, sd, factor = min(moves, key=lambda move: move[0])
    return Cause.model_validate(
        {
            **found,
            "term": TERMS.get(factor.name.rpartition("/")[2], "unknown"),
            "what": in_words(factor.name, job.engine.name),
            "sd": rounded(sd),
            "would_have_told": how_to_measure(factor.name),
        }
    )


def _log_sd(factor: Factor) -> float:
    return factor.log_sd or float(np.std(np.log(factor.drawn)))


def _joined(inputs: Sequence[Factor]) -> list[list[int]]:
    """Places of the inputs that are moved together: how far devices are from the catalogue is one cause,
    though platform, chip and model each have a part in it; any other input stands alone.
    """
    parts = [factor.name.rpartition("/")[2] for factor in inputs]
    alone = [[at] for at, part in enumerate(parts) if part not in ("decode", "prefill")]
    joined = [[at for at, part in enumerate(parts) if part == kind] for kind in ("decode", "prefill")]
    return [*alone, *(together for together in joined if together)]


def _needed(
    job: Job, inputs: Sequence[Factor], together: Sequence[int], outcome: Outcome, wanted: float
) -> list[float]:
    """The standard deviations at which these inputs stretch the time by `wanted`; none within reach."""
    sds = np.linspace(-FARTHEST_SD, FARTHEST_SD, STEPS)
    # all inputs are named: one that is not would be drawn anew at each point
    design = np.repeat([[factor.ppf(0.5)] for factor in inputs], STEPS, axis=1)
    total = float(np.hypot.reduce([_log_sd(inputs[at]) for at in together]))
    for at in together:
        # the likeliest way to be so far out in all: each by its share of the variance
        design[at] *= np.exp(_log_sd(inputs[at]) ** 2 / total * sds)
    is_first = outcome.quantity == "first token"
    values = respond(
        job, [one.name for one in inputs], design, "first_token_s" if is_first else "tokens_per_s"
    )
    times = values if is_first else 1 / values
    reached = np.log(times / times[STEPS // 2])
    # a faster link shortens times, so the curve may fall: interpolation wants it rising
    order, log_wanted = np.argsort(reached), float(np.log(wanted))
    if not reached[order[0]] <= log_wanted <= reached[order[-1]]:
        return []
    return [float(np.interp(log_wanted, reached[order], sds[order]))]
