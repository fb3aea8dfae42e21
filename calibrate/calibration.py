"""Calibration: fitted parameters with their uncertainty, where they came from, and
how they enter a scenario.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from calibrate.fit import Fit, fit
from calibrate.links import MeasuredLinks, is_links, measured_links, with_links
from calibrate.noise import Noise, fit_noise
from calibrate.parameters import is_parameter, kind_of_parameter
from calibrate.prefill import fit_prefill
from calibrate.samples import Sample, sample
from simulator.engine.base import engine
from simulator.errors import Fault, MeasurementError, ScenarioError
from simulator.files import dump, load
from simulator.laws.law import Floats
from simulator.result.estimate import rounded
from simulator.result.measurement import Measurement, read_measurement
from simulator.spec import LogSd, Spec

__all__ = [
    "Calibration",
    "FittedParameter",
    "NoiseValues",
    "Source",
    "calibrate",
    "calibrate_samples",
    "load_calibration",
    "save_calibration",
]

FEWEST_GAPS = 200
ILL_CONDITIONED = 100.0


Name = Annotated[str, Field(max_length=1000)]
Positive = Annotated[float, Field(gt=0, le=1e18)]
Least0 = Annotated[float, Field(ge=0, le=1e15)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]


class Source(Spec):
    """A Measurement that trained the calibration."""

    name: Name
    sha256: Name
    runs: Count
    gaps: Count
    median_s: Positive
    fitted_s: Least0
    """What the fitted model says of it."""


class FittedParameter(Spec):
    """A fitted value in its base unit, with its 90 % interval and the number of
    measurements that bear on it.
    """

    name: Name
    unit: Literal["s", "1"]
    value: Least0
    p05: Least0
    p95: Least0
    n: Count


class NoiseValues(Spec):
    """See `calibrate.noise.Noise`."""

    own_sigma: LogSd
    common_sigma: LogSd
    correlation: Annotated[float, Field(ge=-0.99, le=0.99)]
    run_sigma: LogSd
    session_sigma: LogSd
    hour_sigma: LogSd = 0.0
    """0 in older calibrations."""
    pauses_per_s: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Of the host in a second of work; 0 in older calibrations."""
    pause_s: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Mean length (s)."""


class Calibration(Spec):
    """The result of `sim calibrate`; `calibrate.apply` puts it into a scenario."""

    format: Literal[1] = 1
    engine: Name
    model: Name
    layer_bytes: Least0
    """Of the model that was measured; other models scale by their bytes."""
    kinds: dict[Name, Name]
    """Catalogue kind of each calibrated device, 'unknown' where the scenario named none."""
    catalogue_layer_s: dict[Name, Positive]
    """What the catalogue would have said for each calibrated device that it knows."""
    parameters: tuple[FittedParameter, ...]
    noise: NoiseValues
    prefill_flops: Positive
    prefill_log_sd: LogSd
    prefill_attention_cost: Least0 | None = None
    """Of a prompt's attention, in flops of matrix products; None in older calibrations."""
    request_overhead_s: Least0 | None = None
    prefill_draws: Annotated[
        tuple[tuple[Positive, Positive, Positive, Positive], ...], Field(max_length=10_000)
    ] = ()
    """See `calibrate.prefill.Prefill.draws`; none in older calibrations."""
    context_range: tuple[Least0, Least0]
    """Context lengths (tokens) that were measured."""
    names: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1000)]
    draws: Annotated[tuple[tuple[Least0, ...], ...], Field(min_length=1, max_length=10_000)]
    """Joint bootstrap draws of the parameters `names`."""
    sources: tuple[Source, ...]
    warnings: tuple[str, ...] = ()
    lack_of_fit: str = ""
    """Whether placements scatter about the model as repeats do, in words; empty in older calibrations."""
    links: MeasuredLinks | None = None
    """Of agents, where some were measured: they are data, and were in place while the rest was fitted."""

    @model_validator(mode="after")
    def _parameters_and_draws_agree(self) -> Calibration:
        faults = [
            Fault(f"names.{at}", f"{name!r:.60} is no parameter")
            for at, name in enumerate(self.names)
            if not is_parameter(name)
        ]
        known = set(self.names)
        faults += [
            Fault(f"parameters.{at}.name", f"{one.name!r:.60} has no draws: names must hold it")
            for at, one in enumerate(self.parameters)
            if one.name not in known
        ]
        faults += [
            Fault(
                f"draws.{at}",
                f"has {len(draw)} values and must have one for each of the {len(self.names)} names",
            )
            for at, draw in enumerate(self.draws)
            if len(draw) != len(self.names)
        ]
        if self.prefill_draws and len(self.prefill_draws) != len(self.draws):
            faults.append(
                Fault(
                    "prefill_draws", f"must be as many as draws, which are {len(self.draws)}, or none at all"
                )
            )
        if len(known) < len(self.names) or len({one.name for one in self.parameters}) < len(self.parameters):
            faults.append(Fault("names", "a parameter stands twice; keep one of them"))
        if faults:
            raise ScenarioError("", faults)
        return self

    def value(self, name: str) -> float | None:
        """The fitted value of a parameter, None if it was not fitted."""
        return next((parameter.value for parameter in self.parameters if parameter.name == name), None)

    def point(self, name: str, fallback: float | None = 0.0) -> float:
        """The value to draw around: the fitted one, or the mean of the draws where that is zero (a bound)."""
        value = self.value(name)
        if value is None:
            return fallback or 0.0
        # a solver's zero may come out as a billionth of what is usual
        if value > 1e-6 * kind_of_parameter(name).size:
            return value
        # draws become factors of the point, and any factor of zero is zero, though they say it may be more
        return float(np.mean(self.column(name)))

    def column(self, name: str) -> Floats:
        """The joint draws of a parameter, shape (draws,)."""
        index = self.names.index(name)
        return np.array([draw[index] for draw in self.draws])

    def trained_on(self, sha256: str) -> bool:
        """Whether a Measurement with that hash trained this calibration."""
        return any(source.sha256 == sha256 for source in self.sources)


