"""Calibrate on a few configurations of the local cluster, predict the others; writes results/local.

Usage: python scripts/study_local.py [FOLDER]

FOLDER holds the measurements of `scripts/measure_local.sh`: all configurations in turns, there and back, so that calibration
and held-out runs saw the same hour. Which ones train was fixed before the first measurement: one device, an even split of
two and of four, and a long context. Everything else (other splits, orders, slower devices, other links, one more device) is
predicted.
"""

from __future__ import annotations

import sys
from pathlib import Path

from calibrate.calibration import save_calibration
from calibrate.ledger import append
from calibrate.report import calibration_table, validation_table, write_report
from calibrate.samples import sample
from calibrate.study import run_split
from simulator.result.measurement import read_measurement

TRAINING = ("one_device", "two_even", "four_even", "four_long_context")
FOLDER = Path(__file__).resolve().parent.parent / "results" / "local"


def main(folder: Path) -> None:
    """Fit, predict, validate, report."""
    samples = [sample(read_measurement(path)) for path in sorted(folder.glob("*.jsonl")) if path.stem != "ledger"]
    training = [one.name for one in samples if one.scenario.name in TRAINING]
    split = run_split("configurations fixed beforehand", samples, training)
    ledger = folder / "ledger.jsonl"
    ledger.unlink(missing_ok=True)
    append(ledger, *split.validations)
    save_calibration(split.calibration, folder / "calibration.yaml")
    introduction = [
        f"{len(samples)} configurations of a real llama.cpp RPC cluster on one machine, measured in turns, there and back. "
        f"Calibrated on {len(training)} ({', '.join(training)}), predicted {len(split.validations)}. Made by "
        "`scripts/measure_local.sh` and `python scripts/study_local.py`.", "",
        "*Runs differ by* is the standard deviation of the logarithm of the configuration's own run medians: the floor for any "
        "model.",
    ]
    details = ["## All held-out configurations", "", *validation_table(split.validations), "", "## Calibration", "",
               *calibration_table(split.calibration), "", *(f"- {text}" for text in split.calibration.warnings)]
    write_report(folder, "Local cluster: predicted against measured", introduction, split.validations, details)
    print((folder / "report.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
