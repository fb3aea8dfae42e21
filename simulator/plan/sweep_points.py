"""The points of a sweep: dotted paths into a scenario, values to give them, a grid or a Latin hypercube of both."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from simulator.complete import complete
from simulator.errors import Fault, ScenarioError, SimulatorError, did_you_mean
from simulator.files import loads
from simulator.files.fields import field_names, members
from simulator.files.tree import FLOAT
from simulator.scenario import Scenario
from simulator.units import FLOPS, PER_HOUR, RATE, SHARE, SIZE, TIME

__all__ = ["Axis", "Point", "check_axis", "grid", "hypercube", "number", "parse_axis", "scenario_at", "variants"]

DEFAULT_STEPS = 8
MOST_STEPS, MOST_POINTS = 10_000, 1_000_000
UNITS = (TIME, SIZE, RATE, FLOPS, PER_HOUR, SHARE)
FILLS_OTHERS = ("kind", "memory", "name", "quantisation", "rtt", "vpn")
"""Keys from which the catalogue fills other keys, so that they do nothing where those are written out already."""
WHOLE = ("speed", "noise")
"""Parts of a device that have no meaning with some of their keys only."""
QUANTITY = re.compile(r"\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*(\S.*?)?\s*\Z")

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Axis:
    """One swept key: either listed `values`, or a range from `low` to `high` (times `factor` of its unit)."""

    path: str
    values: tuple[Value, ...]
    """All values of a grid; for a range those of its steps."""
    low: float | None = None
    high: float | None = None
    unit: str = ""
    is_log: bool = False
    is_whole: bool = False

    def at(self, share: float) -> Value:
        """The value at a share in [0, 1) of the axis: within the range, or one of the listed ones."""
        if self.low is None or self.high is None:
            return self.values[int(share * len(self.values))]
        if self.is_whole:
            return int(self.low + share * (self.high - self.low + 1))
        return _written(_between(self.low, self.high, share, self.is_log), self.unit)


@dataclass(frozen=True, slots=True)
class Point:
    """One scenario of a sweep: the value of each path."""

    values: tuple[tuple[str, Value], ...]


def parse_axis(text: str) -> Axis:
    """An axis from `path=1,2,4`, `path=1ms..60ms`, `..60ms:12` (steps), `..60ms:log` or `..60ms:log:12`.

    A range without steps has 8 (every whole number where there are fewer than 9). Raises ScenarioError.
    """
    path, found, rest = text.partition("=")
    path, rest = path.strip(), rest.strip()
    if not found or not path or not rest:
        raise _fault(text, "must be path=values, for example devices.phone.link.rtt=1ms..60ms or workload.concurrency=1,2,4")
    if ".." in rest:
        return _range(path, rest)
    values = tuple(_value(part) for part in _split(rest))
    if len(set(map(repr, values))) < len(values):
        raise _fault(path, f"{rest!r} names a value twice; leave one out")
    return Axis(path, values)


def _split(text: str) -> list[str]:
    """At the commas, but not at those within brackets (a law, a list)."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _value(text: str) -> Value:
    if re.fullmatch(r"[-+]?[0-9]+", text):
        return int(text)
    if text in ("true", "false"):
        return text == "true"
    return float(text) if FLOAT.match(text) else text


def _range(path: str, text: str) -> Axis:
    span, *options = text.split(":")
    left, _, right = span.partition("..")
    (low, unit_low), (high, unit_high) = (_quantity(path, part) for part in (left, right))
    unit = unit_high or unit_low
    low, high = low * _factor(path, unit_low or unit, unit), high * _factor(path, unit_high or unit, unit)
    is_log, steps = "log" in options, [int(option) for option in options if option.isdecimal()]
    unknown = [option for option in options if option != "log" and not option.isdecimal()]
    if unknown or len(steps) > 1 or not low < high or (is_log and low <= 0) or not 2 <= (steps or [2])[0] <= MOST_STEPS:
        raise _fault(path, f"{text!r} is no range; write low..high with low < high (above 0 for log), then :log and a "
                           f"number of steps from 2 to {MOST_STEPS} if wanted, for example 1ms..60ms:log:12")
    is_whole = not unit and low.is_integer() and high.is_integer() and "." not in left + right.replace("..", "")
    every = int(high - low) + 1 if is_whole else DEFAULT_STEPS
    count = steps[0] if steps else min(DEFAULT_STEPS, every)
    between = [_between(low, high, step / (count - 1), is_log) for step in range(count)]
    values = dict.fromkeys(round(value) if is_whole else _written(value, unit) for value in between)
    return Axis(path, tuple(values), low, high, unit, is_log, is_whole)


def _quantity(path: str, text: str) -> tuple[float, str]:
    match = QUANTITY.match(text)
    if match is None or not FLOAT.match(match[1]):
        raise _fault(path, f"{text!r} is no end of a range; write a number with its unit, for example 1ms..60ms")
    return float(match[1]), match[2] or ""


def _factor(path: str, unit: str, target: str) -> float:
    """What a value in `unit` is multiplied by to be in `target`."""
    if unit == target:
        return 1.0
    table = next((units for units in UNITS if unit in units and target in units), None)
    if table is None:
        raise _fault(path, f"{unit!r} and {target!r} do not measure the same; give both ends in one unit")
    return table[unit] / table[target]


