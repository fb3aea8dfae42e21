"""A loss in the middle of a reply of a local Petals swarm: predicted, then made, then watched.

The client is Petals' own: nobody here mends anything. Everything that the
prediction needs is known before the reply begins, but who serves the lost
blocks where several could, so there is one prediction for each of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from live.local.children import Event
from live.local.conversation import Callbacks, LocalReply, PlainConversation
from live.local.petals.breaking import BreakableSwarm
from live.local.petals.plan import PetalsPlan, plan_petals
from live.local.provenance import collect
from live.recovery import ObservedRecovery, require_inside
from live.steady import tokens_per_s
from simulator.errors import LiveError
from simulator.result.measurement import MeasurementWriter
from simulator.scenario import Scenario
from simulator.swarm.loss import NEVER, LossPrediction, predict_loss
from simulator.swarm_spec import LossSpec

__all__ = ["SwarmDropped", "SwarmLoss", "run_loss"]

Tell = Callable[[str], None]
SEED, WARM_UP_SEED, WARM_UP_TOKENS = 1, 0, 8
LATE_S = 0.15
"""By how much a blow may miss its time after a look, for it comes with a token."""
LOOKS = 2
"""Beside those at the start and while the client warms up."""
TAIL_TOKENS = 10
"""Behind a recovery, to see that they come again."""
SLACK_S = 20.0
"""Beyond its patience a reply is waited for; then it has stopped for good."""


@dataclass(frozen=True, slots=True)
class SwarmLoss:
    """A server that goes once the reply has `at_token`
    tokens, `after_look_s` after the client's last look.
    """

    device: str
    at_token: int
    mode: Literal["kill", "hang", "dark"] = "kill"
    after_look_s: float | None = None
    """None: as soon as the tokens are there."""
    back_after_s: float | None = None
    """A killed server is started again so much later, one that hangs goes on."""


@dataclass(frozen=True, slots=True)
class SwarmDropped:
    """What became of one reply."""

    path: Path
    first: LocalReply
    predicted: LossPrediction | None
    attempts: int
    """How often the client asked for another way; `NEVER` where the reply never went on."""
    is_mended: bool
    loss: SwarmLoss

    @property
    def tokens(self) -> tuple[int, ...]:
        """Ids of the reply's tokens."""
        return tuple(self.first.tokens)

    @property
    def recoveries(self) -> tuple[ObservedRecovery, ...]:
        """The one, where the reply went on."""
        return tuple(self.first.recoveries) if self.is_mended else ()

    @property
    def before(self) -> float | None:
        """Tokens/s up to the loss."""
        return tokens_per_s(self.first.times_ns[: self._at])

    @property
    def after(self) -> float | None:
        """Tokens/s behind the recovery."""
        return tokens_per_s(self.first.times_ns[self._at :]) if self.is_mended else None

    @property
    def _at(self) -> int | None:
        return self.first.recoveries[0].token if self.first.recoveries else None


def run_loss(scenario: Scenario, loss: SwarmLoss, path: Path, tell: Tell = lambda text: None) -> SwarmDropped:
    """One reply of `scenario` on a local swarm that loses a server; writes a Measurement to `path`.

    Raises LiveError for a loss that cannot be made.
    """
    chosen = plan_petals(scenario)
    _check(chosen, loss)
    with BreakableSwarm(chosen) as cluster:
        workload = chosen.scenario.workload
        cluster.generate(workload.prompt_tokens, min(WARM_UP_TOKENS, workload.output_tokens), WARM_UP_SEED)
        predicted = _predictions(chosen, loss, cluster.start_s)
        _wait_for_looks(cluster, chosen.swarm.update_period)
        facts = {"loss": asdict(loss), "predictions": {name: _told(one) for name, one in predicted.items()}}
        header = collect(
            chosen, {}, {}, facts, versions={"petals": "2.2.0.post1"}, is_local=True, warm_up_requests=1
        )
        with MeasurementWriter(path, header) as writer:
            return _Watch(chosen, cluster, writer, loss, predicted, tell).hold()


