"""Seconds, bytes and bytes per second inside; units only here, at the edge.

A scenario file says `12 ms`, `24 GB`, `1 Gbit/s`; everything behind the loader is a float in the base unit.
Decimal prefixes are powers of 1000 and binary ones (`GiB`) powers of 1024, as in IEC 80000-13.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, PlainSerializer

from simulator.errors import UnitError

__all__ = [
    "Bytes",
    "BytesPerSecond",
    "FlopPerSecond",
    "Money",
    "PerHour",
    "Quantity",
    "Seconds",
    "Share",
    "Watts",
    "format_bytes",
    "format_rate",
    "format_seconds",
    "read_plus_minus",
    "read_quantity",
    "write_quantity",
]

GB = 1e9
GIB = 2.0**30

TIME = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}
SIZE = {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": GB, "TB": 1e12}
SIZE |= {"KiB": 2.0**10, "MiB": 2.0**20, "GiB": GIB, "TiB": 2.0**40}
RATE = {f"{unit}/s": factor for unit, factor in SIZE.items()}
RATE |= {f"{prefix}bit/s": factor / 8 for prefix, factor in {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}.items()}
RATE |= {f"{prefix}bps": factor / 8 for prefix, factor in {"k": 1e3, "M": 1e6, "G": 1e9}.items()}
FLOPS = {"FLOPS": 1.0, "GFLOPS": 1e9, "TFLOPS": 1e12, "flop/s": 1.0, "Gflop/s": 1e9, "Tflop/s": 1e12}
POWER = {"W": 1.0, "mW": 1e-3, "kW": 1e3}
SHARE = {"%": 0.01, "": 1.0}
PER_HOUR = {"/h": 1.0, "per hour": 1.0, "/min": 60.0, "/day": 1 / 24}
MONEY = {"EUR": 1.0, "USD": 1.0}
TOKENS_PER_S = {"tokens/s": 1.0, "token/s": 1.0, "tok/s": 1.0, "t/s": 1.0, "": 1.0}
"""A bare number too: on the command line there is nothing else that it could be."""

PLUS_MINUS = re.compile(r"±|\+-|\+/-")
"""How a file says how sure a figure is: `3 ms ± 0.5 ms`, or `+-` where a keyboard has no such sign."""
MOST_LOG_SD = 2.0
"""A figure that may be off by more (a factor of 7) says nothing."""

USUAL = ("ms", "GB", "GB/s", "Mbit/s", "TFLOPS", "W")
"""What people mean by a bare number: '16 B' of memory would be refused once more."""

_NUMBER = re.compile(r"\s*([+-]?(?:\d+(?:[_ ]\d{3})*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S.*?)?\s*\Z")


def read_quantity(text: Any, units: Mapping[str, float], *, plain_is_base: bool = False) -> float:
    """The value of `text` in the base unit of `units`, for example '12 ms' -> 0.012.

    A bare number is taken only where `plain_is_base` holds (or it is 0): the reader of a file must see the
    unit. Raises UnitError for anything that is no number, not finite, or has an unknown unit.
    """
    allowed = ", ".join(unit for unit in units if unit and unit.isascii())
    if isinstance(text, bool) or not isinstance(text, (str, int, float)):
        raise UnitError(f"{text!r:.60} is not a quantity; write a number with one of {allowed}")
    if isinstance(text, (int, float)):
        # a whole number of 400 digits is none that a float can hold
        if not abs(text) <= sys.float_info.max:
            raise UnitError(f"{text!r:.60} is not finite")
        if text == 0 or plain_is_base or "" in units:
            return float(text)
        usual = [unit for unit in USUAL if unit in units] or list(units)[:1]
        examples = " or ".join(f"'{text} {unit}'" for unit in usual)
        raise UnitError(f"{text} has no unit; write for example {examples} (one of {allowed})")
    # longer is no quantity, only work for the pattern
    match = _NUMBER.match(text) if len(text) <= 60 else None
    if match is None or (match[2] or "") not in units:
        if PLUS_MINUS.search(text):
            raise UnitError(f"{text[:60]!r}: ± is not understood here; give one number with one of {allowed}")
        raise UnitError(f"{text[:60]!r} is not a quantity; write a number with one of {allowed}")
    value = float(match[1].replace("_", "").replace(" ", "")) * units[match[2] or ""]
    if not math.isfinite(value):
        raise UnitError(f"{text[:60]!r} is not finite")
    return value


def read_plus_minus(text: Any, units: Mapping[str, float]) -> tuple[Any, float] | None:
    """(the figure alone, the standard deviation of its natural logarithm), None where `text` carries no ±.

    What follows ± is one standard deviation, as llama-bench and ping print it: an amount or a share of the
    figure. Raises UnitError where it is neither, or says nothing.

    >>> figure, log_sd = read_plus_minus("3 ms ± 20 %", TIME)
    >>> figure, round(log_sd, 3)
    ('3 ms', 0.182)
    """
    figure, *rest = PLUS_MINUS.split(text, maxsplit=1) if isinstance(text, str) else (text,)
    if not rest:
        return None
    value, spread = read_quantity(figure, units), rest[0].strip()
    if spread.endswith("%"):
        share = read_quantity(spread, {"%": 0.01})
    else:
        share = read_quantity(spread, units) / value if value > 0 else math.inf
    if not 0 < math.log1p(max(share, 0.0)) <= MOST_LOG_SD:
        raise UnitError(
            f"{text[:60]!r}: what follows ± must be more than 0 and less than {math.expm1(MOST_LOG_SD):.1f} "
            "times the figure; leave ± out where you do not know"
        )
    return figure.strip(), math.log1p(share)


def Quantity(  # noqa: N802 (makes a type)
    units: Mapping[str, float], *, plain_is_base: bool = False, with_spread: bool = False
) -> Any:
    """A pydantic annotation that reads human units, writes the base unit, and
    documents both in the JSON schema.

    In JSON a value leaves as `write_quantity` puts it, so that it can be read back;
    in Python it stays a float. One `with_spread` may carry `±`, which `ToldSpec` takes off.
    """

    def read(value: Any) -> float:
        told = read_plus_minus(value, units) if with_spread else None
        return read_quantity(told[0] if told else value, units, plain_is_base=plain_is_base)

    def write(value: float) -> str | float:
        return write_quantity(value, units, plain_is_base=plain_is_base)

    document = _json_schema(units, write, plain_is_base or "" in units, with_spread)
    return Annotated[
        float,
        BeforeValidator(read),
        PlainSerializer(write, when_used="json"),
        Field(json_schema_extra=document),
    ]


def write_quantity(value: float, units: Mapping[str, float], *, plain_is_base: bool = False) -> str | float:
    """`value` as `read_quantity` takes it, exactly: the base unit written out, or a
    number where that is allowed.

    >>> write_quantity(0.012, TIME)
    '0.012 s'
    """
    number = float(value)
    if plain_is_base or "" in units or not math.isfinite(number):
        return number
    base = next(unit for unit, factor in units.items() if factor == 1.0)
    # Below 1e15 a float that is whole prints exactly as an integer, and '24000000000 B'
    # reads better than '2.4e10 B'.
    whole = number.is_integer() and abs(number) < 1e15
    return f"{int(number) if whole else repr(number)} {base}"


def _json_schema(
    units: Mapping[str, float], write: Callable[[float], str | float], plain: bool, with_spread: bool
) -> Any:
    """Replace pydantic's plain `number` by what the file may really say."""
    names = [unit for unit in units if unit and unit.isascii()]
    choices = "|".join(
        re.escape(unit) for unit in sorted((unit for unit in units if unit), key=len, reverse=True)
    )
    amount = r"[+-]?(\d[\d_ ]*\.?\d*|\.\d+)([eE][+-]?\d+)?\s*"
    spread = rf"(({PLUS_MINUS.pattern})\s*{amount}({choices}|%)\s*)?" if with_spread else ""
    text = rf"^\s*{amount}({choices}){'?' if plain else ''}\s*{spread}$"
    number: dict[str, Any] = {"type": "number"} if plain else {"const": 0}

    def extend(target: dict[str, Any]) -> None:
        target.pop("type", None)
        target["anyOf"] = [{"type": "string", "pattern": text}, number]
        target["examples"] = [f"1 {names[0]}"]
        target.setdefault("description", f"a number with a unit: {', '.join(names)}")
        if isinstance(target.get("default"), (int, float)):
            target["default"] = write(target["default"])

    return extend


