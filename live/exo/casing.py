"""Answers of EXO as plain data: `inBytes` in one, `in_bytes` in another; tagged objects; parts that lack."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from live.errors import ApiChanged

__all__ = ["camel_case", "either", "mapping_in", "snake", "tagged"]

# A camelCase word. Ids (hex, UUIDs with dashes, libp2p's "12D3..."), model names and tags
# ("RunnerReady") are not one.
CAMEL = re.compile(r"[a-z]+[0-9]*(?:[A-Z][a-z0-9]*)+")
HUMP = re.compile(r"(?<=[a-z0-9])([A-Z])")
# no answer of EXO nests beyond 12 levels; JSON that does would end in a RecursionError of ours
MOST_LEVELS = 100


def snake(value: Any, levels: int = MOST_LEVELS) -> Any:
    """`value` with every camelCase key of every mapping in snake_case; tags and ids stay as they are.

    What nests deeper than `levels` is left as it came.

    >>> snake({"ramTotal": {"inBytes": 1}, "RunnerReady": {}})
    {'ram_total': {'in_bytes': 1}, 'RunnerReady': {}}
    """
    if isinstance(value, dict) and levels:
        return {_snake_key(key): snake(inner, levels - 1) for key, inner in value.items()}
    if isinstance(value, list) and levels:
        return [snake(inner, levels - 1) for inner in value]
    return value


def either(mapping: dict[str, Any], key: str) -> Any:
    """The value under `key` in snake_case or as camelCase, None without one.

    Much cheaper than `snake` of a whole answer: a state of 64 nodes has a quarter of a million keys, and we
    look at a few hundred of them, several times a second.

    >>> either({"ramTotal": 1}, "ram_total")
    1
    """
    value = mapping.get(camel_case(key))
    return mapping.get(key) if value is None else value


@cache  # called for each of thousands of edges, with a handful of names
def camel_case(name: str) -> str:
    """A snake_case name as EXO writes it.

    >>> camel_case("shard_assignments")
    'shardAssignments'
    """
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _snake_key(key: str) -> str:
    return HUMP.sub(r"_\1", key).lower() if CAMEL.fullmatch(key) else key


def tagged(raw: Any) -> tuple[str, dict[str, Any]]:
    """Tag and body of a one-key object; raises ApiChanged for anything else."""
    if isinstance(raw, dict) and len(raw) == 1:
        tag, body = next(iter(raw.items()))
        return tag, body if isinstance(body, dict) else {}
    raise ApiChanged(
        f"a tagged object was expected, as {{'RunnerReady': {{}}}}, and came as {str(raw)[:120]}"
    )


def mapping_in(raw: Any, key: str) -> dict[str, Any]:
    """The mapping under `key` in either casing, empty where there is none."""
    value = either(raw, key) if isinstance(raw, dict) else None
    return value if isinstance(value, dict) else {}
