"""The report of the catalogue's fit: tables, the held-out cases and one picture."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["Study", "write"]


@dataclass(frozen=True)
class Study:
    """What the fit found: fits and held-out cases per group,
    tests of the measured chips, rows left out by reason.
    """

    fits: dict[Any, Any]
    cases: dict[Any, list[Any]]
    tests: Sequence[Any]
    removed: Counter[str]
    published: int
    used: int
    parts: dict[str, Any]


ENOUGH_CASES = 10
"""Cases from which on a share inside says something."""
AIM = (0.85, 0.95)

Errors = Callable[[Sequence[Any]], dict[str, float]]


def write(folder: Path, study: Study, errors: Errors) -> None:
    """README.md, held_out.csv and held_out.svg in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_cases(folder / "held_out.csv", study)
    _draw(folder, study)
    sections = (
        _head(study, errors),
        _platforms(study, errors),
        _coverage(study, errors),
        _parts(study),
        _measured(study),
        _misses(study),
        _removed(study),
    )
    (folder / "README.md").write_text("\n".join(sections))


def _head(study: Study, errors: Errors) -> str:
    lines = []
    for phase in ("decode", "prefill"):
        cases = [case for key, found in study.cases.items() if key[2] == phase for case in found]
        e = errors(cases)
        lines.append(
            f"| {phase} | {len(cases)} | {len({(case.key, case.chip) for case in cases})} | "
            f"{e['median']:.1%} | "
            f"{e['p90']:.0%} | {e['50 %']:.0%} | {e['80 %']:.0%} | {e['90 %']:.0%} |"
        )
    return f"""# How well the catalogue predicts a device that it has never seen

Made by `python scripts/fit_catalog.py` from {study.used} of {study.published} published single-device rates
(`llamacpp_single_device.csv.gz` and `single_device_more.csv` in `simulator/catalog/data`). Nobody here measured them.
One case = one chip with one model (the median over its prompt lengths), predicted by a fit that contains no row of that
chip: five folds by the hash of the chip's name, each chip on its own where a platform has fewer than ten. The values
shipped in `platforms.csv` are then fitted to all rows; the errors are those of the split. The form of the equations and
the rows left out were chosen with all rows in view, so the errors are a little flattering.

| phase | held-out cases | chips | median error | 90th percentile | inside 50 % interval | inside 80 % | inside 90 % |
|---|---|---|---|---|---|---|---|
{chr(10).join(lines)}

![predicted against measured](held_out.svg)
"""


def _platforms(study: Study, errors: Errors) -> str:
    lines = []
    for key, fitted in study.fits.items():
        e = errors(study.cases[key])
        tested = (
            " | ".join(f"{e[name]:.0%}" for name in ("median", "p90", "50 %", "80 %", "90 %"))
            if e
            else "one chip: not tested | | | | "
        )
        overhead = f"{fitted.overhead_s * 1e6:.0f}" if key[2] == "decode" else ""
        lines.append(
            f"| {' | '.join(key)} | {fitted.n_rows} | {fitted.n_chips} | {fitted.eta:.2f} | "
            f"{fitted.mixture_cost:.2f} | {overhead} | "
            f"{fitted.log_sd:.2f} | {tested} |"
        )
    heading = (
        "| platform | runtime | phase | rows | chips | efficiency | mixture cost | us per layer | log sd | "
        "held-out median error | p90 | in 50 % | in 80 % | in 90 % |"
    )
    return f"""## Per platform

Efficiency is effective over peak (memory bandwidth for decode, fp16 flop/s for prefill; where no peak is published a
nominal flop per byte stands in, see `platform_kinds.csv`). Mixture cost: a mixture of experts takes its active bytes
or flops times this. Log sd is the spread of a new device, in natural logarithms.

{heading}
{"|---" * heading.count(" | ")}|---|
{chr(10).join(lines)}
"""


def _coverage(study: Study, errors: Errors) -> str:
    lines = []
    for key, cases in study.cases.items():
        if len(cases) >= ENOUGH_CASES:
            held = errors(cases)["90 %"]
            verdict = "too narrow" if held < AIM[0] else "too wide" if held > AIM[1] else "as it should be"
            inside = round(held * len(cases))
            lines.append(f"| {' '.join(key)} | {inside} of {len(cases)} | {held:.0%} | {verdict} |")
    return f"""## Do the 90 % intervals hold, group by group?

Groups of {ENOUGH_CASES} held-out cases or more; 85 to 95 % should be inside. All inside is what a right interval gives
in 28 % of draws of 12 cases, 23 % of 14 and 12 % of 20: the spreads of small groups lean on what chips differ by elsewhere
and are left as they are. Smaller groups say nothing; read their width, not their share.

| group | inside | share | 90 % interval |
|---|---|---|---|
{chr(10).join(lines)}
"""


