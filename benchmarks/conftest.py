"""What every benchmark adds to the table at the end: figure, target, and how it was measured."""

from __future__ import annotations

from collections.abc import Callable

import pytest

ROWS: list[tuple[str, str, str]] = []


@pytest.fixture
def report() -> Callable[[str, str, str], None]:
    """Add a row: what, measured, target."""
    return lambda what, measured, target: ROWS.append((what, measured, target))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not ROWS:
        return
    terminalreporter.section("speed")
    widths = [max(len(row[i]) for row in ROWS) for i in range(2)]
    for what, measured, target in ROWS:
        terminalreporter.write_line(f"{what:<{widths[0]}}  {measured:>{widths[1]}}  {target}")
