"""Balanced worlds: the same few for all mixes, chosen so that no device wins by luck.

With 48 independent worlds the median of a lognormal factor with log sd 0.3 is off by 5 %,
another way for each device; a search over thousands of mixes would then buy the luckiest name.
So each factor takes 48 evenly spread quantiles of its law, in an order of its own: a Latin
hypercube (McKay, Beckman and Conover, Technometrics 21 (1979) 239-245).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations
from statistics import NormalDist

import numpy as np

from simulator.laws.factors import WorldFactor, engine_factor
from simulator.laws.law import Floats
from simulator.laws.streams import Streams
from simulator.runtime.draws import speed_factors
from simulator.runtime.job import Job
from simulator.scenario import PosteriorSpec

__all__ = ["Worlds"]


@dataclass
class Worlds:
    """`count` worlds of a study with this seed; what a calibration has drawn stays as it is."""

    seed: int
    count: int
    posterior: PosteriorSpec | None = None
    _columns: dict[tuple[str, float], Floats] = field(default_factory=dict, repr=False)
    _z: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        normal = NormalDist()
        self._z = np.array([normal.inv_cdf((i + 0.5) / self.count) for i in range(self.count)])

    def given(self, job: Job) -> Job:
        """The job in these worlds: row i of its evaluation meets world i."""
        columns = dict(self._calibrated())
        for name, log_sd in _factors(job):
            columns.setdefault(name, self._column(name, log_sd))
        # built without validation, which would take longer than the evaluation
        draws = tuple(map(tuple, np.stack(list(columns.values()), axis=1).tolist()))
        return replace(job, posterior=PosteriorSpec.model_construct(names=tuple(columns), draws=draws))

    def _calibrated(self) -> Iterator[tuple[str, Floats]]:
        if self.posterior is not None:
            draws = np.array(self.posterior.draws)[np.arange(self.count) % len(self.posterior.draws)]
            yield from zip(self.posterior.names, draws.T, strict=True)

    def _column(self, name: str, log_sd: float) -> Floats:
        """`exp(log_sd z)` over the evenly spread z in the order that the factor's own stream gives."""
        key = (name, log_sd)
        if key not in self._columns:
            cells = Streams(self.seed).cells(f"plan/{name}", self.count)[0]
            self._columns[key] = np.exp(log_sd * self._z[np.argsort(cells, kind="stable")])
        return self._columns[key]


def _factors(job: Job) -> Iterator[WorldFactor]:
    """World factors of devices, links and engine, with the standard deviation of their
    logarithms (see `Draws`).
    """
    yield WorldFactor(engine_factor("step"), job.engine.log_sd("step"))
    yield WorldFactor(engine_factor("hop"), job.engine.log_sd("hop"))
    for device in job.ring:
        yield from speed_factors(job, device, "decode")
        yield from speed_factors(job, device, "prefill")
    for a, b in combinations(job.placement.devices, 2):
        for leg in job.cluster.path(a, b).legs:
            yield from leg.scales
            yield from leg.rates
