"""The published ground as Markdown, CSV and pictures: by group and part, beside baselines, with causes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from calibrate.ground.baselines import with_baselines
from calibrate.ground.cases import Case
from calibrate.ground.causes import Cause, cause, known_causes
from calibrate.ground.pairs import pair_lines, pairs
from calibrate.ground.pictures import pictures
from calibrate.ground.predict import Outcome
from calibrate.ground.rows import PARTS, Row, excluded
from calibrate.ground.score import Score, score
from calibrate.validation import LEVELS
from simulator.files import make_folder, write_ours
from simulator.files.inert import csv_text, markdown_text
from simulator.result.drawing import save_pictures
from simulator.result.estimate import rounded

__all__ = ["causes_of", "headline", "report", "write_ground"]

CLUSTERS, TENSOR, SINGLE, FIRST = "clusters", "tensor, one chat", "single devices", "first token"
SWARMS = "swarms"
KINDS = {CLUSTERS: "pipeline", TENSOR: "tensor", SWARMS: "swarm", SINGLE: "single", FIRST: "first token"}
HEADER = (
    "| group | part | figures | sources | median error | 90th percentile | bias | 50 % held | 80 % held | "
    "90 % held | width |",
    "|---|---|---:|---:|---:|---:|---:|---|---|---|---:|",
)
HIDDEN = "not shown"
INTRODUCTION = (
    "Made by `sim validate published`. No speed was fitted to any row below; rows that train the",
    "catalogue are left out. The ground is split once, by source: nobody tunes on, or looks at single rows",
    "of, the part that is only counted.",
)
LEGEND = (
    "Clusters are pipelines on EXO, mlx-lm and llama.cpp RPC, tensor is one chat on EXO, mlx-lm, vLLM and",
    "distributed-llama, swarms are Petals; single devices those at home, on such an engine. A width is that",
    "of the 90 % interval over its median. Beside what held stands the band in which the share lies if all",
    "is right, taking rows as independent (those of one source are not). Launch costs of latent attention,",
    "delays of collectives over Thunderbolt, llama.cpp servers' own work for a request, how thick the tails",
    "of worlds are, by how much reports of first tokens and engines that stand for others scatter beyond the",
    "catalogue's errors, and which facts of Petals' servers to look for were set by looking at rows that may",
    "be looked at: those show that the physics fits, the counted part alone what it is worth.",
)


def headline(outcomes: Sequence[Outcome]) -> dict[tuple[str, str], Score]:
    """The figures that stand for all, by kind and part: clusters and single devices apart, decoding.

    Clusters are pipelines on engines of ours; single devices those that such an engine ran on, batches, long
    prompts, and data-centre cards left to their own groups.
    """
    found: dict[tuple[str, str], Score] = {}
    for part in PARTS:
        for kind, prefix in KINDS.items():
            chosen = [
                one
                for one in outcomes
                if one.part == part and one.group.startswith(prefix) and not one.is_apart
            ]
            if chosen:
                found[kind, part] = score(chosen)
    return found


def causes_of(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> tuple[Cause, ...]:
    """A cause for each miss of a 90 % interval, in the order of the outcomes."""
    by_row, known = {case.row: case for case in cases}, known_causes()
    missed = [one for one in outcomes if not one.holds(90)]
    return tuple(cause(by_row[one.row], one, known.get(one.row, "")) for one in missed)


def report(
    cases: Sequence[Case],
    outcomes: Sequence[Outcome],
    rows: Sequence[Row],
    causes: Sequence[Cause],
    *,
    open_counted: bool = False,
) -> str:
    """The whole comparison; single rows of the counted part stay without error unless `open_counted`."""
    shown = [one for one in outcomes if open_counted or one.part == "looked-at"]
    names = {one.row for one in shown}
    return (
        "\n".join(
            [
                "# Published measurements, predicted from the catalogue alone",
                "",
                *INTRODUCTION,
                "",
                f"{len({one.row for one in outcomes})} of {len(rows)} rows are predicted, {len(outcomes)} "
                "figures in all (a row may have a rate and a first token), from "
                f"{len({one.source for one in outcomes})} sources.",
                "",
                "## In short",
                "",
                *HEADER,
                *(_line(kind, part, figures) for (kind, part), figures in headline(outcomes).items()),
                "",
                *LEGEND,
                "",
                "## By group",
                "",
                *HEADER,
                *_groups(outcomes),
                "",
                *_baselines(cases, outcomes),
                "",
                "## Which is faster",
                "",
                "Two rows of one source, engine, model and workload that differ in strategy (at least one of",
                "them tensor), number of nodes or link: how often the one that was measured to be faster is",
                "predicted to be.",
                "",
                *pair_lines(pairs(outcomes, {row.row: row for row in rows})),
                "",
                "## Rows that may be looked at" if not open_counted else "## Rows",
                "",
                *_rows(shown),
                "",
                "## Causes of misses",
                "",
                "The uncertain input that, moved alone and least, meets the measurement within 3 standard "
                "deviations; where none does, the cause is unknown to the model.",
                "",
                *_terms(causes, outcomes),
                "",
                *_causes([one for one in causes if one.row in names]),
                "",
                "## Only counted" if not open_counted else "",
                "",
                *_counted([one for one in outcomes if one not in shown]),
                "",
                "## Not predicted",
                "",
                *_excluded(),
                "",
                "![predicted against measured](predicted_measured.svg)",
                "",
                "![intervals that held](reliability.svg)",
            ]
        )
        + "\n"
    )


def _line(group: str, part: str, figures: Score) -> str:
    held = " | ".join(f"{one.held:.0%} ({one.low:.0%} to {one.high:.0%})" for one in figures.coverage)
    return (
        f"| {group} | {part} | {figures.n} | {figures.sources} | {figures.median_error:.0%} | "
        f"{figures.p90_error:.0%} | {figures.bias:+.0%} | {held} | {figures.width:.2f} |"
    )


def _groups(outcomes: Sequence[Outcome]) -> list[str]:
    lines = []
    for group in sorted({one.group for one in outcomes}):
        for part in PARTS:
            chosen = [one for one in outcomes if one.group == group and one.part == part]
            if chosen:
                lines.append(_line(group, part, score(chosen)))
    return lines


def _baselines(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> list[str]:
    """Ours beside the baselines, each on the rows that it can express."""
    said = with_baselines(cases, outcomes)
    lines = [
        "## Beside baselines, on the same rows",
        "",
        "Median and 90th percentile of the error of the decode rate, and of how many rows. Bytes over peak",
        "bandwidth, the same at 70 %, and a public calculator that was run",
        "(`scripts/published_baselines.py`; single devices, full attention; told the catalogue's peaks and",
        "each model's active bytes).",
        "",
        f"| group | part | rows | this simulator | {' | '.join(said)} |",
        f"|---|---|---:|---:|{'---:|' * len(said)}",
    ]
    decoded = [one for one in outcomes if one.quantity == "decode"]
    for kind, chosen in _kinds(decoded):
        for part in PARTS:
            errors = {one.row: one.error for one in chosen if one.part == part}
            if errors:
                cells = [
                    _two(errors),
                    *(_two({row: e for row, e in b.items() if row in errors}) for b in said.values()),
                ]
                lines.append(f"| {kind} | {part} | {len(errors)} | {' | '.join(cells)} |")
    return lines


def _kinds(outcomes: Sequence[Outcome]) -> list[tuple[str, list[Outcome]]]:
    prefixes = ("pipeline", "tensor", "swarm", "single", "batch", "long prompt")
    return [(prefix, [one for one in outcomes if one.group.startswith(prefix)]) for prefix in prefixes]


def _two(errors: Mapping[str, float]) -> str:
    if not errors:
        return "-"
    sizes = np.abs(list(errors.values()))
    return f"{np.median(sizes):.0%}, {np.quantile(sizes, 0.9):.0%} ({len(errors)})"


def _rows(outcomes: Sequence[Outcome]) -> list[str]:
    return [
        "| row | group | devices | model | measured | predicted [5 %, 95 %] | error | in 90 % |",
        "|---|---|---|---|---:|---:|---:|---|",
        *(
            f"{_about(one)} | {_time(one.measured_s)} | "
            f"{_time(one.median_s)} [{_time(one.interval_s(90)[0])}, {_time(one.interval_s(90)[1])}] | "
            f"{one.error:+.0%} | {'yes' if one.holds(90) else '**no**'} |"
            for one in sorted(outcomes, key=lambda one: (one.group, one.row))
        ),
    ]


def _about(one: Outcome) -> str:
    """The first cells of an outcome's line."""
    return "".join(
        f"| {markdown_text(text)} " for text in (one.row, one.group, one.devices, one.model)
    ).rstrip()


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _terms(causes: Sequence[Cause], outcomes: Sequence[Outcome]) -> list[str]:
    """How often each term is the cause, by part: figures only, so that the counted part stays closed."""
    if not causes:
        return ["No miss."]
    part = {one.row: one.part for one in outcomes}
    terms = sorted({one.term for one in causes})
    return [
        f"| part | misses | {' | '.join(terms)} |",
        f"|---|---:|{'---:|' * len(terms)}",
        *(
            f"| {name} | {sum(part[one.row] == name for one in causes)} | "
            + " | ".join(
                str(sum(part[one.row] == name and one.term == term for one in causes)) for term in terms
            )
            + " |"
            for name in PARTS
        ),
    ]