def _check(chosen: PetalsPlan, loss: SwarmLoss) -> None:
    names = [one.name for one in (*chosen.servers, *chosen.spares)]
    if loss.device not in names:
        raise LiveError(
            f"{loss.device} cannot be taken away; choose one of the servers {', '.join(names)} "
            f"({chosen.client} is the client: without it nobody goes on)"
        )
    require_inside(loss.at_token, chosen.scenario.workload.output_tokens)
    if chosen.scenario.workload.concurrency != 1:
        raise LiveError(
            f"{chosen.scenario.name}: a loss is watched in one chat; set workload.concurrency to 1"
        )
    if loss.mode == "dark" and loss.back_after_s is not None:
        raise LiveError(
            f"{loss.device}: a link that is dark stays dark; leave --back-after out, or take hang"
        )


def _predictions(chosen: PetalsPlan, loss: SwarmLoss, start_s: float) -> dict[str, LossPrediction | None]:
    """For whoever may serve the blocks of `loss.device`; a
    killed server needs `start_s` to be there again.
    """
    spans = {one.name: (one.start, one.end) for one in (*chosen.servers, *chosen.spares)}
    after_s = loss.after_look_s if loss.after_look_s is not None else chosen.swarm.update_period / 2
    found = {}
    for name in (one for one, span in spans.items() if span == spans[loss.device]):
        # at first all started at once and shared the cores; it alone has them for itself
        again_s = start_s / len(spans) if loss.mode == "kill" else 0.0
        back_s = None if loss.back_after_s is None else loss.back_after_s + again_s
        told = LossSpec.model_validate(
            {
                "server": name,
                "at": f"{after_s + LATE_S / 2} s",
                "how": "kill" if loss.mode == "kill" else "hang",
                "back_after": None if back_s is None else f"{back_s} s",
            }
        )
        found[name] = predict_loss(chosen.scenario, spans, told)
    return found


def _wait_for_looks(cluster: BreakableSwarm, period_s: float) -> None:
    """Until the client has looked, and pinged, often enough
    to know all servers: a look pings some of them.
    """
    seen = 0
    while seen < LOOKS:
        seen += cluster.next_event(period_s + SLACK_S).get("what") == "looked"


def _told(one: LossPrediction | None) -> Mapping[str, Any] | None:
    return None if one is None else asdict(one)