def calibrate(paths: Sequence[Path], *, draws: int = 500, seed: int = 1) -> Calibration:
    """Fit the Measurements of these files; files that hold nothing usable are left out
    and named in the warnings.

    Raises MeasurementError where nothing is left, CalibrationError where they do not belong together.
    """
    samples: list[Sample] = []
    warnings: list[str] = []
    agents: list[Measurement] = []
    for path in paths:
        try:
            measurement = read_measurement(path)
            if is_links(measurement):
                agents.append(measurement)
                continue
            one = sample(measurement, first_token_is_enough=True)
            if one.sha256 in {other.sha256 for other in samples}:
                warnings.append(f"left out: {path} is the same measurement as one before it")
            else:
                samples.append(one)
        # one bad file of twenty must not cost the other nineteen, but it must be told
        except MeasurementError as error:
            warnings.append(f"left out: {error}")
    if not any(one.runs for one in samples):
        only = [f"{one.name}: no run with enough gaps, so it times a first token alone" for one in samples]
        raise MeasurementError("\n".join(["no usable measurement:", *warnings, *only, *_only_links(agents)]))
    links = measured_links(agents) if agents else None
    return calibrate_samples(samples, draws=draws, seed=seed, warnings=warnings, links=links)


def _only_links(agents: Sequence[Measurement]) -> list[str]:
    if not agents:
        return []
    return [
        f"{len(agents)} files hold links alone: `sim delays FILE --scenario SCENARIO -o NEW` puts them into "
        "a scenario; add measurements of `sim live run` to calibrate"
    ]


