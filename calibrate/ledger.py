"""The ledger: every prediction that was put to the test and its outcome, appended, never changed.

A JSON Lines file. A line is a `prediction` (written before its measurement) or a `validation` (its outcome).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from calibrate.validate import LedgerPrediction, Validation
from simulator.errors import CalibrationError
from simulator.files import read_lines
from simulator.result.estimate import rounded
from simulator.spec import Spec

__all__ = ["DEFAULT", "append", "by", "predictions", "summary", "validations"]

DEFAULT = Path("results/ledger.jsonl")


def append(path: Path, *entries: LedgerPrediction | Validation) -> None:
    """Append entries; each line is complete on disk before this returns."""
    if path.is_dir():
        raise CalibrationError(f"{path} is a folder; give the ledger's file")
    if path.suffix == ".gz":
        # a line is safe on disk at once, which a compressed stream cannot promise before its end
        raise CalibrationError(f"{path}: a packed ledger is only read; unpack it (gunzip), then append to it")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for entry in entries:
            kind = "prediction" if isinstance(entry, LedgerPrediction) else "validation"
            file.write(
                json.dumps({"type": kind, **entry.model_dump(mode="json")}, separators=(",", ":")) + "\n"
            )
        file.flush()
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
    """Errors and coverage of a set of outcomes."""

    def spread(of: Callable[[Validation], float]) -> tuple[float, float]:
        errors = np.abs([of(row) for row in rows])
        return rounded(float(np.median(errors))), rounded(float(np.quantile(errors, 0.9)))

    median, median_p90 = spread(lambda row: row.median_error)
    return {
        "n": len(rows),
        "median_error": median,
        "median_error_p90": median_p90,
        "worst": rounded(float(max(abs(row.median_error) for row in rows))),
        "tokens_per_s_error": spread(lambda row: row.tokens_per_s_error)[0],
        "p90_error": spread(lambda row: row.p90_error)[0],
        "p99_error": spread(lambda row: row.p99_error)[0],
        "first_token_error": spread(lambda row: row.first_token_error)[0],
        "coverage_50": rounded(float(np.mean([row.in_50 for row in rows]))),
        "coverage_80": rounded(float(np.mean([row.in_80 for row in rows]))),
        "coverage_90": rounded(float(np.mean([row.in_90 for row in rows]))),
        "repeatability": rounded(float(np.median([row.repeatability for row in rows]))),
    }


def by(rows: Sequence[Validation], key: Callable[[Validation], str]) -> dict[str, list[Validation]]:
    """Outcomes grouped by a key, in order of first appearance."""
    groups: dict[str, list[Validation]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
