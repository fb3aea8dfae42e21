"""Pairs: which of two measured strategies or kinds of link is the faster one, and whether we say so too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from calibrate.ground.predict import Outcome
from calibrate.ground.rows import PARTS, Part, Row
from simulator.spec import Spec

__all__ = ["Pair", "pair_lines", "pairs"]


class Pair(Spec):
    """Two rows of one source that differ in strategy, number of nodes or link; `faster` was measured so."""

    faster: str
    slower: str
    part: Part
    quantity: str
    measured: float
    """Measured time of the slower one, in times of the faster one."""
    predicted: float
    """The same of the medians that were predicted; above 1 is right."""

    @property
    def is_right(self) -> bool:
        """Whether the prediction names the same one."""
        return self.predicted > 1


def pairs(outcomes: Sequence[Outcome], rows: Mapping[str, Row]) -> tuple[Pair, ...]:
    """Every pair of outcomes that ask this, at least one of them of tensor parallelism; ties are left out."""
    return tuple(_pairs(outcomes, rows))


def _pairs(outcomes: Sequence[Outcome], rows: Mapping[str, Row]) -> Iterator[Pair]:
    for one, other in combinations(outcomes, 2):
        a, b = rows[one.row], rows[other.row]
        if one.quantity != other.quantity or _question(a) != _question(b) or _answer(a) == _answer(b):
            continue
        if "tensor" not in (a.strategy, b.strategy) or one.measured_s == other.measured_s:
            continue
        fast, slow = sorted((one, other), key=lambda outcome: outcome.measured_s)
        yield Pair(
            faster=fast.row,
            slower=slow.row,
            part=one.part,
            quantity=one.quantity,
            measured=slow.measured_s / fast.measured_s,
            predicted=slow.median_s / fast.median_s,
        )


def _question(row: Row) -> tuple[object, ...]:
    """What two rows of a pair have in common."""
    return row.source, row.engine, row.model, row.quantisation, row.prompt_tokens, row.batch


def _answer(row: Row) -> tuple[object, ...]:
    """What they differ in; which collectives ran stands at the beginning of a note."""
    return row.strategy, row.nodes, row.link, row.rtt_us


def pair_lines(found: Sequence[Pair]) -> list[str]:
    """How often the faster one was named, by part and quantity, and which looked-at pairs were not."""
    lines = ["| part | of | pairs | right |", "|---|---|---:|---:|"]
    for part in PARTS:
        for quantity in sorted({one.quantity for one in found if one.part == part}):
            chosen = [one for one in found if (one.part, one.quantity) == (part, quantity)]
            right = sum(one.is_right for one in chosen)
            lines.append(f"| {part} | {quantity} | {len(chosen)} | {right / len(chosen):.0%} |")
    wrong = [one for one in found if one.part == "looked-at" and not one.is_right]
    return [
        *lines,
        "",
        *(
            f"- {one.quantity}: {one.faster} was measured {one.measured:.2f} times as fast as {one.slower}; "
            f"predicted {one.predicted:.2f}"
            for one in wrong
        ),
    ]
