"""Warm-up and runs of one measurement of a server: chunks are on disk as they come, tokens once counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from live.errors import LiveError
from live.openai.client import OpenAiClient
from live.openai.counting import SENTENCES, Counting, Pieces, TokenTimes, token_times
from live.prompts import PromptMaker
from live.reply import StreamedReply
from live.together import run_together
from simulator.result.measurement import MeasurementWriter
from simulator.scenario import WorkloadSpec

__all__ = ["ServerSession"]

WARM_UP_TOKENS = 8
FEW_WORDS = 4
LONG_ENOUGH = 16  # chunks in one packet are told from chance only in replies of so many tokens
BURSTS = 0.1  # of the chunks


class ServerSession:
    """Sends the chats of a workload; `runs_done` and `failures` tell what became of them."""

    def __init__(
        self,
        client: OpenAiClient,
        model_id: str,
        work: WorkloadSpec,
        *,
        say: Callable[[str], None],
        on_token: Callable[[int, int, int], None] | None,
    ) -> None:
        self.client, self.model_id, self.work = client, model_id, work
        self._say, self._on_token = say, on_token
        self.prompts = PromptMaker(work.prompt_tokens)
        self.warm_up_requests = 0
        self.counting: Counting = "uncounted"
        self.fingerprint: str | None = None
        self.runs_done = 0
        self.failures: list[str] = []
        self._told: set[str] = set()
        self._bursting: list[str] = []
        self._abort = threading.Event()
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Learn which fields the server takes, how it counts, and how many tokens a word is."""
        self._say("warming up")
        self.client.learn_form(self.model_id)
        for words in (FEW_WORDS, None):
            prompt, count = self.prompts.make(words)
            reply, pieces = self.client.chat(self.model_id, prompt, max_tokens=WARM_UP_TOKENS)
            self.prompts.learn(count, reply.prompt_tokens)
            self.counting, self.fingerprint = token_times(pieces, reply).how, pieces.fingerprint
        self.warm_up_requests = 3

    def run_all(self, writer: MeasurementWriter) -> None:
        """All runs; stops early when the server does not answer any more."""
        self._run_each(writer, time.monotonic_ns())
        if self._bursting:
            self._warn(
                writer,
                f"in run {', '.join(self._bursting)} many chunks came in one packet: something between "
                "buffers, or a machine is busy; token times are spread over the wait for each packet",
            )

    def _run_each(self, writer: MeasurementWriter, started_ns: int) -> None:
        for run in range(self.work.runs):
            self._say(f"run {run + 1} of {self.work.runs}")
            broken = self._run(writer, run, started_ns)
            self.runs_done += not broken
            if broken and run + 1 < self.work.runs and not self._answers(writer, run):
                return

    def _answers(self, writer: MeasurementWriter, run: int) -> bool:
        try:
            self.client.models()
        except LiveError as error:
            writer.warn(f"stopped after run {run}: {error}")
            return False
        return True

    def _run(self, writer: MeasurementWriter, run: int, started_ns: int) -> bool:
        """One run of all chats at once; True when a reply broke or was refused."""
        prompts = [self.prompts.make()[0] for _ in range(self.work.concurrency)]
        refused_before = self.client.refusals

        def chat(number: int, barrier: threading.Barrier) -> None:
            barrier.wait()
            self._one(writer, run, number, prompts[number], started_ns)

        errors = run_together(len(prompts), chat, self._abort)
        other = [error for error in errors if not isinstance(error, LiveError | threading.BrokenBarrierError)]
        if other:
            raise other[0]
        if self.client.refusals > refused_before and len(prompts) > 1:
            writer.warn(f"run {run}: the server put chats off, so they did not run side by side")
        return bool(errors)

    def _one(self, writer: MeasurementWriter, run: int, chat: int, prompt: str, started_ns: int) -> None:
        """One chat: chunks go to the file as they come, its tokens when the server has told how many."""
        record = _Record(writer, self._lock, run, chat)

        def sent() -> None:
            # again after each refusal: the last request is the one that was answered
            sent_ns = time.monotonic_ns() - started_ns
            record.write("request", prompt_tokens=self.work.prompt_tokens, sent_ns=sent_ns)

        def keep(chunk: int, t_ns: int) -> None:
            record.write("chunk", chunk=chunk, t_ns=t_ns, told=record.pieces.chunks[chunk].told)
            if self._on_token is not None:
                self._on_token(run, chat, chunk)

        outcome, detail = "interrupted", ""
        try:
            self.client.chat(
                self.model_id,
                prompt,
                max_tokens=self.work.output_tokens,
                abort=self._abort,
                on_sent=sent,
                on_chunk=keep,
                into=record.reply,
                pieces=record.pieces,
            )
            outcome, detail = "complete", record.reply.finish_reason or ""
        except LiveError as error:
            outcome, detail = type(error).__name__, str(error)
            with self._lock:
                self.failures.append(f"run {run}, chat {chat}: {outcome}: {detail}")
            raise
        finally:
            times = record.end(started_ns, outcome, detail)
            if outcome == "complete":
                for text in self._doubts(record, times):
                    self._warn(writer, text)

    def _doubts(self, record: _Record, times: TokenTimes) -> Iterator[str]:
        """What makes a complete reply less than it seems; what holds for the server has no run in it."""
        reply, chunks = record.reply, record.pieces.chunks
        where = f"run {record.run}, chat {record.chat}: "
        count, wanted = len(times.t_ns), self.work.output_tokens
        packets = len({chunk.t_ns for chunk in chunks})
        if times.how in ("spread", "uncounted"):
            yield SENTENCES[times.how]
        if count < wanted:
            sent = reply.completion_tokens == wanted
            why = "the server sent no text for the others" if sent else "the model ended its text"
            yield f"{where}{count} of {wanted} tokens: {why}"
        if len(chunks) < 2 <= count:
            yield f"{where}the whole reply came in one chunk, which tells no time between tokens"
        if count >= LONG_ENOUGH and 1 < packets < (1 - BURSTS) * len(chunks):
            self._bursting.append(str(record.run))
        if reply.model not in (None, self.model_id):
            yield f"the server was asked for {self.model_id!r} and answers as {reply.model!r}"
        if reply.prompt_tokens is None:
            yield "the server does not count the prompt's tokens: its length is a guess by words"
        # a quarter is more than the chat template, which every prompt shares
        elif reply.cached_tokens > 0.25 * reply.prompt_tokens:
            yield (
                f"{where}{reply.cached_tokens} of {reply.prompt_tokens} prompt tokens came from the server's "
                "cache: the first token is too early"
            )

    def _warn(self, writer: MeasurementWriter, text: str) -> None:
        """Once for each text, in however many replies it is true."""
        with self._lock:
            if text not in self._told:
                self._told.add(text)
                writer.warn(text)