def _between(low: float, high: float, share: float, is_log: bool) -> float:
    return low * (high / low) ** share if is_log else low + (high - low) * share


def _written(value: float, unit: str) -> Value:
    """Six significant digits: steps of a range are not meant to be exact, and a person can read them."""
    short = float(f"{value:.6g}")
    return f"{short!r} {unit}" if unit else short


def number(value: Value) -> float | None:
    """A value of an axis as a number in base units, None for words.

    >>> number("5 ms"), number(3), number("wifi6")
    (0.005, 3.0, None)
    """
    if isinstance(value, bool) or not isinstance(value, str):
        return float(value)
    match = QUANTITY.match(value)
    if match is None or not FLOAT.match(match[1]):
        return None
    unit = match[2] or ""
    factor = next((units[unit] for units in UNITS if unit in units), None)
    return None if factor is None else float(match[1]) * factor


def grid(axes: Sequence[Axis]) -> list[Point]:
    """Every combination, the last axis running fastest; raises ScenarioError for more than a million."""
    count = math.prod(len(axis.values) for axis in axes)
    if count > MOST_POINTS:
        raise _fault("over", f"{count:,} points are more than {MOST_POINTS:,}; take fewer values, or --lhs")
    paths = [axis.path for axis in axes]
    return [Point(tuple(zip(paths, values, strict=True))) for values in product(*(axis.values for axis in axes))]


def hypercube(axes: Sequence[Axis], count: int, seed: int) -> list[Point]:
    """A Latin hypercube: each axis is cut into `count` cells and each cell is used once (McKay et al. 1979)."""
    from scipy.stats import qmc

    shares = qmc.LatinHypercube(len(axes), seed=seed).random(count)
    return [Point(tuple((axis.path, axis.at(float(share))) for axis, share in zip(axes, row, strict=True)))
            for row in shares]


def scenario_at(scenario: Scenario, point: Point) -> Scenario:
    """The scenario with a point's values; raises ScenarioError with every fault, one per path."""
    return next(variants(scenario, [point]))


def variants(scenario: Scenario, points: Sequence[Point]) -> Iterator[Scenario]:
    """The scenario with each point's values; raises as `scenario_at` does."""
    text = json.dumps(scenario.model_dump(mode="json", round_trip=True, exclude_unset=True))
    parts = {path: _filled(scenario, path) for point in points[:1] for path, _ in point.values if _is_within_whole(path)}
    for point in points:
        plain = json.loads(text)
        for path, value in point.values:
            _put(plain, path, _read(value), parts.get(path))
        try:
            yield Scenario.model_validate(plain)
        except (ScenarioError, ValueError):
            yield loads(_yaml(plain), Scenario, f"{scenario.name} at {dict(point.values)}")


def _put(plain: Any, path: str, value: Any, whole: Any) -> None:
    """Write a value under a dotted path; where a part that needs all of its keys is missing, `whole` comes first."""
    *keys, last = _keys(plain, path)
    for key in keys:
        if isinstance(plain, dict) and plain.get(key) is None:
            plain[key] = copy.deepcopy(whole) if key in WHOLE and whole is not None else {}
        plain = plain[key]
    plain[last] = value


def _is_within_whole(path: str) -> bool:
    return any(f".{part}." in path for part in WHOLE)


def _filled(scenario: Scenario, path: str) -> Any:
    """What the catalogue says where the scenario says nothing, up to the last key of a path; None for an unknown one."""
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
        first, last = (scenario_at(scenario, Point(((axis.path, value),))) for value in (axis.values[0], axis.values[-1]))
    except ScenarioError as error:
        return [Fault(fault.path or axis.path, fault.reason) for fault in error.faults]
    if axis.path.rsplit(".", 1)[-1] in FILLS_OTHERS and len(axis.values) > 1 and _is_idle(first, last, axis.path):
        faults.append(Fault(axis.path, "changes nothing, because the figures that would follow from it are written out in "
                                       "the scenario; remove those (for rtt: delay), or sweep them"))
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
        place.pop(key, None)
    return bool(ends[0] == ends[1])


def _keys(plain: Any, path: str) -> Iterator[str | int]:
    """The keys of a dotted path, where keys of the scenario may hold dots themselves."""
    while path:
        known = [key for key in plain if f"{path}.".startswith(f"{key}.")] if isinstance(plain, dict) else []
        key: str | int = max(known, key=len) if known else path.partition(".")[0]
        path = path[len(str(key)) + 1:]
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
            known = f"; known here are {', '.join((names or [])[:30])}{near}" if names else ", which holds no keys"
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
    """The keys that may stand here: those of a spec, those present of a mapping or list; None for anything."""
    specs = field_names(_bare(kinds))
    if specs:
        return specs
    return [str(key) for key in (plain if isinstance(plain, dict) else range(len(plain)) if isinstance(plain, list) else ())]


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


def _fault(path: str, reason: str) -> ScenarioError:
    return ScenarioError("--over", [Fault(path, reason)])
