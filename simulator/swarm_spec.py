"""What a scenario says of a swarm: who serves, for how long, from where, and what its clients do."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from simulator.laws.law import Law
from simulator.processor_spec import Name
from simulator.spec import Duration, PositiveBytes, PositiveRate, Spec
from simulator.units import PerHour, Seconds, Share

__all__ = ["LossSpec", "PopulationSpec", "StaySpec", "SwarmSpec"]


def _constant(value: Any) -> Any:
    """Let a plain time stand for a law that always gives it."""
    return {"law": "constant", "value": value} if isinstance(value, str) else value


Lasting = Annotated[Law, BeforeValidator(_constant)]
Portion = Annotated[Share, Field(ge=0, le=1)]
Period = Annotated[Seconds, Field(gt=0, le=1e5)]
Repeated = Annotated[Seconds, Field(ge=0.1, le=1e5)]
"""Of what goes on for hours: each time costs the simulation a moment."""


class StaySpec(Spec):
    """Where a server is, how long it stays, and what it serves."""

    region: Name = "here"
    uptime: Lasting | None = Field(default=None, description="from coming online to leaving; default: stays")
    away: Lasting = Field(
        default_factory=lambda: _constant_law("1 h"), description="from leaving until it starts again"
    )
    good_bye: Portion = Field(
        default=0.0, description="share of leaves that are announced; others are found out when they expire"
    )
    relayed: Portion = Field(
        default=0.0, description="share of servers behind a firewall, reached through a relay alone"
    )
    blocks: int | None = Field(
        default=None, ge=1, le=1000, description="blocks it serves; default: as many as fit"
    )
    span: tuple[int, int] | None = Field(
        default=None, description="the blocks [start, end) that it always serves; default: it chooses"
    )

    @model_validator(mode="after")
    def _span_runs_forward(self) -> StaySpec:
        if self.span is not None and not 0 <= self.span[0] < self.span[1]:
            raise ValueError(f"span {list(self.span)} must be [start, end) with 0 <= start < end")
        if self.span is not None and self.blocks is not None:
            raise ValueError("span says how many blocks; leave blocks out")
        return self


def _constant_law(value: str) -> Any:
    from simulator.laws.law import Constant

    return Constant.model_validate({"value": value})


class PopulationSpec(StaySpec):
    """So many servers of one kind."""

    count: int = Field(ge=0, le=10_000)
    kind: str = Field(description="a device of the catalogue")
    memory: PositiveBytes | None = None
    delay: Lasting = Field(description="one-way delay between a server and the internet's next hub")
    rate: PositiveRate = Field(description="the slower one of its up and down link")


class LossSpec(Spec):
    """One server that is lost, and comes back or not."""

    server: Name
    at: Period
    how: Literal["kill", "hang", "leave"] = Field(
        default="kill", description="kill: its connections end; hang: they stay silent; leave: announced"
    )
    back_after: Duration | None = Field(default=None, description="until it is started again, or wakes up")


class SwarmSpec(Spec):
    """A swarm of the scenario's devices and of a population; the first device is the client's."""

    population: dict[Name, PopulationSpec] = Field(default_factory=dict)
    stays: dict[Name, StaySpec] = Field(
        default_factory=dict, description="of the scenario's devices; who is not named stays for ever"
    )
    regions: dict[Name, dict[Name, Duration]] = Field(
        default_factory=dict, description="round trip between the hubs of two regions, told once"
    )
    client_region: Name = "here"
    losses: tuple[LossSpec, ...] = ()
    hours: float = Field(default=1.0, ge=0.001, le=24 * 31)
    users: int = Field(default=1, ge=0, le=10_000, description="each asks again and again, one chat at once")
    think: Lasting | None = Field(default=None, description="between a user's reply and the next prompt")
    arrivals: Annotated[PerHour, Field(gt=0, le=1e5)] | None = Field(
        default=None, description="instead of users: clients that come at random, with one chat each"
    )
    patience: Period = Field(default=600.0, description="a user gives up where nothing comes for so long")
    repairs: tuple[Literal["eof", "replay", "del"], ...] = Field(
        default=(),
        description="eof: a loss at work is noticed at once; replay: the successor gets the text so far; "
        "del: a client that had a loss never waits for itself",
    )
    announce_period: Repeated = 120.0
    balance_period: Repeated = Field(default=60.0, description="mean time between two looks at the balance")
    balance_quality: float = Field(default=0.75, ge=0, le=2)
    update_period: Repeated = Field(default=60.0, description="between a client's looks at who is there")
    request_timeout: Period = 180.0
    max_backoff: Period = 60.0
    ban: Period = 15.0
