"""By how much reports of first tokens differ beyond what the catalogue says of its own errors.

Usage: python scripts/fit_field.py (two minutes)

Writes `field_spread.csv` in simulator/catalog/data. Rows that train the catalogue were measured by benchmarks
that warm up and count their prompt alone; reports count start-up in, run another version or other settings,
lay a template around the prompt, or read a cold file. What that adds is the excess of the log ratios of the
published ground's first tokens, `ln(measured / predicted)`, over the predictions' own spread s (predicted
without the factor): in one source

    covariance = rho s s' + diag((1 - rho) s**2 + own**2) + shared**2,

by greatest likelihood in rho, own and shared, each source independent of the others. The factor has
`sqrt(own**2 + shared**2)`. Only rows that may be looked at take part: the counted part is what the figure is
tested on. First tokens whose s is below `LEAST_LOG_SD` wait for a network, not for a prompt, and are left out.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, hypot, log
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from calibrate.ground.cases import load_cases  # noqa: E402 (needs the path above)
from calibrate.ground.predict import Outcome, group_of, predict_cases  # noqa: E402
from calibrate.ground.rows import parts, rows  # noqa: E402
from simulator import catalog  # noqa: E402

SHIPPED = ROOT / "simulator" / "catalog" / "data" / "field_spread.csv"
GROUP: Literal["first token"] = "first token"
LEAST_LOG_SD = 0.1
NORMAL = 1e6
"""Degrees of freedom that make worlds normal, as the likelihood takes them."""
WIDTH_90 = 2 * 1.6449
"""Of a normal 90 % interval, in standard deviations."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """One first token: its log ratio, measured over predicted, and the prediction's log sd."""

    source: str
    log_ratio: float
    log_sd: float


@dataclass(frozen=True)
class Excess:
    """Log sds beyond the predictions' own, and how alike the predictions' errors are within a source."""

    own: float
    shared: float
    alike: float

    @property
    def log_sd(self) -> float:
        """Of one figure's excess."""
        return hypot(self.own, self.shared)


def looked_at() -> list[Figure]:
    """First tokens of the group that may be looked at, predicted without the factor."""
    known = catalog.error_parts
    catalog.error_parts = lambda phase: known(phase).model_copy(update={"field_log_sd": 0.0})  # type: ignore
    by_name, part_of = {row.row: row for row in rows()}, parts()
    cases = [
        case.model_copy(update={"scenario": case.scenario.model_copy(update={"tails": NORMAL})})
        for case in load_cases(ROOT / "scenarios" / "published")
        if (row := by_name[case.row]).prefill_tokens_per_s
        and part_of[row.source] == "looked-at"
        and group_of(case, row, GROUP) == GROUP
    ]
    outcomes = predict_cases(cases, by_name, part_of)
    figures = [_figure(outcome) for outcome in outcomes if outcome.quantity == GROUP]
    catalog.error_parts = known
    return [figure for figure in figures if figure.log_sd >= LEAST_LOG_SD]


def _figure(outcome: Outcome) -> Figure:
    low, high = outcome.interval_s(90)
    ratio = log(outcome.measured_s / outcome.median_s)
    return Figure(outcome.source, ratio, log(high / low) / WIDTH_90)


def excess_of(figures: Iterable[Figure]) -> Excess:
    """The excess of greatest likelihood."""
    by_source: dict[str, list[Figure]] = defaultdict(list)
    for figure in figures:
        by_source[figure.source].append(figure)

    def deviance(x: Floats) -> float:
        own, shared, alike = exp(x[0]), exp(x[1]), 1 / (1 + exp(-x[2]))
        return sum(_deviance(found, Excess(own, shared, alike)) for found in by_source.values())

    found = minimize(deviance, [-2.0, -2.0, 1.0], method="Nelder-Mead", options={"maxiter": 4000})
    return Excess(exp(found.x[0]), exp(found.x[1]), 1 / (1 + exp(-found.x[2])))


def _deviance(figures: Sequence[Figure], excess: Excess) -> float:
    """Minus the log likelihood of one source, but for a constant."""
    s, y = (np.array([getattr(figure, name) for figure in figures]) for name in ("log_sd", "log_ratio"))
    single = np.diag((1 - excess.alike) * s**2 + excess.own**2)
    root = np.linalg.cholesky(
        excess.alike * np.outer(s, s) + single + excess.shared**2 + 1e-9 * np.eye(len(s))
    )
    z = np.linalg.solve(root, y)
    return float(np.log(np.diag(root)).sum() + z @ z / 2)


def main() -> None:
    """Estimate, write, and say what was found."""
    figures = looked_at()
    excess = excess_of(figures)
    row = {
        "phase": "prefill",
        "log_sd": f"{excess.log_sd:.2f}",
        "figures": str(len(figures)),
        "sources": str(len({figure.source for figure in figures})),
        "source": "scripts/fit_field.py: greatest likelihood over the published ground's first tokens that may be "
        "looked at, beyond the catalogue's own spread",
        "confidence": "estimated",
    }
    with SHIPPED.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerow(row)
    print(f"{excess}: log sd {excess.log_sd:.3f}, {len(figures)} figures")


if __name__ == "__main__":
    main()
