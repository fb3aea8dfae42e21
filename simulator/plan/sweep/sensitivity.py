"""sensitivity: which inputs move tokens/s, over their own intervals and as shares of the variance.

Every input is one of the simulator's world factors: what multiplies a device's decode time, a link's
delay or rate, an engine's overhead. The engine itself says which ones it draws. They are moved in a
quiet twin of the job, whose delays are constant at their means and whose stages have no noise, so that
what moves tokens/s is the input and nothing else. The twin is evaluated by the fast path; its design
points enter as a posterior, which names factors and gives values.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from simulator.cluster.cluster import Device, Wire
from simulator.engine.base import engine
from simulator.errors import Fault, ScenarioError
from simulator.laws.factors import how_to_measure, in_words, is_rate
from simulator.laws.law import Constant, Floats, Law
from simulator.prepare import prepare
from simulator.result.estimate import rounded
from simulator.result.summary import tokens_per_s
from simulator.run.evaluate import token_times_s
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.scenario import NoiseSpec, PosteriorSpec, Scenario
from simulator.spec import Spec

__all__ = ["Factor", "Influence", "Metric", "Sensitivity", "factors", "quiet", "respond", "sensitivity"]

Metric = Literal["tokens_per_s", "first_token_s"]
Begin = Callable[[int, float, float], None]
TOKENS = 64
"""A reply long enough that what an engine does once, at its start, weighs as little as it should."""
MOST_POINTS = 2000
"""Design points evaluated at once: as many draws as a posterior may hold."""
PILOT_POINTS = 1000
SOBOL_POINTS = 512
"""Base sample of the Sobol design, a power of 2; it costs (inputs + 2) times as many evaluations."""
Z90 = 1.6448536269514722
"""95th percentile of the standard normal: the ends of a 90 % interval."""
TWICE = 2.0
NEGLIGIBLE = 1e-6
"""Shares below are rounding, and differ from processor to processor."""


@dataclass(frozen=True, slots=True)
class Factor:
    """One uncertain input: a lognormal factor of median 1, or what a calibration left as draws."""

    name: str
    log_sd: float
    drawn: tuple[float, ...] = ()

    def ppf(self, share: Any) -> Any:
        """Quantile function, which is all that scipy's Sobol sampling asks of a distribution."""
        if self.drawn:
            return np.quantile(np.asarray(self.drawn), share)
        from scipy.special import ndtri  # imported here: half a second that `sim --help` need not pay

        return np.exp(self.log_sd * ndtri(share))

    @property
    def interval(self) -> tuple[float, float]:
        """5th and 95th percentile of the factor."""
        if self.drawn:
            low, high = np.quantile(np.asarray(self.drawn), [0.05, 0.95])
            return float(low), float(high)
        return float(np.exp(-Z90 * self.log_sd)), float(np.exp(Z90 * self.log_sd))


class Influence(Spec):
    """One input: what it is, its interval, and what the metric does over it, the others at their medians."""

    input: str
    what: str
    factor_p05: float
    factor_p95: float
    at_p05: float
    """The metric with the factor at its 5th percentile."""
    at_p95: float
    total_order: float
    """Share of the metric's variance in which the input takes part, alone or not
    (Sobol's total-order index).
    """
    if_twice_as_good: float
    """Gain of the metric, as a share, if this input were twice as good: half the time
    or delay, twice the rate.
    """

    @property
    def swing(self) -> float:
        """Length of the tornado's bar."""
        return abs(self.at_p95 - self.at_p05)


class Sensitivity(Spec):
    """All inputs of a scenario, the one that moves the metric most first."""

    scenario: str
    metric: Metric
    base: float
    """The metric with every factor at its median, in the quiet twin."""
    influences: tuple[Influence, ...]
    measure_next: str
    upgrade_next: str
    evaluations: int


