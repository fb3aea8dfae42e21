"""From measurements to laws, and from predictions to a record.

What a notebook needs; each name is imported when it is first asked for, because fitting needs scipy, which
takes half a second to load::

    import calibrate, simulator

    fitted = calibrate.calibrate([Path("measured/a.jsonl"), Path("measured/b.jsonl.gz")])
    said = calibrate.predict_sessions(calibrate.apply(fitted, scenario).scenario)
    outcome = calibrate.validate(said, calibrate.sample(simulator.read_measurement("measured/mine.jsonl")))
    rows = calibrate.read_ledger(Path("results/ledger.jsonl")).validations
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.face import face

if TYPE_CHECKING:
    from calibrate.applied import Applied, apply
    from calibrate.calibration import Calibration, calibrate, load_calibration, save_calibration
    from calibrate.ledger import Ledger, append, read_ledger, summary
    from calibrate.samples import Sample, sample
    from calibrate.validation import LedgerPrediction, Validation, predict_sessions, validate

__all__ = [
    "Applied",
    "Calibration",
    "Ledger",
    "LedgerPrediction",
    "Sample",
    "Validation",
    "append",
    "apply",
    "calibrate",
    "load_calibration",
    "predict_sessions",
    "read_ledger",
    "sample",
    "save_calibration",
    "summary",
    "validate",
]

_HOMES = {
    "calibrate.applied": ("Applied", "apply"),
    "calibrate.calibration": ("Calibration", "calibrate", "load_calibration", "save_calibration"),
    "calibrate.ledger": ("Ledger", "append", "read_ledger", "summary"),
    "calibrate.samples": ("Sample", "sample"),
    "calibrate.validation": ("LedgerPrediction", "Validation", "predict_sessions", "validate"),
}


if not TYPE_CHECKING:  # type checkers would take every name for one that is here
    __getattr__, __dir__ = face(__name__, _HOMES)
