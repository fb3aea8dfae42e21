"""A study: calibrate on some measurements, predict the others blind, hold the two together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import median

from calibrate.applied import apply
from calibrate.calibration import Calibration, calibrate_samples, save_calibration
from calibrate.ledger import append
from calibrate.samples import Sample, sample
from calibrate.validation import MEDIAN, Kind, LedgerPrediction, Validation, predict_sessions, validate
from simulator.errors import CalibrationError
from simulator.files import pack
from simulator.prepare import prepare
from simulator.result.measurement import read_measurement
from simulator.scenario import Scenario

__all__ = ["Circle", "FirstToken", "StudySplit", "circle", "kind_of", "plainest", "run_split", "stratified"]

Measure = Callable[[Sequence[Scenario], Path], Sequence[Path]]
REPLICATIONS = 200
COMMON = 0.2
"""A device that fewer scenarios share is what a study is about, not what it is calibrated on."""


@dataclass(frozen=True, slots=True)
class StudySplit:
    """Which measurements trained, and how the others were predicted."""

    name: str
    trained_on: tuple[str, ...]
    calibration: Calibration
    validations: tuple[Validation, ...]
    first_tokens: tuple[FirstToken, ...] = ()


@dataclass(frozen=True, slots=True)
class FirstToken:
    """The first token of one held-out measurement, times in seconds."""

    name: str
    ranks: int
    prompt_tokens: int
    measured_s: float
    predicted_s: float
    interval_s: tuple[float, float]
    """90 %."""

    @property
    def error(self) -> float:
        """`predicted / measured - 1`."""
        return self.predicted_s / self.measured_s - 1

    @property
    def is_inside(self) -> bool:
        """Whether the interval held."""
        return self.interval_s[0] <= self.measured_s <= self.interval_s[1]


def run_split(
    name: str, samples: Sequence[Sample], training: Collection[str], *, draws: int = 300
) -> StudySplit:
    """Calibrate on the samples named in `training`, predict every other one; raises CalibrationError."""
    trained = [one for one in samples if one.name in training]
    calibration = calibrate_samples(trained, draws=draws)
    hashes = tuple(one.sha256 for one in trained)
    outcomes, first_tokens = [], []
    for one in samples:
        if one.name in training:
            continue
        kind = kind_of(one.scenario, [other.scenario for other in trained])
        scenario = apply(calibration, one.scenario.model_copy(update={"replications": REPLICATIONS})).scenario
        prediction = predict_sessions(scenario, kind=kind, trained_on=hashes)
        first_tokens.append(_first_token(prediction, one))
        # a recording that only times the first token has no gaps to hold against the others
        if one.runs:
            outcomes.append(validate(prediction, one))
    return StudySplit(name, tuple(sorted(training)), calibration, tuple(outcomes), tuple(first_tokens))


def _first_token(prediction: LedgerPrediction, one: Sample) -> FirstToken:
    times_s = prediction.first_token_s
    return FirstToken(
        one.name,
        len(prediction.placement),
        one.scenario.workload.prompt_tokens,
        float(median(run.first_token_s for run in one.timed)),
        times_s[MEDIAN],
        (times_s[0], times_s[-1]),
    )


def kind_of(scenario: Scenario, trained: Sequence[Scenario]) -> Kind:
    """What is new about a scenario against those that trained: the first of these that applies."""
    mine = _traits(scenario)
    known = [_traits(other) for other in trained]
    if mine in known:
        return "repeat"
    devices = {device for traits in known for device in traits.devices}
    if not set(mine.devices) <= devices:
        return "new device"
    # one device alone has neither strategy
    strategies = {traits.parts > 1 for traits in known if len(traits.devices) > 1}
    if len(mine.devices) > 1 and strategies and (mine.parts > 1) not in strategies:
        return "new strategy"
    if mine.parts > 1 and mine.parts not in {traits.parts for traits in known}:
        return "other ranks"
    if mine.chats > 1:
        return "several chats"
    # the same factor as the warning of `applied`
    if mine.context > 2 * max(traits.context for traits in known):
        return "long context"
    if not set(mine.links) <= {link for traits in known for link in traits.links}:
        return "new link"
    if not set(mine.loads) <= {load for traits in known for load in traits.loads} | {
        # a device at its full speed is no new one, even if only throttled ones trained
        (name, 0.0)
        for name in mine.devices
    }:
        return "slower device"
    if any((mine.devices, mine.layers) == (traits.devices, traits.layers) for traits in known):
        return "new link"  # known ones, but not between these
    # the same devices with the same shares, dealt out otherwise
    if (sorted(mine.devices), sorted(mine.layers)) in [(sorted(t.devices), sorted(t.layers)) for t in known]:
        return "new order"
    return "new split"


@dataclass(frozen=True, slots=True)
class _Traits:
    devices: tuple[str, ...]
    layers: tuple[int, ...]
    loads: tuple[tuple[str, float], ...]
    links: tuple[tuple[float, float, bool], ...]
    """Each hop: mean and standard deviation of its one-way delay, roughly, and whether it shares its air."""
    parts: int
    """Into how many each layer is split: 1 in a pipeline."""
    chats: int
    context: int
    """In steps of 200 tokens, so that prompts of 38 and 41 tokens are the same."""


def _coarse(seconds: float) -> float:
    """Whole milliseconds, below one tenths of it: what was measured of one delay twice is the same.

    >>> _coarse(0.01014), _coarse(0.00033)
    (10, 0.3)
    """
    ms = seconds * 1e3
    return round(ms) if ms >= 1 else round(ms, 1)


def _traits(scenario: Scenario) -> _Traits:
    job = prepare(scenario).job
    names = [device.name for device in job.ring]
    hops = [job.cluster.path(a, b) for a, b in zip(names, names[1:], strict=False)]
    return _Traits(
        devices=tuple(names),
        layers=tuple(shard.layers for shard in job.shards),
        loads=tuple((device.name, device.background_load) for device in job.ring),
        links=tuple(
            (
                _coarse(sum(leg.law.mean_s for leg in hop.legs)),
                _coarse(sum(leg.law.variance_s2 for leg in hop.legs) ** 0.5),
                hop.airtime_adds,
            )
            for hop in hops
        ),
        parts=job.placement.parts,
        chats=job.workload.concurrency,
        context=(job.workload.prompt_tokens + job.workload.output_tokens) // 200,
    )


@dataclass(frozen=True, slots=True)
class Circle:
    """Everything that one unattended study made."""

    calibration: Calibration
    predictions: tuple[LedgerPrediction, ...]
    validations: tuple[Validation, ...]
    """Of the held-out scenarios, each predicted before it was measured."""
    repeats: tuple[Validation, ...]
    """Of the training scenarios, measured again among the held-out ones: what time alone changed."""
    interleaved: StudySplit
    """The held-out scenarios again, from a calibration on those repeats, which saw the same hour."""


def circle(
    training: Sequence[Scenario],
    held_out: Sequence[Scenario],
    measure: Measure,
    folder: Path,
    *,
    draws: int = 500,
) -> Circle:
    """Measure, calibrate, predict, measure what was predicted, validate; each step's files stay in `folder`.

    `measure` takes scenarios and a folder and returns one file per scenario, which is packed (`.jsonl.gz`)
    once it is read. Each prediction is in the ledger before its scenario is measured; the training scenarios
    are measured again among the held-out ones, so that drift shows as a `repeat`, and a held-out scenario
    that only repeats a training one is left out. Raises what measuring and calibrating raise; what was done
    until then is kept.
    """
    first = _kept(measure(training, folder / "training"))
    calibration = calibrate_samples(first, draws=draws)
    save_calibration(calibration, folder / "calibration.yaml")
    trained = [one.scenario for one in first]
    asked = [*(one for one in held_out if kind_of(one, trained) != "repeat"), *training]
    predictions = _predict(calibration, folder / "calibration.yaml", first, asked)
    # on disk before the first of them is measured: that is what makes the study blind
    append(folder / "ledger.jsonl", *predictions)
    second = _kept(measure(asked, folder / "held_out"))
    outcomes = []
    for prediction, one in zip(predictions, second, strict=True):
        outcomes.append(validate(prediction, one))
        append(folder / "ledger.jsonl", outcomes[-1])
    again = run_split(
        "training measured again among the others",
        second,
        [one.name for one in second[len(asked) - len(training) :]],
        draws=draws,
    )
    return Circle(
        calibration,
        predictions,
        tuple(row for row in outcomes if row.kind != "repeat"),
        tuple(row for row in outcomes if row.kind == "repeat"),
        again,
    )


def _kept(files: Sequence[Path]) -> list[Sample]:
    """Finished measurements as samples; the files are packed: a study keeps tens of thousands of lines."""
    return [sample(read_measurement(pack(path))) for path in files]


def _predict(
    calibration: Calibration, file: Path, first: Sequence[Sample], asked: Sequence[Scenario]
) -> tuple[LedgerPrediction, ...]:
    """One prediction per scenario, for the ledger."""
    hash_, hashes = sha256(file.read_bytes()).hexdigest(), tuple(one.sha256 for one in first)
    trained = [one.scenario for one in first]
    return tuple(
        predict_sessions(
            apply(calibration, scenario.model_copy(update={"replications": REPLICATIONS})).scenario,
            kind=kind_of(scenario, trained),
            calibration_sha256=hash_,
            trained_on=hashes,
        )
        for scenario in asked
    )


def plainest(scenarios: Sequence[Scenario]) -> Scenario:
    """The scenario to design training placements from: the one with most devices that many of
    the others have as they are.

    Devices, links included, that fewer than `COMMON` of all scenarios have count against it: they are what is
    to be predicted. Of equals the first. Raises CalibrationError without scenarios.
    """
    if not scenarios:
        raise CalibrationError("no scenario to design placements from; give a folder with scenarios")

    def worth(one: Scenario) -> float:
        shares = [
            sum(other.devices.get(name) == device for other in scenarios) / len(scenarios)
            for name, device in one.devices.items()
        ]
        return sum(share - COMMON for share in shares)

    return max(scenarios, key=worth)


def stratified(samples: Sequence[Sample], groups: Sequence[str], seed: int) -> tuple[str, ...]:
    """Names of about half of each group, never more than half of all, drawn from a named stream."""
    import numpy as np

    # a stream of its own, so that a lot says nothing of the bootstrap's draws
    generator = np.random.default_rng(np.random.SeedSequence((seed, 0x5713)))
    chosen: list[str] = []
    for group in dict.fromkeys(groups):
        members = [sample.name for sample, g in zip(samples, groups, strict=True) if g == group]
        half, odd = divmod(len(members), 2)
        take = half + int(odd and generator.random() < 0.5)
        chosen += generator.permutation(members)[:take].tolist()
    # odd groups round by lot, so the sum may be one or two over half
    return tuple(chosen[: len(samples) // 2])