def sensitivity(
    scenario: Scenario,
    metric: Metric = "tokens_per_s",
    points: int = SOBOL_POINTS,
    begin: Begin | None = None,
) -> Sensitivity:
    """How much each uncertain input moves a scenario's metric.

    `begin` hears of the design before it is laid out: evaluations, about how many seconds, bytes; what it
    raises ends all.
    Raises ScenarioError where `points` is no power of 2 or nothing is uncertain, and
    whatever `prepare` raises.
    """
    if points < 2 or points & (points - 1):
        raise ScenarioError(
            "sensitivity", [Fault("points", f"{points} is no power of 2; take 256, 512 or 1024")]
        )
    job = prepare(scenario).job
    found = factors(job)
    if not found:
        reason = (
            "no input is uncertain: every spread of the scenario is 0; take the catalogue's devices and "
            "networks, or a calibration"
        )
        raise ScenarioError("sensitivity", [Fault("", reason)])
    count = [0]

    def evaluate(values: Floats) -> Floats:
        count[0] += values.shape[1]
        return respond(job, [factor.name for factor in found], values, metric)

    middle = np.array([factor.ppf(0.5) for factor in found])
    if begin is not None:
        _announce(begin, job, middle, [factor.name for factor in found], metric, points)
    base = float(evaluate(middle[:, None])[0])
    ends = _ends(found, middle, evaluate)
    indices = _total_order(found, evaluate, points, scenario.seed)
    better = _better(found, middle, base, metric, evaluate)
    rows = [
        _influence(factor, job.engine.name, *figures)
        for factor, *figures in zip(found, *ends.T, indices, better, strict=True)
    ]
    rows.sort(key=lambda row: -row.swing)
    return Sensitivity(
        scenario=scenario.name,
        metric=metric,
        base=rounded(base),
        influences=tuple(rows),
        measure_next=_measure(rows),
        upgrade_next=_upgrade(rows, metric),
        evaluations=count[0],
    )


def _announce(begin: Begin, job: Job, middle: Floats, names: list[str], metric: Metric, points: int) -> None:
    """Tell `begin` of the design: evaluations, seconds by some of them, and bytes."""
    some = np.repeat(middle[:, None], PILOT_POINTS, axis=1)
    respond(job, names, some[:, :1], metric)  # fills what the first evaluation alone needs
    begun_s = time.perf_counter()
    respond(job, names, some, metric)
    count = points * (len(names) + 2)
    # scipy makes the design, and puts it together once more
    begin(count, count * (time.perf_counter() - begun_s) / PILOT_POINTS, 2.0 * count * len(names) * 8)


def _influence(
    factor: Factor, engine_name: str, low: float, high: float, index: float, gain: float
) -> Influence:
    return Influence(
        input=factor.name,
        what=in_words(factor.name, engine_name),
        factor_p05=rounded(factor.interval[0]),
        factor_p95=rounded(factor.interval[1]),
        at_p05=rounded(float(low)),
        at_p95=rounded(float(high)),
        total_order=rounded(float(index)),
        if_twice_as_good=rounded(float(gain)),
    )


@dataclass(frozen=True, slots=True)
class _Listening(Draws):
    """Draws that remember which world factors the engine asked for, and how unsure each is."""

    heard: dict[str, float] = field(default_factory=dict, compare=False)

    def world(self, name: str, log_sd: float) -> Floats:
        """As in Draws; remembered by name."""
        self.heard[name] = max(log_sd, self.heard.get(name, 0.0))
        return Draws.world(self, name, log_sd)


def factors(job: Job) -> tuple[Factor, ...]:
    """The uncertain inputs of a job: every world factor that its engine draws and that is not certain."""
    listening = _Listening(job, 0, 1)
    # one row will do: which factors an engine asks for does not depend on what they are
    engine(job.engine.name).token_times_s(job, listening)
    posterior = job.posterior
    columns: Mapping[str, tuple[float, ...]] = (
        {}
        if posterior is None
        else {
            name: tuple(draw[place] for draw in posterior.draws) for place, name in enumerate(posterior.names)
        }
    )
    return tuple(
        Factor(name, log_sd, columns.get(name, ()))
        for name, log_sd in listening.heard.items()
        if (len(set(columns[name])) > 1 if name in columns else log_sd > 0)
    )


def quiet(job: Job) -> Job:
    """The job without chance: delays constant at their means, stages without
    noise, one run of a few tokens.
    """
    devices = tuple(_quiet_device(device) for device in job.cluster.devices)
    wires = tuple(_quiet_wire(wire) for wire in job.cluster.wires)
    asked = job.workload
    workload = asked.model_copy(update={"runs": 1, "output_tokens": min(TOKENS, asked.output_tokens)})
    return replace(
        job,
        cluster=replace(job.cluster, devices=devices, wires=wires),
        workload=workload,
        common_noise=NoiseSpec(sigma=0.0),
    )


