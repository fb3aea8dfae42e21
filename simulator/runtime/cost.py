"""Cost equations: seconds of a stage for a device, a shard, a context length and a batch.

All are for a device without noise; the caller multiplies by noise and by how wrong the catalogue may be.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from simulator.cluster.cluster import Device
from simulator.laws.law import Floats
from simulator.model.model import Model
from simulator.model.stretch import Stretch

__all__ = ["crowding", "decode_s", "head_s", "prefill_s", "seconds_per_layer"]


def crowding(device: Device, batch: int = 1) -> float:
    """What multiplies every cost on a device: `(1 + batch_cost (batch - 1)) (1 + contention) slow_down
    / (1 - background_load)`.

    `batch_cost` is 0 where further chats ride along for free until the flops count (graphics processors) and
    large where matrix products are done row by row (processors); it is fitted, not looked up.
    """
    # a device that other work keeps busy for a share u of the time does ours in 1 / (1 - u) of it
    alone = device.slow_down / (1 - device.background_load)
    return (1 + device.speed.batch_cost * (batch - 1)) * (1 + device.contention) * alone


def decode_s(device: Device, held: Stretch, context: ArrayLike, batch: int = 1) -> Floats:
    """Seconds that one decode step spends in the layers `held` at `context` tokens, shape of `context`.

    `(max((weights + kv) / decode_bandwidth, flops / prefill_flops) + layers * layer_overhead) * crowding`
    with `weights = sum of the layers' bytes_read(batch)` (those of mixtures `mixture_cost` times), `kv =
    context_cost * kv_bytes(context) * batch` and `flops = batch * (flops + attention_flops(context))`.
    """
    tokens = np.asarray(context, dtype=float)
    # a device that holds the head alone pays for no layer, nor for the launch of one
    if held.layers == 0:
        return np.zeros_like(tokens)
    speed = device.speed
    kv = speed.context_cost * held.kv_bytes(tokens, batch)
    read_s = (held.bytes_read(batch, speed.mixture_cost) + kv) / speed.decode_bandwidth
    flop_s = batch * (held.flops + held.attention_flops(tokens)) / speed.prefill_flops
    # reading overlaps with computing; launching a layer overlaps with neither
    return (np.maximum(read_s, flop_s) + held.layers * speed.layer_overhead) * crowding(device, batch)


def seconds_per_layer(device: Device, model: Model, context: float = 0.0) -> float:
    """Marginal decode seconds of one more average layer on this device."""
    return float(decode_s(device, model.average(1), context))


def head_s(device: Device, model: Model, batch: int = 1) -> float:
    """Seconds of final norm and output head: `max(read, flops) * crowding` with `read = head_bytes /
    decode_bandwidth` and `flops = batch * head_flops / prefill_flops`.
    """
    speed = device.speed
    # one matrix: a batch reads it once and multiplies it for each chat
    read_s = model.head_bytes / speed.decode_bandwidth
    return max(read_s, batch * model.head_flops / speed.prefill_flops) * crowding(device, batch)


def prefill_s(device: Device, held: Stretch, tokens: int, context: int = 0) -> float:
    """Seconds that a chunk of `tokens` prompt tokens spends in the layers `held` after
    `context` earlier tokens.

    `max(flops / prefill_flops, weights / decode_bandwidth) + layers * layer_overhead` with `flops = tokens *
    flops (mixture_cost times for mixtures) + attention_flops`: causal attention.
    """
    # nothing is left to read where a short prompt goes through as decode steps alone
    if tokens <= 0 or held.layers == 0:
        return 0.0
    speed = device.speed
    flops = tokens * held.mixture_flops(speed.prefill_mixture_cost)
    flop_s = (flops + held.prompt_attention_flops(tokens, context)) / speed.prefill_flops
    # a chunk reads the weights once, however long it is: that is why prompts are cheap per token
    read_s = held.bytes_read(tokens) / speed.decode_bandwidth
    # no batch here: prompts are read one by one, or their tokens are counted in `tokens`
    return (max(flop_s, read_s) + held.layers * speed.layer_overhead) * crowding(device)
