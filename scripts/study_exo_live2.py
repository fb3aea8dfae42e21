"""Train on each circle of the second real EXO cluster, predict balanced splits of others; writes results/exo/live2.

Usage: python scripts/study_exo_live2.py

Circles 2 and 3 and `others/own` have the same set-up (c behind 3 ms). In circle 1 node b had half a core, so no
balanced split of another circle is its own set-up: it is fitted, bursting file and all, and predicts none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from calibrate.applied import apply
from calibrate.calibration import Calibration, calibrate
from calibrate.samples import sample
from calibrate.validation import Validation, predict_sessions, validate
from simulator.result.measurement import read_measurement

FOLDER = Path(__file__).resolve().parent.parent / "results" / "exo" / "live2"
BALANCED = ("t3", "t4", "t5", "t6")
"""Of circle 3: 12/12 twice, 8/8/8, 18/3/3; its first two are single nodes."""
OWN = FOLDER / "others" / "own.jsonl.gz"


def main() -> None:
    """Write the report."""
    lines = [
        "# A second real EXO cluster: circles against balanced splits of others",
        "",
        "Made by `python scripts/study_exo_live2.py`. Three nodes on one machine of two shared cores, load 3 to 15.",
    ]
    held = [*(FOLDER / "circle3" / f"{name}.jsonl.gz" for name in BALANCED), OWN]
    for circle, files in (("circle1", []), ("circle2", held), ("circle3", [OWN])):
        made = calibrate(sorted((FOLDER / circle).glob("*.gz")))
        lines += ["", f"## {circle}", "", *fitted(made), *predicted([against(made, path) for path in files])]
    (FOLDER / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def against(made: Calibration, path: Path) -> Validation:
    """One held-out measurement: its own scenario, as it was placed, predicted from the calibration."""
    found = sample(read_measurement(path))
    prediction = predict_sessions(
        apply(made, found.scenario).scenario,
        kind="new split",
        trained_on=tuple(source.sha256 for source in made.sources),
    )
    return validate(prediction, found)


def fitted(made: Calibration) -> list[str]:
    """What was trained, and what the fit says of it."""
    rows = [
        f"| {one.name} | {one.gaps} | {one.median_s * 1e3:.1f} | {one.fitted_s / one.median_s - 1:+.0%} |"
        for one in made.sources
    ]
    bursts = sum("in bursts" in doubt for doubt in made.warnings)
    head = "| trained on | gaps | measured (ms) | fit |\n|---|---:|---:|---:|"
    return [f"{len(rows)} files, {bursts} of them with replies in bursts.", "", head, *rows]


def predicted(outcomes: Sequence[Validation]) -> list[str]:
    """Predicted against measured."""
    if not outcomes:
        return ["", "No balanced split of another circle has the same set-up."]
    rows = [
        f"| {one.measurement} | {one.predicted_median_gap_s * 1e3:.1f} | {one.median_gap_s * 1e3:.1f} | "
        f"{one.median_error:+.0%} | {'yes' if one.in_90 else 'no'} |"
        for one in outcomes
    ]
    median = float(np.median([abs(one.median_error) for one in outcomes]))
    inside = sum(one.in_90 for one in outcomes)
    return [
        "",
        f"Held out: {median:.1%} at the median, 90 % intervals held {inside} of {len(outcomes)}.",
        "",
        "| held out | predicted (ms) | measured (ms) | error | inside |",
        "|---|---:|---:|---:|---|",
        *rows,
    ]


if __name__ == "__main__":
    main()
