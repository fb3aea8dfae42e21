"""Read a token stream of either EXO generation: server-sent events with a time for every token.

EXO puts statistics into SSE comments, which ordinary SSE libraries drop, so lines are read here.
One `data:` line is one token. A token's time is when its bytes left the socket; tokens that
arrive in one packet share it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from live.errors import StreamCutOff, StreamErrorEvent, StreamGarbled
from live.exo.casing import snake
from live.reply import StreamedReply, Token

__all__ = [
    "MAX_TEXT",
    "SLACK_TOKENS",
    "OnToken",
    "StreamRules",
    "event_json",
    "mapping",
    "read_reply",
    "short_text",
    "sse_lines",
]

MAX_LINE_BYTES = 2**20  # a line of EXO with top_logprobs stays below 20 kB
MAX_TEXT = 1000  # characters kept of one token
SLACK_TOKENS = 64  # EXO stops at max_tokens; a reply far beyond is none of its

OnToken = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class StreamRules:
    """What differs between streams: `empty_is_token` is False for legacy EXO up to
    0.0.12, which sends fillers.
    """

    max_tokens: int
    empty_is_token: bool = True


def sse_lines(chunks: Iterable[bytes], max_bytes: int = MAX_LINE_BYTES) -> Iterator[bytes]:
    """The complete lines of a byte stream, without their ends; a rest without an end is dropped.

    Raises ValueError for a line longer than `max_bytes`, whether or not its end ever comes.
    """
    rest = bytearray()
    for chunk in chunks:
        rest += chunk
        if b"\n" in chunk:
            # whole lines only: a packet ends anywhere, also inside a character
            *lines, last = rest.split(b"\n")
            for line in lines:
                if len(line) > max_bytes:
                    raise ValueError(f"a line of {len(line)} bytes")
                yield bytes(line.removesuffix(b"\r"))
            rest = last
        # a line that never ends must not grow for ever
        if len(rest) > max_bytes:
            raise ValueError(f"a line of more than {max_bytes} bytes")


def read_reply(
    reply: StreamedReply,
    chunks: Iterable[bytes],
    rules: StreamRules,
    *,
    now_ns: Callable[[], int] = time.monotonic_ns,
    on_token: OnToken | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> StreamedReply:
    """Fill `reply` from a stream until it is complete.

    `now_ns` tells when the bytes last handed out arrived; `on_token(index, t_ns)` hears of each
    token at once; `on_progress` of "token", "prefill" and "finish". Raises StreamErrorEvent,
    StreamCutOff or StreamGarbled.
    """
    tell = on_progress or (lambda _: None)
    try:
        for line in sse_lines(chunks):
            # what one line added tells what kind of progress it was
            before = len(reply.tokens), len(reply.prefill)
            _take_line(reply, line, now_ns() - reply.sent_ns)
            if len(reply.tokens) > before[0] and _is_filler(reply, rules):
                reply.tokens.pop()
                reply.empty_events += 1
            if len(reply.tokens) > before[0]:
                # an engine that ignores max_tokens would fill the memory of whoever listens
                if len(reply.tokens) > rules.max_tokens + SLACK_TOKENS:
                    raise ValueError(f"more than the {rules.max_tokens} tokens asked for")
                tell("token")
                if on_token is not None:
                    on_token(before[0], reply.tokens[-1].t_ns)
            elif len(reply.prefill) > before[1]:
                tell("prefill")
            if reply.finish_reason is not None:
                tell("finish")
            # [DONE] is the end, whether or not the connection closes: legacy EXO sends none and just closes
            if reply.done:
                break
    except ValueError as error:
        raise StreamGarbled(f"the stream holds {error}; no EXO sends that", reply) from None
    finally:
        reply.end_ns = time.monotonic_ns() - reply.sent_ns
    if reply.finish_reason is None:
        how = "said [DONE]" if reply.done else "ended"
        raise StreamCutOff(
            f"the stream {how} without a last token: a node left or the instance was deleted", reply
        )
    return reply


def _is_filler(reply: StreamedReply, rules: StreamRules) -> bool:
    return not rules.empty_is_token and not reply.tokens[-1].text


def _take_line(reply: StreamedReply, line: bytes, t_ns: int) -> None:
    """One line of the stream; raises ValueError for what is no line of a token stream."""
    name, colon, rest = line.partition(b":")
    if not line:
        return
    if not name and colon:
        _take_comment(reply, rest.strip(), t_ns)
    elif name == b"data":
        _take_data(reply, rest.strip(), t_ns)
    # fields of the format that carry nothing for us; anything else is no such stream
    elif name not in (b"event", b"id", b"retry"):
        raise ValueError(f"a line that is no server-sent event: {line[:60]!r}")


def _take_comment(reply: StreamedReply, comment: bytes, t_ns: int) -> None:
    """EXO's statistics; other comments are kept count of, as they may be anybody's."""
    name, _, rest = comment.partition(b" ")
    if name == b"generation_stats":
        reply.stats = mapping(snake(event_json(rest)))
    elif name == b"prefill_progress":
        outer = mapping(snake(event_json(rest)))
        inner = mapping(outer.get("PrefillProgressChunk", outer))
        processed, total = inner.get("processed_tokens"), inner.get("total_tokens")
        if isinstance(processed, int) and isinstance(total, int) and len(reply.prefill) < 100_000:
            reply.prefill.append((t_ns, processed, total))
    else:
        reply.keep_alives += 1


def _take_data(reply: StreamedReply, data: bytes, t_ns: int) -> None:
    """One data line: a token, the end, or an error."""
    if data == b"[DONE]":
        reply.done = True
        return
    event = mapping(event_json(data))
    if event.get("error") is not None:
        error = event["error"]
        message = error.get("message", error) if isinstance(error, dict) else error
        raise StreamErrorEvent(f"the engine reports: {str(message)[:1000]}", reply)
    reply.command_id = reply.command_id or short_text(event.get("id"))
    reply.model = reply.model or short_text(event.get("model"))
    if isinstance(event.get("usage"), dict):
        reply.usage = event["usage"]
    choices = event.get("choices")
    if isinstance(choices, list) and choices:
        _take_choice(reply, mapping(choices[0]), t_ns)


def _take_choice(reply: StreamedReply, choice: dict[str, Any], t_ns: int) -> None:
    """One token; an empty text counts too, as not every token completes a character."""
    delta = mapping(choice.get("delta") or {})
    # thinking text comes in a field of its own, and takes time like any other token
    text = delta.get("content") or delta.get("reasoning_content") or ""
    if not isinstance(text, str):
        raise ValueError(f"a token that is no text: {str(text)[:60]!r}")
    reason = short_text(choice.get("finish_reason"))
    if reason == "error":
        raise StreamErrorEvent("the engine ended the reply with an error; its log may say why", reply)
    reply.tokens.append(
        Token(t_ns, text[:MAX_TEXT], not delta.get("content") and bool(delta.get("reasoning_content")))
    )
    reply.finish_reason = reason or reply.finish_reason


def event_json(raw: bytes) -> Any:
    """The JSON of one event; raises ValueError."""
    try:
        return json.loads(raw)
    except RecursionError:
        raise ValueError("JSON nested beyond reason") from None
    except ValueError:
        raise ValueError(f"a line that is no JSON: {raw[:60]!r}") from None


def mapping(value: Any) -> dict[str, Any]:
    """`value`, a JSON object; raises ValueError for anything else."""
    if not isinstance(value, dict):
        raise ValueError(f"{str(value)[:60]!r} where a JSON object belongs")
    return value


def short_text(value: Any) -> str | None:
    """The start of a text, None for anything else."""
    return value[:200] if isinstance(value, str) else None
