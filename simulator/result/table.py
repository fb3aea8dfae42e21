"""The tables behind the charts: what a chart shows and the finding that its title says,
without drawing anything.

Each function takes plain arrays or records, simulated or measured, so that both are drawn by the same charts.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from simulator.laws.law import Floats
from simulator.placement.memory import MemoryUse
from simulator.result.critical import PathShare, TokenPath
from simulator.result.estimate import estimate, rounded
from simulator.result.summary import inter_token_s, tokens_per_s
from simulator.units import GB, TIME, format_seconds

__all__ = [
    "CHART_NAMES",
    "ChartTable",
    "Rows",
    "bench_table",
    "inter_token_table",
    "memory_table",
    "slowest_table",
    "where_table",
]

Rows: TypeAlias = list[dict[str, Any]]

CHART_NAMES = ("bench", "slowest_stage", "where_time_goes", "inter_token_time", "memory")

TITLE_WIDTH, SUBTITLE_WIDTH = 82, 110  # characters that fit over a chart in its two type sizes
SINGLE_WORLDS = 8  # thin lines of single worlds: more of them hide each other
MOST_POINTS = 600  # about one per pixel of a chart's width
MOST_PARTS = 6  # parts with a colour of their own in the timeline
MOST_HOPS = 8  # hops that get a bar of their own; the smaller ones share one
LEAST_SHARE = 0.0005  # of the inter-token time: less is thinner than a line
# times the 90th percentile: longer parts are drawn at the edge, or they would flatten all others
OUTLIER = 3.0
LEVELS = np.arange(0.5, 100, 0.5)  # percent of the tokens at which their distribution is drawn
MARKED_LEVELS = (50.0, 90.0, 99.0)


@dataclass(frozen=True, slots=True)
class ChartTable:
    """What one chart shows."""

    title: list[str]
    """The finding, in lines."""
    subtitle: list[str]
    """What was drawn, in lines."""
    rows: Mapping[str, Rows]
    """One table per layer of the chart."""
    order: list[str] = field(default_factory=list)
    """Categories in the order in which they are drawn."""
    unit: str = ""


def bench_table(times_s: Floats, runs: int) -> ChartTable:
    """Tokens/s of one chat, run by run.

    `times_s` are token times (s after the request), shape (streams, tokens, rows);
    row i is run `i % runs` of world `i // runs`. Layers: `band` (run, low, median,
    high in tokens/s, over worlds), `worlds` (world, run, tokens_per_s).
    """
    rate = tokens_per_s(times_s).mean(axis=0).reshape(-1, runs)
    worlds = len(rate)
    low, median, high = np.quantile(rate, [0.05, 0.5, 0.95], axis=0)
    band = [
        {"run": run + 1, "low": rounded(low[run]), "median": rounded(median[run]), "high": rounded(high[run])}
        for run in range(runs)
    ]
    shown = min(SINGLE_WORLDS, worlds) if worlds > 1 else 0
    single = [
        {"world": world, "run": run + 1, "tokens_per_s": rounded(rate[world, run])}
        for world in range(shown)
        for run in range(runs)
    ]
    about = (
        f"thick: median; band: 90% of {worlds} worlds (draws of what is unknown of devices and links); "
        f"thin: {shown} of them"
    )
    return _table(
        _rate_finding(rate),
        about if worlds > 1 else f"runs of one cluster: {runs}",
        {"band": band, "worlds": single},
        unit="tokens/s",
    )


def slowest_table(paths: Sequence[TokenPath], ring: Sequence[str], over_worlds: str = "") -> ChartTable:
    """The longest part of each token's critical path, for the first stream of tokens.

    `over_worlds` says what is the longest part elsewhere: one reply is an example, not the rule.
    Layer `points`: token (from 1), part, its duration in the table's unit, and that with outliers cut to the
    axis (`drawn`). Raises ValueError without paths.
    """
    mine = [path for path in paths if path.stream == paths[0].stream] if paths else []
    if not mine:
        raise ValueError("paths is empty; a timeline needs at least two tokens with spans")
    longest = [_longest_part(path) for path in mine]
    durations_s = np.array([duration_s for _, duration_s in longest])
    counts = Counter(part for part, _ in longest)
    label = _part_labels(counts, ring)
    (kind, where), most = counts.most_common(1)[0]
    top_s = min(durations_s.max(), OUTLIER * float(np.quantile(durations_s, 0.9)))
    unit, every = _unit(top_s), -(-len(mine) // MOST_POINTS)
    points = [
        {
            "token": path.token + 1,
            "part": label[part],
            "duration": rounded(duration_s / TIME[unit]),
            "drawn": rounded(min(duration_s, top_s) / TIME[unit]),
        }
        for path, (part, duration_s) in list(zip(mine, longest, strict=True))[::every]
    ]
    about = (
        "the reply with the median tokens/s; point: longest part of a token's critical path; in brackets: "
        "share of the tokens"
    )
    if top_s < durations_s.max():
        outliers = int((durations_s > top_s).sum())
        about += f"; {outliers} at the upper edge took longer, up to {format_seconds(durations_s.max())}"
    if every > 1:
        about += f"; one token in {every} is drawn"
    if over_worlds:
        about += f"; {over_worlds}"
    return _table(
        f"{_part_name(kind, where)} is the longest part of {_percent(most / len(mine))} of the tokens",
        about,
        {"points": points},
        list(dict.fromkeys(label.values())),
        unit,
    )


def where_table(shares: Iterable[PathShare], ring: Sequence[str], finding: str, basis: str) -> ChartTable:
    """The critical path of decoding, place by place: devices in ring order, then
    hops, the small ones together.

    `basis` says which replies the shares are the mean of. Parts below `LEAST_SHARE` are left out. Layers:
    `parts` (place, kind, duration per token in the table's unit, share), `totals` (place, total, label).
    """
    parts = [share for share in _small_hops_together(tuple(shares)) if share.share >= LEAST_SHARE]
    parts.sort(key=lambda share: _rank(ring, share.kind, share.where))
    unit = _unit(max(share.seconds_per_token for share in parts))
    # in the order in which they are drawn, which `_rank` has made
    places: dict[str, Rows] = {}
    for share in parts:
        places.setdefault(share.where, []).append(
            {
                "place": share.where,
                "kind": share.kind,
                "share": rounded(share.share),
                "duration": rounded(share.seconds_per_token / TIME[unit]),
            }
        )
    totals = [
        {
            "place": place,
            "total": rounded(sum(row["duration"] for row in rows)),
            "label": _percent(sum(row["share"] for row in rows)),
        }
        for place, rows in places.items()
    ]
    return _table(
        finding,
        f"critical path from token to token, {basis}; percent: share of the inter-token time",
        {"parts": [row for rows in places.values() for row in rows], "totals": totals},
        list(places),
        unit,
    )


def inter_token_table(times_s: Floats) -> ChartTable:
    """Distribution of the time between tokens within a run, and how it differs from run to run.

    `times_s` as for `bench_table`. Layers: `curve` (percent of the tokens that took
    at most `median`; `low` and `high` are the 5th and 95th percentile of that over
    runs and worlds), `marks` (p50, p90, p99, equal to those of Summary).
    """
    gaps = inter_token_s(times_s)
    # the marked levels too, so that marks lie on the curve
    levels = np.unique([*LEVELS, *MARKED_LEVELS])
    low, median, high = np.quantile(np.quantile(gaps, levels / 100, axis=(0, 1)), [0.05, 0.5, 0.95], axis=1)
    unit = _unit(high[-1])
    curve = [
        {
            "percent": float(level),
            "low": rounded(a / TIME[unit]),
            "median": rounded(b / TIME[unit]),
            "high": rounded(c / TIME[unit]),
        }
        for level, a, b, c in zip(levels, low, median, high, strict=True)
    ]
    at = {
        level: f"{row['median']:#.3g}".rstrip(".") + f" {unit}"
        for level, row in zip(levels, curve, strict=True)
    }
    marks = [
        {**row, "label": f"p{row['percent']:.0f}: {at[row['percent']]}"}
        for row in curve
        if row["percent"] in MARKED_LEVELS
    ]
    about = "one run" if gaps.shape[-1] == 1 else "line: the median run; band: 90% of the runs of all worlds"
    return _table(
        f"Half of the tokens follow within {at[50.0]}, 99% within {at[99.0]}",
        about,
        {"curve": curve, "marks": marks},
        unit=unit,
    )


def memory_table(uses: Sequence[MemoryUse]) -> ChartTable:
    """What each device must hold against what it can, in GB, devices as given (ring order).

    Layers: `parts` (device, part, gb), `caps` (device, cap, end of the bar or cap, label).
    """
    parts, caps = [], []
    for use in uses:
        held = {
            "layers": use.weights_bytes,
            "KV cache": use.kv_bytes,
            "embedding and head": use.embedding_bytes + use.head_bytes,
            "engine": use.overhead_bytes,
        }
        parts += [
            {"device": use.device, "part": part, "gb": rounded(held_bytes / GB)}
            for part, held_bytes in held.items()
            if held_bytes > 0
        ]
        caps.append(
            {
                "device": use.device,
                "cap": rounded(use.cap_bytes / GB),
                "end": rounded(max(use.total_bytes, use.cap_bytes) / GB),
                "label": _filled(use) + ("" if use.fits else ", pages"),
            }
        )
    # a cap may be 0: then any byte is too much
    fullest = max(uses, key=lambda use: use.total_bytes / max(use.cap_bytes, 1.0))
    verdict = f"{fullest.device} is the fullest: {_filled(fullest)}"
    return _table(
        verdict if fullest.fits else f"{verdict}; what does not fit is re-read from disk at each token",
        "at the end of the reply; black mark: what an engine may fill on that device",
        {"parts": parts, "caps": caps},
        [use.device for use in uses],
        "GB",
    )


def _filled(use: MemoryUse) -> str:
    return f"{use.total_bytes / GB:.1f} of {use.cap_bytes / GB:.1f} GB"


def _rate_finding(rate: Floats) -> str:
    """Rates of shape (worlds, runs) in words; run to run is the standard
    deviation, the median over worlds.
    """
    if rate.size == 1:
        return f"{rate.item():.3g} tokens/s"
    spread = np.median(rate.std(axis=1, ddof=1) / rate.mean(axis=1)) if rate.shape[1] > 1 else None
    repeated = "" if spread is None else f"; repeated runs of one cluster differ by {_percent(float(spread))}"
    return estimate(rate).text("tokens/s") + repeated


def _table(
    title: str, about: str, rows: Mapping[str, Rows], order: Sequence[str] = (), unit: str = ""
) -> ChartTable:
    lines, subtitle = textwrap.wrap(title, TITLE_WIDTH), textwrap.wrap(about, SUBTITLE_WIDTH)
    return ChartTable(lines, subtitle, rows, list(order), unit)


def _unit(longest_s: float) -> str:
    """The unit of a time axis that reaches to about `longest_s`."""
    return "s" if longest_s >= 1 else "ms"


def _percent(share: float) -> str:
    """A share for people, with a decimal where it is small."""
    return f"{share:.0%}" if share >= 0.0095 or share == 0 else f"{share:.1%}"


def _longest_part(path: TokenPath) -> tuple[tuple[str, str], float]:
    """((kind, where), seconds) of the longest part; spans of one kind at one place count together."""
    sums: dict[tuple[str, str], float] = {}
    for span in path.spans:
        key = (span.kind, span.where)
        sums[key] = sums.get(key, 0.0) + span.end_s - span.start_s
    return max(sums.items(), key=lambda item: (item[1], item[0]), default=(("unknown", "no span"), 0.0))


def _part_name(kind: str, where: str) -> str:
    return f"{kind} {where}" if " -> " in where else f"{where} {kind}"


def _part_labels(counts: Counter[tuple[str, str]], ring: Sequence[str]) -> dict[tuple[str, str], str]:
    """The label of each part with its share of the tokens, in ring order; rare parts
    have the last one in common.
    """
    often = [part for part, _ in counts.most_common(MOST_PARTS)]
    labels = {
        part: f"{_part_name(*part)} ({_percent(counts[part] / counts.total())})"
        for part in sorted(often, key=lambda part: _rank(ring, *part))
    }
    rare = f"other parts ({_percent(1 - sum(counts[part] for part in often) / counts.total())})"
    return labels | {part: rare for part in counts if part not in labels}


def _rank(ring: Sequence[str], kind: str, where: str) -> tuple[bool, int, int, str, str]:
    """Sort key: devices in ring order, then hops by source and sink in ring order, then everything else."""
    source, _, sink = where.partition(" -> ")
    position = {name: index for index, name in enumerate(ring)}
    return (
        bool(sink) or source not in position,
        position.get(source, len(ring)),
        position.get(sink, -1),
        where,
        kind,
    )


def _small_hops_together(shares: tuple[PathShare, ...]) -> tuple[PathShare, ...]:
    """The same shares with the smallest hops added up as one place, where there are many."""
    hops: Counter[str] = Counter()
    for share in shares:
        if " -> " in share.where:
            hops[share.where] += share.share  # type: ignore[assignment]
    small = {where for where, _ in hops.most_common()[MOST_HOPS:]}
    # a single one keeps its name
    if len(small) < 2:
        return shares
    merged: dict[str, tuple[float, float]] = {}
    for share in shares:
        if share.where in small:
            before = merged.get(share.kind, (0.0, 0.0))
            merged[share.kind] = (before[0] + share.share, before[1] + share.seconds_per_token)
    rest = [
        PathShare(kind=kind, where=f"{len(small)} other hops", share=share, seconds_per_token=seconds)
        for kind, (share, seconds) in merged.items()
    ]
    return (*(share for share in shares if share.where not in small), *rest)
