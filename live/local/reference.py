"""Reference: one fixed piece of work that tells how fast this machine is just now."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

import numpy as np

from live.local.children import Child
from live.local.weights import model_file

__all__ = ["Reference", "RpcReference"]

MODEL, PROMPT_TOKENS, OUTPUT_TOKENS, CONTEXT_TOKENS = "random-80mb", 8, 33, 256
LOAD_S, SILENCE_S = 60.0, 30.0


class Reference(ABC):
    """A small model in one process without servers, links or limits; loaded once,
    asked between measurements.
    """

    @abstractmethod
    def _start(self) -> Child:
        """The process, told what to load."""

    def __enter__(self) -> Self:
        self._client = self._start()
        try:
            self._client.wait_for("loaded", LOAD_S)
            self.seconds_per_token()
        except BaseException:
            self._client.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._client.end()

    def seconds_per_token(self) -> float:
        """Median inter-token time (s) of the reference chat, now."""
        self._client.command("generate", prompt_tokens=PROMPT_TOKENS, output_tokens=OUTPUT_TOKENS, seed=0)
        times_ns = []
        while (event := self._client.next_event(SILENCE_S))["event"] != "done":
            times_ns += [event["at_ns"]] if event["event"] == "token" else []
        return float(np.median(np.diff(times_ns))) / 1e9


class RpcReference(Reference):
    """llama.cpp in one process."""

    def _start(self) -> Child:
        client = Child("reference", "live.local.client")
        client.command(
            "load",
            model=str(model_file(MODEL)),
            # no server and no link: only this machine's processor
            endpoints=[],
            layers=[],
            threads=1,
            context=CONTEXT_TOKENS,
        )
        return client
