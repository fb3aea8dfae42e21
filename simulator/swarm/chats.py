"""A client and its chats: look, route, wait for room, read the prompt, decode, get over losses."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import simpy
from simpy.events import ProcessGenerator

from simulator.engine.petals.flow import backoff_s, flow_facts
from simulator.engine.petals.routes import Hop, MissingBlocks
from simulator.swarm.board import Board
from simulator.swarm.population import Server, Setting
from simulator.swarm.sharing import Leg, Sharing
from simulator.swarm.view import View

__all__ = ["Chat", "Client", "Recovery", "Reply", "lost"]

REFUSED_S = 0.01
"""A dial that a dead server's machine refuses (2 to 60 ms recorded, at no distance)."""
SILENT_S = 5.0
"""A dial that nobody answers (`connect_timeout` of `client/config.py`)."""
KEPT_OPEN_S = 30.0
"""For so long a silent server's connection passes for open: a step is sent to it, and waited for (measured:
12 s with a `request_timeout` of 12 s). The period of the pings that then find out (yamux), assumed.
"""
HANG_SHARE = 1 / 130
"""Of generations after a loss, those whose client waits for itself for ever: one of 130 recorded ones did."""
Cause = Literal["notice", "attempts", "missing blocks", "full caches", "replay", "hanging client"]
Steps = Generator[simpy.Event, Any, None]


@dataclass(slots=True)
class Recovery:
    """One loss in the middle of a reply: where the time went (s)."""

    at_s: float
    server: str
    how: str
    token: int
    notice_s: float = 0.0
    attempts: int = 0
    waited_s: float = 0.0
    """From the notice to the attempt that succeeded."""
    replay_s: float = 0.0
    rest_s: float = 0.0
    """The rest of the token that was under way, on the servers behind."""
    recovered: bool = False

    @property
    def total_s(self) -> float:
        """From the loss to the next token."""
        return self.notice_s + self.waited_s + self.replay_s + self.rest_s


@dataclass(slots=True)
class Reply:
    """What became of one chat; times in seconds of the swarm."""

    chat: int
    asked_s: float
    first_s: float = np.nan
    ended_s: float = np.nan
    tokens: int = 0
    outcome: Literal["complete", "lost", "refused", "unfinished"] = "unfinished"
    servers: int = 0
    lost_s: dict[str, float] = field(default_factory=dict)
    """By cause."""
    recoveries: list[Recovery] = field(default_factory=list)


class GivenUp(Exception):  # what happened, and nobody's error
    """The user's patience has ended."""


@dataclass
class Chat:
    """One chat under way."""

    number: int
    env: simpy.Environment
    reply: Reply
    legs: list[Leg] = field(default_factory=list)
    broken: list[tuple[Leg, str]] = field(default_factory=list)
    """Servers that were lost since the last token, and how."""
    interval_s: float = 0.0
    left: float = 0.0
    """Tokens to come, the one under way in part."""
    since_s: float = 0.0
    decodes: bool = False
    """Whether tokens come; else time passes without any."""

    def __post_init__(self) -> None:
        self.changed = self.env.event()

    def retimed(self, interval_s: float) -> None:
        """Its tokens come at another pace from now on."""
        self.count()
        self.interval_s = interval_s
        self.wake()

    def count(self) -> None:
        """What has come since the last change."""
        if self.decodes and self.env.now > self.since_s:
            self.left = max(0.0, self.left - (self.env.now - self.since_s) / self.interval_s)
        self.since_s = self.env.now

    def wake(self) -> None:
        """Whoever waits for the next token looks again."""
        if not self.changed.triggered:
            self.changed.succeed()

    def lose(self, leg: Leg, how: str) -> None:
        """A server of the route is gone."""
        self.count()
        self.broken.append((leg, how))
        self.wake()


