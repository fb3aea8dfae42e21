"""Which field of which spec a pydantic error location means.

pydantic puts more into a location than the file's keys: the tag of a discriminated union, or the name of each
branch that it tried of a plain one. Walking the annotations beside the location tells keys from such names,
and yields the specs whose field names are the right suggestions.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

__all__ = ["Branch", "Place", "field_names", "literals", "locate", "members"]

Path = tuple[str | int, ...]

# 'function-before[read(), float]' is how pydantic names a branch behind a validator: the inner name counts.
_BEHIND_VALIDATOR = re.compile(r"function-\w+\[[^()]*\(\), (.*)\]\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Branch:
    """One branch of an undiscriminated union that was tried at `path`."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class Place:
    """A location in the file: its path, the types allowed there and in its parent, the
    union branches on the way.
    """

    path: Path
    allowed: tuple[Any, ...]
    parents: tuple[Any, ...]
    branches: tuple[Branch, ...]


def locate(cls: type[BaseModel], loc: Path) -> Place:
    """Walk `loc` from `cls` down, keeping the keys of the file and setting the
    names of union branches aside.
    """
    path: list[str | int] = []
    branches: list[Branch] = []
    current: list[Any] = [cls]
    parents: list[Any] = [cls]
    branch_known = False
    for position, element in enumerate(loc):
        if element == "[key]":  # what follows is about the key of a dict, whose path we have
            continue
        current = [member for annotation in current for member in members(annotation)]
        below = [child for annotation in current for child in _children(annotation, element)]
        if len(current) > 1 and not branch_known:
            chosen = [annotation for annotation in current if _is_named(annotation, str(element))]
            if not any(_is_tagged(annotation, element) for annotation in chosen):
                branches.append(Branch(tuple(path), _inner(str(element))))
            branch_known = len(chosen) != 1
            current = chosen or current
        elif below or position == len(loc) - 1:
            path.append(element)
            parents, current, branch_known = current, below, False
    return Place(tuple(path), tuple(_flat(current)), tuple(_flat(parents)), tuple(branches))


def members(annotation: Any) -> list[Any]:
    """The alternatives of a type: the branches of a union without None, else the type itself."""
    bare = _bare(annotation)
    if get_origin(bare) in (Union, types.UnionType):
        branches = [member for member in get_args(bare) if member is not types.NoneType]
        return members(branches[0]) if len(branches) == 1 else branches
    return [annotation]


def _flat(annotations: Sequence[Any]) -> list[Any]:
    """All alternatives, those of unions inside unions too."""
    flat: list[Any] = []
    for annotation in annotations:
        inside = members(annotation)
        flat += inside if inside == [annotation] else _flat(inside)
    return flat


def field_names(candidates: Sequence[Any]) -> list[str]:
    """The keys that the file may use in any of these specs, in the order of their declaration."""
    fields = (pair for candidate in candidates for pair in _fields(candidate))
    return list(dict.fromkeys(name for name, _ in fields))


def literals(candidates: Sequence[Any], key: str) -> list[str]:
    """The values that field `key` may take in these specs where it is a Literal, for
    example the tags of a union.
    """
    fields = (info for candidate in candidates for name, info in _fields(candidate) if name == key)
    return list(dict.fromkeys(str(value) for info in fields for value in _literal_values(info.annotation)))


def _bare(annotation: Any) -> Any:
    """`annotation` without Annotated and without the name of a type alias."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif hasattr(annotation, "__value__"):
            annotation = annotation.__value__
        else:
            return annotation


def _fields(candidate: Any) -> Iterator[tuple[str, FieldInfo]]:
    bare = _bare(candidate)
    if not (isinstance(bare, type) and issubclass(bare, BaseModel)):
        return
    for name, info in bare.model_fields.items():
        yield info.validation_alias if isinstance(info.validation_alias, str) else name, info


def _children(annotation: Any, element: str | int) -> list[Any]:
    """The types that the value under `element` may have, empty when there is no such place."""
    bare = _bare(annotation)
    inside = [info.annotation for name, info in _fields(bare) if name == element]
    origin, arguments = get_origin(bare), get_args(bare)
    if inside or not isinstance(origin, type):
        return inside
    if issubclass(origin, Mapping):
        return [arguments[1]]
    if isinstance(element, int) and issubclass(origin, (Sequence, Set)):
        fixed = issubclass(origin, tuple) and Ellipsis not in arguments
        return [arguments[min(element, len(arguments) - 1)]] if fixed else [arguments[0]]
    return []


def _literal_values(annotation: Any) -> list[Any]:
    bare = _bare(annotation)
    values = get_args(bare) if get_origin(bare) is Literal else ()
    return [value.value if isinstance(value, Enum) else value for value in values]


def _is_tagged(annotation: Any, tag: str | int) -> bool:
    """True if `tag` is a discriminator's value of this spec."""
    return any(tag in _literal_values(info.annotation) for _, info in _fields(annotation))


def _inner(label: str) -> str:
    while match := _BEHIND_VALIDATOR.match(label):
        label = match[1]
    return label


def _is_named(annotation: Any, label: str) -> bool:
    """True if pydantic calls this branch of a union `label`."""
    bare, name = _bare(annotation), _inner(label)
    if len(members(annotation)) > 1:
        return name.startswith(("tagged-union[", "union["))
    kind = get_origin(bare) or bare
    if kind is Literal:
        return name.startswith("literal[")
    called = getattr(kind, "__name__", "")
    return name == called or name.startswith(f"{called}[") or _is_tagged(bare, label)
