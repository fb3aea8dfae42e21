"""Warm-up and runs of one measurement on one ready instance."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence

import numpy as np

from live.errors import BrokenReply, LiveError, NotOffered, NotStreamed
from live.exo.client import ExoClient
from live.exo.mend import Mender
from live.exo.others import Watch
from live.exo.state import StateInstance
from live.prompts import PromptMaker
from live.recovery import ObservedRecovery
from live.reply import StreamedReply
from live.together import run_together
from simulator.result.bursts import BURSTING, arrivals
from simulator.result.measurement import MeasurementWriter
from simulator.scenario import WorkloadSpec

__all__ = ["MeasurementSession"]

WARM_UP_TOKENS = 8
FEW_WORDS = 4
AGAINST_BURSTS = (
    "rates stay true, single gaps are estimates. What helps: no other work on the machine that hands the "
    "tokens out, a --cluster address of a node that is not rank 0, longer replies"
)
RECOVERY_S = 60.0  # EXO restarts a failed runner by itself; recorded: 22 s with a small model


class MeasurementSession:
    """Sends the chats of a workload; `runs_done` and `failures` tell what became of them."""

    def __init__(
        self,
        client: ExoClient,
        work: WorkloadSpec,
        mender: Mender,
        *,
        temperature: float,
        say: Callable[[str], None],
        on_token: Callable[[int, int, int], None] | None,
        known: Collection[str] = (),
        allow_busy: bool = False,
    ) -> None:
        """`known` are instances of others that may be there; `allow_busy`: their work does no harm."""
        self.client, self.work, self.mender = client, work, mender
        self._temperature, self._say, self._on_token = temperature, say, on_token
        self._allow_busy = allow_busy
        self._known = {*known, mender.instance.instance_id}
        self.prompts = PromptMaker(self.work.prompt_tokens)
        self.bench = True
        self.warm_up_requests = 0
        self.runs_done = 0
        self.failures: list[str] = []
        self.recoveries: list[ObservedRecovery] = []
        self._abort = threading.Event()
        self._lock = threading.Lock()

    @property
    def instance(self) -> StateInstance:
        """What serves now; after a loss another than at first."""
        return self.mender.instance

    @property
    def endpoint(self) -> str:
        """Where the chats go."""
        return "/bench/chat/completions, streamed" if self.bench else "/v1/chat/completions"

    def warm_up(self) -> None:
        """Compile kernels, learn how many tokens a word is, and whether the benchmark endpoint streams.

        That endpoint bans the end of the text, so every reply has its full length; up to
        1.0.71 it does not stream.
        """
        # two lengths give the straight line from words to tokens; the second has the length of the runs
        for words in (FEW_WORDS, None):
            self._say("warming up")
            prompt, count = self.prompts.make(words)
            reply = self._warm_chat(prompt)
            self.prompts.learn(count, reply.prompt_tokens)
            self.warm_up_requests += 1

    def _warm_chat(self, prompt: str) -> StreamedReply:
        if self.bench:
            try:
                return self._warm_reply(prompt)
            # versions differ in what they offer, not in what they call themselves, so trying is the only
            # way
            except (NotStreamed, NotOffered):
                self.bench = False
        return self._warm_reply(prompt)

    def _warm_reply(self, prompt: str) -> StreamedReply:
        """Not mended: what is lost before a measurement should be told, not measured around."""
        return self.client.chat(
            self.instance.model_id,
            prompt,
            max_tokens=WARM_UP_TOKENS,
            instance_id=self.instance.instance_id,
            bench=self.bench,
            temperature=self._temperature,
            abort=self._abort,
        )

    def run_all(self, writer: MeasurementWriter) -> None:
        """All runs; stops early when the instance is lost, or the layers lie elsewhere than
        the header of the file says.
        """
        started_ns, first = time.monotonic_ns(), self.instance.instance_id
        for run in range(self.work.runs):
            self._say(f"run {run + 1} of {self.work.runs}")
            # somebody else may come at any time, and nobody can keep them out
            with Watch(self.client, self._known) as watch:
                broken = self._run(writer, run, started_ns)
            is_alone = self._mark_others(writer, run, watch)
            self.runs_done += is_alone and not broken
            if broken and not self._recovered(writer):
                return
            # the header names a placement; runs on another one belong into a file of their own
            if self.instance.instance_id != first and run + 1 < self.work.runs:
                writer.warn(
                    f"stopped after run {run}: the layers lie elsewhere now ({self._layers()}), so further "
                    "runs would not be what the header says; measure again"
                )
                return

    def _layers(self) -> str:
        return ", ".join(f"{layers} on {device}" for device, layers in self.mender.layers.items())

    def _mark_others(self, writer: MeasurementWriter, run: int, watch: Watch) -> bool:
        """Mark a run in which others worked; whether it counts as measured."""
        told = ", ".join(watch.told({*self.client.made, self.instance.instance_id}))
        if not told:
            return True
        writer.warn(f"run {run}: other work on the cluster: {told}")
        if self._allow_busy:
            return True
        writer.write("disturbed", run=run, by=told)
        self.failures.append(f"run {run}: somebody else used the cluster meanwhile ({told}); measure again")
        return False

    def _recovered(self, writer: MeasurementWriter) -> bool:
        """Whether the instance is ready again; a lost node takes the instance with it."""
        try:
            self.client.wait_ready(self.instance, within_s=RECOVERY_S)
        except LiveError as error:
            writer.warn(f"stopped: the cluster did not recover: {error}")
            return False
        return True

    def _run(self, writer: MeasurementWriter, run: int, started_ns: int) -> bool:
        """One run of all chats at once; True when a reply broke."""
        prompts = [self.prompts.make()[0] for _ in range(self.work.concurrency)]

        def chat(number: int, barrier: threading.Barrier) -> None:
            self._one(writer, run, number, prompts[number], barrier, started_ns)

        errors = run_together(len(prompts), chat, self._abort)
        other = [
            error for error in errors if not isinstance(error, BrokenReply | threading.BrokenBarrierError)
        ]
        if other:
            raise other[0]
        return bool(errors)

    def _one(
        self,
        writer: MeasurementWriter,
        run: int,
        chat: int,
        prompt: str,
        barrier: threading.Barrier,
        started_ns: int,
    ) -> None:
        """One chat; its tokens go to the file as they arrive."""

        def keep(token: int, t_ns: int) -> None:
            with self._lock:
                writer.write("token", run=run, chat=chat, token=token, t_ns=t_ns)
            if self._on_token is not None:
                self._on_token(run, chat, token)

        barrier.wait()
        with self._lock:
            sent_ns = time.monotonic_ns() - started_ns
            writer.write(
                "request", run=run, chat=chat, prompt_tokens=self.work.prompt_tokens, sent_ns=sent_ns
            )
        try:
            mended = self.mender.chat(
                prompt,
                self.work.output_tokens,
                bench=self.bench,
                temperature=self._temperature,
                abort=self._abort,
                on_token=keep,
            )
        except BrokenReply as error:
            self.failures.append(f"run {run}, chat {chat}: {type(error).__name__}: {error}")
            self._recovered_by(writer, run, chat, error.reply, error.recoveries)
            self._result(writer, run, chat, error.reply, started_ns, type(error).__name__, str(error))
            raise
        self._recovered_by(writer, run, chat, mended.reply, mended.recoveries)
        self._result(
            writer, run, chat, mended.reply, started_ns, "complete", mended.reply.finish_reason or ""
        )
        self._doubts(writer, run, chat, mended.reply)

    def _recovered_by(
        self,
        writer: MeasurementWriter,
        run: int,
        chat: int,
        reply: StreamedReply,
        recoveries: Sequence[ObservedRecovery],
    ) -> None:
        """The phases of each recovery, from the request on;
        `phase` lines mark the run as one that is no steady state.
        """
        with self._lock:
            self.recoveries += recoveries
            for recovery in recoveries:
                for line in recovery.lines(reply.sent_ns):
                    writer.write(
                        "phase", run=run, chat=chat, **line, token=recovery.token, layers=recovery.layers
                    )
                writer.warn(f"run {run}, chat {chat}: {_told(recovery)}")

    def _result(
        self,
        writer: MeasurementWriter,
        run: int,
        chat: int,
        reply: StreamedReply,
        started_ns: int,
        outcome: str,
        detail: str,
    ) -> None:
        with self._lock:
            writer.write(
                "result",
                run=run,
                chat=chat,
                outcome=outcome,
                tokens=len(reply.tokens),
                detail=detail,
                sent_ns=reply.sent_ns - started_ns,
                headers_ns=reply.headers_ns,
                end_ns=reply.end_ns,
                prompt_tokens=reply.prompt_tokens,
                cached_tokens=reply.cached_tokens,
                completion_tokens=reply.completion_tokens,
                engine_stats=reply.stats,
                # the end of the prompt is what matters; a long prompt has hundreds of pieces
                prefill=reply.prefill[-3:],
            )

    def _doubts(self, writer: MeasurementWriter, run: int, chat: int, reply: StreamedReply) -> None:
        """What makes a complete reply less than it seems."""
        texts = []
        if len(reply.tokens) < self.work.output_tokens:
            texts.append(
                f"only {len(reply.tokens)} of {self.work.output_tokens} tokens: the model ended its text, "
                "and this version cannot forbid that while streaming"
            )
        if reply.completion_tokens not in (None, len(reply.tokens)):
            texts.append(
                f"{len(reply.tokens)} tokens arrived, the engine counts {reply.completion_tokens}: it keeps "
                "some to itself (thinking marks), so gaps hold more than one token"
            )
        # a quarter is more than the chat template, which every prompt shares
        if reply.prompt_tokens and reply.cached_tokens > 0.25 * reply.prompt_tokens:
            texts.append(
                f"{reply.cached_tokens} of {reply.prompt_tokens} prompt tokens came from the prefix cache: "
                "the first token is too early"
            )
        times_s = np.array([token.t_ns / 1e9 for token in reply.tokens])
        if (share := arrivals(times_s).short_share) > BURSTING:
            texts.append(
                f"tokens arrive in bursts: {share:.0%} came together with the one before; {AGAINST_BURSTS}"
            )
            # at once: whoever is there can still stop the other work, or ask another node
            self._say(f"doubt: run {run}: {texts[-1]}")
        with self._lock:
            for text in texts:
                writer.warn(f"run {run}, chat {chat}: {text}")


def _told(recovery: ObservedRecovery) -> str:
    """One recovery in a sentence."""
    who = ", ".join(recovery.devices) or recovery.cause or "no device"
    if not recovery.is_over:
        return f"the reply broke off after {recovery.token} tokens ({who} lost), and could not be mended"
    layers = ", ".join(f"{count} on {device}" for device, count in recovery.layers.items())
    return (
        f"the reply broke off after {recovery.token} tokens ({who} lost); the next token came "
        f"{recovery.seconds:.2f} s after the last one, from {layers}; the run is no steady state"
    )
