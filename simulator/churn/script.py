"""Script: makes the events of a scenario happen, each at its moment, in one replication."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import simpy

from simulator.churn.membership import Condition, Membership
from simulator.churn.rng import ChurnRng
from simulator.churn.spec import BackgroundLoad, DegradeLink, Drop, EventSpec, Join, Rejoin, Throttle
from simulator.laws.law import Exponential, Law

__all__ = ["HOUR_S", "Happening", "Script"]

HOUR_S = 3600.0
Steps = Generator[simpy.Event, Any, None]


class Happening(NamedTuple):
    """Something that really changed."""

    time_s: float
    what: str
    device: str


@dataclass
class Script:
    """The events of one replication; those at a token happen when the session says that it has come."""

    env: simpy.Environment
    events: tuple[EventSpec, ...]
    members: Membership
    rng: ChurnRng
    rejoin: Law
    """From the start of a device's process until it can be placed on."""
    happened: list[Happening] = field(default_factory=list)
    _at_token: dict[int, list[int]] = field(default_factory=dict)
    _holding: dict[int, int] = field(default_factory=dict)
    """The condition that each event has brought about and that still holds."""

    def __post_init__(self) -> None:
        for number, event in enumerate(self.events):
            if event.at_token is not None:
                self._at_token.setdefault(event.at_token, []).append(number)
            else:
                self.env.process(self._later(number, event))

    def next_token(self, tokens: int) -> int | None:
        """The next number of tokens after `tokens` at which something happens."""
        return min((token for token in self._at_token if token > tokens), default=None)

    def reached(self, tokens: int) -> None:
        """The first reply has `tokens` tokens now."""
        # taken out: a token comes once, whatever a recovery has to read again
        for number in self._at_token.pop(tokens, []):
            event = self.events[number]
            if event.later:
                self.env.process(self._after(event.later, number, event))
            else:
                self._do(number, event)

    def _after(self, later_s: float, number: int, event: EventSpec) -> Steps:
        yield self.env.timeout(later_s)
        self._do(number, event)

    def _later(self, number: int, event: EventSpec) -> Steps:
        if event.at is not None:
            yield from self._after(event.at, number, event)
            return
        assert event.rate is not None
        gap = Exponential.model_construct(mean=HOUR_S / event.rate)
        while True:
            yield self.env.timeout(self.rng.draw(f"event/{number}/gap", gap))
            self._do(number, event)

    def _do(self, number: int, event: EventSpec) -> None:
        match event:
            case Drop():
                self._drop(number, event)
            case Rejoin() | Join():
                self._arrive(number, event.event, event.device)
            case Throttle():
                self._for_a_while(
                    number, event.event, event.device, Condition(slow=1 / event.speed), event.lasting
                )
            case DegradeLink():
                worse = Condition(delay=event.delay_factor, rate=event.rate_share)
                self._for_a_while(number, event.event, event.device, worse, event.lasting)
            case BackgroundLoad():
                self._for_a_while(
                    number, event.event, event.device, Condition(load=event.load), event.lasting
                )

    def _note(self, what: str, device: str) -> None:
        self.happened.append(Happening(self.env.now, what, device))

    def _drop(self, number: int, event: Drop) -> None:
        if self.members.leave(event.device, event.silent):
            self._note("drop", event.device)
            if event.back_after is not None:
                away_s = self.rng.draw(f"event/{number}/away", event.back_after)
                self.env.process(
                    self._come_back(number, event.device, self.members.starts[event.device], away_s)
                )

    def _come_back(self, number: int, device: str, start: int, away_s: float) -> Steps:
        yield self.env.timeout(away_s)
        if self.members.starts[device] == start:  # else something else has brought it back meanwhile
            self._arrive(number, "rejoin", device)

    def _arrive(self, number: int, what: str, device: str) -> None:
        was_there = device in self.members.starts
        if what == "rejoin" and not was_there:  # who has never been there joins, by an event of its own
            return
        if self.members.arrive(device, self.rng.draw(f"event/{number}/ready", self.rejoin)):
            self._note(what, device)

    def _for_a_while(
        self, number: int, what: str, device: str, condition: Condition, lasting: Law | None
    ) -> None:
        """The condition holds until its time is over; the same event again only begins that time anew."""
        if number in self._holding:
            self.members.end(self._holding[number])
        begun = self._holding[number] = self.members.begin(device, condition)
        self._note(what, device)
        if lasting is not None:
            self.env.process(
                self._end(number, begun, what, device, self.rng.draw(f"event/{number}/lasting", lasting))
            )

    def _end(self, number: int, begun: int, what: str, device: str, after_s: float) -> Steps:
        yield self.env.timeout(after_s)
        # else the same event has come again meanwhile, and its end with it
        if self._holding.get(number) == begun:
            del self._holding[number]
            self.members.end(begun)
            self._note(f"{what} over", device)