@dataclass
class Client:
    """One client; it may ask several times and then knows what it has learnt."""

    env: simpy.Environment
    given: Setting
    board: Board
    servers: list[Server]
    sharing: Sharing
    view: View
    rng: np.random.Generator
    replies: list[Reply]
    rate_bytes_per_s: float
    gone: bool = False
    had_loss: bool = False
    """Whether some stream could not be closed, which the garbage collector then does in the wrong thread."""

    def look(self) -> ProcessGenerator:
        """Look at the swarm again and again, until the client has gone."""
        while True:
            yield self.env.timeout(self.given.spec.update_period)
            if self.gone:
                return
            self.view.refresh()

    def chat(self, number: int) -> ProcessGenerator:
        """A chat's story."""
        reply = Reply(number, self.env.now)
        self.replies.append(reply)
        chat, workload = Chat(number, self.env, reply), self.given.scenario.workload
        self.deadline_s = self.env.now + self.given.spec.patience
        try:
            yield self.env.timeout(self.given.scenario.engine.request_overhead or 0.0)
            yield from self.cover(chat, 0, self.board.blocks, workload.prompt_tokens, None)
            while chat.broken:  # before the first token nothing has to be read again but the prompt
                yield from self.replace_unread(chat, workload.prompt_tokens)
            yield self.env.timeout(self.given.client_s)
            reply.first_s, reply.servers = self.env.now, len(chat.legs)
            yield from self.wait_for_itself(chat)
            yield from self.decode(chat, workload.output_tokens - 1)
            reply.outcome, reply.tokens = "complete", workload.output_tokens
        except GivenUp:
            reply.outcome = "refused" if np.isnan(reply.first_s) else "lost"
        finally:
            self.release(chat)
        reply.ended_s = self.env.now

    def wait_for_itself(self, chat: Chat) -> Steps:
        """As it is shipped, a client may close a stream from the very thread that would have to close it."""
        if "del" in self.given.spec.repairs or not self.had_loss or self.rng.random() >= HANG_SHARE:
            return
        chat.reply.tokens = 1
        yield from self.spend(chat, "hanging client", self.deadline_s - self.env.now)
        raise GivenUp

    def replace_unread(self, chat: Chat, prompt_tokens: int) -> Steps:
        """Another server for one that was lost while the prompt was read: this works as it is shipped."""
        leg = self.drop(chat)[0]
        yield from self.cover(chat, leg.start, leg.end, prompt_tokens, None)

    def drop(self, chat: Chat) -> tuple[Leg, str]:
        """Take a lost server out of the route, and ban it."""
        leg, how = chat.broken.pop(0)
        chat.legs.remove(leg)
        self.had_loss = True
        if how == "hang" and leg.server.life == leg.life:
            # it finds the stream closed when it wakes up, and has the room again
            self.board.take_room(leg.server, -leg.reserved_tokens)
        # the server may be back, and serve this chat elsewhere on its route
        if not any(one.server is leg.server for one in chat.legs):
            leg.server.chats.pop(chat.number, None)
        if self.view.failed(leg.server.number):
            self.view.refresh()
        return leg, how

    def decode(self, chat: Chat, tokens: int) -> Steps:
        """All tokens but the first; a lost server stops them until another one has read the text so far."""
        chat.left = float(tokens)
        self.go_on(chat)
        while True:
            if chat.broken:
                yield from self.recover(chat, tokens)
                continue
            if chat.left <= 1e-9:
                break
            chat.changed = self.env.event()
            yield self.env.timeout(chat.left * chat.interval_s) | chat.changed
            chat.count()
            chat.reply.tokens = 1 + tokens - int(np.ceil(chat.left - 1e-9))
        self.stop(chat)

    def go_on(self, chat: Chat) -> None:
        """Tokens come from now on."""
        chat.decodes, chat.since_s = True, self.env.now
        self.sharing.join(chat)

    def stop(self, chat: Chat) -> None:
        """No tokens come any more."""
        chat.count()
        chat.decodes = False
        self.sharing.part(chat)

    def recover(self, chat: Chat, tokens: int) -> Steps:
        """Notice the loss, find another way through the lost blocks, read the text again there, go on."""
        self.stop(chat)
        leg, how = chat.broken[0]
        done = 1 + tokens - int(np.ceil(chat.left - 1e-9))
        chat.left = float(tokens + 1 - done)
        found = Recovery(self.env.now, leg.server.name, how, done)
        chat.reply.recoveries.append(found)
        self.deadline_s = self.env.now + self.given.spec.patience
        yield from self.notice(chat, leg, self.notice_s(chat, leg, how), found)
        passed = leg.start
        if how == "hang" and leg.server.alive and leg.server.life == leg.life:
            chat.broken.remove((leg, how))
        else:
            yield from self.replace(chat, done, found)
            passed = leg.end
        found.recovered = True
        self.go_on(chat)
        # the client has what servers before the lost one gave for the token under way, and reading the text
        # again gave the successor's part of it
        share = sum(one.total_s for one in chat.legs if one.end <= passed) / chat.interval_s
        chat.left -= min(share, 1.0)
        found.rest_s = (chat.left - (tokens - done)) * chat.interval_s

    def notice(self, chat: Chat, leg: Leg, notice_s: float, found: Recovery) -> Steps:
        """Wait until the client knows, or until a server that was silent is heard again."""
        begun_s = self.env.now
        until_s = begun_s + min(notice_s, self.deadline_s - begun_s)
        while self.env.now < until_s and not (found.how == "hang" and leg.server.alive):
            chat.changed = self.env.event()
            yield self.env.timeout(until_s - self.env.now) | chat.changed
        found.notice_s = self.env.now - begun_s
        chat.reply.lost_s["notice"] = chat.reply.lost_s.get("notice", 0.0) + found.notice_s
        if self.env.now >= self.deadline_s:
            raise GivenUp

    def notice_s(self, chat: Chat, leg: Leg, how: str) -> float:
        """When the client knows: a server at work for it takes its time-out with it, as it is shipped."""
        at_work = self.rng.random() < (leg.busy_s + leg.waits_s) / chat.interval_s
        if at_work and (how == "hang" or "eof" not in self.given.spec.repairs):
            return self.given.spec.request_timeout
        if how == "hang":
            return self.given.spec.request_timeout + self.rng.random() * chat.interval_s
        # at its next use, some time in the rest of this token or in the next one
        return 0.0 if at_work else float(self.rng.random() * (chat.interval_s - leg.busy_s))

    def replace(self, chat: Chat, done: int, found: Recovery) -> Steps:
        """Servers for the blocks of a lost one."""
        leg, _ = self.drop(chat)
        if "replay" not in self.given.spec.repairs:
            # what is shipped asks the successor for the next token alone, which it refuses, for ever
            yield from self.spend(chat, "attempts", self.deadline_s - self.env.now)
            raise GivenUp
        text = self.given.scenario.workload.prompt_tokens + done
        yield from self.cover(chat, leg.start, leg.end, text, found)

    def cover(self, chat: Chat, start: int, end: int, text_tokens: int, found: Recovery | None) -> Steps:
        """Routes through [start, end) until one is open: room reserved and the text read on each server.

        A server that fails on the way is replaced; those before it keep what they have read.
        """
        first_s, most_s = flow_facts().backoff_s[0], self.given.spec.max_backoff
        waits_s = backoff_s(first_s, most_s)
        # the first attempt of a new chat is no retry
        wait_s = 0.0 if found is None else next(waits_s)
        while start < end:
            yield from self.spend(chat, "attempts", wait_s)
            if found is not None:
                found.attempts, found.waited_s = found.attempts + 1, found.waited_s + wait_s
            before = start
            start = yield from self.attempt(chat, start, end, text_tokens, found)
            # who got somewhere begins to count anew
            waits_s = backoff_s(first_s, most_s) if start > before else waits_s
            wait_s = next(waits_s)
        chat.legs.sort(key=lambda leg: leg.start)

    def attempt(
        self, chat: Chat, start: int, end: int, text_tokens: int, found: Recovery | None
    ) -> Generator[simpy.Event, Any, int]:
        """One route, server by server; the first block that is still open."""
        longest = self.given.scenario.workload.prompt_tokens + self.given.scenario.workload.output_tokens
        try:
            route = self.view.route(start, end, longest)
        except MissingBlocks:
            self.view.refresh()
            yield from self.spend(chat, "missing blocks", REFUSED_S)
            return start
        for hop in route.hops:
            server = self.servers[hop.server]
            if not (server.alive and server.start <= hop.start and hop.end <= server.end):
                # nobody was reached, so nobody is banned
                dialled_s = self.silent_s(found) if server.silent else REFUSED_S + self.view.searched_s()
                yield from self.spend(chat, "attempts", dialled_s)
                if found is not None:
                    found.waited_s += dialled_s
                return start
            tokens = float(longest * (hop.end - hop.start))
            if tokens > server.room_tokens:
                yield from self.spend(chat, "full caches", float(self.view.rtt_s[hop.server]))
                if self.view.failed(hop.server):
                    self.view.refresh()
                return start
            yield from self.open(chat, server, hop, tokens, text_tokens, found)
            start = hop.end
        return start

    def silent_s(self, found: Recovery | None) -> float:
        """What asking a server that hangs costs."""
        if found is not None and self.env.now - found.at_s < KEPT_OPEN_S:
            return self.given.spec.request_timeout
        return SILENT_S

    def open(
        self, chat: Chat, server: Server, hop: Hop, tokens: float, text_tokens: int, found: Recovery | None
    ) -> Steps:
        """A stream to a server, with room for the whole chat, and the text so far read there."""
        blocks = hop.end - hop.start
        leg = Leg(
            server, server.life, hop.start, hop.end, server.busy_s(blocks), self.way_s(server), 0.0, tokens
        )
        self.board.take_room(server, tokens)
        chat.legs.append(leg)
        server.chats[chat.number] = chat
        state, around = self.given.message_bytes
        rate = min(self.rate_bytes_per_s, server.kind.rate_bytes_per_s)
        sent_s = (2 * text_tokens * state + around) / rate + self.way_s(server)
        work_s = self.given.prompt_s(server.kind, blocks, text_tokens) * server.factor
        if found is None:
            yield self.env.timeout(sent_s + work_s)
            return
        found.replay_s += sent_s + work_s
        yield from self.spend(chat, "replay", sent_s + work_s)

    def way_s(self, server: Server) -> float:
        """Of one token's request and reply, or of one push where servers hand on by themselves."""
        engine, (state, around) = self.given.scenario.engine, self.given.message_bytes
        rate = min(self.rate_bytes_per_s, server.kind.rate_bytes_per_s)
        legs = 1 if engine.push else 2
        there_s = float(self.view.rtt_s[server.number]) / 2 + (engine.hop_overhead or 0.0)
        return legs * there_s + (legs * state + around) / rate

    def spend(self, chat: Chat, cause: Cause, spent_s: float) -> Steps:
        """Time that a reply loses; raises GivenUp where the user's patience ends before."""
        left_s = max(0.0, self.deadline_s - self.env.now)
        lost_s = min(spent_s, left_s)
        chat.reply.lost_s[cause] = chat.reply.lost_s.get(cause, 0.0) + lost_s
        yield self.env.timeout(lost_s)
        if spent_s > left_s:
            raise GivenUp

    def release(self, chat: Chat) -> None:
        """Give back what a chat holds."""
        self.stop(chat)
        for leg in chat.legs:
            leg.server.chats.pop(chat.number, None)
            if leg.server.life == leg.life:
                self.board.take_room(leg.server, -leg.reserved_tokens)
        chat.legs = []


def lost(server: Server, how: str) -> None:
    """Tell all chats on a server that it is gone; one that wakes up has lost nothing."""
    for chat in list(server.chats.values()):
        assert isinstance(chat, Chat)
        for leg in [one for one in chat.legs if one.server is server and one.life == server.life]:
            if how == "wake":
                chat.wake()
            else:
                chat.lose(leg, how)
