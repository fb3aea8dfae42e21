"""The one base of all frozen nouns, and the bounded quantities that they share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from simulator.units import Bytes, BytesPerSecond, FlopPerSecond, Seconds, Share

__all__ = ["Busy", "Duration", "LogSd", "PositiveBytes", "PositiveFlops", "PositiveRate", "Spec"]

LogSd = Annotated[float, Field(ge=0, le=2)]
PositiveBytes = Annotated[Bytes, Field(gt=0, le=1e15)]
PositiveRate = Annotated[BytesPerSecond, Field(gt=0, le=1e15)]
PositiveFlops = Annotated[FlopPerSecond, Field(gt=0, le=1e18)]
Duration = Annotated[Seconds, Field(ge=0, le=1e5)]
Busy = Annotated[Share, Field(ge=0, lt=1)]


class Spec(BaseModel):
    """A noun of a file: frozen, unknown keys forbidden, no runtime state; sequences are tuples."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
