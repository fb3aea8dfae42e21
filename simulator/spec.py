"""The one base of all frozen nouns, and the bounded quantities that they share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from simulator.errors import UnitError
from simulator.units import (
    FLOPS,
    MOST_LOG_SD,
    RATE,
    TIME,
    Bytes,
    BytesPerSecond,
    FlopPerSecond,
    Quantity,
    Seconds,
    Share,
    read_plus_minus,
)

__all__ = [
    "Busy",
    "Duration",
    "LogSd",
    "PositiveBytes",
    "PositiveRate",
    "SharedSpec",
    "Spec",
    "ToldFlops",
    "ToldRate",
    "ToldSeconds",
    "ToldSpec",
]

LogSd = Annotated[float, Field(ge=0, le=MOST_LOG_SD)]
PositiveBytes = Annotated[Bytes, Field(gt=0, le=1e15)]
PositiveRate = Annotated[BytesPerSecond, Field(ge=1, le=1e15)]
Duration = Annotated[Seconds, Field(ge=0, le=1e5)]
Busy = Annotated[Share, Field(ge=0, lt=1)]

if TYPE_CHECKING:
    _Seconds: TypeAlias = Seconds
    _Rate: TypeAlias = BytesPerSecond
    _Flops: TypeAlias = FlopPerSecond
else:
    _Seconds, _Rate, _Flops = (Quantity(units, with_spread=True) for units in (TIME, RATE, FLOPS))
# figures that may carry ±
ToldSeconds = Annotated[_Seconds, Field(ge=0, le=1e5)]
# below one byte or one operation per second a time is no longer one that a float or a person can wait for
ToldRate = Annotated[_Rate, Field(ge=1, le=1e15)]
ToldFlops = Annotated[_Flops, Field(ge=1, le=1e18)]


class Spec(BaseModel):
    """A noun of a file: frozen, unknown keys forbidden, no runtime state; sequences are tuples."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ToldSpec(Spec):
    """A noun with figures that may carry ±: that goes into the field beside each, so that a complete scenario
    has figures and spreads apart.
    """

    PLUS_MINUS: ClassVar[Mapping[str, tuple[str, Mapping[str, float]]]] = {}
    """By figure: the field of its spread, and the figure's units."""

    @model_validator(mode="before")
    @classmethod
    def _spreads_apart(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        apart = dict(given)
        for figure, (spread, units) in cls.PLUS_MINUS.items():
            try:
                told = read_plus_minus(given.get(figure), units)
            except UnitError:
                continue  # the field itself tells what is wrong, at its own line
            if told is None:
                continue
            if apart.get(spread, told[1]) != told[1]:
                raise ValueError(f"{figure} carries ±, and {spread} is given beside it; keep one of them")
            apart |= {figure: told[0], spread: told[1]}
        return apart


class SharedSpec(Spec):
    """A part of a device's spread that it shares: one draw for all of them."""

    by: str = Field(min_length=1, max_length=200, description="who shares it: 'every Apple M4 10c'")
    spread: LogSd
