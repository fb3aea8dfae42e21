"""Conversation: a client that loses no token: it goes on without whom it lost, and says what that took.

The client takes a stream for broken when its connection fails, or after the silence that `RecoverySpec`
permits at the rate observed. It then ends its process, asks every server whether it is there, places the
layers on those that answer by the scenario's own rule (as the simulator does, `simulator.churn.placing`),
starts again on them, sends prompt and received tokens, and goes on; whoever leaves meanwhile makes it begin
again. Before the next reply it takes in who has come back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from live.local.breaking import BreakableCluster
from live.local.children import Event
from live.local.cluster import SILENCE_S, LocalCluster
from live.local.plan import ClusterPlan
from live.recovery import ObservedRecovery
from simulator.churn.mean_gap import MeanGap
from simulator.churn.placing import WORTH, Placed, Placer
from simulator.churn.spec import RecoverySpec
from simulator.errors import LiveError, PlacementError
from simulator.run.evaluate import token_times_s

__all__ = ["Callbacks", "Conversation", "LocalReply", "Patience", "PlainConversation"]

Tell = Callable[[str], None]
RETURNED_S = 0.3  # how long a device that had left may take to greet before the next reply begins without it


@dataclass(slots=True)
class LocalReply:
    """One reply as far as it came; times are `time.monotonic_ns`."""

    wanted: int
    given: int = 0
    """Tokens that were there before it began."""
    sent_ns: int = 0
    tokens: list[int] = field(default_factory=list)
    times_ns: list[int] = field(default_factory=list)
    recoveries: list[ObservedRecovery] = field(default_factory=list)
    busy_ns: int = 0
    """CPU time of the client's process, of an undisturbed reply."""
    begun_busy_ns: int = 0
    """The same at its beginning."""
    chat: int = 0
    """Its number among those that are held at once."""
    spans: list[tuple[str, int, int]] = field(default_factory=list)
    """What each device was asked for on behalf of the last
    token: (device, from, until), where a client tells.
    """

    @property
    def count(self) -> int:
        """Tokens that came."""
        return len(self.times_ns)