def _parts(study: Study) -> str:
    lines = [
        f"| {phase} | {p.chip:.0%} | {p.model:.0%} | {p.chip_with_model:.0%} | {p.report:.0%} | {p.rows} |"
        for phase, p in study.parts.items()
    ]
    return f"""## Whose the errors are

Variance of the log ratio around its platform's mean, by restricted maximum likelihood over all platforms
(`scripts/fit_catalog_parts.py`). Simulated devices share each part with all whom it concerns (`error_parts.csv`):
chip and chip with model with their kind, model and report with their platform; 1 % (decode) or 4 % (prompts) is a
device's own.

| phase | chip | model | chip with model | report | rows |
|---|---|---|---|---|---|
{chr(10).join(lines)}
"""


def _measured(study: Study) -> str:
    lines = []
    for key in sorted({test.key for test in study.tests}):
        tests = [test for test in study.tests if test.key == key]
        by_platform, by_chip = (
            [abs(exp(-getattr(test, name)) - 1) for test in tests] for name in ("by_platform", "by_chip")
        )
        lines.append(
            f"| {' '.join(key)} | {len({test.chip for test in tests})} | {len(tests)} | "
            f"{median(by_platform):.1%} | "
            f"{median(by_chip):.1%} | {max(by_platform):.0%} | {max(by_chip):.0%} |"
        )
    return f"""## Chips that were measured themselves (leave one model out)

`measured_chips.csv` holds a chip's own effective bandwidth, or its own flop/s of prompts, on those platforms where that
predicts its other models clearly better than the platform does (root mean square error of the logarithm smaller by a
fifth, and smaller than the platform's log sd): there chips differ more than models do. Of decoding the time tested is
the part spent reading memory. Rows marked `own figure alone` (newer backends, on one chip of several) count here and
nowhere else. The choice of platforms saw these errors.

| platform | chips | cases | median error by platform | by chip | worst by platform | worst by chip |
|---|---|---|---|---|---|---|
{chr(10).join(lines)}
"""


def _misses(study: Study) -> str:
    cases = sorted(
        (case for found in study.cases.values() for case in found), key=lambda case: -abs(case.log_ratio)
    )[:15]
    lines = [
        f"| {case.key[0]} | {case.key[2]} | {case.chip} | {case.model} | {exp(-case.log_ratio):.2f} | "
        f"{abs(case.log_ratio) / case.log_sd:.1f} |"
        for case in cases
    ]
    return f"""## The fifteen worst misses

| platform | phase | chip | model | predicted time / measured time | standard deviations |
|---|---|---|---|---|---|
{chr(10).join(lines)}
"""


def _removed(study: Study) -> str:
    lines = [f"| {count} | {reason} |" for reason, count in study.removed.most_common()]
    return f"""## Rows left out

The first rule that applies counts. Rows that are also validation targets of clusters are never fitted.

| rows | reason |
|---|---|
{chr(10).join(lines)}
"""


def _write_cases(path: Path, study: Study) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            [
                "platform",
                "runtime",
                "phase",
                "chip",
                "model",
                "rows",
                "measured_s_per_token",
                "predicted_s_per_token",
                "log_sd",
            ]
        )
        for key, cases in study.cases.items():
            for case in cases:
                predicted = case.measured_s * exp(-case.log_ratio)
                writer.writerow(
                    [
                        *key,
                        case.chip,
                        case.model,
                        case.rows,
                        f"{case.measured_s:.4g}",
                        f"{predicted:.4g}",
                        f"{case.log_sd:.3f}",
                    ]
                )


def _draw(folder: Path, study: Study) -> None:
    """Predicted against measured tokens/s of the held-out
    cases, with the diagonal and a factor of 1.5 around it.
    """
    import altair as alt

    points = [
        {
            "platform": key[0],
            "phase": key[2],
            "measured": 1 / case.measured_s,
            "predicted": exp(case.log_ratio) / case.measured_s,
        }
        for key, cases in study.cases.items()
        for case in cases
    ]
    panels = []
    for phase, low, high in (("decode", 0.5, 600), ("prefill", 20, 20000)):
        scale = alt.Scale(type="log", domain=[low, high], nice=False)
        here = alt.Data(values=[point for point in points if point["phase"] == phase])  # type: ignore[no-untyped-call]
        dots = (
            alt.Chart(here)
            .mark_circle(size=45, opacity=0.75)
            .encode(
                x=alt.X("predicted:Q", scale=scale, title="predicted tokens/s"),
                y=alt.Y("measured:Q", scale=scale, title="measured tokens/s"),
                color=alt.Color("platform:N", title=None, scale=alt.Scale(scheme="category10")),
            )
        )
        lines = [
            alt.Chart(alt.Data(values=[{"x": low, "y": low * f}, {"x": high, "y": high * f}]))  # type: ignore[no-untyped-call]
            .mark_line(color="#888", strokeDash=[] if f == 1 else [4, 3], clip=True)
            .encode(x=alt.X("x:Q", scale=scale), y=alt.Y("y:Q", scale=scale))
            for f in (1, 1.5, 1 / 1.5)
        ]
        title = f"{phase}: each chip predicted without its own rows (dashed: a factor of 1.5)"
        panels.append(alt.layer(*lines, dots).properties(width=380, height=380, title=title))
    chart = alt.hconcat(*panels).configure_axis(grid=False)
    chart.save(folder / "held_out.svg")
