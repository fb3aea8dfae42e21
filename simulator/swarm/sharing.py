"""How chats slow each other down: servers serve one step at a time, first come, first served.

Tokens of thousands of chats are not simulated one by one. A chat's interval between tokens follows from who
else asks its servers, and is worked out anew whenever a chat comes or goes. Steps are all but constant, and
chats of other intervals come at any moment of them: who meets one under way waits for half of it in the mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from simulator.swarm.population import Server

__all__ = ["Leg", "Sharer", "Sharing"]

ROUNDS = 3
"""Of the fixed point: what is left is below a hundredth of a wait."""


@dataclass(slots=True)
class Leg:
    """One server of a chat's route."""

    server: Server
    life: int
    start: int
    end: int
    busy_s: float
    """Of one token's step."""
    way_s: float
    """There and back, beside the server's work."""
    waits_s: float = 0.0
    """For other chats' steps."""
    reserved_tokens: float = 0.0

    @property
    def total_s(self) -> float:
        """From the request to the reply."""
        return self.busy_s + self.waits_s + self.way_s


class Sharer(Protocol):
    """Who asks servers: a chat."""

    number: int
    legs: list[Leg]
    interval_s: float

    def retimed(self, interval_s: float) -> None:
        """Its interval between tokens is another from now on."""


@dataclass
class Sharing:
    """All chats that decode, by server."""

    client_s: Callable[[Sharer], float]
    """What a token costs beside its servers."""
    at: dict[int, dict[int, tuple[Sharer, Leg]]] = field(default_factory=dict)

    def join(self, chat: Sharer) -> None:
        """A chat begins to ask its servers."""
        for leg in chat.legs:
            self.at.setdefault(leg.server.number, {})[chat.number] = chat, leg
        self._retime(chat)

    def part(self, chat: Sharer) -> None:
        """A chat asks no more."""
        for leg in chat.legs:
            self.at.get(leg.server.number, {}).pop(chat.number, None)
        self._retime(chat, leaving=True)

    def _retime(self, chat: Sharer, *, leaving: bool = False) -> None:
        """The intervals of a chat and of all that share a server with it."""
        met = {one.number: one for leg in chat.legs for one, _ in self.at.get(leg.server.number, {}).values()}
        if not leaving:
            met[chat.number] = chat
        times_s = {number: self._alone_s(one) for number, one in met.items()}
        for _ in range(ROUNDS):
            times_s = {number: self._interval_s(one, times_s) for number, one in met.items()}
        for number, one in met.items():
            one.retimed(times_s[number])

    def _alone_s(self, chat: Sharer) -> float:
        return chat.interval_s or self.client_s(chat) + sum(leg.total_s for leg in chat.legs)

    def _interval_s(self, chat: Sharer, times_s: dict[int, float]) -> float:
        """`max(client + sum of way + S + waits, sum of all S of the busiest server)`.

        A server's waits are the sum over others of `S' / interval'` (it is there) times `S' / 2` (its rest).
        """
        total_s, busiest_s = self.client_s(chat), 0.0
        for leg in chat.legs:
            others = self.at.get(leg.server.number, {})
            steps = [
                (theirs.busy_s, times_s.get(number, other.interval_s))
                for number, (other, theirs) in others.items()
                if number != chat.number
            ]
            leg.waits_s = sum(busy_s / interval_s * busy_s / 2 for busy_s, interval_s in steps)
            total_s += leg.total_s
            busiest_s = max(busiest_s, leg.busy_s + sum(busy_s for busy_s, _ in steps))
        return max(total_s, busiest_s)
