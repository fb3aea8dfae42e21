"""Trials: every prediction under `results/` that met its measurement, whatever its file, by ground.

A ground is a folder of `results/`: the local cluster, recorded EXO runs, published rows, dropouts, chips left
out of the catalogue's fit. Two trials of one measurement are not two: it counts once, with the mean of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from math import log
from pathlib import Path
from statistics import NormalDist

import numpy as np

from calibrate.ground.score import Coverage, binomial_band
from calibrate.ledger import by, read_ledger
from calibrate.tables import lines
from calibrate.trial_rows import Cause, Chip, Interval, Outcome, Published, Said, Say, checked
from calibrate.validation import LEVELS, Relative
from simulator.errors import CalibrationError, MeasurementError
from simulator.result.estimate import rounded
from simulator.spec import Spec

__all__ = ["Standing", "Trial", "standing", "trials", "worst"]

OWN = "results"
"""The ground of a ledger that lies in the folder itself: a person's own."""
LEDGERS = ("**/*ledger.jsonl", "**/*ledger.jsonl.gz")
AT_ODDS = 1.64
"""Standard deviations of a measurement's own runs within which a miss needs no other cause (90 %)."""


Reader = Callable[[Path, str, Say], "Iterator[Trial]"]


class Trial(Spec):
    """One prediction that met its measurement."""

    ground: str
    kind: str
    """What was predicted, or what was new about it."""
    name: str
    measurement: str
    """Which measurement it met: the same one has the same words."""
    error: Relative
    """`predicted / measured - 1`."""
    held: dict[int, bool]
    """Whether the interval of a level (%) held the measurement, for the levels that were kept."""
    cause: str = ""
    """Of a miss, where something is known."""


class Standing(Spec):
    """How a ground stands; each measurement counts once."""

    ground: str
    trials: int
    measurements: int
    median_error: float
    p90_error: float
    coverage: tuple[Coverage, ...]


def trials(folder: Path, say: Say = lambda _: None) -> tuple[Trial, ...]:
    """All trials below a folder such as `results`, by ground; `say` is told what of its files is left out.

    Raises CalibrationError where there is none, and where one measurement stands in two files: it would count
    twice.
    """
    readers = (
        *((path, _of_ledger) for pattern in LEDGERS for path in sorted(folder.glob(pattern))),
        *((path, _of_published) for path in sorted(folder.glob("**/published/predictions.csv"))),
        *((path, _of_dropouts) for path in sorted(folder.glob("dropout/*/predictions.jsonl"))),
        *((path, _of_chips) for path in sorted(folder.glob("catalog/held_out.csv"))),
    )
    found: list[Trial] = []
    seen: dict[str, Path] = {}
    for path, read in readers:
        for trial in _those_of(read, path, _ground(path, folder), say):
            first = seen.setdefault(trial.measurement, path)
            if first != path:
                raise CalibrationError(
                    f"{path}: measurement {trial.name} stands in {first} too and would count twice; keep one "
                    "of the two below the folder, or show the other alone with --ledger-file"
                )
            found.append(_explained(trial))
    if not found:
        raise CalibrationError(
            f"{folder}: no outcome of a prediction below it; measure and `sim validate`, or name one ledger "
            "with --ledger-file"
        )
    return tuple(sorted(found, key=lambda trial: trial.ground))


def _those_of(read: Reader, path: Path, ground: str, say: Say) -> Iterator[Trial]:
    """The trials of one file; one that cannot be read stops no other."""
    try:
        yield from read(path, ground, say)
    except MeasurementError as error:
        say(f"{error}; left out")


@cache
def _causes() -> dict[tuple[str, str, str], str]:
    """Causes that somebody found, by ground, kind and name; an empty name is all of the kind."""
    return {(line["ground"], line["kind"], line["name"]): line["cause"] for line in lines("trial_causes.csv")}


def _explained(trial: Trial) -> Trial:
    """A miss with its cause, where somebody found one."""
    if trial.cause or trial.held.get(90, True):
        return trial
    ground, kind, known = trial.ground, trial.kind, _causes()
    return trial.model_copy(
        update={"cause": known.get((ground, kind, trial.name)) or known.get((ground, kind, ""), "")}
    )


def standing(ground: str, found: Sequence[Trial]) -> Standing:
    """How a set of trials stands, each of its measurements counted once; raises CalibrationError for none."""
    if not found:
        raise CalibrationError(f"{ground}: no trial")
    measured = _by_measurement(found)
    errors = [float(np.mean([abs(trial.error) for trial in ones])) for ones in measured]
    return Standing(
        ground=ground,
        trials=len(found),
        measurements=len(measured),
        median_error=rounded(float(np.median(errors))),
        p90_error=rounded(float(np.quantile(errors, 0.9))),
        coverage=tuple(_coverage(found, level) for level in LEVELS if any(level in t.held for t in found)),
    )


