"""Fit the heat law of phones to ten-minute runs, and say how well it predicts runs that were left out.

    python scripts/fit_heat.py        writes results/heat/README.md and results/heat/held_out.csv

Data: `iphone_throttle_curves.csv` (six runs of an iPhone 17 Pro that started cold; runs that
started warm hide the drop). Fitted: the share of the cold speed, `s + (1 - s) exp(-t / approach)`,
two parameters for all runs of a fit together, on the logarithm of rate over first rate, each run
with equal weight. The figures that the catalogue ships (`heat.yaml`) come from all six; the errors
come from two folds of three runs each, with each fold left out once.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, stdev

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from simulator.catalog.tables import DATA
from simulator.churn.heat import busy_speed
from simulator.churn.spec import HeatSpec

__all__ = ["FOLDS", "Curve", "HeatFit", "curves", "errors", "fit", "main", "phone_spread"]

FOLDS = ((1, 6, 16), (9, 13, 17))
"""By frameworks: each fold has a run on the Neural Engine and one with MLX."""
FOLDER = Path(__file__).parents[1] / "results" / "heat"
OTHER_PHONES = ("phon-0071", "phon-0072", "phon-0073")  # sustained over peak of three other iPhones

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One run: times (s) and decode rates as shares of the first one."""

    run: int
    about: str
    t_s: Floats
    share: Floats


@dataclass(frozen=True)
class HeatFit:
    """The two parameters with their standard errors (jackknife over runs)."""

    approach_s: float
    sustained: float
    approach_error_s: float
    sustained_error: float

    def share(self, t_s: Floats) -> Floats:
        """Predicted share of the cold speed."""
        law = HeatSpec(approach=f"{self.approach_s} s", sustained=self.sustained)
        return np.array([busy_speed(law, t) for t in t_s])


def curves() -> dict[int, Curve]:
    """All runs that started cold."""
    points: dict[int, list[tuple[float, float]]] = {}
    for row in _rows("iphone_throttle_curves"):
        points.setdefault(int(row["run_id"]), []).append((float(row["t_s"]), float(row["decode_tok_s"])))
    about = {
        int(row["run_id"]): f"{row['runtime']}, {row['model'].split('/')[-1]}"
        for row in _rows("iphone_sustained_summary")
        if row["initial_thermal_state"] == "nominal"
    }
    found = {}
    for run, name in about.items():
        t_s, rate = np.array(points[run]).T
        found[run] = Curve(run, name, t_s, rate / rate[0])
    return found


def _rows(name: str) -> list[dict[str, str]]:
    with (DATA / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def fit(runs: Sequence[Curve]) -> HeatFit:
    """Least squares of the logarithm of the share, each run
    weighing the same; errors by the jackknife over runs.

    The points of a run are no independent measurements, the runs are: `SE**2 = (n - 1) / n sum (theta_i -
    mean)**2` with theta_i fitted without run i.
    """
    approach_s, sustained = _least_squares(runs)
    without = np.array([_least_squares([*runs[:i], *runs[i + 1 :]]) for i in range(len(runs))])
    error = np.sqrt((len(runs) - 1) * np.var(without, axis=0))
    return HeatFit(approach_s, sustained, float(error[0]), float(error[1]))


def _least_squares(runs: Sequence[Curve]) -> tuple[float, float]:
    def residuals(p: Floats) -> Floats:
        law = HeatFit(p[0], p[1], 0.0, 0.0)
        return np.concatenate(
            [np.log(run.share / law.share(run.t_s)) / np.sqrt(len(run.t_s)) for run in runs]
        )

    found = least_squares(residuals, [40.0, 0.6], bounds=([1.0, 0.1], [600.0, 0.99]))
    return float(found.x[0]), float(found.x[1])


def errors(law: HeatFit, run: Curve) -> dict[str, float]:
    """Relative errors of the predicted rate: over the run,
    in its first two minutes, and at its end (last minute).
    """
    error = law.share(run.t_s) / run.share - 1
    early, late = run.t_s < 120, run.t_s > run.t_s[-1] - 60
    return {
        "median": float(np.median(np.abs(error))),
        "first_2_min": float(np.median(np.abs(error[early]))),
        "last_min": float(np.mean(error[late])),
    }


def phone_spread() -> float:
    """Standard deviation of the logarithm of the sustained
    share over three other phones (phone_thermal.csv).
    """
    shares = [float(row["value"]) for row in _rows("phone_thermal") if row["row_id"] in OTHER_PHONES]
    return stdev([float(np.log(share)) for share in shares])


def main() -> None:
    """Fit, validate, write."""
    runs = curves()
    cases = [
        (a, run, errors(fit([runs[i] for i in a]), runs[run])) for a, b in (FOLDS, FOLDS[::-1]) for run in b
    ]
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "held_out.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["run", "about", "fitted_on", "median_error", "median_error_first_2_min", "mean_error_last_min"]
        )
        for on, run, e in cases:
            row = [run, runs[run].about, " ".join(map(str, on)), e["median"], e["first_2_min"], e["last_min"]]
            writer.writerow([f"{x:.4f}" if isinstance(x, float) else x for x in row])
    (FOLDER / "README.md").write_text(_report(runs, cases), encoding="utf-8")
    _draw(runs, fit(list(runs.values())))


