"""One rank of a local MLX cluster: runs in the environment of the engine, which has MLX and nothing of ours.

    python rank.py              a rank; commands as JSON lines on standard input, events on standard output
    python rank.py RECIPE FILE  writes a model with random weights (RECIPE: its shape as JSON)

So nothing here imports the rest of the project. MLX_RANK and MLX_HOSTFILE say who the neighbours are. The
layers are mlx-lm's own classes, and what goes between ranks is what they send.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import queue
import random
import signal
import sys
import threading
import time
import types
from typing import Any

__all__ = ["Rank", "Wire", "generate", "main", "prompt", "write_model"]

GROUP_SIZE, BITS = 64, 4  # of the quantised weights: mlx-lm's own default
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
VOCABULARY_FROM = 3
SPIN_NS = 60_000


def _classes() -> tuple[Any, Any]:
    """mlx-lm's Llama, without the rest of mlx-lm, which would load transformers for seconds."""
    found: Any = importlib.util.find_spec("mlx_lm")
    package = types.ModuleType("mlx_lm")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["mlx_lm"] = package
    from mlx_lm.models import cache, llama

    return llama, cache


def _empty_model(llama: Any, shape: dict[str, int]) -> Any:
    """The model of a shape; its weights are nobody's yet and cost no memory until they are looked at."""
    args = llama.ModelArgs(
        model_type="llama",
        hidden_size=shape["hidden"],
        num_hidden_layers=shape["layers"],
        intermediate_size=shape["feed_forward"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"],
        rms_norm_eps=1e-5,
        vocab_size=shape["vocabulary"],
        tie_word_embeddings=False,
    )
    return llama.Model(args)


def write_model(recipe: str, path: str) -> None:
    """Draw normal weights of variance 1 / columns, quantise them, write them with their shape."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten, tree_map

    mx.set_default_device(mx.cpu)
    shape = json.loads(recipe)
    mx.random.seed(shape["seed"])
    model = _empty_model(_classes()[0], shape)

    def drawn(weight: Any) -> Any:
        if weight.ndim == 1:
            return mx.ones(weight.shape)
        return mx.random.normal(weight.shape) / weight.shape[1] ** 0.5

    model.update(tree_map(drawn, model.parameters()))
    nn.quantize(model, GROUP_SIZE, BITS)
    mx.save_safetensors(path, dict(tree_flatten(model.parameters())), {"shape": recipe})


class Wire:
    """The parent's pipe: commands in, events out, and this process ends with it."""

    def __init__(self) -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
        os.dup2(2, 1)  # what MLX prints must not mix with our lines
        self.commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            command = json.loads(line)
            if command["do"] == "busy":  # answered while the main thread computes
                self.tell("busy", busy_ns=time.process_time_ns())
            else:
                self.commands.put(command)
        os._exit(0)

    def tell(self, event: str, **fields: Any) -> None:
        """Send one event."""
        self._out.write(json.dumps({"event": event, **fields}, separators=(",", ":")) + "\n")


class Rank:
    """The part of a model that this rank holds, and how it meets the others."""

    def __init__(self, command: dict[str, Any]) -> None:
        import mlx.core as mx
        import mlx.nn as nn

        self.mx: Any = mx
        mx.set_default_device(mx.cpu)
        self.group: Any = mx.distributed.init(backend="ring", strict=True) if command["ranks"] > 1 else None
        llama, self.caches = _classes()
        weights, metadata = mx.load(command["model"], return_metadata=True)
        self.shape = json.loads(metadata["shape"])
        self.model = _empty_model(llama, self.shape)
        nn.quantize(self.model, GROUP_SIZE, BITS)
        self.model.load_weights(list(weights.items()))
        self.tells = command["tells"]
        self.is_exo = command["flow"] == "exo"
        # mlx-lm's first layers are on the last rank, and each sends to the one before; EXO's the other way
        self.forward = 1 if self.is_exo else -1
        if command["strategy"] == "tensor" and self.group is not None:
            self.model.shard(self.group)
            if command["share"] < 1:
                self._pace(command["share"])
        start, end = command["start_layer"], command["end_layer"]
        self.layers = self.model.model.layers[start:end]
        self.is_first, self.is_last = start == 0, end == self.shape["layers"]
        # layers of others go before anything is read: the file is mapped, and a rank keeps its part alone
        self.model.model.layers = self.layers
        mx.eval(self.model.parameters())
        self.forget()

    def _pace(self, share: float) -> None:
        """Have `share` of full speed: after each piece of work wait for what a slower device would take more.

        To stop and continue the process from outside, as elsewhere, would hold up messages too, and a piece
        here is shorter than any stop.
        """
        mx, of_all = self.mx, self.mx.distributed.all_sum

        def all_sum(value: Any, *, group: Any = None) -> Any:
            # all before it was computed by the last call, so that nothing but this rank's own piece is timed
            begin_ns = time.process_time_ns()
            mx.eval(value)
            # processor time: what another process took of this core is no work of ours
            worked_ns = time.process_time_ns() - begin_ns
            _wait_until(time.monotonic_ns() + round(worked_ns * (1 / share - 1)))
            total = of_all(value, group=group)
            mx.eval(total)
            return total

        mx.distributed.all_sum = all_sum

    def forget(self) -> None:
        """Empty the caches of the chat before."""
        self.cache = [self.caches.KVCache() for _ in self.layers]
        self.worked_ns = 0
        """How long this chat has kept the rank at work, waiting left out."""

    def _working(self, values: Any, *more: Any) -> Any:
        """Compute these now, and count the time as work; what has to be waited for must be there."""
        begin_ns = time.monotonic_ns()
        self.mx.eval(values, *more)
        self.worked_ns += time.monotonic_ns() - begin_ns
        return values

    def _neighbour(self, way: int) -> int:
        return int((self.group.rank() + way) % self.group.size())

    def stages(self, tokens: Any) -> Any:
        """The layers of all ranks in turn; the hidden states as they leave this rank's."""
        mx, hidden = self.mx, self.model.model.embed_tokens(tokens)
        if not self.is_first:
            hidden = mx.distributed.recv_like(hidden, self._neighbour(-self.forward), group=self.group)
            mx.eval(hidden)
        mask = "causal" if tokens.shape[1] > 1 else None
        for layer, cache in zip(self.layers, self.cache, strict=True):
            hidden = layer(hidden, mask, cache)
        self._working(hidden, [cache.state for cache in self.cache])
        if not self.is_last:
            hidden = mx.distributed.send(hidden, self._neighbour(self.forward), group=self.group)
            mx.eval(hidden)
        return hidden

    def step(self, token: int) -> int:
        """The likeliest token after this one."""
        mx = self.mx
        if self.is_exo and self.group is not None:
            # EXO's notice: has anybody new requests?
            mx.eval(mx.distributed.all_gather(mx.zeros((1,), mx.int32), group=self.group))
        hidden = self.stages(mx.array([[token]]))
        if not (self.is_first and self.is_last):
            # everybody gets everybody's state and keeps that of the last stage
            last = self.group.size() - 1 if self.is_exo else 0
            hidden = mx.distributed.all_gather(hidden, group=self.group)[last : last + 1]
            mx.eval(hidden)
        logits = self.model.lm_head(self.model.model.norm(hidden))
        return int(self._working(mx.argmax(logits[0, -1])).item())


def _wait_until(at_ns: int) -> None:
    """Sleep, and watch the clock at the end: a sleep may end 60 us late, as much as a message takes."""
    time.sleep(max(0, at_ns - time.monotonic_ns() - SPIN_NS) / 1e9)
    while time.monotonic_ns() < at_ns:
        pass


def prompt(length: int, seed: int, vocabulary: int) -> list[int]:
    """A prompt of random tokens, the same for the same seed on all ranks."""
    drawn = random.Random(seed)
    return [drawn.randrange(VOCABULARY_FROM, vocabulary) for _ in range(length)]


def generate(wire: Wire, rank: Rank, command: dict[str, Any]) -> None:
    """One chat: tells when it began, each token and when it was there (monotonic ns)."""
    rank.forget()
    tokens = prompt(command["prompt_tokens"], command["seed"], rank.shape["vocabulary"])

    def tell(event: str, **fields: Any) -> None:
        if rank.tells:
            wire.tell(event, **fields)

    tell("request", sent_ns=time.monotonic_ns(), busy_ns=time.process_time_ns())
    if len(tokens) > 1:
        # all but the last token: nothing but the caches is wanted of them
        rank.stages(rank.mx.array([tokens[:-1]]))
    token = tokens[-1]
    for number in range(command["output_tokens"]):
        token = rank.step(token)
        tell("token", token=number, id=token, at_ns=time.monotonic_ns())
    tell("done", busy_ns=time.process_time_ns())


def main() -> None:
    """Obey until the parent goes; a failure is told and ends the process."""
    if len(sys.argv) == 3:
        write_model(*sys.argv[1:])
        return
    wire = Wire()
    rank: Rank | None = None
    try:
        while True:
            command = wire.commands.get()
            if command["do"] == "load":
                rank = Rank(command)
                wire.tell("loaded", vocabulary=rank.shape["vocabulary"])
            elif command["do"] == "generate" and rank is not None:
                generate(wire, rank, command)
            elif command["do"] == "worked" and rank is not None:
                # in turn, not at once: the rank that tells of tokens is through before the others are
                wire.tell("worked", worked_ns=rank.worked_ns)
    except Exception as error:
        wire.tell("error", text=f"{type(error).__name__}: {error}", see_log=True)
        # at once: MLX's threads would wait for neighbours that wait for this rank
        os._exit(1)


if __name__ == "__main__":
    main()
