"""Read a stream of chat completion chunks as servers really send it.

Forms that were recorded or are documented: chunks with a role alone, empty texts, thinking text under two
names, comments and keep-alives (mlx_lm.server tells the progress of the prompt in them), lines that end in
CRLF, a `[DONE]` without an end of line (distributed-llama) or none at all, `usage` in each chunk, at the end
or never, errors inside a stream that began with status 200, as `data:` or as a field `error:` of its own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from live.errors import StreamCutOff, StreamErrorEvent, StreamGarbled
from live.openai.counting import Chunk, Pieces, believed
from live.reply import StreamedReply, Token
from live.stream import (
    MAX_TEXT,
    SLACK_TOKENS,
    OnToken,
    StreamRules,
    event_json,
    mapping,
    short_text,
    sse_lines,
)

__all__ = ["NO_REASON", "read_chunks"]

NO_REASON = "none"
"""In place of a finish reason, of a stream that ended with `[DONE]` and named none."""
BROKEN = ("error", "abort")  # finish reasons of a reply that did not end by itself (vLLM: abort)
PROGRESS = re.compile(rb"keepalive (\d{1,9})/(\d{1,9})")  # mlx_lm/server.py: keepalive_callback
THINKING = ("reasoning_content", "reasoning")  # DeepSeek, llama-server; mlx_lm, Ollama, newer vLLM


def read_chunks(
    pieces: Pieces,
    reply: StreamedReply,
    chunks: Iterable[bytes],
    rules: StreamRules,
    *,
    now_ns: Callable[[], int] = time.monotonic_ns,
    on_token: OnToken | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> StreamedReply:
    """Fill `reply` (a Token for each chunk with text) and `pieces` until the stream is complete.

    `now_ns` tells when the bytes last handed out arrived; `on_token(index, t_ns)` hears of each chunk of
    `pieces`. Raises StreamErrorEvent, StreamCutOff or StreamGarbled.
    """
    tell = on_progress or (lambda _: None)
    try:
        for line, is_whole in _lines(chunks):
            before = len(pieces.chunks), len(reply.prefill)
            try:
                _take_line(pieces, reply, line, now_ns() - reply.sent_ns)
            except ValueError:
                # half a line at the end of a stream is no garble but a cut, which is told below
                if is_whole:
                    raise
            if len(pieces.chunks) > before[0]:
                if len(pieces.chunks) > rules.max_tokens + SLACK_TOKENS:
                    raise ValueError(f"more than the {rules.max_tokens} tokens asked for")
                tell("token")
                if on_token is not None:
                    on_token(before[0], pieces.chunks[-1].t_ns)
            elif len(reply.prefill) > before[1]:
                tell("prefill")
            if reply.finish_reason is not None:
                tell("finish")
            if reply.done:
                break
    except ValueError as error:
        raise StreamGarbled(f"the stream holds {error}", reply) from None
    finally:
        reply.end_ns = time.monotonic_ns() - reply.sent_ns
    if reply.finish_reason is None and reply.done:
        # the server says that it is done, and not why: whole, as far as anybody can know
        reply.finish_reason = NO_REASON
    if reply.finish_reason is None:
        raise StreamCutOff("the stream ended without finish reason and [DONE]", reply)
    return reply


def _lines(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """The lines of the stream, and whether each is whole: distributed-llama's last one lacks its end."""
    is_whole = True

    def closed() -> Iterator[bytes]:
        nonlocal is_whole
        yield from chunks
        is_whole = False
        yield b"\n"

    for line in sse_lines(closed()):
        yield line, is_whole


