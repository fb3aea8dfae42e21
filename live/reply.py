"""A streamed reply as far as it came, whichever engine streams it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["MOST_TOKENS", "StreamedReply", "Token", "counted"]


MOST_TOKENS = 10_000_000
"""That a request can have: ten times the longest prompt of a workload. Counts go into loops and lists."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token: `t_ns` after its request was sent (monotonic clock)."""

    t_ns: int
    text: str
    is_thinking: bool = False
    """Thinking text comes apart from the reply, and cannot be given back to the engine as such."""


@dataclass(slots=True)
class StreamedReply:
    """A reply as far as it came."""

    sent_ns: int = 0
    """Monotonic clock when the request was sent."""
    headers_ns: int | None = None
    """After sending, as all times below."""
    end_ns: int | None = None
    tokens: list[Token] = field(default_factory=list)
    finish_reason: str | None = None
    done: bool = False
    """True when `[DONE]` came."""
    command_id: str | None = None
    model: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    """EXO's own `generation_stats`, keys in snake_case."""
    prefill: list[tuple[int, int, int]] = field(default_factory=list)
    """(t_ns, processed, total) tokens of the prompt."""
    keep_alives: int = 0
    empty_events: int = 0

    @property
    def text(self) -> str:
        """The reply's words."""
        return "".join(token.text for token in self.tokens)

    @property
    def prompt_tokens(self) -> int | None:
        """As the engine counted them, chat template included; None where it did not say."""
        return counted(self.usage.get("prompt_tokens", self.stats.get("prompt_tokens")))

    @property
    def completion_tokens(self) -> int | None:
        """As the engine counted them; None where it did not say."""
        return counted(self.usage.get("completion_tokens", self.stats.get("generation_tokens")))

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that the engine's prefix cache spared it."""
        details = self.usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        return counted(cached) or 0


def counted(value: object, most: int = MOST_TOKENS) -> int | None:
    """A server's count of tokens as it may be believed; None for anything else."""
    return value if type(value) is int and 0 <= value <= most else None
