"""Dotted paths into a scenario: put values there, and say at once what is wrong with
a path that leads nowhere.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from simulator.complete import complete
from simulator.errors import Fault, ScenarioError, SimulatorError, did_you_mean
from simulator.files import loads
from simulator.files.fields import field_names, members
from simulator.plan.sweep.points import Axis, Point, Value
from simulator.scenario import Scenario

__all__ = ["check_axis", "scenario_at", "variants"]

FILLS_OTHERS = ("kind", "memory", "name", "quantisation", "rtt", "vpn")
"""Keys from which the catalogue fills other keys, so that they do nothing where
those are written out already.
"""
WHOLE = ("speed", "noise")
"""Parts of a device that have no meaning with some of their keys only."""


def scenario_at(scenario: Scenario, point: Point) -> Scenario:
    """The scenario with a point's values; raises ScenarioError with every fault, one per path."""
    return next(variants(scenario, [point]))


def variants(scenario: Scenario, points: Sequence[Point]) -> Iterator[Scenario]:
    """The scenario with each point's values; raises as `scenario_at` does."""
    text = json.dumps(scenario.model_dump(mode="json", round_trip=True, exclude_unset=True))
    parts = {
        path: _filled(scenario, path)
        # all points of a sweep have the same paths
        for point in points[:1]
        for path, _ in point.values
        if _is_within_whole(path)
    }
    for point in points:
        # a copy of its own for each point
        plain = json.loads(text)
        for path, value in point.values:
            _put(plain, path, _read(value), parts.get(path))
        try:
            yield Scenario.model_validate(plain)
        except (ScenarioError, ValueError):
            # read as a file it is told by path what is wrong, with the way out
            yield loads(_yaml(plain), Scenario, f"{scenario.name} at {dict(point.values)}")


def _put(plain: Any, path: str, value: Any, whole: Any) -> None:
    """Write a value under a dotted path; where a part that needs all of its keys is
    missing, `whole` comes first.
    """
    *keys, last = _keys(plain, path)
    for key in keys:
        if isinstance(plain, dict) and plain.get(key) is None:
            plain[key] = copy.deepcopy(whole) if key in WHOLE and whole is not None else {}
        plain = plain[key]
    plain[last] = value


def _is_within_whole(path: str) -> bool:
    return any(f".{part}." in path for part in WHOLE)


def _filled(scenario: Scenario, path: str) -> Any:
    """What the catalogue says where the scenario says nothing, up to the last key of a
    path; None for an unknown one.
    """
    try:
        place: Any = complete(scenario).model_dump(mode="json", round_trip=True)
    except SimulatorError:
        return None
    for key in list(_keys(place, path))[:-1]:
        place = place[key]
    return place


def _read(value: Value) -> Any:
    """A value in brackets is YAML: a law, a list."""
    import yaml

    return yaml.safe_load(value) if isinstance(value, str) and value[:1] in ("{", "[") else value


def _yaml(plain: Mapping[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(dict(plain), sort_keys=False))


def check_axis(scenario: Scenario, axis: Axis) -> list[Fault]:
    """What is wrong with an axis: a path that leads nowhere, or values that change nothing."""
    reason = _misled(scenario, axis.path)
    if reason is not None:
        return [Fault(axis.path, reason)]
    faults = []
    try:
        first, last = (
            scenario_at(scenario, Point(((axis.path, value),))) for value in (axis.values[0], axis.values[-1])
        )
    except ScenarioError as error:
        return [Fault(fault.path or axis.path, fault.reason) for fault in error.faults]
    if (
        axis.path.rsplit(".", 1)[-1] in FILLS_OTHERS
        and len(axis.values) > 1
        and _is_idle(first, last, axis.path)
    ):
        faults.append(
            Fault(
                axis.path,
                "changes nothing, because the figures that would follow from it are written out in "
                "the scenario; remove those (for rtt: delay), or sweep them",
            )
        )
    return faults


def _is_idle(first: Scenario, last: Scenario, path: str) -> bool:
    """Whether the catalogue makes the same of both ends, the key itself left aside."""
    try:
        ends = [complete(one).model_dump(mode="json", round_trip=True) for one in (first, last)]
    except SimulatorError:
        return False  # a name that the catalogue lacks is reported with its point
    for plain in ends:
        *keys, key = _keys(plain, path)
        place: Any = plain
        for step in keys:
            place = place[step]
        # the key itself differs in any case
        place.pop(key, None)
    return bool(ends[0] == ends[1])


def _keys(plain: Any, path: str) -> Iterator[Any]:
    """The keys of a dotted path, where keys of the scenario may hold dots themselves."""
    while path:
        known = [key for key in plain if f"{path}.".startswith(f"{key}.")] if isinstance(plain, dict) else []
        # the longest that fits: names of devices may hold dots
        key: str | int = max(known, key=len) if known else path.partition(".")[0]
        path = path[len(str(key)) + 1 :]
        if isinstance(plain, list) and str(key).isdecimal():
            key = int(key)
        yield key
        try:
            plain = plain[key]
        except (KeyError, IndexError, TypeError):
            plain = None


def _misled(scenario: Scenario, path: str) -> str | None:
    """Why a path leads nowhere, None where it leads to a value."""
    plain: Any = scenario.model_dump(mode="json", round_trip=True)
    kinds: list[Any] = [Scenario]
    for key in _keys(plain, path):
        inside, names = _inside(kinds, key), _names(kinds, plain)
        if not inside or (names is not None and str(key) not in names):
            near = did_you_mean(str(key), names or [])
            known = (
                f"; known here are {', '.join((names or [])[:30])}{near}"
                if names
                else ", which holds no keys"
            )
            return f"there is no {str(key)!r}{known}"
        plain = plain.get(key) if isinstance(plain, dict) else plain[key] if isinstance(plain, list) else None
        kinds = inside
    return None


def _inside(kinds: Sequence[Any], key: str | int) -> list[Any]:
    """The types that the value under a key may have."""
    found: list[Any] = []
    for kind in _bare(kinds):
        origin, arguments = get_origin(kind), get_args(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(key))
            found += [field.annotation] if field else []
        elif isinstance(origin, type) and issubclass(origin, Mapping):
            found.append(arguments[1])
        elif origin is tuple and isinstance(key, int):
            found.append(arguments[0])
    return found


def _names(kinds: Sequence[Any], plain: Any) -> list[str] | None:
    """The keys that may stand here: those of a spec, those present of a mapping
    or list; None for anything.
    """
    specs = field_names(_bare(kinds))
    if specs:
        return specs
    return [
        str(key)
        for key in (
            plain if isinstance(plain, dict) else range(len(plain)) if isinstance(plain, list) else ()
        )
    ]


def _bare(kinds: Sequence[Any]) -> list[Any]:
    """All alternatives, without Annotated and None."""
    found: list[Any] = []
    for kind in kinds:
        branches = members(kind)
        if branches == [kind]:
            bare = get_args(kind)[0] if hasattr(kind, "__metadata__") else kind
            found += [bare] if bare is kind else _bare([bare])
        else:
            found += _bare(branches)
    return [kind for kind in found if get_origin(kind) is not Literal]