def _report(runs: dict[int, Curve], cases: Sequence[tuple[tuple[int, ...], int, dict[str, float]]]) -> str:
    shipped = fit(list(runs.values()))
    folds = [fit([runs[run] for run in fold]) for fold in FOLDS]
    lines = [
        f"| {run} | {runs[run].about} | {' '.join(map(str, on))} | {e['median']:.0%} | "
        f"{e['first_2_min']:.0%} | {e['last_min']:+.0%} |"
        for on, run, e in cases
    ]
    typical = median(e["median"] for _, _, e in cases)
    return f"""# How a phone slows down, and how well we know it

Made by `python scripts/fit_heat.py` from six published ten-minute decode runs of one phone model (iPhone 17 Pro) that
started cold: john-rocky/apple-silicon-llm-bench, transcribed. Nobody here measured them. The eleven runs that started
warm are not used: they hide the drop.

Law: share of the cold speed after t seconds of work without pause = s + (1 - s) exp(-t / approach).

| fitted on | approach | sustained share s |
|---|---|---|
| all six (shipped in `heat.yaml`) | {_parameters(shipped)} |
| {" ".join(map(str, FOLDS[0]))} | {_parameters(folds[0])} |
| {" ".join(map(str, FOLDS[1]))} | {_parameters(folds[1])} |

Held out (each run predicted by the fit that has not seen it; the sign is that of predicted minus measured):

| run | runtime, model | fitted on | median error | first 2 min | mean error, last minute |
|---|---|---|---|---|---|
{chr(10).join(lines)}

Median over the six held-out runs: {typical:.0%}. The spread that predictions carry is {phone_spread():.2f} (standard
deviation of the logarithm of s), from the sustained over peak ratios of three other iPhones (0.72, 0.58, 0.42;
phone_thermal.csv), which no fit has seen; it covers all six runs.

What this does not know: run 13 (Core ML on the Neural Engine) slows down far later and less than the others, so a
different computing unit of the same phone has another law. After the first two minutes the runs lose a few percent
more, slowly; the law has no second body for that. Cooling when idle follows from the equation (time constant
approach / s = {shipped.approach_s / shipped.sustained:.0f} s) and was not recorded by anybody; the published runs that began within a minute
of another one began warm, which agrees. No Android phone is in the fit, and two published sessions (Pixel 6a, 91 min;
Pixel 9 Pro Fold, 30 min) report no throttling at all.
"""


def _parameters(law: HeatFit) -> str:
    return f"{law.approach_s:.0f} ± {law.approach_error_s:.0f} s | {law.sustained:.2f} ± {law.sustained_error:.2f}"


def _draw(runs: dict[int, Curve], law: HeatFit) -> None:
    """The six runs and the shipped law as one picture."""
    import altair as alt

    rows = [
        {"minutes": t / 60, "share": share, "run": f"run {run.run} ({run.about})"}
        for run in runs.values()
        for t, share in zip(run.t_s.tolist(), run.share.tolist(), strict=True)
    ]
    t_s = np.linspace(0, 620, 200)
    fitted = [
        {"minutes": t / 60, "share": share}
        for t, share in zip(t_s.tolist(), law.share(t_s).tolist(), strict=True)
    ]
    x = alt.X("minutes:Q", title="minutes of continuous decoding")
    y = alt.Y("share:Q", title="share of the first rate", scale=alt.Scale(zero=True))
    measured = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_line(strokeWidth=1.2)
        .encode(
            x=x,
            y=y,
            color=alt.Color(
                "run:N", title=None, legend=alt.Legend(orient="bottom", columns=2, labelLimit=320)
            ),
        )
    )
    line = alt.Chart(alt.InlineData(values=fitted)).mark_line(color="black", strokeWidth=3).encode(x=x, y=y)
    chart = alt.layer(measured, line).properties(
        width=620, height=300, title="iPhone 17 Pro: six runs and the shipped law (black)"
    )
    chart.save(str(FOLDER / "heat.png"), scale_factor=1.5)


if __name__ == "__main__":
    main()
