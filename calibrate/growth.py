"""Growth: what a context costs, as a reply's own tokens tell, which come slower as the reply gets longer.

Medians of runs with prompts of one length say nothing of it: what goes with the context cannot be told from
what does not. But each token lengthens the context: the last third of a reply has more of it than the first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from calibrate.forward import Design
from calibrate.parameters import CONTEXT_COST
from calibrate.samples import RunSample, Sample

__all__ = ["cost_by_growth"]

ALIKE = 1.5
"""Longest over shortest mean context up to which lengths say less than growth does."""
FEWEST_GAPS = 30
"""Of a run: thirds of fewer have medians that differ by chance."""
FEWEST = 3
"""Placements from which their scatter says how sure the mean of them is."""


def cost_by_growth(samples: Sequence[Sample], model: Design) -> tuple[float, float] | None:
    """Mean and standard deviation of the cost of a context, in that of as many bytes of weights.

    None where contexts differ in length, which tells it better, or too few placements have long enough runs.
    What else slows a reply down as it goes on (heat, other programs) is in it, and in how placements differ.
    """
    contexts = [run.context for one in samples for run in one.runs]
    if max(contexts) > ALIKE * min(contexts):
        return None
    column = model.matrix[:, model.names.index(CONTEXT_COST)]
    found = [
        float(np.mean(slopes)) * float(np.mean([run.context for run in one.runs])) / unit_s
        for one, unit_s in zip(samples, column, strict=True)
        # the gaps of several chats are not in the order in which they came
        if unit_s > 0 and one.scenario.workload.concurrency == 1 and (slopes := _slopes_s(one.runs))
    ]
    if len(found) < FEWEST:
        return None
    # so much wider as few know their scatter badly: Student's 90 % over the normal's
    wider = student.ppf(0.95, len(found) - 1) / norm.ppf(0.95)
    return float(np.mean(found)), float(wider * np.std(found, ddof=1) / np.sqrt(len(found)))


def _slopes_s(runs: Sequence[RunSample]) -> list[float]:
    """Seconds by which a gap grows per token, run by run: medians of outer thirds, against outliers."""
    return [
        float(np.median(run.gaps_s[-third:]) - np.median(run.gaps_s[:third])) / (len(run.gaps_s) - third)
        for run in runs
        if (third := len(run.gaps_s) // 3) >= FEWEST_GAPS // 3 and not run.bursts
    ]
