"""A study: calibrate on some measurements, predict the others blind, hold the two together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from calibrate.apply import apply
from calibrate.calibration import Calibration, calibrate_samples, save_calibration
from calibrate.ledger import append
from calibrate.samples import Sample, sample
from calibrate.validate import Kind, LedgerPrediction, Validation, predict_sessions, validate
from simulator.prepare import prepare
from simulator.result.measurement import read_measurement
from simulator.scenario import Scenario

__all__ = ["Circle", "Split", "circle", "kind_of", "run_split", "stratified"]

Measure = Callable[[Sequence[Scenario], Path], Sequence[Path]]
REPLICATIONS = 200


@dataclass(frozen=True, slots=True)
class Split:
    """Which measurements trained, and how the others were predicted."""

    name: str
    trained_on: tuple[str, ...]
    calibration: Calibration
    validations: tuple[Validation, ...]


def run_split(name: str, samples: Sequence[Sample], training: Collection[str], *, draws: int = 300) -> Split:
    """Calibrate on the samples named in `training`, predict every other one; raises CalibrationError."""
    trained = [one for one in samples if one.name in training]
    calibration = calibrate_samples(trained, draws=draws)
    hashes = tuple(one.sha256 for one in trained)
    outcomes = []
    for one in samples:
        if one.name in training:
            continue
        kind = kind_of(one.scenario, [other.scenario for other in trained])
        scenario = apply(calibration, one.scenario.model_copy(update={"replications": REPLICATIONS})).scenario
        prediction = predict_sessions(scenario, kind=kind, trained_on=hashes)
        outcomes.append(validate(prediction, one))
    return Split(name, tuple(sorted(training)), calibration, tuple(outcomes))


def kind_of(scenario: Scenario, trained: Sequence[Scenario]) -> Kind:
    """What is new about a scenario against those that trained: the first of these that applies."""
    mine = _traits(scenario)
    known = [_traits(other) for other in trained]
    if mine in known:
        return "repeat"
    devices = {device for traits in known for device in traits.devices}
    if not set(mine.devices) <= devices:
        return "new device"
    if mine.chats > 1:
        return "several chats"
    if mine.context > 2 * max(traits.context for traits in known):
        return "long context"
    if not set(mine.links) <= {link for traits in known for link in traits.links}:
        return "new link"
    if not set(mine.loads) <= {load for traits in known for load in traits.loads} | {(name, 0.0) for name in mine.devices}:
        return "slower device"
    if (sorted(mine.devices), sorted(mine.layers)) in [(sorted(t.devices), sorted(t.layers)) for t in known]:
        return "new order"
    return "new split"


@dataclass(frozen=True, slots=True)
class _Traits:
    devices: tuple[str, ...]
    layers: tuple[int, ...]
    loads: tuple[tuple[str, float], ...]
    links: tuple[tuple[int, int, bool], ...]
    """Each hop: mean and standard deviation of its one-way delay in whole milliseconds, and whether it shares its air."""
    chats: int
    context: int
    """In steps of 200 tokens, so that prompts of 38 and 41 tokens are the same."""


def _traits(scenario: Scenario) -> _Traits:
    job = prepare(scenario).job
    names = [device.name for device in job.ring]
    hops = [job.cluster.path(a, b) for a, b in zip(names, names[1:], strict=False)]
    return _Traits(
        devices=tuple(names),
        layers=tuple(shard.layers for shard in job.shards),
        loads=tuple((device.name, device.background_load) for device in job.ring),
        links=tuple(
            (round(sum(leg.law.mean_s for leg in hop.legs) * 1e3),
             round(sum(leg.law.variance_s2 for leg in hop.legs) ** 0.5 * 1e3), hop.airtime_adds) for hop in hops),
        chats=job.workload.concurrency,
        context=(job.workload.prompt_tokens + job.workload.output_tokens) // 200,
    )


@dataclass(frozen=True, slots=True)
class Circle:
    """Everything that one unattended study made."""

    calibration: Calibration
    predictions: tuple[LedgerPrediction, ...]
    validations: tuple[Validation, ...]


def circle(
    training: Sequence[Scenario], held_out: Sequence[Scenario], measure: Measure, folder: Path, *, draws: int = 500
) -> Circle:
    """Measure, calibrate, predict, measure what was predicted, validate; each step's files stay in `folder`.

    `measure` takes scenarios and a folder and returns one file per scenario. Each prediction is in the ledger before its
    scenario is measured; the training scenarios are measured again among the held-out ones, so that drift shows as a
    `repeat`. Raises what measuring and calibrating raise; what was done until then is kept.
    """
    first = [sample(read_measurement(path)) for path in measure(training, folder / "training")]
    calibration = calibrate_samples(first, draws=draws)
    save_calibration(calibration, folder / "calibration.yaml")
    hash_, hashes = sha256((folder / "calibration.yaml").read_bytes()).hexdigest(), tuple(one.sha256 for one in first)
    asked = [*held_out, *training]
    predictions = tuple(
        predict_sessions(apply(calibration, scenario.model_copy(update={"replications": REPLICATIONS})).scenario,
                         kind=kind_of(scenario, [one.scenario for one in first]), calibration_sha256=hash_, trained_on=hashes)
        for scenario in asked)
    append(folder / "ledger.jsonl", *predictions)
    files = measure(asked, folder / "held_out")
    outcomes = []
    for prediction, path in zip(predictions, files, strict=True):
        outcomes.append(validate(prediction, sample(read_measurement(path))))
        append(folder / "ledger.jsonl", outcomes[-1])
    return Circle(calibration, predictions, tuple(outcomes))


def stratified(samples: Sequence[Sample], groups: Sequence[str], seed: int) -> tuple[str, ...]:
    """Names of about half of each group, never more than half of all, drawn from a named stream."""
    import numpy as np

    generator = np.random.default_rng(np.random.SeedSequence((seed, 0x5713)))
    chosen: list[str] = []
    for group in dict.fromkeys(groups):
        members = [sample.name for sample, g in zip(samples, groups, strict=True) if g == group]
        half, odd = divmod(len(members), 2)
        take = half + int(odd and generator.random() < 0.5)
        chosen += generator.permutation(members)[:take].tolist()
    return tuple(chosen[: len(samples) // 2])
