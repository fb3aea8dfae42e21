"""Cost equations: seconds of a stage for a device, a shard, a context length and a batch.

All are for a device without noise; the caller multiplies by noise and by how wrong the catalogue may be.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from simulator.cluster.cluster import Device
from simulator.laws.law import Floats
from simulator.model.model import Model

__all__ = ["crowding", "decode_s", "head_s", "prefill_s", "seconds_per_layer"]


def crowding(device: Device, batch: int = 1) -> float:
    """What multiplies every cost on a device: `(1 + batch_cost
    (batch - 1)) (1 + contention) slow_down / (1 - background_load)`.

    `batch_cost` is 0 where further chats ride along for free until the flops count (graphics processors) and
    large where matrix products are done row by row (processors); it is fitted, not looked up.
    """
    alone = device.slow_down / (1 - device.background_load)
    return (1 + device.speed.batch_cost * (batch - 1)) * (1 + device.contention) * alone


def decode_s(device: Device, model: Model, layers: int, context: ArrayLike, batch: int = 1) -> Floats:
    """Seconds that one decode step spends in `layers` layers at `context` tokens, shape of `context`.

    `(max((weights + kv) / decode_bandwidth, flops / prefill_flops) + layers * layer_overhead) * crowding`
    with `weights = mixture_cost * layers * layer_bytes_read(batch)` (the factor for experts only), `kv =
    context_cost * layers * kv_bytes * context * batch` and `flops = batch * layers * (layer_flops + 4 hidden
    context)`: two products of 2 hidden context each in attention.
    """
    if layers == 0:
        return np.zeros_like(np.asarray(context, dtype=float))
    speed = device.speed
    tokens = np.asarray(context, dtype=float)
    kv = speed.context_cost * model.kv_bytes(layers, 1.0, batch) * tokens
    weights = layers * model.layer_bytes_read(batch) * (speed.mixture_cost if model.experts else 1.0)
    read_s = (weights + kv) / speed.decode_bandwidth
    flop_s = batch * layers * (model.layer_flops + 4 * model.hidden * tokens) / speed.prefill_flops
    # reading overlaps with computing; launching a layer overlaps with neither
    return (np.maximum(read_s, flop_s) + layers * speed.layer_overhead) * crowding(device, batch)


def seconds_per_layer(device: Device, model: Model, context: float = 0.0) -> float:
    """Marginal decode seconds of one more layer on this device."""
    return float(decode_s(device, model, 1, context))


def head_s(device: Device, model: Model, batch: int = 1) -> float:
    """Seconds of final norm and output head: `max(read, flops) * crowding` with `read = head_bytes /
    decode_bandwidth` and `flops = batch * head_flops / prefill_flops`.
    """
    speed = device.speed
    read_s = model.head_bytes / speed.decode_bandwidth
    return max(read_s, batch * model.head_flops / speed.prefill_flops) * crowding(device, batch)


def prefill_s(device: Device, model: Model, layers: int, tokens: int, context: int = 0) -> float:
    """Seconds that a chunk of `tokens` prompt tokens spends
    in `layers` layers after `context` earlier tokens.

    `(max(flops / prefill_flops, weights / decode_bandwidth) + layers * layer_overhead) * crowding` with
    `flops = layers * (prefill_mixture_cost tokens * layer_flops + 4 hidden (tokens * context + tokens**2 /
    2))`, causal attention and the factor for experts only, and `weights = layers * layer_bytes_read(tokens)`.
    """
    if tokens <= 0 or layers == 0:
        return 0.0
    speed = device.speed
    # half of the square: a token attends to those before it only
    attention = 4 * model.hidden * (tokens * context + tokens**2 / 2)
    mixture = speed.prefill_mixture_cost if model.experts else 1.0
    flop_s = layers * (mixture * tokens * model.layer_flops + attention) / speed.prefill_flops
    # a chunk reads the weights once, however long it is: that is why prompts are cheap per token
    read_s = layers * model.layer_bytes_read(tokens) / speed.decode_bandwidth
    return (max(flop_s, read_s) + layers * speed.layer_overhead) * crowding(device)