@dataclass(slots=True)
class Patience:
    """How long the client waits for the next token, by the rate so far."""

    client: RecoverySpec
    gap: MeanGap = field(default_factory=MeanGap)
    leniency: float = 1.0
    """Doubled by each false alarm: everybody was still there."""

    def broken(self) -> None:
        """The stream broke: the time until the next token says nothing about the rate."""
        self.gap.last_s = None

    def left_s(self) -> float:
        """How long the client still waits: `last token + time-out at this rate`; as long as it
        may before a first token.
        """
        if self.gap.mean_s is None or self.gap.last_s is None:
            return self.leniency * self.client.time_out_most
        since_s = time.monotonic() - self.gap.last_s
        return max(0.0, self.leniency * self.client.time_out_s(self.gap.mean_s) - since_s)


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Called as it happens."""

    asked: Callable[[LocalReply], None]
    token: Callable[[LocalReply, int], None]
    """After each token, with its id."""
    mended: Callable[[LocalReply, ObservedRecovery], None] = lambda reply, recovery: None
    faults: Callable[[], list[tuple[str, int]]] = list
    """What is known of who was lost, and when: nothing but in a rehearsal."""
    waiting: Callable[[], None] = lambda: None


@dataclass
class PlainConversation:
    """Replies one after the other on a cluster that nobody mends."""

    plan: ClusterPlan
    cluster: LocalCluster
    callbacks: Callbacks
    tell: Tell = lambda text: None

    def reply(self, reply: LocalReply, seed: int) -> LocalReply:
        """Make the whole reply; raises LiveError where it breaks, and `reply` then holds what came."""
        self.chats([reply], seed)
        return reply

    def chats(self, replies: Sequence[LocalReply], seed: int) -> None:
        """Make several replies at once; see `reply`."""
        self.cluster.ask_reply(self.plan.scenario.workload.prompt_tokens, replies[0].wanted, seed)
        while True:
            event = self.cluster.next_event(SILENCE_S, self.cluster.watch)
            if self.hears(replies[event.get("chat", 0)], event):
                return

    def hears(self, reply: LocalReply, event: Event) -> bool:
        """Take what the client says; returns whether the reply is complete."""
        if event["event"] == "request":
            reply.begun_busy_ns = event["busy_ns"]
            if not reply.sent_ns:
                reply.sent_ns = event["sent_ns"]
                self.callbacks.asked(reply)
        elif event["event"] == "token":
            reply.tokens.append(event["id"])
            reply.times_ns.append(event["at_ns"])
            reply.spans = event.get("spans", [])
            self._came(reply, event["at_ns"])
            self.callbacks.token(reply, event["id"])
        elif event["event"] == "done":
            reply.busy_ns = event["busy_ns"] - reply.begun_busy_ns
            return True
        return False

    def _came(self, reply: LocalReply, at_ns: int) -> None:
        """A token has come; whoever mends ends a recovery here."""


@dataclass
class Conversation(PlainConversation):
    """Replies one after the other on a cluster that may lose devices."""

    cluster: BreakableCluster
    exact: bool = False
    """Read received tokens one by one: the very tokens of an uninterrupted reply, at a step for each."""
    layers: dict[str, int] = field(init=False)
    """Of each device, as they are placed now."""

    def __post_init__(self) -> None:
        full = self.plan.scenario
        self.client = full.recovery or RecoverySpec()
        self.placer = Placer(full)
        self.layers = {device.name: device.layers for device in self.plan.devices}

    def reply(self, reply: LocalReply, seed: int) -> LocalReply:
        """Make the whole reply.

        Raises PlacementError where the survivors cannot hold the model, and LiveError where a stream breaks
        for a reason that is no loss; `reply` then holds what came.
        """
        patience = Patience(self.client)
        self._take_in(reply, patience)
        while not self._listen(reply, patience, seed):
            self._mend(reply, patience)
        return reply

    def chats(self, replies: Sequence[LocalReply], seed: int) -> None:
        """One after the other: a client of llama.cpp holds one chat."""
        for reply in replies:
            self.reply(reply, seed)

    # --- making tokens
    # ---------------------------------------------------------------------------------------------

    def _listen(self, reply: LocalReply, patience: Patience, seed: int) -> bool:
        """Receive tokens until the reply is complete; False where the stream broke or stalled."""
        self.cluster.ask_reply(
            self.plan.scenario.workload.prompt_tokens,
            reply.wanted - reply.count,
            seed,
            reply.tokens,
            exact=self.exact,
        )
        while True:
            try:
                event = self.cluster.next_event(patience.left_s(), self.callbacks.waiting)
            except LiveError as error:
                # a relay that died is our own fault, and no loss of a device: it must not be mended
                self.cluster.watch_relay()
                self._notice(reply, patience, error)
                return False
            if event["event"] == "token":
                patience.gap.note(event["at_ns"] / 1e9)
            if self.hears(reply, event):
                return True

    def _came(self, reply: LocalReply, at_ns: int) -> None:
        current = reply.recoveries[-1] if reply.recoveries else None
        if current is not None and not current.is_over:
            current.end("prefill", at_ns)
            current.end("resume")
            self.callbacks.mended(reply, current)

    def _notice(self, reply: LocalReply, patience: Patience, error: LiveError) -> None:
        """The stream is broken: a recovery begins, or the one that goes on begins anew."""
        known = self.callbacks.faults()
        open_one = reply.recoveries[-1] if reply.recoveries and not reply.recoveries[-1].is_over else None
        if open_one is None:
            last_ns = reply.times_ns[-1] if reply.times_ns else reply.sent_ns
            open_one = ObservedRecovery(reply.count, known[0][1] if known else last_ns)
            reply.recoveries.append(open_one)
        # broken again before a token came: the same recovery goes on, unless nothing explains it
        elif self._is_hopeless(open_one, bool(known)):
            raise error
        open_one.end("detect" if not open_one.marks else "prefill")
        open_one.devices += tuple(name for name, _ in known)
        patience.broken()
        self.tell(f"token {reply.count}: the stream broke off ({error})")

    def _is_hopeless(self, recovery: ObservedRecovery, has_new_loss: bool) -> bool:
        """Broken again before a token: with everybody there no loss explains that,
        and patience ends some time.
        """
        if (time.monotonic_ns() - recovery.fault_ns) / 1e9 > self.client.give_up:
            return True
        return not has_new_loss and not recovery.devices

    # --- mending
    # ---------------------------------------------------------------------------------------------------

    def _mend(self, reply: LocalReply, patience: Patience) -> None:
        """From a broken stream to a client that is ready on the survivors; whoever leaves
        meanwhile makes it begin again.
        """
        recovery, before = reply.recoveries[-1], set(self.layers)
        while True:
            try:
                self._restart(recovery)
            except LiveError as error:
                if (time.monotonic_ns() - recovery.fault_ns) / 1e9 > self.client.give_up:
                    raise
                recovery.devices += tuple(name for name, _ in self.callbacks.faults())
                self.tell(f"again: {error}")
                continue
            break
        # whoever has no layer any more was lost, also where nobody struck it on purpose
        gone = before - set(self.layers)
        recovery.devices = tuple(dict.fromkeys((*recovery.devices, *sorted(gone))))
        if not recovery.devices:
            # all were there: the client was impatient, and would be so again at the same token
            patience.leniency *= 2

    def _restart(self, recovery: ObservedRecovery, names: tuple[str, ...] | None = None) -> None:
        """A new client on whoever answers, or on `names`."""
        with self._phase(recovery, "release"):
            self.cluster.release()
        with self._phase(recovery, "decide"):
            placed = self._place(names or self.cluster.answering(self.client.probe))
            self.layers = recovery.layers = {shard.device: shard.layers for shard in placed.job.shards}
        with self._phase(recovery, "start"):
            self.cluster.start_client()
        with self._phase(recovery, "load"):
            self.cluster.load(list(self.layers.items())[1:], self.callbacks.waiting)

    @contextmanager
    def _phase(self, recovery: ObservedRecovery, name: str) -> Iterator[None]:
        try:
            yield
        finally:
            recovery.end(name)

    def _place(self, names: Sequence[str]) -> Placed:
        """The model on these devices; raises PlacementError where they cannot hold it."""
        client = self.plan.devices[0].name
        placed = self.placer.place(tuple(names))
        if not isinstance(placed, Placed):
            raise PlacementError(placed.reason)
        # the embedding and the command loop live in the client; another first device cannot drive the chain
        if placed.devices[0] != client:
            raise PlacementError(
                f"the survivors' ring begins at {placed.devices[0]}, but the client is {client}; set "
                f"placement.order so that {client} is first"
            )
        self.tell(
            "goes on with " + ", ".join(f"{shard.layers} on {shard.device}" for shard in placed.job.shards)
        )
        return placed

    def _take_in(self, reply: LocalReply, patience: Patience) -> None:
        """Before a reply: place again with those who have come back."""
        missing = [device.name for device in self.plan.devices if device.name not in self.layers]
        back = self.cluster.answering(RETURNED_S, missing)[1:] if missing and self.client.grow else ()
        here = tuple(
            device.name for device in self.plan.devices if device.name in self.layers or device.name in back
        )
        # a slow device that returns may cost more per token than the move saves
        if not back or not self._is_worth_it(here):
            return
        reply.sent_ns = time.monotonic_ns()
        self.callbacks.asked(reply)
        recovery = ObservedRecovery(0, reply.sent_ns, tuple(back), is_planned=True)
        reply.recoveries.append(recovery)
        try:
            self._restart(recovery, here)
        except LiveError as error:  # gone again
            self.tell(f"again: {error}")
            self._mend(reply, patience)

    def _is_worth_it(self, here: tuple[str, ...]) -> bool:
        """Whether these devices are predicted to make tokens enough faster than those in use,
        as the simulator decides.
        """
        now, then = (self.placer.place(names) for names in (tuple(self.layers), here))
        if not isinstance(now, Placed) or not isinstance(then, Placed) or now.number == then.number:
            return False
        # certain: without noise, as the client compares means
        times_s = [token_times_s(placed.job, 1, certain=True)[0, :, 0] for placed in (now, then)]
        slower_s, faster_s = (float(times[-1] - times[0]) for times in times_s)
        return faster_s <= WORTH * slower_s
