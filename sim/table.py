"""Tables that fit the terminal: words stay whole, and the least wanted columns go where
there is no room for all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_table"]

Row = Sequence[str]

GAP = 2  # blank columns between two columns
NARROW = 14  # a column that wraps is not squeezed below this, or below its longest word


def print_table(
    console: Console,
    heads: Row,
    rows: Sequence[Row] | Mapping[str, Sequence[Row]],
    *,
    wraps: Collection[str] = (),
    drops: Sequence[str] = (),
    right: Collection[str] = (),
) -> tuple[str, ...]:
    """Print rows, or groups of rows under their titles; returns the heads of the columns that were left out.

    Columns in `wraps` break between words; those in `drops` go, the first one first, until the rest has room.
    """
    from rich.text import Text

    groups = rows if isinstance(rows, Mapping) else {"": rows}
    columns = dict(
        zip(heads, zip(*(row for group in groups.values() for row in group), strict=True), strict=True)
    )
    least = {head: _least(head, cells, head in wraps) for head, cells in columns.items()}
    full = {head: max(_longest_word(head), *map(len, cells)) for head, cells in columns.items()}
    left_out: list[str] = []
    while _width(least) > console.width and len(left_out) < len(drops):
        left_out.append(drops[len(left_out)])
        least.pop(left_out[-1], None)
    widths = _filled(least, full, console.width)
    for number, (title, group) in enumerate(groups.items()):
        if title:
            console.print(Text(f"\n{title}" if number else title, "bold"))
        _print_group(
            console,
            [dict(zip(heads, row, strict=True)) for row in group],
            widths,
            right,
            with_heads=number == 0,
        )
    return tuple(left_out)


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=1)


def _least(head: str, cells: Row, wraps: bool) -> int:
    """Columns below which a cell would be cut: its longest word where it may wrap, else all of it."""
    needs = [_longest_word(cell) if wraps else len(cell) for cell in cells]
    natural = max(map(len, (head, *cells)))
    return max(_longest_word(head), *needs, min(natural, NARROW) if wraps else 1)


def _width(widths: dict[str, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


def _filled(least: dict[str, int], full: dict[str, int], room: int) -> dict[str, int]:
    """Share the room that is left among the columns that want more, the narrowest first."""
    widths = dict(least)
    # column by column of room: who wants most must not take all of it
    for _ in range(room - _width(least)):
        hungry = [head for head in widths if widths[head] < full[head]]
        if not hungry:
            break
        widths[min(hungry, key=widths.__getitem__)] += 1
    return widths


def _print_group(
    console: Console,
    rows: Sequence[dict[str, str]],
    widths: dict[str, int],
    right: Collection[str],
    *,
    with_heads: bool,
) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=with_heads, padding=(0, GAP, 0, 0))
    for head, width in widths.items():
        table.add_column(
            Text(head), width=width, justify="right" if head in right else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(row[head]) for head in widths))
    console.print(table)