def calibrate_samples(
    samples: Sequence[Sample],
    *,
    draws: int = 500,
    seed: int = 1,
    warnings: Sequence[str] = (),
    links: MeasuredLinks | None = None,
) -> Calibration:
    """Fit samples that are already in memory; see `calibrate`."""
    if links is not None:
        # a link that was measured leaves less for the fit to guess: the time of hops goes to nobody else
        samples = [replace(one, scenario=with_links(one.scenario, links)[0]) for one in samples]
        warnings = (*warnings, *links.notes)
    every, samples = samples, [one for one in samples if one.runs]
    fitted = fit(samples, draws=draws, seed=seed)
    noise = fit_noise(samples, fitted)
    prefill = fit_prefill(every, fitted, noise, draws=draws, seed=seed)
    first = samples[0].scenario
    contexts = [run.context for one in samples for run in one.runs]
    # of a device that changes between measurements the last description counts
    devices = {name: spec for one in samples for name, spec in one.scenario.devices.items()}
    return Calibration(
        engine=engine(first.engine.name).software,
        model=first.model.name,
        layer_bytes=first.model.layer_bytes or 0.0,
        kinds={name: spec.kind or "unknown" for name, spec in devices.items()},
        catalogue_layer_s=catalogue_layer_s(samples),
        parameters=_parameters(samples, fitted),
        noise=NoiseValues(**{name: rounded(getattr(noise, name)) for name in NoiseValues.model_fields}),
        prefill_flops=rounded(prefill.flops),
        prefill_log_sd=rounded(prefill.log_sd),
        prefill_attention_cost=rounded(prefill.attention_cost),
        request_overhead_s=rounded(prefill.request_overhead_s),
        prefill_draws=tuple(tuple(rounded(value) for value in draw) for draw in prefill.draws.tolist()),
        context_range=(min(contexts), max(contexts)),
        names=fitted.names,
        draws=tuple(tuple(rounded(value) for value in draw) for draw in fitted.draws.tolist()),
        sources=tuple(
            Source(
                name=one.name,
                sha256=one.sha256,
                runs=len(one.runs),
                gaps=len(one.gaps_s),
                median_s=rounded(one.median_s),
                fitted_s=rounded(float(predicted)),
            )
            for one, predicted in zip(samples, fitted.predicted_s, strict=True)
        ),
        warnings=(*warnings, *_doubts(samples, fitted, noise)),
        lack_of_fit=fitted.verdict,
        links=links,
    )


def catalogue_layer_s(samples: Sequence[Sample]) -> dict[str, float]:
    """Seconds per layer by the catalogue, for each device whose kind it knows."""
    from simulator.complete import complete
    from simulator.prepare import prepare
    from simulator.runtime.cost import seconds_per_layer

    found: dict[str, float] = {}
    for one in samples:
        for name, spec in one.scenario.devices.items():
            if name in found or spec.kind is None:
                continue
            # as the catalogue has it: without the speed that the scenario gives and without other work
            plain = spec.model_copy(update={"speed": None, "background_load": 0.0})
            scenario = one.scenario.model_copy(update={"devices": {**one.scenario.devices, name: plain}})
            job = prepare(complete(scenario)).job
            found[name] = rounded(seconds_per_layer(job.cluster.device(name), job.model))
    return found


def _parameters(samples: Sequence[Sample], fitted: Fit) -> tuple[FittedParameter, ...]:
    low, high = np.quantile(fitted.draws, [0.05, 0.95], axis=0)
    # a derivative of zero means that no measurement would have noticed
    touched = np.count_nonzero(fitted.design.matrix, axis=0)
    return tuple(
        FittedParameter(
            name=name,
            unit=kind_of_parameter(name).unit,
            value=rounded(fitted.values[name]),
            p05=rounded(float(low[i])),
            p95=rounded(float(high[i])),
            n=int(touched[i]),
        )
        for i, name in enumerate(fitted.names)
    )


def _doubts(samples: Sequence[Sample], fitted: Fit, noise: Noise) -> list[str]:
    """What a reader of the calibration should know."""
    doubts = [f"{one.name}: {text}" for one in samples for text in one.warnings]
    gaps = sum(len(one.gaps_s) for one in samples)
    if gaps < FEWEST_GAPS:
        doubts.append(f"only {gaps} inter-token times in all; measure at least {FEWEST_GAPS}")
    if fitted.condition > ILL_CONDITIONED:
        doubts.append(
            f"the placements hardly separate the parameters (condition number {fitted.condition:.0f})"
        )
    doubts += [
        f"these placements do not separate {' and '.join(group)}; `sim live design` proposes one that does"
        for group in fitted.unseparated
    ]
    if fitted.lack.is_lacking:
        doubts.append(
            f"{fitted.verdict}; `sim live design SCENARIO --measured FILE` (each file) proposes what to "
            "measure next"
        )
    if fitted.believed:
        doubts.append(fitted.believed)
    doubts += [
        f"{one.name}: the fit is {error:+.0%} off"
        for one, error in zip(samples, fitted.error, strict=True)
        # as much as the worst prediction may be off by the project's own aim
        if abs(error) > 0.15
    ]
    return doubts + list(noise.warnings)


def load_calibration(path: Path) -> Calibration:
    """Read a calibration file; raises ScenarioError with every fault in it."""
    return load(path, Calibration)


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration file, whole or not at all; a bootstrap draw takes one line, not one per number."""
    names = ", ".join(source.name for source in calibration.sources)
    dump(
        calibration,
        path,
        header=f"Calibration of {calibration.engine} from {names}. Made by `sim calibrate`.",
        rows=True,
    )
