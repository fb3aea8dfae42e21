"""The ranking as text, in the manner of a model comparison table: differences,
distances, a column of doubts.
"""

from __future__ import annotations

from collections.abc import Sequence

from calibrate.delays.law_fit import LawFit, LawParameter
from simulator.units import format_seconds

__all__ = ["parameters_text", "table"]

TIMES = ("mean", "median", "scale", "shift", "value")
HEADS = ("rank", "law", "p", "dBIC", "dAIC", "KS", "A2", "p99 error", "mean", "parameters", "doubts")
LEFT = ("law", "parameters", "doubts")


def table(fits: Sequence[LawFit]) -> str:
    """One line per fit in the order given, columns aligned.

    `p` free parameters; `dBIC`, `dAIC` differences to the smallest, `-` without a likelihood; `KS` and `A2`
    distances of Kolmogorov-Smirnov and Anderson-Darling; `p99 error` of the law against the samples;
    parameters with standard errors. Doubts that hold for every fit stand once, below.
    """
    if not fits:
        return "no laws fitted"
    # what holds for every law is a doubt about the samples
    common = [doubt for doubt in fits[0].warnings if all(doubt in fit.warnings for fit in fits)]
    least_aic = min((fit.aic for fit in fits if fit.aic is not None), default=None)
    rows = [HEADS, *(_row(rank, fit, least_aic, common) for rank, fit in enumerate(fits, 1))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    lines = [_line(row, widths) for row in rows]
    first = fits[0]
    independent = "" if first.n_effective == first.n else f" ({first.n_effective:.0f} independent)"
    lines.append(f"n = {first.n}{independent}; +/- is one standard error")
    return "\n".join([*lines, *(f"doubt: {doubt}" for doubt in common)])


def parameters_text(fit: LawFit) -> str:
    """'median 8.35 ms +/- 0.11 ms, sigma 0.598 +/- 0.0095';
    an empirical law says how many points it keeps.
    """
    if fit.law.law == "empirical":
        return f"{len(fit.law.samples)} points"
    return ", ".join(_parameter(each) for each in fit.parameters)


def _parameter(each: LawParameter) -> str:
    is_time = each.name.split("_")[0] in TIMES
    value = format_seconds(each.value) if is_time else f"{each.value:.3g}"
    if each.stderr is None:
        return f"{each.name} {value}"
    return f"{each.name} {value} +/- {format_seconds(each.stderr) if is_time else f'{each.stderr:.2g}'}"


def _row(rank: int, fit: LawFit, least_aic: float | None, common: Sequence[str]) -> tuple[str, ...]:
    """The cells of one fit."""
    delta_aic = None if fit.aic is None or least_aic is None else fit.aic - least_aic
    free = "-" if fit.law.law == "empirical" else str(len(fit.parameters))
    doubts = "; ".join(doubt for doubt in fit.warnings if doubt not in common) or "-"
    return (
        str(rank),
        fit.name,
        free,
        _number(fit.delta_bic, ".1f"),
        _number(delta_aic, ".1f"),
        f"{fit.ks:.3f}",
        _number(fit.anderson_darling, ".3g"),
        f"{fit.tail_error_p99:+.1%}",
        format_seconds(fit.law.mean_s),
        parameters_text(fit),
        doubts,
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    """Text to the left, numbers to the right."""
    cells = [
        cell.ljust(width) if head in LEFT else cell.rjust(width)
        for head, cell, width in zip(HEADS, row, widths, strict=True)
    ]
    return "  ".join(cells).rstrip()