def _causes(causes: Sequence[Cause]) -> list[str]:
    if not causes:
        return []
    lines = [
        "| row | of | term | would explain it | would have told | known from the source |",
        "|---|---|---|---|---|---|",
    ]
    for one in causes:
        moved = (
            f"{one.what}, {abs(one.sd):.1f} sd {'more' if one.sd > 0 else 'less'}"
            if one.what
            else "no input alone"
        )
        told = one.would_have_told or "unknown"
        lines.append(f"| {one.row} | {one.quantity} | {one.term} | {moved} | {told} | {one.known or '-'} |")
    return lines


def _counted(outcomes: Sequence[Outcome]) -> list[str]:
    if not outcomes:
        return []
    return [
        "Predicted, and in the figures above; `--open-counted` shows each, and the commit that does so is "
        "the last of its kind.",
        "",
        "| row | group | devices | model | error |",
        "|---|---|---|---|---|",
        *(f"{_about(one)} | {HIDDEN} |" for one in outcomes),
    ]


def _excluded() -> list[str]:
    why: dict[str, list[str]] = {}
    for row, reason in excluded().items():
        why.setdefault(reason, []).append(row)
    return [
        "| reason | rows | which |",
        "|---|---:|---|",
        *(f"| {reason} | {len(names)} | {', '.join(names)} |" for reason, names in why.items()),
    ]