def worst(found: Sequence[Trial], most: int = 20) -> tuple[Trial, ...]:
    """The largest misses of 90 % intervals, one of each measurement, the largest first."""
    missed = sorted(
        (trial for trial in found if not trial.held.get(90, True)), key=lambda trial: -_size(trial)
    )
    by_measurement = {trial.measurement: trial for trial in reversed(missed)}
    return tuple(sorted(by_measurement.values(), key=lambda trial: -_size(trial))[:most])


def _size(trial: Trial) -> float:
    # twice too fast is as bad as twice too slow
    return abs(log(1 + trial.error))


def _coverage(found: Sequence[Trial], level: int) -> Coverage:
    measured = _by_measurement([trial for trial in found if level in trial.held])
    held = float(np.mean([np.mean([trial.held[level] for trial in ones]) for ones in measured]))
    # as many chances as measurements, however often each was predicted
    low, high = binomial_band(len(measured), level / 100)
    return Coverage(level=level, held=rounded(held), low=rounded(low), high=rounded(high))


def _by_measurement(found: Sequence[Trial]) -> list[list[Trial]]:
    return list(by(found, lambda trial: trial.measurement).values())


def _ground(path: Path, folder: Path) -> str:
    """The folder of `results` that a file is in; `local/earlier/first` where a file has a name of its own."""
    inner = path.parent.relative_to(folder).as_posix()
    name = (
        path.name.removesuffix(".gz")
        .removesuffix("ledger.jsonl")
        .removesuffix("predictions.jsonl")
        .rstrip(".")
    )
    if path.suffix == ".csv":
        name = ""
    return "/".join(part for part in (inner if inner != "." else OWN, name) if part)


def _of_ledger(path: Path, ground: str, say: Say) -> Iterator[Trial]:
    ledger = read_ledger(path)
    for fault in ledger.faults:
        say(fault)
    for row in ledger.validations:
        # a placement that trained, measured again, is no test of the physics
        if row.kind == "repeat":
            continue
        own = abs(row.median_error) <= AT_ODDS * row.repeatability
        yield Trial(
            ground=ground,
            kind=row.kind,
            name=row.measurement,
            measurement=row.measurement_sha256,
            error=row.median_error,
            held={level: row.holds(level) for level in LEVELS},
            cause=f"its own runs differ by {row.repeatability:.0%}" if own else "",
        )


def _of_published(path: Path, ground: str, say: Say) -> Iterator[Trial]:
    beside = path.parent / "causes.csv"
    causes = {(one.row, one.quantity): one for one in checked(beside, Cause, say)} if beside.is_file() else {}
    for line in checked(path, Published, say):
        told = causes.get((line.row, line.quantity))
        yield Trial(
            ground=ground,
            kind=line.group,
            name=line.row,
            measurement=f"{ground}: {line.row}, {line.quantity}",
            error=line.error,
            held={50: line.in_50, 80: line.in_80, 90: line.in_90},
            cause=(told.known or told.what) if told else "",
        )


def _of_dropouts(path: Path, ground: str, say: Say) -> Iterator[Trial]:
    """Recovery and tokens/s afterwards of each case: predicted once, measured several times."""
    measured: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in checked(path.parent / "measured.jsonl", Outcome, say):
        measured[outcome.case].append(outcome)
    for said in checked(path, Said, say):
        for outcome in measured.get(said.case, ()):
            for kind, told, figure in (
                ("recovery", said.recovery_s, outcome.recovery_s),
                ("tokens/s after a dropout", said.tokens_per_s.after, outcome.tokens_per_s.after),
            ):
                if told is not None and figure is not None:
                    yield _dropout(ground, kind, said.case, told, figure)


def _dropout(ground: str, kind: str, case: str, told: Interval, measured: float) -> Trial:
    return Trial(
        ground=ground,
        kind=kind,
        name=case,
        measurement=f"{ground}: {case}, {kind}",
        error=told.median / measured - 1,
        held={90: told.p05 <= measured <= told.p95},
    )


def _of_chips(path: Path, ground: str, say: Say) -> Iterator[Trial]:
    """Chips left out of the catalogue's fit in turn; their intervals are lognormal."""
    for line in checked(path, Chip, say):
        measured, predicted = line.measured_s_per_token, line.predicted_s_per_token
        sds = abs(log(predicted / measured)) / line.log_sd
        name = f"{line.model} on {line.chip}, {line.runtime}"
        yield Trial(
            ground=ground,
            kind=line.phase,
            name=name,
            measurement=f"{ground}: {name}, {line.phase}",
            error=predicted / measured - 1,
            held={level: sds <= NormalDist().inv_cdf(0.5 + level / 200) for level in LEVELS},
        )
