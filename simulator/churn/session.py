"""Session of one client, told by SimPy. It asks, receives token by token, and mends what breaks.

The client is our own: it notices a stalled stream, asks for a placement of the
survivors where the engine does not place by itself, sends prompt and received
tokens again, and goes on. One reply is made at a time; others queue.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

import simpy

from simulator.churn.heat import Heat
from simulator.churn.mean_gap import MeanGap
from simulator.churn.membership import Departure, Membership
from simulator.churn.pace import Conditions, EpochPace, EpochPaces
from simulator.churn.placing import WORTH, Placed, Placer
from simulator.churn.recovery import PhaseDurations, RunningPlacement
from simulator.churn.script import Script
from simulator.churn.trace import ChurnTrace, Phase, RecoveryTrace, ReplyTrace

__all__ = ["ClientSession"]

Steps = Generator[simpy.Event, Any, None]
Answer = Generator[simpy.Event, Any, bool]
RECENT = 40  # gaps that the client's mean is computed from: older ones weigh less than 1/200 together
INSTANT_S = 1e-6  # shorter than anything here and longer than a rounding error of a day
LEAST_STEP_S = 1e-3


@dataclass
class ClientSession:
    """All that one replication's replies share."""

    env: simpy.Environment
    members: Membership
    placer: Placer
    paces: EpochPaces
    recovery: PhaseDurations
    script: Script
    trace: ChurnTrace
    heats: Mapping[str, Heat]
    prompt_tokens: int
    first_row: int = 0
    """Row of this replication's first reply."""
    running: RunningPlacement | None = None
    turn: simpy.Resource = field(init=False)

    def __post_init__(self) -> None:
        self.turn = simpy.Resource(self.env)
        placed = self.placer.place(self.members.ready())
        if isinstance(placed, Placed):  # the cluster was set up before anybody asked
            self._run(placed)
            self.recovery.loaded(self._needed())
            self.trace.placements.append((0.0, placed))

    def reply(self, number: int, asked_s: float, wanted: int) -> Steps:
        """A reply from its request to its last token, or until the client gives up."""
        if asked_s > self.env.now:
            yield self.env.timeout(asked_s - self.env.now)
        reply = ReplyTrace(number, asked_s, wanted)
        self.trace.replies.append(reply)
        with self.turn.request() as turn:
            yield turn
            reply.started_s = self.env.now
            yield from self._serve(reply)
        reply.end_s = self.env.now

    def _serve(self, reply: ReplyTrace) -> Steps:
        if self._is_running():
            yield from self._grow(reply)
        has_context = False  # whether the ring holds the KV cache of this reply
        while not reply.complete and not reply.given_up:
            if not self._is_running():
                has_context = False
                if not (yield from self._recover(reply)):
                    reply.given_up = True
                    return
            if has_context:
                yield from self._decode(reply)
            else:
                has_context = yield from self._first_token(reply)

    # --- making tokens
    # ---------------------------------------------------------------------------------------------

    def _first_token(self, reply: ReplyTrace) -> Answer:
        """Read the prompt and all tokens so far; the next token comes out. False where
        the ring broke meanwhile.
        """
        placed, context = self._needed().placed, self.prompt_tokens + len(reply.times_s)
        duration_s = self.paces.first_token_s(
            placed, self._conditions(), context, self._row(reply), self._slow()
        )
        open_recovery = self._open(reply)
        if open_recovery is not None:
            duration_s += self.recovery.first_prompt_s(placed, self._row(reply))
        done = yield from self._phase(open_recovery, "prefill", duration_s, reply)
        if done and open_recovery is not None:
            done = yield from self._phase(open_recovery, "resume", self.recovery.resume_s(), reply)
        if done:
            reply.epochs.append((len(reply.times_s), placed))
            self._receive(reply, self.env.now)
            if open_recovery is not None:
                open_recovery.resumed_s, open_recovery.placed = self.env.now, placed
        return done

    def _decode(self, reply: ReplyTrace) -> Steps:
        """Tokens until the reply is complete, or the ring is broken; conditions and
        heat may change on the way.
        """
        progress = 0.0
        while not reply.complete and self._is_running():
            begin_s, pace = self.env.now, self._pace(reply)
            slow, token = self._slow(), len(reply.times_s)
            ahead = pace.ahead_s(token, progress, slow).tolist()
            stop, busy = self._next_stop(reply) - token, self._busy(pace, token, slow)
            silence_s = reply.times_s[-1] + self.recovery.client.give_up - begin_s
            if silence_s < INSTANT_S:
                reply.given_up = True
                return
            wait_s = min(ahead[stop - 1], self._steady_s(busy), inf if ahead[0] <= silence_s else silence_s)
            timer = self.env.timeout(wait_s)
            yield timer | self.members.changed
            # equal to the bit: the timer was set with this very number
            whole = timer.processed and wait_s == ahead[stop - 1]
            elapsed_s = self.env.now - begin_s
            done = stop if whole else min(stop, bisect_right(ahead, elapsed_s))
            progress = 0.0 if whole else _progress(ahead, done, elapsed_s, progress)
            self._advance(busy)
            for k in range(done):
                self._receive(reply, begin_s + ahead[k])

    def _next_stop(self, reply: ReplyTrace) -> int:
        """The number of tokens at which to look up: where an event waits, else at the end."""
        waiting = self.script.next_token(len(reply.times_s)) if reply.number == 0 else None
        return min(waiting or reply.wanted, reply.wanted)

    def _receive(self, reply: ReplyTrace, time_s: float) -> None:
        reply.times_s.append(time_s)
        if reply.number == 0:
            self.script.reached(len(reply.times_s))

    def _pace(self, reply: ReplyTrace) -> EpochPace:
        return self.paces.pace(self._needed().placed, self._conditions(), self._row(reply))

    # --- heat
    # ------------------------------------------------------------------------------------------------------

    def _slow(self) -> dict[str, float]:
        """The slow-down of each device that gets hot, cooled down to now."""
        self._advance({})
        return {name: heat.slow for name, heat in self.heats.items()}

    def _steady_s(self, busy: Mapping[str, float]) -> float:
        """How long no device's speed changes by more than a step of its heat law."""
        steps = (self.heats[name].step_s(share) for name, share in busy.items())
        return max(min(steps, default=inf), LEAST_STEP_S)

    def _busy(self, pace: EpochPace, token: int, slow: Mapping[str, float]) -> dict[str, float]:
        """Share of the time that each device works; work at a throttled clock heats less, in proportion."""
        throttled = {name: condition.slow for name, condition in self._conditions()}
        return {name: pace.busy(name, token, slow) / throttled.get(name, 1.0) for name in self.heats}

    def _advance(self, busy: Mapping[str, float]) -> None:
        for name, heat in self.heats.items():
            if self.env.now > heat.since_s:
                heat.advance(self.env.now, busy.get(name, 0.0))
                self.trace.slow.setdefault(name, []).append((self.env.now, heat.slow))

    # --- mending
    # ---------------------------------------------------------------------------------------------------

    def _recover(self, reply: ReplyTrace) -> Answer:
        """From a broken ring to a new one that runs; False where the client gives up."""
        recovered = self._open(reply)
        if recovered is None:
            recovered = RecoveryTrace(self.env.now, len(reply.times_s))
            reply.recoveries.append(recovered)
            yield from self._notice(reply, recovered)
        # counted from the fault: to notice it took part of the patience already
        patience = self.env.timeout(max(0.0, recovered.fault_s + self.recovery.client.give_up - self.env.now))
        while not patience.processed:
            yield from self._phase(
                recovered, "decide", self.recovery.decide_s(self.env.now, self._lost()), None
            )
            placed = self.placer.place(self.members.ready())
            if isinstance(placed, Placed):
                if (yield from self._load(recovered, placed, self._row(reply))):
                    return True
            else:
                recovered.refusals.append(placed.reason)
                start_s = self.env.now
                yield patience | self.members.changed
                recovered.phases.append(Phase("wait", start_s, self.env.now))
        return False

    def _notice(self, reply: ReplyTrace, recovered: RecoveryTrace) -> Steps:
        """Until the client knows; between replies it asks who is there before it sends anything."""
        now_lost = {name: gone for name, gone in self._lost().items() if gone.time_s == recovered.fault_s}
        if not now_lost:
            return
        name, departure = next(iter(now_lost.items()))
        last_s = reply.times_s[-1] if reply.times_s else reply.started_s
        at_s = self.recovery.notice_s(name, departure, last_s, _mean_gap_s(reply))
        yield from self._phase(recovered, "detect", at_s - self.env.now, None)

    def _load(self, recovered: RecoveryTrace, placed: Placed, row: int) -> Answer:
        """The new placement until it runs; False where one of its devices leaves meanwhile."""
        self._run(placed)
        running = self._needed()
        self.trace.placements.append((self.env.now, placed))
        durations = {
            "release": self.recovery.release_s(),
            "start": self.recovery.start_s(placed),
            "load": self.recovery.load_s(running, row),
            "warm up": self.recovery.warm_up_s(placed, self._conditions(), row),
        }
        for name, duration_s in durations.items():
            begin_s = self.env.now
            if not (yield from self._phase(recovered, name, duration_s, None, running)):
                if name == "load":
                    self.recovery.broken_off(self.env.now, self.env.now - begin_s, self.members)
                return False
            if name == "load":
                self.recovery.loaded(running)
        return True

    def _grow(self, reply: ReplyTrace) -> Steps:
        """Before a reply: place again where those who have come back make tokens faster."""
        placed, current = self.placer.place(self.members.ready()), self._needed().placed
        if not self.recovery.client.grow or not isinstance(placed, Placed) or placed.number == current.number:
            return
        # both over the same whole reply with the same random numbers: noise must not decide
        now_s = self._pace(reply).reached_s[-1]
        conditions = self.members.conditions(placed.devices)
        if self.paces.pace(placed, conditions, self._row(reply)).reached_s[-1] > WORTH * now_s:
            return
        recovered = RecoveryTrace(self.env.now, 0, is_planned=True)
        reply.recoveries.append(recovered)
        yield from self._load(recovered, placed, self._row(reply))

    def _phase(
        self,
        recovered: RecoveryTrace | None,
        name: str,
        duration_s: float,
        heating: ReplyTrace | None,
        needed: RunningPlacement | None = None,
    ) -> Answer:
        """Let a phase take its time; it ends early, with False, when the ring that it needs breaks."""
        start_s = self.env.now
        if heating is not None:
            self._advance({})  # it has cooled until now
            needed = self.running
        timer = self.env.timeout(max(0.0, duration_s))
        while not timer.processed and (needed is None or needed.intact(self.members)):
            yield timer | self.members.changed
        if heating is not None:
            pace, slow = self._pace(heating), {name: heat.slow for name, heat in self.heats.items()}
            self._advance(self._busy(pace, 1, slow))
        if recovered is not None:
            recovered.phases.append(Phase(name, start_s, self.env.now))
        return needed is None or needed.intact(self.members)

    # --- who is there
    # ----------------------------------------------------------------------------------------------

    def _run(self, placed: Placed) -> None:
        self.running = RunningPlacement(placed, {name: self.members.starts[name] for name in placed.devices})

    def _is_running(self) -> bool:
        return self.running is not None and self.running.intact(self.members)

    def _needed(self) -> RunningPlacement:
        assert self.running is not None, "only called while a placement exists"
        return self.running

    def _conditions(self) -> Conditions:
        return self.members.conditions(self._needed().placed.devices)

    def _lost(self) -> dict[str, Departure]:
        return self.running.lost(self.members) if self.running is not None else {}

    @staticmethod
    def _open(reply: ReplyTrace) -> RecoveryTrace | None:
        """The recovery of this reply that is still going on."""
        last = reply.recoveries[-1] if reply.recoveries else None
        return last if last is not None and last.resumed_s is None else None

    def _row(self, reply: ReplyTrace) -> int:
        return self.first_row + reply.number


def _progress(ahead: list[float], done: int, elapsed_s: float, before: float) -> float:
    """Share of the token in the making that is done, `before` of it having been
    done when the clock started.
    """
    if done >= len(ahead):
        return 0.0
    start_s = ahead[done - 1] if done else 0.0
    share = (elapsed_s - start_s) / (ahead[done] - start_s) if ahead[done] > start_s else 0.0
    share = min(max(share, 0.0), 1.0)
    return share if done else before + (1 - before) * share


def _mean_gap_s(reply: ReplyTrace) -> float | None:
    """The client's mean inter-token time (s); None without a gap."""
    gap = MeanGap()
    for at_s in reply.times_s[-RECENT - 1 :]:
        gap.note(at_s)
    return gap.mean_s