def write_ground(
    cases: Sequence[Case],
    outcomes: Sequence[Outcome],
    rows: Sequence[Row],
    folder: Path,
    *,
    open_counted: bool = False,
) -> str:
    """`README.md`, `predictions.csv`, `causes.csv` and the pictures; the report's text."""
    make_folder(folder)
    causes = causes_of(cases, outcomes)
    text = report(cases, outcomes, rows, causes, open_counted=open_counted)
    shown = [one for one in outcomes if open_counted or one.part == "looked-at"]
    write_ours(folder / "README.md", text)
    write_ours(folder / "predictions.csv", csv_text([_record(one) for one in shown]))
    named = {one.row for one in shown}
    records = [one.model_dump(mode="json") for one in causes if one.row in named]
    if records:
        write_ours(folder / "causes.csv", csv_text(records))
    save_pictures(pictures(outcomes, shown), folder)
    return text


def _record(one: Outcome) -> dict[str, object]:
    """One line of `predictions.csv`, columns by name."""
    low, high = one.interval_s(90)
    return {
        "row": one.row,
        "part": one.part,
        "group": one.group,
        "quantity": one.quantity,
        "measured_s": one.measured_s,
        "predicted_s": one.median_s,
        "p05_s": low,
        "p95_s": high,
        "error": rounded(one.error),
        **{f"in_{level}": one.holds(level) for level in LEVELS},
    }
