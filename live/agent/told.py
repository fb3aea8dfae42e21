"""What another device says of itself, taken for what it may be and no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from live.number import finite

__all__ = ["checked", "printable"]

MOST_CHARS = 200


def printable(value: object, most_chars: int = MOST_CHARS) -> str:
    """Another device's words, which must not steer the terminal; raises TypeError for what is no text."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return "".join(character for character in value if character.isprintable())[:most_chars]


def _finite(value: object) -> float:
    if (number := finite(value)) is None:
        raise TypeError(f"{value!r:.40} is no finite number")
    return number


def _whether(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r:.40} is neither true nor false")
    return value


CHECKS: dict[str, Callable[[object], object]] = {
    "str": printable,
    "int": lambda value: int(_finite(value)),
    "float": _finite,
    "bool": _whether,
}


def checked(kind: Any, values: dict[str, Any]) -> dict[str, Any]:
    """The plain fields of a dataclass out of `values`, each of its type; an agent of another version may
    tell more than we know. Raises TypeError, or OverflowError for an integer beyond all floats.
    """
    checks = {item.name: CHECKS.get(str(item.type).removesuffix(" | None")) for item in fields(kind)}
    return {
        name: check(values[name]) for name, check in checks.items() if check and values.get(name) is not None
    }
