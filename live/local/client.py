"""The client: loads the model over the servers and makes tokens, `python -m live.local.client`.

A process of its own, because llama.cpp aborts it when a server dies. The client stands for the first device:
it holds the embedding, runs the first layers itself, and drives the servers. Commands: `load`, `generate`.
"""

from __future__ import annotations

import ctypes
import queue
import time
from typing import Any

import numpy as np

from live.local import library
from live.local.children import Event, Lifeline
from simulator.errors import LiveError, SimulatorError

__all__ = ["Generator", "main"]

BATCH_TOKENS = 512  # llama.cpp's own default for n_batch and n_ubatch
FIRST_BYTE_TOKEN = 3  # after <unk>, <s> and </s>; a prompt of bytes suits any vocabulary
BYTE_TOKENS = 256


class Generator:
    """A loaded model on its devices; one chat at a time, always the likeliest token, no end of text."""

    def __init__(
        self, model: str, endpoints: list[str], layers: list[int], context: int, threads: int
    ) -> None:
        """Load `model`, the last layers on the servers at `endpoints`, `layers` of them
        on each; raises LiveError.
        """
        self._llama: Any = library.llama()
        self._llama.llama_backend_init()
        devices = [library.rpc_device(endpoint) for endpoint in endpoints]
        # kept for as long as the model lives: llama.cpp reads the array, which ends with a null pointer
        self._kept = (ctypes.c_void_p * (len(devices) + 1))(*devices, None)
        params = self._llama.llama_model_default_params()
        params.devices = ctypes.cast(self._kept, ctypes.c_void_p)
        # the output head counts as one more layer, after the last one
        params.n_gpu_layers = sum(layers) + 1 if layers else 0
        # llama.cpp hands out layers by these shares from the first to the last; the head lands on the last
        # server
        counts = [*layers[:-1], layers[-1] + 1] if layers else []
        self._split = (ctypes.c_float * self._llama.llama_max_devices())(*counts)
        params.tensor_split = self._split
        # weights repacked for one processor exist in the client only: without them all
        # devices run the same code
        params.use_extra_bufts = False
        self._model = self._llama.llama_model_load_from_file(model.encode(), params)
        if not self._model:
            raise LiveError(f"llama.cpp could not load {model}")
        self._context = self._llama.llama_init_from_model(self._model, self._context_params(context, threads))
        if not self._context:
            raise LiveError(
                f"llama.cpp could not make a context of {context} tokens; is there memory for its cache?"
            )
        vocabulary = self._llama.llama_model_get_vocab(self._model)
        self.vocabulary: int = self._llama.llama_vocab_n_tokens(vocabulary)

    def _context_params(self, context: int, threads: int) -> Any:
        params = self._llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = context, BATCH_TOKENS, BATCH_TOKENS
        params.n_threads = params.n_threads_batch = threads
        return params

    def forget(self) -> None:
        """Empty the cache of the chat before."""
        self._llama.llama_memory_clear(self._llama.llama_get_memory(self._context), False)

    def step(self, tokens: list[int]) -> int:
        """Read `tokens` and return the likeliest next one; raises LiveError when the engine refuses."""
        # longer than one batch is refused by the engine, not split
        for start in range(0, len(tokens), BATCH_TOKENS):
            part = tokens[start : start + BATCH_TOKENS]
            array = (ctypes.c_int32 * len(part))(*part)
            status = self._llama.llama_decode(
                self._context, self._llama.llama_batch_get_one(array, len(part))
            )
            if status:
                raise LiveError(f"llama.cpp refused to decode (status {status}); is the context too short?")
        logits = self._llama.llama_get_logits_ith(self._context, -1)
        return int(np.argmax(np.ctypeslib.as_array(logits, shape=(self.vocabulary,))))


def prompt(length: int, seed: int) -> list[int]:
    """A prompt of `length` random bytes, the same for the same seed."""
    drawn = np.random.Generator(np.random.PCG64(seed)).integers(0, BYTE_TOKENS, length)
    return [FIRST_BYTE_TOKEN + int(byte) for byte in drawn]


def _generate(lifeline: Lifeline, generator: Generator, command: Event) -> None:
    """One chat, behind tokens `received` before: tells when it was sent, each token and when it
    was there (monotonic ns).
    """
    generator.forget()
    tokens, received = prompt(command["prompt_tokens"], command["seed"]), command.get("received", [])
    # stamped before the first step and told at once: the parent writes it before any token
    lifeline.tell("request", sent_ns=time.monotonic_ns(), busy_ns=time.process_time_ns())
    if command.get("exact"):  # in steps, as these tokens were made: a batch is rounded differently
        for token in received:
            generator.step(tokens)
            tokens = [token]
    else:
        tokens += received
    for number in range(command["output_tokens"]):
        tokens = [generator.step(tokens)]
        lifeline.tell("token", token=number, id=tokens[0], at_ns=time.monotonic_ns())
    lifeline.tell("done", busy_ns=time.process_time_ns())


def main() -> None:
    """Obey until the parent goes; a failure is told and ends the process."""
    lifeline, commands, generator = Lifeline(), queue.SimpleQueue[Event](), None
    # the main thread belongs to llama.cpp; a command must be taken while it computes
    lifeline.obey_aside(commands.put)
    try:
        while True:
            command = commands.get()
            if command["do"] == "load":
                generator = Generator(
                    command["model"],
                    command["endpoints"],
                    command["layers"],
                    command["context"],
                    command["threads"],
                )
                lifeline.tell("loaded", vocabulary=generator.vocabulary)
            elif command["do"] == "generate" and generator is not None:
                _generate(lifeline, generator, command)
            elif command["do"] == "busy":
                lifeline.tell("busy", busy_ns=time.process_time_ns())
    except SimulatorError as error:
        lifeline.tell("error", text=str(error), see_log=True)


if __name__ == "__main__":
    main()