def _take_line(pieces: Pieces, reply: StreamedReply, line: bytes, t_ns: int) -> None:
    """One line of the stream; raises ValueError for what is no line of a token stream."""
    name, colon, rest = line.partition(b":")
    if not line:
        return
    if not name and colon:
        _take_comment(reply, rest, t_ns)
    elif name == b"data":
        _take_data(pieces, reply, rest.strip(), t_ns)
    elif name == b"error":  # older llama-server has a field of its own for it
        raise StreamErrorEvent(f"the server reports: {_error_text(event_json(rest.strip()))}", reply)
    elif name not in (b"event", b"id", b"retry"):
        raise ValueError(f"a line that is no server-sent event: {line[:60]!r}")


def _take_comment(reply: StreamedReply, comment: bytes, t_ns: int) -> None:
    found = PROGRESS.search(comment)
    if found and len(reply.prefill) < 100_000:
        reply.prefill.append((t_ns, int(found[1]), int(found[2])))
    else:
        reply.keep_alives += 1


def _take_data(pieces: Pieces, reply: StreamedReply, data: bytes, t_ns: int) -> None:
    """One data line: a chunk, the end, or an error."""
    if data == b"[DONE]":
        reply.done = True
        return
    if not data:
        reply.empty_events += 1
        return
    event = mapping(event_json(data))
    if event.get("error") is not None:
        raise StreamErrorEvent(f"the server reports: {_error_text(event['error'])}", reply)
    reply.command_id = reply.command_id or short_text(event.get("id"))
    reply.model = reply.model or short_text(event.get("model"))
    pieces.fingerprint = pieces.fingerprint or short_text(event.get("system_fingerprint"))
    # None in all chunks but the last where the sum alone was asked for
    if isinstance(event.get("usage"), dict):
        reply.usage = event["usage"]
    if isinstance(event.get("timings"), dict):
        pieces.timings = event["timings"]
    choices = event.get("choices")
    if isinstance(choices, list) and choices:
        _take_choice(pieces, reply, mapping(choices[0]), _told(event, choices[0], pieces), t_ns)


def _told(event: dict[str, Any], choice: dict[str, Any], pieces: Pieces) -> int | None:
    """The server's running count of tokens with this chunk, if it gives one."""
    for part, key in (("timings", "predicted_n"), ("usage", "completion_tokens")):
        count = believed(event[part].get(key), pieces) if isinstance(event.get(part), dict) else None
        if count is not None:
            return count
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list):
        return None
    before = pieces.chunks[-1].told if pieces.chunks else 0
    return None if before is None else before + len(content)


def _take_choice(
    pieces: Pieces, reply: StreamedReply, choice: dict[str, Any], told: int | None, t_ns: int
) -> None:
    """A part of the reply; a chunk with a role alone is none, an empty one later may be a token."""
    delta = mapping(choice.get("delta") or {})
    thinking = next((delta[key] for key in THINKING if delta.get(key)), "")
    text = delta.get("content") or thinking
    if not isinstance(text, str):
        raise ValueError(f"a token that is no text: {str(text)[:60]!r}")
    reason = short_text(choice.get("finish_reason"))
    if reason in BROKEN:
        raise StreamErrorEvent(f"the server ended the reply with {reason!r}; its log may say why", reply)
    is_empty = not text and not delta.get("tool_calls")
    # a first chunk with the role announces the reply; without it, as llama-cpp-python's server has it, an
    # empty text is a token that completes no character
    is_step = "content" in delta and not reason and (pieces.chunks or "role" not in delta)
    # llama-server's running count says with the role that the first token is there
    is_counted = told is not None and told > ((pieces.chunks[-1].told or 0) if pieces.chunks else 0)
    if not is_empty or is_step or is_counted:
        pieces.chunks.append(Chunk(t_ns, is_empty, told))
        reply.tokens.append(Token(t_ns, text[:MAX_TEXT], bool(thinking) and not delta.get("content")))
    if reason:
        reply.finish_reason, pieces.finish_ns = reason, t_ns


def _error_text(error: Any) -> str:
    """The words of an error, which is an object, an object in an object, or text."""
    if isinstance(error, dict):
        error = error.get("error", error)
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)[:1000]