def _quiet_device(device: Device) -> Device:
    # a dozing radio is left awake: whether it dozes depends on waiting times, which the
    # fast path does not follow
    link = replace(device.link, delay=_at_mean(device.link.delay), power_save=None)
    return replace(device, noise=NoiseSpec(sigma=0.0), link=link)


def _quiet_wire(wire: Wire) -> Wire:
    return replace(wire, delay=_at_mean(wire.delay))


def _at_mean(law: Law) -> Constant:
    # with its unit, as a file has it: the field reads nothing else
    return Constant(value=f"{law.mean_s!r} s")


def respond(job: Job, names: Sequence[str], values: Floats, metric: Metric) -> Floats:
    """The metric at design points: `values` of shape (inputs, points), row i the factor called `names[i]`."""
    silent, out = quiet(job), []
    for first in range(0, values.shape[1], MOST_POINTS):
        block = values[:, first : first + MOST_POINTS]
        # built without validation: a design of thousands of points is ours, no user's
        posterior = PosteriorSpec.model_construct(
            names=tuple(names), draws=tuple(map(tuple, block.T.tolist()))
        )
        times_s = token_times_s(replace(silent, posterior=posterior), block.shape[1], "recursion")
        out.append(
            tokens_per_s(times_s).mean(axis=0) if metric == "tokens_per_s" else times_s[:, 0].mean(axis=0)
        )
    return np.concatenate(out)


Evaluate = Callable[[Floats], Floats]


def _ends(found: Sequence[Factor], middle: Floats, evaluate: Evaluate) -> Floats:
    """The metric with each factor at its 5th and 95th percentile, one at a time, shape (inputs, 2)."""
    # all points of the design in one array, so that they are one call
    design = np.repeat(middle[:, None], 2 * len(found), axis=1)
    for place, factor in enumerate(found):
        design[place, 2 * place : 2 * place + 2] = factor.interval
    return evaluate(design).reshape(-1, 2)


def _better(
    found: Sequence[Factor], middle: Floats, base: float, metric: Metric, evaluate: Evaluate
) -> Floats:
    """Gain of the metric with each input twice as good, one at a time: times and
    delays halve, rates double.
    """
    design = np.repeat(middle[:, None], len(found), axis=1)
    for place, factor in enumerate(found):
        design[place, place] *= TWICE if is_rate(factor.name) else 1 / TWICE
    after = evaluate(design)
    gains = after / base - 1 if metric == "tokens_per_s" else 1 - after / base
    return np.where(np.abs(gains) > NEGLIGIBLE, gains, 0.0)


def _total_order(found: Sequence[Factor], evaluate: Evaluate, points: int, seed: int) -> Floats:
    """Total-order Sobol indices by scipy: Saltelli's design, Jansen's estimator (scipy.stats.sobol_indices).

    `S_Ti = E[Var(y | all but x_i)] / Var(y)`. Inputs are taken as independent, a
    calibration's correlations apart.
    """
    if len(found) == 1:
        return np.ones(1)  # it takes part in all of the variance; scipy's estimator needs two inputs
    from scipy.stats import sobol_indices  # two seconds that nothing else here needs

    result = sobol_indices(
        func=lambda x: evaluate(x)[None], n=points, dists=list(found), rng=np.random.default_rng(seed)
    )
    indices: Floats = np.atleast_2d(result.total_order)[0]
    return np.where(indices > NEGLIGIBLE, indices, 0.0)


def _measure(rows: Sequence[Influence]) -> str:
    """What to measure next: the input that holds most of the variance."""
    worst = max(rows, key=lambda row: row.total_order)
    return (
        f"measure next: {worst.what}, which takes part in {min(1.0, worst.total_order):.0%} of the "
        f"variance; {how_to_measure(worst.input)}"
    )


def _upgrade(rows: Sequence[Influence], metric: Metric) -> str:
    """What to upgrade next: the input that gives most when it is twice as good."""
    best = max(rows, key=lambda row: row.if_twice_as_good)
    unit = "tokens/s" if metric == "tokens_per_s" else "off the first token"
    return f"upgrade next: {best.what}; twice as good gives {best.if_twice_as_good:+.0%} {unit}"