@dataclass
class _Watch:
    """The reply, the blow in its middle, and what the client says of it."""

    plan: PetalsPlan
    cluster: BreakableSwarm
    writer: MeasurementWriter
    loss: SwarmLoss
    predicted: Mapping[str, LossPrediction | None]
    tell: Tell
    victim: str = ""
    route: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Blocks of each device that the chat uses."""
    looked_s: float = 0.0
    attempts: int = 0
    struck_s: float | None = None
    is_back: bool = False

    def hold(self) -> SwarmDropped:
        """The reply until it is whole, or has stopped for good."""
        workload, reply = self.plan.scenario.workload, LocalReply(self.plan.scenario.workload.output_tokens)
        talk = PlainConversation(self.plan, self.cluster, Callbacks(self._asked, self._token))
        self.cluster.ask_reply(workload.prompt_tokens, reply.wanted, SEED)
        patience_s = self.plan.swarm.patience + SLACK_S
        whole = False
        try:
            while not whole:
                event = self.cluster.next_event(patience_s, lambda: self._waiting(reply, patience_s))
                if event["event"] == "swarm":
                    self._heard(reply, event)
                else:
                    whole = talk.hears(reply, event) or self._has_seen_enough(reply)
        except LiveError as error:
            self.tell(f"token {reply.count}: nothing more came ({error})")
        outcome = "complete" if whole else "lost"
        self.writer.write("result", run=0, chat=0, outcome=outcome, tokens=reply.count)
        return self._concluded(reply)

    def _concluded(self, reply: LocalReply) -> SwarmDropped:
        mended = bool(reply.recoveries) and reply.recoveries[0].is_over
        attempts = self.attempts if mended else NEVER
        predicted = self.predicted.get(self.victim)
        if reply.recoveries:
            for line in reply.recoveries[0].lines(reply.sent_ns):
                self.writer.write("phase", run=0, **line)
        self.writer.write("loss", run=0, device=self.victim, attempts=attempts, predicted=_told(predicted))
        return SwarmDropped(self.writer.path, reply, predicted, attempts, mended, self.loss)

    def _has_seen_enough(self, reply: LocalReply) -> bool:
        found = reply.recoveries
        return bool(found) and found[0].is_over and reply.count >= found[0].token + TAIL_TOKENS

    def _asked(self, reply: LocalReply) -> None:
        prompt = self.plan.scenario.workload.prompt_tokens
        self.writer.write("request", run=0, chat=0, prompt_tokens=prompt, sent_ns=0)

    def _token(self, reply: LocalReply, token: int) -> None:
        at_ns = reply.times_ns[-1]
        self.writer.write("token", run=0, chat=0, token=reply.count - 1, t_ns=at_ns - reply.sent_ns, id=token)
        recovery = reply.recoveries[-1] if reply.recoveries else None
        if recovery is not None and not recovery.is_over and recovery.marks:
            recovery.end("resume", at_ns)
            self.tell(
                f"token {reply.count - 1}: goes on after {recovery.seconds:.2f} s, attempt {self.attempts}"
            )
        elif recovery is not None and not recovery.is_over and self._is_later(recovery, at_ns):
            # nothing failed: a server that only hung has answered at last
            recovery.marks += [("detect", at_ns), ("resume", at_ns)]
        if self.struck_s is None and reply.count >= self.loss.at_token:
            self._strike_in_time(reply)

    def _is_later(self, recovery: ObservedRecovery, at_ns: int) -> bool:
        """Whether this token was asked for after the blow:
        one that was under way already may come through.
        """
        return at_ns - recovery.fault_ns > 1e9 and self.is_back

    def _strike_in_time(self, reply: LocalReply) -> None:
        since_s = time.monotonic() - self.looked_s
        wanted_s = self.loss.after_look_s
        if wanted_s is not None and not wanted_s <= since_s <= wanted_s + LATE_S:
            return
        span = next(
            (one.start, one.end)
            for one in (*self.plan.servers, *self.plan.spares)
            if one.name == self.loss.device
        )
        # where several have the blocks, the one that this chat uses
        self.victim = next((name for name, blocks in self.route.items() if blocks == span), self.loss.device)
        at_ns = self.cluster.lose(self.victim, self.loss.mode)
        self.struck_s = time.monotonic()
        reply.recoveries.append(ObservedRecovery(reply.count, at_ns, (self.victim,)))
        self.tell(f"token {reply.count}: {self.victim} goes ({self.loss.mode}), {since_s:.1f} s after a look")

    def _heard(self, reply: LocalReply, event: Event) -> None:
        recovery = reply.recoveries[-1] if reply.recoveries else None
        if event["what"] == "looked":
            self.looked_s = event["at_ns"] / 1e9
        elif event["what"] == "routed":
            self.route = {
                self.cluster.peers.get(peer, peer): (start, end) for peer, start, end in event["route"]
            }
            if recovery is not None and not recovery.is_over:
                recovery.end("decide", event["at_ns"])
        elif event["what"] == "attempt" and recovery is not None:
            self.attempts = event["attempt"]
        elif event["what"] == "failed" and recovery is not None and not recovery.is_over:
            recovery.end("decide" if recovery.marks else "detect", event["at_ns"])

    def _waiting(self, reply: LocalReply, patience_s: float) -> None:
        """Called while nothing is heard: whoever is to come back does; a reply that has stopped is left."""
        if self.struck_s is None:
            return
        since_s = time.monotonic() - self.struck_s
        if self.loss.back_after_s is not None and not self.is_back and since_s >= self.loss.back_after_s:
            self.is_back = True
            self.cluster.revive(self.victim, self.loss.mode)
        if since_s > patience_s and not (reply.recoveries and reply.recoveries[0].is_over):
            raise LiveError(f"no token for {since_s:.0f} s")