@dataclass
class _Record:
    """What the file holds of one chat."""

    writer: MeasurementWriter
    lock: threading.Lock
    run: int
    chat: int
    reply: StreamedReply = field(default_factory=StreamedReply)
    pieces: Pieces = field(default_factory=Pieces)

    def write(self, kind: str, **fields: Any) -> None:
        """One event of this chat."""
        with self.lock:
            self.writer.write(kind, run=self.run, chat=self.chat, **fields)

    def end(self, started_ns: int, outcome: str, detail: str) -> TokenTimes:
        """The tokens, which only now are known to be so many, and how the reply ended."""
        reply, times = self.reply, token_times(self.pieces, self.reply)
        for token, (t_ns, chunk) in enumerate(zip(times.t_ns, times.chunk, strict=True)):
            self.write("token", token=token, t_ns=t_ns, chunk=chunk)
        self.write(
            "result",
            outcome=outcome,
            tokens=len(times.t_ns),
            detail=detail,
            sent_ns=reply.sent_ns - started_ns,
            headers_ns=reply.headers_ns,
            end_ns=reply.end_ns,
            prompt_tokens=reply.prompt_tokens,
            cached_tokens=reply.cached_tokens,
            completion_tokens=reply.completion_tokens,
            chunks=len(self.pieces.chunks),
            thinking_chunks=sum(token.is_thinking for token in reply.tokens),
            counting=times.how,
            engine_stats=self.pieces.timings,
            prefill=reply.prefill[-3:],
        )
        return times
