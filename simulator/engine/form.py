"""PlacementForm: a placement in the words of those who must carry it out on one engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["PlacementForm"]


@dataclass(frozen=True, slots=True)
class PlacementForm:
    """`document` stands under `key` in JSON, `lines` are printed."""

    key: str
    document: Any
    lines: tuple[str, ...]
