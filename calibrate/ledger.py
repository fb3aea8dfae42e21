"""The ledger: every prediction that was put to the test and its outcome, appended, never changed.

A JSON Lines file. A line is a `prediction` (written before its measurement) or a `validation` (its outcome).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import ValidationError

from calibrate.validation import ERRORS, LEVELS, LedgerPrediction, Validation
from simulator.errors import CalibrationError
from simulator.files import make_folder, read_lines
from simulator.result.estimate import rounded
from simulator.spec import Spec

Outcome = TypeVar("Outcome")

__all__ = ["append", "by", "predictions", "summary", "validations"]


def append(path: Path, *entries: LedgerPrediction | Validation) -> None:
    """Append entries; each line is complete on disk before this returns."""
    if path.is_dir():
        raise CalibrationError(f"{path} is a folder; give the ledger's file")
    if path.suffix == ".gz":
        # a line is safe on disk at once, which a compressed stream cannot promise before its end
        raise CalibrationError(f"{path}: a packed ledger is only read; unpack it (gunzip), then append to it")
    make_folder(path.parent)
    with path.open("a", encoding="utf-8") as file:
        for entry in entries:
            kind = "prediction" if isinstance(entry, LedgerPrediction) else "validation"
            file.write(
                json.dumps({"type": kind, **entry.model_dump(mode="json")}, separators=(",", ":")) + "\n"
            )
        file.flush()
        # a prediction that a power cut takes away could be made again after the measurement
        os.fsync(file.fileno())


def predictions(path: Path) -> tuple[LedgerPrediction, ...]:
    """All predictions of a ledger, oldest first; raises CalibrationError for a line that is none of ours."""
    return tuple(LedgerPrediction.model_validate(entry) for entry in _entries(path, "prediction"))


def validations(path: Path) -> tuple[Validation, ...]:
    """All outcomes of a ledger, oldest first; raises CalibrationError for a line that is none of ours."""
    return tuple(Validation.model_validate(entry) for entry in _entries(path, "validation"))


def _entries(path: Path, kind: str) -> Iterable[dict[str, object]]:
    if not path.is_file():
        raise CalibrationError(f"{path}: no ledger there; `sim predict --ledger` starts one")
    models: dict[str, type[Spec]] = {"prediction": LedgerPrediction, "validation": Validation}
    for number, line in enumerate(read_lines(path), 1):
        try:
            entry = json.loads(line)
            found = entry.pop("type")
            # every line is checked, also of the kind that was not asked for: a ledger is whole or it is not
            models[found].model_validate(entry)
        except (ValueError, KeyError, AttributeError, ValidationError) as error:
            first = str(error).splitlines()[0]
            raise CalibrationError(
                f"{path}:{number}: no line of a ledger ({first}); restore the file from its history, "
                "a ledger is never edited"
            ) from error
        if found == kind:
            yield entry


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
    }


def by(rows: Sequence[Outcome], key: Callable[[Outcome], str]) -> dict[str, list[Outcome]]:
    """Outcomes grouped by a key, in order of first appearance."""
    groups: dict[str, list[Outcome]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
