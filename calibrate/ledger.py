"""The ledger: every prediction that was put to the test and its outcome, appended, never changed.

A JSON Lines file. A line is a `prediction` (written before its measurement) or a `validation` (its outcome).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError

from calibrate.validation import ERRORS, LEVELS, LedgerPrediction, Validation
from simulator.errors import CalibrationError, Fault, in_lines
from simulator.files import Appender, json_lines
from simulator.files.explain import in_words
from simulator.result.estimate import rounded

Outcome = TypeVar("Outcome")

__all__ = ["Ledger", "append", "by", "read_ledger", "summary"]

MODELS: dict[str, type[LedgerPrediction] | type[Validation]] = {
    "prediction": LedgerPrediction,
    "validation": Validation,
}


@dataclass(frozen=True, slots=True)
class Ledger:
    """A ledger as it was read, oldest first."""

    entries: tuple[LedgerPrediction | Validation, ...]
    faults: tuple[str, ...]
    """`file:line: reason` of each line that is none of ours, or no longer what was written."""

    @property
    def predictions(self) -> tuple[LedgerPrediction, ...]:
        """All predictions."""
        return tuple(entry for entry in self.entries if isinstance(entry, LedgerPrediction))

    @property
    def validations(self) -> tuple[Validation, ...]:
        """All outcomes."""
        return tuple(entry for entry in self.entries if isinstance(entry, Validation))


def append(path: Path, *entries: LedgerPrediction | Validation) -> None:
    """Append entries, all or none; they are on the disk, and were read back, before this returns.

    Raises SimulatorError where that cannot be.
    """
    if path.is_dir():
        raise CalibrationError(f"{path} is a folder; give the ledger's file")
    if path.suffix == ".gz":
        # a line is safe on disk at once, which a compressed stream cannot promise before its end
        raise CalibrationError(f"{path}: a packed ledger is only read; unpack it (gunzip), then append to it")
    # durable: a prediction that a power cut takes away could be made again after the measurement
    with Appender(path) as file:
        file.append(
            *({"type": _kind(entry), **entry.model_dump(mode="json")} for entry in entries), durable=True
        )
    there = read_ledger(path)
    if not set(map(repr, entries)) <= set(map(repr, there.entries)):
        raise CalibrationError(
            "\n".join(
                [f"{path}: what was appended cannot be read back; begin a new ledger", *there.faults[-1:]]
            )
        )


def _kind(entry: LedgerPrediction | Validation) -> str:
    return next(kind for kind, model in MODELS.items() if isinstance(entry, model))


def read_ledger(path: Path) -> Ledger:
    """Read a ledger, packed or not; a line that is none of ours is left out and told.

    Raises CalibrationError where there is no file, MeasurementError where it cannot be read.
    """
    if not path.is_file():
        raise CalibrationError(f"{path}: no ledger there; `sim predict --ledger` starts one")
    entries, faults = list[LedgerPrediction | Validation](), list[Fault]()
    for number, found in json_lines(path):
        one = found if isinstance(found, Fault) else _entry(found, number)
        faults += [one] if isinstance(one, Fault) else []
        entries += [] if isinstance(one, Fault) else [one]
    return Ledger(tuple(entries), tuple(in_lines(str(path), faults)))


def _entry(found: dict[str, Any], number: int) -> LedgerPrediction | Validation | Fault:
    model = MODELS.get(str(found.pop("type", ""))[:20])
    if model is None:
        return Fault("", "no line of a ledger (its type is none of ours); left out", number)
    try:
        return model.model_validate(found)
    except ValidationError as error:
        return Fault("", f"no line of a ledger ({in_words(error)}); left out", number)


def summary(rows: Sequence[Validation]) -> dict[str, float]:
    """Errors and coverage of a set of outcomes, each measurement counted once.

    A measurement that several calibrations predicted counts with the mean of what they made of it: as so many
    trials it would make few measurements look like many.
    """
    measured = list(by(rows, lambda row: row.measurement_sha256).values())
    errors = {
        name: [float(np.mean([abs(getattr(row, name)) for row in ones])) for ones in measured]
        for name in ERRORS
    }
    medians = {name: rounded(float(np.median(error))) for name, error in errors.items()}
    return {
        "n": len(rows),
        "measurements": len(measured),
        "median_error": medians.pop("median_error"),
        "median_error_p90": rounded(float(np.quantile(errors["median_error"], 0.9))),
        "worst": rounded(max(abs(row.median_error) for row in rows)),
        **medians,
        **{
            f"coverage_{level}": rounded(
                float(np.mean([np.mean([row.holds(level) for row in ones]) for ones in measured]))
            )
            for level in LEVELS
        },
        "repeatability": rounded(float(np.median([ones[0].repeatability for ones in measured]))),
        **_first_token_coverage(measured),
    }


def _first_token_coverage(measured: Sequence[Sequence[Validation]]) -> dict[str, float]:
    """Of those entries that say it."""
    said = [[row.first_token_in_90 for row in ones if row.first_token_in_90 is not None] for ones in measured]
    shares = [float(np.mean(ones)) for ones in said if ones]
    return {"first_token_coverage_90": rounded(float(np.mean(shares)))} if shares else {}


def by(rows: Sequence[Outcome], key: Callable[[Outcome], str]) -> dict[str, list[Outcome]]:
    """Outcomes grouped by a key, in order of first appearance."""
    groups: dict[str, list[Outcome]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
