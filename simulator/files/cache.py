"""Where big things that can be made again are kept: wheels, models of random weights, scripts of pages."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["cache_folder"]

CACHE_NAME = "lan-cluster-simulator"


def cache_folder(part: str) -> Path:
    """The user's cache folder for `part`, made if it is missing.

    `SIM_CACHE` overrides it; otherwise `~/Library/Caches` on macOS, else `XDG_CACHE_HOME`, else `~/.cache`.
    """
    chosen = os.environ.get("SIM_CACHE")
    if chosen:
        base = Path(chosen)
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches" / CACHE_NAME
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / CACHE_NAME
    folder = base / part
    folder.mkdir(parents=True, exist_ok=True)
    return folder
