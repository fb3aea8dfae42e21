"""The client of a local Petals swarm: runs in the environment of Petals, forked by `launch.py`.

Commands: `load` (a model folder; with `peers` its blocks are the swarm's, without they are computed here) and
`generate` (chats at once). Each token is told with what each server was asked for meanwhile, and between
tokens what the client does about a server that fails.
"""

from __future__ import annotations

import random
import threading
import time
from asyncio import IncompleteReadError
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

__all__ = ["Client", "prompt", "serve"]

VOCABULARY_FROM = 3
"""After the tokens that have a meaning of their own."""


def _published(module: str) -> Any:
    """A module of the engine's environment; unknown to whoever checks our types."""
    return import_module(module)


def prompt(length: int, seed: int, vocabulary: int) -> list[int]:
    """A prompt of random tokens, the same for the same seed."""
    drawn = random.Random(seed)
    return [drawn.randrange(VOCABULARY_FROM, vocabulary) for _ in range(length)]


class Seen(threading.local):
    """What the servers were asked for since the last token of this thread's chat: [peer, from, until]."""

    def __init__(self) -> None:
        self.chat = -1
        self.spans: list[tuple[str, int, int]] = []


class Client:
    """A model, whose blocks a swarm has or this process."""

    def __init__(self, wire: Any, command: dict[str, Any]) -> None:
        self.wire, self.seen = wire, Seen()
        torch, library = _published("torch"), _published("transformers")
        self.torch = torch
        if command["peers"]:
            kind = _published("petals").AutoDistributedModelForCausalLM
            self._listen_in()
            for name in command["repairs"]:
                REPAIRS[name]()
            told = {"initial_peers": command["peers"], "use_chunked_forward": False}
            if command["prefix"]:
                told["dht_prefix"] = command["prefix"]
            self.model = kind.from_pretrained(
                command["model"],
                torch_dtype=torch.float32,
                low_cpu_mem_usage=False,
                **told,
                **command["config"],
            )
        else:
            self.model = library.LlamaForCausalLM.from_pretrained(command["model"], torch_dtype=torch.float32)
        self.vocabulary: int = self.model.config.vocab_size

    def look(self) -> None:
        """Meet the swarm before the first chat, as who chats for a while has."""
        blocks = getattr(self.model.model, "h", None) if hasattr(self.model, "model") else None
        if blocks is not None and hasattr(blocks, "sequence_manager"):
            blocks.sequence_manager.make_sequence(mode="min_latency", cache_tokens_needed=1)

    def _listen_in(self) -> None:
        """Note when each server is asked and answers, and tell what is done about one that fails."""
        module = _published("petals.client.inference_session")
        server, session = module._ServerInferenceSession, module.InferenceSession
        step, update = server.step, session._update_sequence
        manager = _published("petals.client.routing.sequence_manager").RemoteSequenceManager
        failure, look = manager.on_request_failure, manager._update

        def timed(one: Any, *arguments: Any, **options: Any) -> Any:
            begin_ns = time.monotonic_ns()
            done = step(one, *arguments, **options)
            self.seen.spans.append((one.span.peer_id.to_base58(), begin_ns, time.monotonic_ns()))
            return done

        def failed(one: Any, peer: Any) -> Any:
            self._say("failed", peer=peer.to_base58() if peer is not None else "")
            return failure(one, peer)

        def routed(one: Any, server_at: int, block: int, attempt: int) -> Any:
            self._say("attempt", attempt=attempt, block=block)
            done = update(one, server_at, block, attempt)
            route = [(s.span.peer_id.to_base58(), s.span.start, s.span.end) for s in one._server_sessions]
            self._say("routed", attempt=attempt, route=route)
            return done

        def looked(one: Any) -> Any:
            done = look(one)
            pings = {peer.to_base58(): rtt_s for peer, rtt_s in one.ping_aggregator.to_dict().items()}
            self._say("looked", pings_s=pings)
            return done

        server.step, session._update_sequence = timed, routed
        manager.on_request_failure, manager._update = failed, looked

    def _say(self, what: str, **fields: Any) -> None:
        self.wire.tell("swarm", what=what, chat=self.seen.chat, at_ns=time.monotonic_ns(), **fields)

    def chat(self, number: int, tokens: list[int], wanted: int) -> None:
        """One chat, always the likeliest token, no end of text."""
        self.seen.chat, self.seen.spans = number, []
        told = Told(self, number)
        self.wire.tell("request", chat=number, sent_ns=time.monotonic_ns(), busy_ns=time.process_time_ns())
        with self.torch.inference_mode():
            self.model.generate(
                self.torch.tensor([tokens]),
                max_new_tokens=wanted,
                do_sample=False,
                streamer=told,
                eos_token_id=None,
                pad_token_id=0,
            )

    def generate(self, command: dict[str, Any]) -> None:
        """Several chats at once, each in a thread of its own; tells when all are done."""
        length, seed = command["prompt_tokens"], command["seed"]

        def one(number: int) -> None:
            try:
                self.chat(
                    number, prompt(length, seed + 1000 * number, self.vocabulary), command["output_tokens"]
                )
            except Exception as error:
                self.wire.tell("error", text=f"chat {number}: {type(error).__name__}: {error}", see_log=True)

        threads = [threading.Thread(target=one, args=(number,)) for number in range(command.get("chats", 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.wire.tell("done", busy_ns=time.process_time_ns())


class Told:
    """What `generate` calls with each token: first with the prompt."""

    def __init__(self, client: Client, chat: int) -> None:
        self.client, self.chat, self.count = client, chat, -1

    def put(self, values: Any) -> None:
        """A token has come."""
        self.count += 1
        if self.count == 0:
            return
        seen = self.client.seen
        spans, seen.spans = seen.spans, []
        self.client.wire.tell(
            "token",
            chat=self.chat,
            token=self.count - 1,
            id=int(values.view(-1)[-1]),
            at_ns=time.monotonic_ns(),
            spans=spans,
        )

    def end(self) -> None:
        """Nothing: `done` is told when all chats are."""


def _notice_the_end() -> None:
    """Repair `eof`: a stream that breaks off is an error at once.

    As it is shipped, the reader takes it for a regular end and waits for its writer, which waits for the next
    token.
    """
    p2p = _published("hivemind.p2p").P2P
    receive = p2p.receive_protobuf

    async def received(*arguments: Any) -> Any:
        try:
            return await receive(*arguments)
        except IncompleteReadError as error:
            raise ConnectionResetError("the stream broke off") from error

    p2p.receive_protobuf = staticmethod(received)
    server = _published("petals.client.inference_session")._ServerInferenceSession
    close = server._aclose_stream

    async def closed(self: Any) -> None:
        # the regular end looks the same, and is none that matters
        with suppress(ConnectionResetError):
            await close(self)

    server._aclose_stream = closed


def _replay() -> None:
    """Repair `replay`: the successor of a lost server reads
    all text so far, once; those behind it, the new token.

    As it is shipped, it inherits the text but begins to count at 0, and refuses (bigscience-workshop/petals
    issue 587).
    """
    module = _published("petals.client.inference_session")
    server, session = module._ServerInferenceSession, module.InferenceSession
    update, step = session._update_sequence, server.step

    def updated(self: Any, server_at: int, block: int, attempt: int) -> Any:
        before = self._server_sessions[server_at] if server_at < len(self._server_sessions) else None
        kept = set(map(id, self._server_sessions))
        done = update(self, server_at, block, attempt)
        for fresh in self._server_sessions:
            if id(fresh) not in kept:
                fresh.reads_behind = self._position
        if before is not None:
            heir = self._server_sessions[server_at]
            heir._position = before._position
            heir.history = before.history[:, : before._position] if before._position else None
        return done

    def stepped(self: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        behind = 0 if self.stepped else getattr(self, "reads_behind", 0)
        outputs = step(self, inputs, *arguments, **options)
        following = self.next_session
        # a server that is new as well needs all of it, one that was there the new token alone
        if behind and (following is None or following.stepped):
            outputs = outputs[:, behind:]
        return outputs

    session._update_sequence, server.step = updated, stepped


def _leave_closing() -> None:
    """Repair `del`: a session is closed where it is left, and not when it is collected.

    A collection inside the client's own event loop would wait for that loop, for ever.
    """
    server = _published("petals.client.inference_session")._ServerInferenceSession
    server.__del__ = lambda self: None


REPAIRS: dict[str, Callable[[], None]] = {"eof": _notice_the_end, "replay": _replay, "del": _leave_closing}


def serve(wire: Any) -> None:
    """Obey until the parent goes."""
    client: Client | None = None
    while True:
        command = wire.commands.get()
        if command["do"] == "load":
            client = Client(wire, command)
            client.look()
            wire.tell("loaded", vocabulary=client.vocabulary)
        elif command["do"] == "generate" and client is not None:
            client.generate(command)