if TYPE_CHECKING:  # to the type checker a quantity is what it is behind the loader: a float
    Seconds: TypeAlias = float
    Bytes: TypeAlias = float
    BytesPerSecond: TypeAlias = float
    FlopPerSecond: TypeAlias = float
    Watts: TypeAlias = float
    Share: TypeAlias = float
    PerHour: TypeAlias = float
    Money: TypeAlias = float
else:
    Seconds = Quantity(TIME)
    Bytes = Quantity(SIZE)
    BytesPerSecond = Quantity(RATE)
    FlopPerSecond = Quantity(FLOPS)
    Watts = Quantity(POWER)
    Share = Quantity(SHARE)
    PerHour = Quantity(PER_HOUR)
    Money = Quantity(MONEY, plain_is_base=True)


def _scaled(value: float, scale: Mapping[str, float], digits: int) -> str:
    """`value` in the largest unit of `scale` that leaves at least one digit before the point."""
    value = float(f"{value:.{digits}g}")  # rounded first, so that 0.9998 ms is 1 ms and not 1e+03 us
    unit, factor = next(((u, f) for u, f in scale.items() if abs(value) >= f), list(scale.items())[-1])
    return f"{value / factor:.{digits}g} {unit}"


def format_seconds(value_s: float, digits: int = 3) -> str:
    """Seconds for people: '12.3 ms'.

    >>> format_seconds(0.0123)
    '12.3 ms'
    """
    if abs(value_s) >= 1000:
        return f"{value_s:.0f} s"
    return _scaled(value_s, {"s": 1.0, "ms": 1e-3, "us": 1e-6}, digits)


def format_bytes(value_bytes: float, digits: int = 3) -> str:
    """Bytes for people, in powers of 1000.

    >>> format_bytes(42.5e9)
    '42.5 GB'
    """
    return _scaled(value_bytes, {"TB": 1e12, "GB": GB, "MB": 1e6, "kB": 1e3, "B": 1.0}, digits)


def format_rate(value_bytes_per_s: float, digits: int = 3) -> str:
    """Bytes per second as bits per second, the unit that links are sold in.

    >>> format_rate(125e6)
    '1 Gbit/s'
    """
    return _scaled(8 * value_bytes_per_s, {"Gbit/s": 1e9, "Mbit/s": 1e6, "kbit/s": 1e3, "bit/s": 1.0}, digits)
