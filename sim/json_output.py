"""`--json`: one document, and how it is written."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

__all__ = ["Json", "json_text", "print_json"]

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document and nothing else on standard output.")
]


def json_text(document: Any) -> str:
    """The document as it is printed and as it is written to files."""
    return json.dumps(document, indent=2) + "\n"


def print_json(document: Any) -> None:
    """Print the document; a command calls this once, and says everything else on standard error."""
    sys.stdout.write(json_text(document))
