"""Recorded dropouts predicted anew by today's model, from their own undisturbed splits and restarts alone.

Usage: python scripts/renew_dropout.py

Not blind: what was mended in between was found with these cases in sight, though none of them is fitted to. What was
predicted before they were measured stays as it is, in `predictions.jsonl` of each series and in the ledger. Writes
results/dropout/renewed.jsonl and renewed.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import study_dropout as study

from calibrate.applied import apply
from calibrate.calibration import calibrate
from simulator.churn.estimate import drawn
from simulator.result.estimate import rounded
from simulator.scenario import Scenario

SERIES = ("third", "fourth")  # the first two had other cases, or other work on the machine
KINDS = {"before": "tokens/s before the loss", "after": "tokens/s after it", "recovery": "recovery"}
QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
LEVELS = {50: (2, 4), 80: (1, 5), 90: (0, 6)}


class Row(NamedTuple):
    """One figure of one case, predicted then and anew, and measured several times."""

    series: str
    case: str
    kind: str
    then: tuple[float, float, float]
    """Median and 90 % interval."""
    anew: tuple[float, ...]
    """`QUANTILES`."""
    measured: tuple[float, ...]

    @property
    def was(self) -> float:
        """The median of the repeats."""
        return median(self.measured)

    def off(self, predicted: float) -> float:
        """Error of a predicted median."""
        return predicted / self.was - 1

    def held(self, level: int) -> bool:
        """Whether the new interval of that level (%) holds it."""
        low, high = LEVELS[level]
        return self.anew[low] <= self.was <= self.anew[high]

    @property
    def held_then(self) -> bool:
        """Whether the old 90 % interval did."""
        return self.then[1] <= self.was <= self.then[2]

    @property
    def single(self) -> float:
        """Share of the single repeats that the new 90 % interval holds."""
        return mean(self.anew[0] <= one <= self.anew[-1] for one in self.measured)

    def document(self) -> dict[str, Any]:
        """As plain data."""
        levels = {
            f"p{round(100 * share):02}": value for share, value in zip(QUANTILES, self.anew, strict=True)
        }
        return {
            "series": self.series,
            "case": self.case,
            "kind": self.kind,
            "renewed": levels,
            "measured": self.was,
        }


def rows(series: str) -> Iterator[Row]:
    """The rows of a series."""
    study.FOLDER = study.TOP / series
    calibration = calibrate(sorted((study.FOLDER / "calibration").glob("*.gz")))
    measured = study.lines("measured")
    for said in study.lines("predictions"):
        name = said["case"]
        turns = [one for one in measured if one["case"] == name]
        told = drawn(
            study.predicted(name, apply(calibration, study.base(name)).scenario, client(name)).traces
        )
        for kind in KINDS:
            values = [value for value in told[kind] if value is not None]
            anew = tuple(rounded(float(q)) for q in np.quantile(values, QUANTILES))
            then, was = _of(said, kind), tuple(_of(one, kind) for one in turns)
            yield Row(series, name, kind, (then["median"], then["p05"], then["p95"]), anew, was)


def _of(line: dict[str, Any], kind: str) -> Any:
    return line["recovery_s"] if kind == "recovery" else line["tokens_per_s"][kind]


def client(name: str) -> Scenario:
    """What the real client placed layers by: the scenario's own speeds, from the fourth series on the calibration of
    its day; which one was known before anything was measured.
    """
    return study.base(name) if study.FOLDER.name == "third" else study.asked(name)


def summary(found: Sequence[Row]) -> Iterator[str]:
    """A line for each kind of figure of each series, and of both together."""
    yield (
        "| series | figure | cases | median error then | renewed | 90 % held then | renewed: 50 % | 80 % | 90 % | "
        "90 %, single repeats | width then | renewed |"
    )
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    for series in (*SERIES, "both"):
        for kind, words in KINDS.items():
            some = [one for one in found if one.kind == kind and series in (one.series, "both")]
            cells = [
                f"{median(abs(one.off(one.then[0])) for one in some):.1%}",
                f"{median(abs(one.off(one.anew[3])) for one in some):.1%}",
                str(sum(one.held_then for one in some)),
                *(str(sum(one.held(level) for one in some)) for level in LEVELS),
                f"{mean(one.single for one in some):.0%}",
                f"{median((one.then[2] - one.then[1]) / one.then[0] for one in some):.2f}",
                f"{median((one.anew[6] - one.anew[0]) / one.anew[3] for one in some):.2f}",
            ]
            yield f"| {series} | {words} | {len(some)} | {' | '.join(cells)} |"


def singly(found: Sequence[Row]) -> Iterator[str]:
    """A line for each case."""
    yield "| series | case | figure | measured | then | error | renewed [5 %, 95 %] | error | held |"
    yield "|---|---|---|---:|---:|---:|---|---:|---|"
    for one in found:
        low, middle, high = one.anew[0], one.anew[3], one.anew[6]
        yield (
            f"| {one.series} | {one.case} | {KINDS[one.kind]} | {one.was:.2f} | {one.then[0]:.2f} | "
            f"{one.off(one.then[0]):+.1%} | {middle:.2f} [{low:.2f}, {high:.2f}] | {one.off(middle):+.1%} | "
            f"{'yes' if one.held(90) else 'no'} |"
        )


HEAD = """# Recorded dropouts predicted anew

Renewed, not blind: today's model was mended with these cases in sight, though nothing is fitted to any of them: speeds come
from the undisturbed splits of each series, phases from the restarts of `drills.jsonl`. What was predicted before each series
was measured, misses and all, stays in `predictions.jsonl` and in the ledger. Measured figures are medians of three repeats,
in turns; twelve cases of one series share a session, so that they miss on the same side. The real client of the third series
placed layers by the scenario's speeds, that of the fourth by the calibration of its day, and so does the simulated one.
Made by `scripts/renew_dropout.py`; `docs/validation.md` says what was mended, and what is left.
"""


def main() -> None:
    """Predict both series anew and write what came of it."""
    found = [row for series in SERIES for row in rows(series)]
    (study.TOP / "renewed.jsonl").write_text(
        "".join(json.dumps(one.document()) + "\n" for one in found), encoding="utf-8"
    )
    text = "\n".join([HEAD, *summary(found), "", *singly(found), ""])
    (study.TOP / "renewed.md").write_text(text, encoding="utf-8")
    print("\n".join(summary(found)))


if __name__ == "__main__":
    main()
