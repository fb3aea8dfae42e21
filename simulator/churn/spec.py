"""What a scenario may say about change: events, heat, and how the client behaves when a reply breaks off."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from simulator.laws.law import Law
from simulator.spec import PositiveRate, Spec
from simulator.units import PerHour, Seconds, Share

__all__ = [
    "BackgroundLoad",
    "DegradeLink",
    "Drop",
    "EventSpec",
    "HeatSpec",
    "Join",
    "RecoverySpec",
    "Rejoin",
    "Throttle",
    "When",
]

DeviceName = Annotated[str, StringConstraints(min_length=1, max_length=60)]
Moment = Annotated[Seconds, Field(ge=0, le=1e7)]
Wait = Annotated[Seconds, Field(gt=0, le=1e6)]
Rate = Annotated[PerHour, Field(gt=0, le=3600)]


def _constant(value: Any) -> Any:
    """Let a plain time stand for a law that always gives it."""
    return {"law": "constant", "value": value} if isinstance(value, str) else value


Lasting = Annotated[Law, BeforeValidator(_constant)]


class When(Spec):
    """The moment of an event: a time, a token of the first reply, or at random."""

    device: DeviceName
    at: Moment | None = Field(default=None, description="after the first request")
    at_token: int | None = Field(
        default=None, ge=1, le=1_000_000, description="when the first reply has so many tokens"
    )
    rate: Rate | None = Field(default=None, description="at random, so often on average: a Poisson process")
    later: Moment = Field(default=0.0, description="so long after that token; with at_token only")

    @model_validator(mode="after")
    def _one_moment(self) -> Self:
        given = [name for name in ("at", "at_token", "rate") if getattr(self, name) is not None]
        if len(given) != 1:
            said = " and ".join(given) or "none of them"
            raise ValueError(f"an event needs exactly one of at, at_token and rate, and this one has {said}")
        if self.later and self.at_token is None:
            raise ValueError("later: counts from a token, so it needs at_token; add the time to `at` instead")
        return self


class Drop(When):
    """The device leaves; nothing happens if it is not there."""

    event: Literal["drop"] = "drop"
    silent: bool = Field(default=False, description="true: power or link lost, nobody closes a connection")
    back_after: Lasting | None = Field(
        default=None, description="it starts again after this time; default: never"
    )


class Rejoin(When):
    """A device that had left starts again, with nothing in memory; nothing happens if it is there."""

    event: Literal["rejoin"] = "rejoin"


class Join(When):
    """A device comes that was not there from the start."""

    event: Literal["join"] = "join"


class Throttle(When):
    """The device computes at a share of its speed: battery saver, power mode, a governor."""

    event: Literal["throttle"] = "throttle"
    speed: Annotated[Share, Field(gt=0, le=1)]
    lasting: Lasting | None = Field(default=None, description="default: for good")


class DegradeLink(When):
    """The device's link gets worse: delays times `delay_factor`, throughput times `rate_share`."""

    event: Literal["degrade_link"] = "degrade_link"
    delay_factor: float = Field(default=1.0, ge=1, le=1000)
    rate_share: Annotated[Share, Field(gt=0, le=1)] = 1.0
    lasting: Lasting | None = None


class BackgroundLoad(When):
    """Other work takes a share of the device's speed."""

    event: Literal["background_load"] = "background_load"
    load: Annotated[Share, Field(ge=0, lt=1)]
    lasting: Lasting | None = None


EventSpec = Annotated[
    Drop | Rejoin | Join | Throttle | DegradeLink | BackgroundLoad, Field(discriminator="event")
]


class HeatSpec(Spec):
    """How a device without enough cooling slows down under lasting work; see `simulator.churn.heat`."""

    approach: Wait = Field(description="time constant of the slow-down while it works without pause")
    sustained: Annotated[Share, Field(ge=0.05, le=1)] = Field(
        description="share of its cold speed that it keeps"
    )
    spread: Annotated[float, Field(ge=0, le=2)] = Field(
        default=0.0, description="standard deviation of the logarithm of `sustained`: how sure it is"
    )
    label: Literal["measured", "calibrated", "assumed"] = "assumed"


class RecoverySpec(Spec):
    """What the client does when a reply breaks off. The defaults are this project's
    own client, not an engine's.

    It takes a stream for stalled after `time_out_factor` mean inter-token times, within bounds. The factor is
    above the longest gap in undisturbed recordings of EXO, which was below 10 medians.
    """

    time_out_factor: float = Field(default=10.0, ge=1.5, le=1000)
    time_out_least: Wait = 2.0
    time_out_most: Wait = 60.0
    probe: Wait = Field(
        default=2.0, description="how long a device may take to answer before it counts as gone"
    )
    give_up: Annotated[Seconds, Field(gt=0, le=1e6)] = Field(
        default=1800.0, description="a reply that got no token for so long is given up"
    )
    grow: bool = Field(
        default=True, description="place again between replies when a returned device would help"
    )
    files: Literal["everywhere", "own_shard", "client"] | None = Field(
        default=None,
        description="who has the model on disk: all, each its first shard, the client; default: the engine's",
    )
    download: PositiveRate | None = Field(
        default=None,
        description="rate of the line over which missing layers come; default: each device's own link",
    )

    def time_out_s(self, mean_gap_s: float) -> float:
        """Silence (s) after which the client acts: `min(max(factor * mean gap, least), most)`."""
        return min(max(self.time_out_factor * mean_gap_s, self.time_out_least), self.time_out_most)
