"""The points of a sweep: what `--over` says, and a grid or a Latin hypercube of it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from simulator.errors import Fault, ScenarioError
from simulator.files.tree import FLOAT
from simulator.units import FLOPS, PER_HOUR, RATE, SHARE, SIZE, TIME

__all__ = ["Axis", "Point", "Value", "grid", "hypercube", "number", "parse_axis"]

DEFAULT_STEPS = 8
MOST_STEPS, MOST_POINTS = 10_000, 1_000_000
UNITS = (TIME, SIZE, RATE, FLOPS, PER_HOUR, SHARE)
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
        raise _fault(
            text,
            "must be path=values, for example devices.phone.link.rtt=1ms..60ms or workload.concurrency=1,2,4",
        )
    if ".." in rest:
        return _range(path, rest)
    values = tuple(_value(part) for part in _split(rest))
    # by what they look like: 1 and true are equal to Python, and not the same value
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
    if (
        unknown
        or len(steps) > 1
        or not low < high
        or (is_log and low <= 0)
        or not 2 <= (steps or [2])[0] <= MOST_STEPS
    ):
        raise _fault(
            path,
            f"{text!r} is no range; write low..high with low < high (above 0 for log), then :log and a "
            f"number of steps from 2 to {MOST_STEPS} if wanted, for example 1ms..60ms:log:12",
        )
    # 1.0..8.0 asks for what lies between, 1..8 for whole numbers
    is_whole = (
        not unit and low.is_integer() and high.is_integer() and "." not in left + right.replace("..", "")
    )
    every = int(high - low) + 1 if is_whole else DEFAULT_STEPS
    count = steps[0] if steps else min(DEFAULT_STEPS, every)
    between = [_between(low, high, step / (count - 1), is_log) for step in range(count)]
    # steps between near whole numbers may fall on one
    values = dict.fromkeys(round(value) if is_whole else _written(value, unit) for value in between)
    return Axis(path, tuple(values), low, high, unit, is_log, is_whole)


def _quantity(path: str, text: str) -> tuple[float, str]:
    match = QUANTITY.match(text)
    if match is None or not FLOAT.match(match[1]):
        raise _fault(
            path, f"{text!r} is no end of a range; write a number with its unit, for example 1ms..60ms"
        )
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
    return [
        Point(tuple(zip(paths, values, strict=True))) for values in product(*(axis.values for axis in axes))
    ]


def hypercube(axes: Sequence[Axis], count: int, seed: int) -> list[Point]:
    """A Latin hypercube: each axis is cut into `count` cells and each cell is used
    once (McKay et al. 1979).
    """
    from scipy.stats import qmc

    shares = qmc.LatinHypercube(len(axes), seed=seed).random(count)
    return [
        Point(tuple((axis.path, axis.at(float(share))) for axis, share in zip(axes, row, strict=True)))
        for row in shares
    ]


def _fault(path: str, reason: str) -> ScenarioError:
    return ScenarioError("--over", [Fault(path, reason)])
