"""Talk to one OpenAI-compatible server: its list of models, and streamed chats."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

import httpx

from live.errors import ApiChanged, LiveError, RequestRefused
from live.exo.chat import Timeouts, stream_reply
from live.exo.diagnose import Diagnosis
from live.http import Http
from live.openai.counting import Pieces
from live.openai.key import KEY_VARIABLE
from live.openai.models import Offered, offered
from live.openai.stream import read_chunks
from live.reply import StreamedReply, counted
from live.stream import OnToken, StreamRules

__all__ = ["SERVER_TIMEOUTS", "OpenAiClient", "ServerFacts"]

WHO = "an OpenAI-compatible server"
# nobody but the stream tells how a server is, so a silence is given longer than EXO, whose state says more
SERVER_TIMEOUTS = Timeouts(first_token_s=120.0, idle_s=20.0)
PAUSE_S = 2.0  # where a busy server does not say when to come again
MOST_PAUSE_S = 60.0
MOST_WAIT_S = 300.0
# Asked for in addition, each understood by some servers and passed over by most; one that refuses unknown
# fields is asked without them. Counts with each chunk: llama-server (tools/server/README.md), vLLM
# (protocol.py, StreamOptions). A reply of full length: both. No reuse of an earlier prompt: llama-server.
EXTRAS: dict[str, Any] = {
    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    "timings_per_token": True,
    "ignore_eos": True,
    "cache_prompt": False,
    "temperature": 0.0,
}


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the server says of itself; names are None where it says nothing."""

    server: str | None = None
    version: str | None = None
    context_tokens: int | None = None


@dataclass
class OpenAiClient:
    """One server; thread-safe. `transport` holds the key where there is one."""

    base_url: str
    transport: httpx.BaseTransport | None = None
    timeouts: Timeouts = SERVER_TIMEOUTS
    say: Callable[[str], None] = lambda _: None
    extras: dict[str, Any] = field(default_factory=lambda: dict(EXTRAS))
    limit_name: str = "max_tokens"
    refusals: int = 0
    """Requests that the server put off, being busy or still loading."""

    def __post_init__(self) -> None:
        self.http = Http(self.base_url, self.transport, self.timeouts.connect_s, who=WHO)

    def models(self, *, is_patient: bool = True) -> tuple[Offered, ...] | None:
        """The models on offer; None where the server has no such list. A busy server is waited for."""

        def ask() -> Any:
            return self.http.json("GET", "/models", within_s=self.timeouts.answer_s)

        try:
            answer = self._patiently(ask, None) if is_patient else ask()
        except RequestRefused as error:
            if error.status in (404, 405, 501):
                return None
            raise
        except ApiChanged:
            # mlx_lm.server without a model folder just hangs up; the first chat tells whether it is a server
            return None
        return offered(answer)

    def facts(self, model: Offered | None) -> ServerFacts:
        """Name, version and context of the server, asked only where its list says who it is."""
        server = model.server if model else None
        context = model.context_tokens if model else None
        root = Http(self.base_url.removesuffix("/v1"), self.transport, self.timeouts.connect_s, who=WHO)
        path = {"llama-server": "/props", "vLLM": "/version", "Ollama": "/api/version"}.get(server or "")
        if path is None:
            return ServerFacts(server, None, context)
        try:
            answer = root.json("GET", path, within_s=self.timeouts.answer_s)
        except LiveError:
            return ServerFacts(server, None, context)
        answer = answer if isinstance(answer, dict) else {}
        version = answer.get("build_info", answer.get("version"))
        settings = answer.get("default_generation_settings")
        slot = settings.get("n_ctx") if isinstance(settings, dict) else None
        return ServerFacts(
            server, version[:100] if isinstance(version, str) else None, counted(slot) or context
        )

    def chat(
        self,
        model_id: str,
        prompt: str,
        *,
        max_tokens: int,
        abort: threading.Event | None = None,
        on_sent: Callable[[], None] = lambda: None,
        on_chunk: OnToken | None = None,
        into: StreamedReply | None = None,
        pieces: Pieces | None = None,
    ) -> tuple[StreamedReply, Pieces]:
        """One streamed reply; a busy server is asked again when it says, `on_sent` hears of each attempt.

        Raises what `stream_reply` raises.
        """
        reply = StreamedReply() if into is None else into
        parts = Pieces() if pieces is None else pieces
        parts.limit = max_tokens

        def ask() -> StreamedReply:
            on_sent()
            return stream_reply(
                self.http,
                "/chat/completions",
                self._body(model_id, prompt, max_tokens),
                StreamRules(max_tokens),
                self.timeouts,
                why=lambda: Diagnosis(True, False, "and the server does not say why"),
                abort=abort,
                on_token=on_chunk,
                into=reply,
                read=partial(read_chunks, parts),
            )

        return self._patiently(ask, abort), parts

    def learn_form(self, model_id: str) -> None:
        """Find out which additional fields this server takes; raises RequestRefused for other causes."""
        while True:
            try:
                self.chat(model_id, "Count to three.", max_tokens=2)
                return
            except RequestRefused as error:
                if error.status not in (400, 422) or not self._give_way(str(error)):
                    raise

    def _give_way(self, refusal: str) -> bool:
        """Drop what the refusal names, else all that is additional; False when nothing is left."""
        if "max_completion_tokens" in refusal and self.limit_name == "max_tokens":
            self.limit_name = "max_completion_tokens"
            return True
        if "continuous_usage_stats" in refusal and "stream_options" in self.extras:
            self.extras["stream_options"] = {"include_usage": True}
            return True
        dropped = [key for key in self.extras if key in refusal] or list(self.extras)
        for key in dropped:
            del self.extras[key]
        return bool(dropped)

    def _body(self, model_id: str, prompt: str, max_tokens: int) -> dict[str, Any]:
        return {
            "model": model_id,
            "messages": [{"role": "user", "content": prompt}],
            self.limit_name: max_tokens,
            "stream": True,
            **self.extras,
        }

    def _patiently(self, ask: Callable[[], Any], abort: threading.Event | None) -> Any:
        """Ask again as long as the server says that it is busy or loading; raises with what helps."""
        waited_s = 0.0
        while True:
            try:
                return ask()
            except RequestRefused as error:
                if error.status in (401, 403):
                    raise RequestRefused(
                        f"{error}; the key is read from the environment variable {KEY_VARIABLE}", error.status
                    ) from None
                if error.status not in (429, 503) or waited_s >= MOST_WAIT_S:
                    raise
                self.refusals += 1
                pause_s = _pause_s(error.retry_after)
                waited_s += pause_s
                self.say(f"the server is busy ({error.status}); asking again in {pause_s:.3g} s")
                if (abort or threading.Event()).wait(pause_s):
                    raise


def _pause_s(retry_after: str) -> float:
    """Seconds that `Retry-After` asks for, which is a number or a date; never more than a minute."""
    try:
        asked_s = float(retry_after)
    except ValueError:
        try:
            asked_s = (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError):
            return PAUSE_S
    return min(MOST_PAUSE_S, max(0.1, asked_s)) if asked_s == asked_s else PAUSE_S
