"""What commands put out: `--json` with its one document, and files that replace none but their own kind."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["Json", "json_text", "keep_foreign", "print_json"]

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document and nothing else on standard output.")
]


def json_text(document: Any) -> str:
    """The document as it is printed and as it is written to files."""
    return json.dumps(document, indent=2) + "\n"


def print_json(document: Any) -> None:
    """Print the document; a command calls this once, and says everything else on standard error."""
    sys.stdout.write(json_text(document))


def keep_foreign(path: Path, read: Callable[[Path], object], what: str) -> None:
    """Refuse to replace a file that is not ours to replace."""
    from simulator.errors import SimulatorError

    if not path.exists():
        return
    try:
        read(path)
    except SimulatorError as error:
        raise SimulatorError(
            f"{path} exists and is no {what}; it is kept: choose another name with -o"
        ) from error
