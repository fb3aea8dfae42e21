"""A client that loses no token: it notices a stalled or broken reply, has the model placed again, and
goes on behind what it has.

The prompt and all text received are sent again. EXO leaves a last turn of the assistant open
(exo-explore/exo, utils_mlx.py: assistant prefilling), so the model continues it; versions before that begin a
new turn. The text is tokenised anew, so the boundary of a token may differ from the first time. Thinking text
cannot be given back: a reply that holds some is not mended.

Phases of a recovery: detect, release, decide, start, load, warm up, prefill, resume,
as the simulator has them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from live.errors import (
    BrokenReply,
    LiveError,
    NotMended,
    RequestRefused,
    StreamAborted,
    StreamCutOff,
    StreamErrorEvent,
    StreamStalled,
    Unreachable,
)
from live.exo.bounds import Bounds, GivenUp
from live.exo.client import ExoClient
from live.exo.moving import MOST_ATTEMPTS, Moving
from live.exo.state import ClusterState, StateInstance
from live.http import Aborted
from live.recovery import ObservedRecovery
from live.reply import StreamedReply, Token
from live.stream import OnToken
from simulator.churn.spec import RecoverySpec
from simulator.errors import SimulatorError
from simulator.scenario import Scenario

__all__ = ["Mended", "Mender"]

MENDABLE = (StreamErrorEvent, StreamCutOff, StreamStalled)


@dataclass(frozen=True, slots=True)
class Mended:
    """A whole reply, and what had to be mended for it."""

    reply: StreamedReply
    """Of several parts where it broke: times count from the first request, and the engine's
    own figures are left out.
    """
    recoveries: tuple[ObservedRecovery, ...]


@dataclass
class _Talk:
    """One reply over all its requests."""

    wanted: int
    on_token: OnToken | None
    reply: StreamedReply = field(default_factory=StreamedReply)
    part: StreamedReply = field(default_factory=StreamedReply)
    recoveries: list[ObservedRecovery] = field(default_factory=list)
    heard: int = 0
    """Tokens told of so far; those that come once more are not told of twice."""
    again: list[Token] = field(default_factory=list)
    """Tokens at the end that the engine is to make once more."""

    def begin(self) -> str:
        """A new request: what it has to give back to the engine."""
        kept = len(self.reply.tokens)
        # a part of a character, which no text can hold
        while kept and not self.reply.tokens[kept - 1].text:
            kept -= 1
        # and the last one with text: the engine drops a space at a reply's start (mlx-lm's detokenizers), so
        # a new word would be glued to the one before; of a token made again we know whether it had one
        kept -= bool(kept)
        self.again = self.reply.tokens[kept:]
        del self.reply.tokens[kept:]
        # a fresh one per request: what breaks now must not touch what has come
        self.part = StreamedReply()
        return self.reply.text

    def hear(self, index: int, t_ns: int) -> None:
        """Token `index` of the request came."""
        at_ns, number = self.part.sent_ns + t_ns, len(self.reply.tokens) + index
        is_mending = bool(self.recoveries) and not self.recoveries[-1].is_over
        if index == 0 and is_mending:
            read = [t for t, processed, total in self.part.prefill if processed >= total]
            self.recoveries[-1].end("prefill", self.part.sent_ns + read[-1] if read else at_ns)
        # tokens that were not given back: the engine makes them again
        if number < self.heard:
            return
        if is_mending:
            self.recoveries[-1].end("resume", at_ns)
        self.heard = number + 1
        if self.on_token is not None:
            self.on_token(number, at_ns - (self.reply.sent_ns or self.part.sent_ns))

    def join(self) -> None:
        """The request is over, in whichever way: its tokens go to the others."""
        whole, part = self.reply, self.part
        if not whole.sent_ns:
            self.reply = part
            return
        later_ns = part.sent_ns - whole.sent_ns
        came = [Token(token.t_ns + later_ns, token.text, token.is_thinking) for token in part.tokens]
        whole.tokens += self.in_place(came)
        whole.end_ns = later_ns + (part.end_ns or 0)
        whole.finish_reason, whole.done = part.finish_reason, part.done
        whole.keep_alives += part.keep_alives
        whole.empty_events += part.empty_events

    def in_place(self, came: list[Token]) -> list[Token]:
        """`came`, after which those of `again` that were not made again stand as they were.

        A token made again keeps the time at which it was told, and the space that the engine left out.
        """
        old, self.again = self.again, []
        made = [
            Token(before.t_ns, token.text, token.is_thinking)
            for before, token in zip(old, came, strict=False)
        ]
        first = next((at for at, token in enumerate(came) if token.text), None)
        whole = made + came[len(made) :] + old[len(made) :]
        if first is not None and old and old[0].text[:1] == " " != whole[first].text[:1]:
            whole[first] = replace(whole[first], text=f" {whole[first].text}")
        return whole

    def broke(self) -> ObservedRecovery:
        """The reply is broken: a recovery begins, or the one that was under way starts again."""
        if not self.recoveries or self.recoveries[-1].is_over:
            last_ns = self.reply.sent_ns + (self.reply.tokens[-1].t_ns if self.reply.tokens else 0)
            self.recoveries.append(ObservedRecovery(self.heard, last_ns))
        self.recoveries[-1].end("detect")
        return self.recoveries[-1]


class Mender:
    """Chats with one instance at a time; thread-safe, and what broke for several chats is mended once."""

    def __init__(
        self,
        client: ExoClient,
        scenario: Scenario,
        instance: StateInstance,
        names: Callable[[ClusterState], Mapping[str, str]],
        *,
        urls: Sequence[str] = (),
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`names` tells what to call each node, `urls` are further addresses of the cluster."""
        self.client, self.spec, self.say = client, scenario.recovery or RecoverySpec(), say
        self._moving = Moving(client, scenario, instance, names, urls, say)
        self._lock = threading.Lock()
        self._mended: list[ObservedRecovery] = []
        """All recoveries up to a ready instance; their number tells a chat whether
        its break is mended already.
        """

    @property
    def instance(self) -> StateInstance:
        """What serves now."""
        return self._moving.instance

    @property
    def layers(self) -> dict[str, int]:
        """Layers by device as they lie now, in ring order."""
        return self._moving.layers()

    def chat(
        self,
        prompt: str,
        max_tokens: int,
        *,
        bench: bool = False,
        temperature: float | None = None,
        abort: threading.Event | None = None,
        on_token: OnToken | None = None,
    ) -> Mended:
        """One whole reply, whatever is lost meanwhile.

        Raises NotMended where that is not possible, another BrokenReply where going on would make no sense,
        with all that came, and what `ExoClient.chat` raises before the first stream.
        """
        talk = _Talk(max_tokens, on_token)
        try:
            self._hold(talk, prompt, bench, temperature, abort or threading.Event())
        except BrokenReply as error:
            error.recoveries = tuple(talk.recoveries)
            raise
        return Mended(talk.reply, tuple(talk.recoveries))

    def _hold(
        self, talk: _Talk, prompt: str, bench: bool, temperature: float | None, off: threading.Event
    ) -> None:
        """Ask until the reply is whole."""
        while True:
            # before asking: a break after this look is new, one before it may be mended already
            known = len(self._mended)
            try:
                self._ask(talk, prompt, bench, temperature, off)
                return
            except MENDABLE as error:
                cause: LiveError = error
            except (Unreachable, RequestRefused) as error:
                if not talk.recoveries or talk.recoveries[-1].is_over:
                    raise
                cause = error
            # all tokens are there: a lost last packet is no reason to move the model
            if len(talk.reply.tokens) >= talk.wanted and talk.reply.tokens[-1].text:
                return  # only the stream's end was lost
            self._mend(talk, cause, known, off)

    def _ask(
        self, talk: _Talk, prompt: str, bench: bool, temperature: float | None, off: threading.Event
    ) -> None:
        """The rest of the reply; whatever comes is joined to what is there."""
        received = talk.begin()
        try:
            self.client.chat(
                self.instance.model_id,
                prompt,
                max_tokens=talk.wanted - len(talk.reply.tokens),
                bench=bench,
                instance_id=self.instance.instance_id,
                temperature=temperature,
                abort=off,
                on_token=talk.hear,
                received=received,
                client=self.spec,
                into=talk.part,
            )
        except BrokenReply as error:
            talk.join()
            # the user wants all that came, not what the last request brought
            error.reply, error.tokens_received = talk.reply, talk.heard
            raise
        except (Unreachable, RequestRefused):
            talk.reply.tokens += talk.in_place([])  # nothing came, so all stands as it was
            raise
        talk.join()
        if talk.recoveries:
            # the engine counted the last part only
            talk.reply.usage, talk.reply.stats = {}, {}

    def _mend(self, talk: _Talk, cause: LiveError, known: int, off: threading.Event) -> None:
        """From a broken reply to an instance that can be asked again; raises NotMended and StreamAborted."""
        recovery = talk.broke()
        self.say(f"token {talk.heard}: {cause}")
        try:
            if any(token.is_thinking for token in talk.reply.tokens):
                raise LiveError(
                    "thinking text cannot be given back to the engine, so this reply cannot go on"
                )
            if sum(phase == "detect" for phase, _ in recovery.marks) > MOST_ATTEMPTS:
                raise LiveError(f"no token came in {MOST_ATTEMPTS} attempts")
            bounds = Bounds(recovery.fault_ns + int(self.spec.give_up * 1e9), self.spec.give_up, off)
            with self._lock:
                self._once(recovery, cause, known, bounds)
        except Aborted:
            raise StreamAborted("the reply was called off", talk.reply) from None
        except (SimulatorError, GivenUp) as error:
            raise NotMended(f"{cause}; it could not be mended: {error}", talk.reply) from error

    def _once(self, recovery: ObservedRecovery, cause: LiveError, known: int, bounds: Bounds) -> None:
        """Mend, unless another chat has done so since this one asked."""
        # several chats break together; the first one here mends for all
        if len(self._mended) == known:
            self._moving.recover(recovery, cause, bounds)
            self._mended.append(recovery)
            return
        other = self._mended[-1]
        noticed_ns = recovery.marks[-1][1]
        # this chat waited for the recovery of another: the same loss, seen from here
        recovery.devices, recovery.layers = other.devices, dict(other.layers)
        for phase, end_ns in list(other.marks):
            if phase not in ("detect", "prefill", "resume") and end_ns > noticed_ns:
                recovery.end(phase, end_ns)
